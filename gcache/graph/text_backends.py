"""Who speaks in a graph whose agents hand each other text: the local model, or an API."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from gcache.agents.chat_template import TemplateSettings
from gcache.agents.prompts import ChatLayout, Layouts, with_said
from gcache.graph.result import Written
from gcache.llm.api.client import ApiLLM, ApiText
from gcache.llm.requests import GenerateRequest, Generation, TokenScore
from gcache.llm.scheduler import LLM, BatchingLLM


@dataclass(frozen=True)
class Prompt:
    """What a backend is asked.

    Attributes:
        words: the agent's, or the decision maker's.
        said: what others said, as (role, words).
        prefix: words put into its mouth.
        stop, watch, top_p, top_log_probs, watch_scores: of the local model's text; see `GenerateRequest`.
        variables: of the local model's chat template; see `Layouts.of`.
    """

    question: str
    words: str
    said: Sequence[tuple[str, str]]
    max_new_tokens: int
    prefix: str = ""
    temperature: float = 0.0
    seed: int = 0
    stop: tuple[str, ...] = ()
    watch: Callable[[tuple[int, ...]], None] | None = None
    top_p: float = 1.0
    top_log_probs: int | None = None
    watch_scores: Callable[[tuple[TokenScore, ...]], None] | None = None
    variables: str = ""


@dataclass(frozen=True)
class TextOutput(Written):
    """What it said; `tokens` is the prompt of the local model, empty where an API spoke, and `thinks` whether that
    ended inside a think tag."""

    tokens: tuple[int, ...]
    generation: Generation | None = None
    api: ApiText | None = None
    thinks: bool = False


class TextBackend(Protocol):
    """Says something."""

    async def say(self, prompt: Prompt) -> TextOutput: ...


class LocalTextBackend:
    """The local model, in the question's own turn; its calls are batched over all runs in flight."""

    def __init__(self, llm: LLM, tokenizer: Any, template: TemplateSettings | None = None) -> None:
        self.llm = BatchingLLM(llm)
        self.layouts = Layouts(tokenizer, template or TemplateSettings())

    async def say(self, prompt: Prompt) -> TextOutput:
        words = with_said(prompt.words, prompt.said)
        layout = self.layouts.of(prompt.variables)
        question = prompt.question
        tokens = layout.question(question) + layout.decision(words, prompt.prefix, turn="same", question=question)
        request = GenerateRequest(
            tokens, None, prompt.max_new_tokens, prompt.temperature, prompt.seed, stop=prompt.stop, watch=prompt.watch,
            top_p=prompt.top_p, top_log_probs=prompt.top_log_probs, watch_scores=prompt.watch_scores,
        )  # fmt: skip
        return TextOutput(tokens, await self.llm.generate(request), thinks=layout.thinks)

    @property
    def layout(self) -> ChatLayout:
        return self.layouts.of()


@dataclass(frozen=True)
class ApiTextBackend:
    """An API: the backend's words are the system's, the question and what was said the user's.

    A prefix is left out: no server puts words into its own mouth.
    """

    api: ApiLLM

    async def say(self, prompt: Prompt) -> TextOutput:
        talk = [("system", prompt.words), ("user", with_said(prompt.question, prompt.said, first=False))]
        return TextOutput((), api=await self.api.chat(talk, prompt.max_new_tokens, prompt.temperature, prompt.seed))
