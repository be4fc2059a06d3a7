"""What tasks that deal knowledge out among agents have in common: runs of sentences, and adversaries.

An adversary pushes a wrong answer. It says so in its private note; the topology policy sees no more
of it than its description, as of everyone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from gcache.errors import ConfigError
from gcache.runtime.numbers import is_whole
from gcache.tasks.example import Note

T = TypeVar("T")

#: The kind of adversaries in tables of learned edges.
ADVERSARY = "adversary"
MOST_AGENTS = 8
ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth")


def check_adversaries(count: int) -> None:
    """Raise ConfigError for a number of adversaries that is not from 0 to `MOST_AGENTS`."""
    if not is_whole(count) or not 0 <= count <= MOST_AGENTS:
        raise ConfigError(f"adversary must be a number of agents from 0 to {MOST_AGENTS}, got {count!r}")


def adversary(claim: str) -> Note:
    """One that insists on a claim, a whole sentence."""
    return Note(
        role="stranger",
        description="The stranger passes through and claims to know the answer to every question.",
        text=f"Note of the stranger: {claim} I am sure of it. {claim}",
        kind=ADVERSARY,
    )


def runs(items: Sequence[T], count: int) -> list[list[T]]:
    """The items in `count` runs, in order, whose lengths differ by one at most; the longer ones first."""
    least, more = divmod(len(items), count)
    ends = [0]
    for i in range(count):
        ends.append(ends[-1] + least + (i < more))
    return [list(items[ends[i] : ends[i + 1]]) for i in range(count)]
