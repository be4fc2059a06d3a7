"""What the decision maker has to write from."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from gcache.cache.kv_cache import FusedCache, KVCache
from gcache.llm.requests import GenerateRequest


@dataclass(frozen=True)
class Heard:
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
class Asked:
    """What there is to write from.

    Attributes:
        question: its words.
        instructions: the decision maker's words.
        prompt: its tokens for the local model, behind `received`.
        context: tokens of the question.
        received: the fused cache, the question's slots first.
    """

    question: str
    instructions: str
    prompt: tuple[int, ...]
    context: tuple[int, ...]
    received: FusedCache
    heard: tuple[Heard, ...]
    max_new_tokens: int
    temperature: float
    seed: int

    def request(self, max_new_tokens: int | None = None) -> GenerateRequest:
        """For the local model."""
        return GenerateRequest(
            self.prompt, self.received, max_new_tokens or self.max_new_tokens, self.temperature, self.seed, self.context
        )
