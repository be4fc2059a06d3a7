"""Which questions of a task are asked: splits, limits, orders."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Literal, TypeVar

from gcache.runtime.numbers import require_whole
from gcache.runtime.streams import shuffler

Split = Literal["train", "test"]
T = TypeVar("T")


def is_held_out(question: str) -> bool:
    """Whether a question belongs to the test split: a fifth do, by a hash of the text alone."""
    digest = hashlib.sha256(question.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") % 5 == 0


def check_limit(limit: int | None, seed: int) -> None:
    """Raise ConfigError for a `limit` below 1 or a negative `seed`."""
    if limit is not None:
        require_whole("limit", limit, 1, note=" (in Python also None, for all questions)")
    require_whole("seed", seed, 0)


def numbered(limit: int | None, size: int, seed: int) -> range:
    """The numbers of a generated split's questions: `limit` of them, or `size`.

    Raises:
        ConfigError: that is below 1, or `seed` is negative.
    """
    count = size if limit is None else limit
    check_limit(count, seed)
    return range(count)


def pick(items: Sequence[T], limit: int | None, seed: int) -> list[T]:
    """The first `limit` items: in their own order for seed 0, shuffled by any other seed.

    Raises:
        ConfigError: `limit` is below 1, or `seed` is negative.
    """
    check_limit(limit, seed)
    picked = list(items)
    if seed:
        shuffler("order of questions", seed).shuffle(picked)
    return picked[:limit]
