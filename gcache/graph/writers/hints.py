"""What an API is told of a fused cache that it cannot read.

    meta    one line of numbers: how many agents, slots and bytes, at which weights
    lens    the tokens that each latent step is nearest to, per agent
    draft   what the local model says of the cache, in a few words
    text    what the agents themselves said

Only `text` and `draft` carry what was thought in words; `meta` says almost nothing, on purpose: it
is what was first published, and the control for the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from gcache.graph.writers.base import WriterInput
    from gcache.llm.requests import Generation
    from gcache.llm.scheduler import BatchingLLM

#: Tokens that the lens shows of each latent step.
LENS_TOKENS = 3
#: The longest draft of a hint, in tokens.
DRAFT_TOKENS = 96


class Hint(Protocol):
    """One way to put a cache into words."""

    wants_states: bool

    async def read(self, llm: BatchingLLM, asked: WriterInput) -> tuple[str, Generation | None]:
        """The words, "" for none, and what the local model wrote for them."""
        ...


class Meta:
    """One line of numbers."""

    wants_states = False

    async def read(self, llm: BatchingLLM, asked: WriterInput) -> tuple[str, Generation | None]:
        slots = sum(heard.cache.slots for heard in asked.heard)
        size = sum(heard.cache.nbytes for heard in asked.heard)
        weights = ", ".join(f"{heard.role} {heard.weight:.2f}" for heard in asked.heard) or "none"
        return (
            f"[Other agents have thought about this: {len(asked.heard)} handed on {slots} cache slots of "
            f"{asked.received.shape[0]} layers, {size / 2**20:.2f} MiB; weights: {weights}.]"
        ), None


class Lens:
    """The output tokens nearest to each latent state."""

    wants_states = True

    async def read(self, llm: BatchingLLM, asked: WriterInput) -> tuple[str, Generation | None]:
        model: Any = llm.llm
        lines = []
        for heard in asked.heard:
            if heard.states is not None and len(heard.states):
                steps = [" / ".join(tokens) for tokens in model.lens(heard.states, LENS_TOKENS)]
                lines.append(f"- {heard.role}: " + "; ".join(steps))
        if not lines:
            return "", None
        return "Other agents have thought about this. The words nearest to their thoughts:\n" + "\n".join(lines), None


class Draft:
    """A short local reading of the cache."""

    wants_states = False

    async def read(self, llm: BatchingLLM, asked: WriterInput) -> tuple[str, Generation | None]:
        written = await llm.generate(asked.unwatched().request(min(DRAFT_TOKENS, asked.max_new_tokens)))
        words = written.text.strip()
        return (f"A colleague who has read what others thought noted:\n{words}" if words else ""), written


class Text:
    """What the agents said."""

    wants_states = False

    async def read(self, llm: BatchingLLM, asked: WriterInput) -> tuple[str, Generation | None]:
        said = [f"- {heard.role}: {heard.text.strip()}" for heard in asked.heard if heard.text.strip()]
        return ("Other agents said:\n" + "\n".join(said) if said else ""), None


HINTS: Mapping[str, type[Any]] = {"meta": Meta, "lens": Lens, "draft": Draft, "text": Text}
