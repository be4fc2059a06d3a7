"""Who writes the decision maker's text, on one and the same graph and caches.

    local      the local model, on the fused cache
    hybrid     the local model writes a draft on the fused cache, the API refines it
    api_hint   the API, given the question and a hint of what the fused cache holds (`gcache.graph.writers.hints`)
    api_embeds the API, given the agents' latent thoughts as embeddings (`gcache.graph.writers.prompt_embeds`)
    api        the API, and so do the agents; there are no caches (`gcache.graph.text_graph`)

What learns follows from where the text comes from. In local and hybrid runs the local model's
tokens are drawn on the fused cache, so their log-probability reaches the fuser and the edge
weights; the API that refines a draft is part of the environment, like a grader. Where the API
alone writes, nothing that was drawn depends on the cache in a way that could be differentiated:
the topology learns from log p(G), the fuser from nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from gcache.errors import ConfigError, unknown
from gcache.graph.result import Spoken
from gcache.graph.run_config import ENDPOINTS, GENERATION_MODES
from gcache.graph.writers.base import WriterInput
from gcache.graph.writers.hints import HINTS, Hint
from gcache.graph.writers.prompt_embeds import EmbedsWriter
from gcache.llm.api.client import ApiLLM, ApiText
from gcache.llm.requests import Generation
from gcache.llm.scheduler import BatchingLLM


async def _spoken(
    heard: tuple[int, ...], prompt: tuple[int, ...], text: Coroutine[Any, Any, Generation], thinks: bool
) -> Spoken:
    return Spoken(heard, prompt, await text, thinks=thinks)


class Writer(Protocol):
    """Turns what was handed over into a text."""

    @property
    def mode(self) -> str:
        """Its name."""
        ...

    @property
    def learns(self) -> bool:
        """Whether the fuser and the edge weights learn from the text's log-probability."""
        ...

    @property
    def wants_states(self) -> bool:
        """Whether it reads the agents' latent states."""
        ...

    def write(self, llm: BatchingLLM, asked: WriterInput) -> Coroutine[Any, Any, Spoken]:
        """The text. While it waits, it holds no cache that it need not hold.

        Raises:
            ApiError: the API failed for good.
        """
        ...


class LocalWriter:
    """The local model on the fused cache."""

    mode = "local"
    learns = True
    wants_states = False

    def write(self, llm: BatchingLLM, asked: WriterInput) -> Coroutine[Any, Any, Spoken]:
        # no coroutine function: its frame would hold the caches of `asked` until the text is there
        text = llm.generate(asked.request())
        return _spoken(tuple(h.agent for h in asked.heard), asked.prompt, text, asked.thinks)


@dataclass(frozen=True)
class HybridWriter:
    """A local draft on the fused cache, refined by the API."""

    api: ApiLLM
    mode: str = "hybrid"
    learns: bool = True
    wants_states: bool = False

    async def write(self, llm: BatchingLLM, asked: WriterInput) -> Spoken:
        writing = LocalWriter().write(llm, asked.unwatched())
        question, ask = asked.question, asking(self.api, asked)
        del asked
        draft = await writing
        assert draft.generation is not None
        words = (
            f"{question}\n\nA colleague who has read what others thought of this wrote a draft:\n"
            f"---\n{draft.text.strip() or '(nothing)'}\n---\n"
            "Check it. Keep what is right, mend what is wrong, and write the whole answer."
        )
        return replace(draft, api=await ask(words))


@dataclass(frozen=True)
class HintWriter:
    """The API, given the question and a hint of the fused cache."""

    api: ApiLLM
    hint: Hint
    mode: str = "api_hint"
    learns: bool = False

    @property
    def wants_states(self) -> bool:
        return self.hint.wants_states

    async def write(self, llm: BatchingLLM, asked: WriterInput) -> Spoken:
        hint, local = await self.hint.read(llm, asked)
        heard, prompt, question = tuple(h.agent for h in asked.heard), asked.prompt, asked.question
        ask = asking(self.api, asked)
        del asked
        text = await ask(f"{question}\n\n{hint}" if hint else question)
        return Spoken(heard, prompt, local, text, hint)


def asking(api: ApiLLM, asked: WriterInput) -> Callable[[str], Coroutine[Any, Any, ApiText]]:
    """Asks the API with the decision maker's instructions and some words; holds no cache."""
    instructions, most, temperature, seed = asked.instructions, asked.max_new_tokens, asked.temperature, asked.seed

    async def ask(words: str) -> ApiText:
        return await api.chat([("system", instructions), ("user", words)], most, temperature, seed)

    return ask


def make_writer(
    mode: str, api: ApiLLM | None = None, hint: str = "meta", layout: Any = None, endpoint: str = ENDPOINTS[0]
) -> Writer:
    """The writer of a generation mode.

    Args:
        hint: of the mode api_hint.
        layout, endpoint: of the mode api_embeds.

    Raises:
        ConfigError: unknown mode or hint, or a mode that needs an API where there is none.
    """
    if mode not in GENERATION_MODES:
        raise unknown("generation mode", mode, GENERATION_MODES)
    if hint not in HINTS:
        raise unknown("hint", hint, HINTS)
    if mode == "local":
        return LocalWriter()
    if mode == "api":
        raise ConfigError("in the mode 'api' there is no cache to write on; the graph is a TextGraph")
    if api is None:
        raise ConfigError(f"the generation mode {mode!r} needs an API; name its model by --api_model, or use local")
    if mode == "api_embeds":
        return EmbedsWriter(api, layout, endpoint)
    return HybridWriter(api) if mode == "hybrid" else HintWriter(api, HINTS[hint]())


def api_tokens(spoken: Sequence[Spoken]) -> tuple[int, int]:
    """Tokens that the API read and wrote, by its own count."""
    texts = [s.api for s in spoken if s.api is not None]
    return sum(t.prompt_tokens or 0 for t in texts), sum(t.completion_tokens or 0 for t in texts)
