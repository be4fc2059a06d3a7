"""What the decision maker has to write from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import Tensor

from gcache.cache.fused_cache import FusedCache
from gcache.cache.kv_cache import KVCache
from gcache.llm.requests import GenerateRequest, TokenScore


@dataclass(frozen=True)
class Received:
    """What came over one edge.

    Attributes:
        agent: its number.
        states: (S, E) hidden states after its latent steps, where the writer wants them.
        text: what it said, "" where it says nothing.
    """

    agent: int
    role: str
    weight: float
    cache: KVCache
    states: Tensor | None = None
    text: str = ""


@dataclass(frozen=True)
class WriterInput:
    """What there is to write from.

    Attributes:
        question: its words.
        instructions: the decision maker's words.
        prompt: its tokens for the local model, behind `received`.
        context: tokens of the question.
        received: the fused cache, the question's slots first.
        stop, watch, top_p, top_log_probs, watch_scores: of the answer's text; see `GenerateRequest`.
        thinks: whether the prompt ends inside a think tag.
    """

    question: str
    instructions: str
    prompt: tuple[int, ...]
    context: tuple[int, ...]
    received: FusedCache
    heard: tuple[Received, ...]
    max_new_tokens: int
    temperature: float
    seed: int
    stop: tuple[str, ...] = ()
    watch: Callable[[tuple[int, ...]], None] | None = None
    top_p: float = 1.0
    top_log_probs: int | None = None
    watch_scores: Callable[[tuple[TokenScore, ...]], None] | None = None
    thinks: bool = False

    def unwatched(self) -> WriterInput:
        """The same for a draft, which is no answer: nobody watches it, and no stop word ends it."""
        return replace(self, stop=(), watch=None, top_log_probs=None, watch_scores=None)

    def request(self, max_new_tokens: int | None = None) -> GenerateRequest:
        """For the local model."""
        return GenerateRequest(
            self.prompt, self.received, max_new_tokens or self.max_new_tokens, self.temperature, self.seed,
            self.context, self.stop, self.watch, top_p=self.top_p, top_log_probs=self.top_log_probs,
            watch_scores=self.watch_scores, past_tokens=None if self.heard else self.context,
        )  # fmt: skip
