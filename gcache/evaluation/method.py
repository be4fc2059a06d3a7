"""One protocol for everything that is compared: questions in, answers and what they cost out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from gcache.tasks.example import Example


@dataclass(frozen=True)
class Answer:
    """What a method made of one question.

    Attributes:
        tokens: by `gcache.graph.result.TOKENS`.
        cache_bytes: of keys and values that went over edges.
        said: what the agents said on the way, as (role, words), in order.
        cut: whether a length limit cut the text off.
        cuts: the same of every text that was written for it, the agents' included.
        stored: tokens whose caches a store keeps, which are none of `tokens`.
        documents: the numbers of the question's notes that had a way into the answer; None where it brings none.
    """

    example: Example
    text: str
    tokens: Mapping[str, int]
    cache_bytes: int = 0
    said: tuple[tuple[str, str], ...] = field(default=())
    cut: bool = False
    cuts: tuple[bool, ...] = ()
    documents: tuple[int, ...] | None = None
    stored: int = 0


class Method(Protocol):
    """Answers questions. `name` is its name in tables."""

    @property
    def name(self) -> str: ...

    def answer(self, examples: Sequence[Example], on_answer: Callable[[], None] = lambda: None) -> list[Answer]:
        """Answers in the order of the questions, computed in batches.

        Args:
            on_answer: called whenever one is there.
        """
        ...


@dataclass(frozen=True)
class DeferredMethod:
    """A method under a name of its own, made when it is asked.

    Args:
        agents_hold_notes: whether the notes of a question are its agents.
    """

    name: str
    make: Callable[[], Method]
    agents_hold_notes: bool = False

    def answer(self, examples: Sequence[Example], on_answer: Callable[[], None] = lambda: None) -> list[Answer]:
        """See `Method.answer`."""
        return self.make().answer(examples, on_answer)
