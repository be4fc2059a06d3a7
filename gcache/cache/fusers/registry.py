"""Fusers by name, as a command line or a configuration names them.

Each is imported when it is made: the command line names them before torch is there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from gcache.errors import unknown

if TYPE_CHECKING:
    from gcache.cache.fusers.base import CacheFuser
    from gcache.cache.rope import Rope

Shape = tuple[int, int, int]


def _concat(shape: Shape, positions: str, rope: Rope) -> CacheFuser:
    from gcache.cache.fusers.concat import ConcatFuser

    return ConcatFuser(*shape, positions=positions, rope=rope)


def _relevance(shape: Shape, positions: str, rope: Rope) -> CacheFuser:
    from gcache.cache.fusers.relevance import RelevanceFuser

    return RelevanceFuser(*shape, positions=positions, rope=rope)


def _weighted_sum(shape: Shape, positions: str, rope: Rope) -> CacheFuser:
    from gcache.cache.fusers.simple import WeightedSumFuser

    return WeightedSumFuser(positions, rope)


def _first(shape: Shape, positions: str, rope: Rope) -> CacheFuser:
    from gcache.cache.fusers.simple import FirstFuser

    return FirstFuser(positions, rope)


FuserFactory = Callable[[Shape, str, "Rope"], "CacheFuser"]

FUSERS: Mapping[str, FuserFactory] = {
    "concat": _concat,
    "relevance": _relevance,
    "weighted_sum": _weighted_sum,
    "first": _first,
}


def make_fuser(name: str, shape: tuple[int, int, int], positions: str, rope: Rope) -> CacheFuser:
    """A fuser by name, for caches of `shape` = (L, H_kv, D).

    Raises:
        ConfigError: unknown name or positions.
    """
    if name not in FUSERS:
        raise unknown("fuser", name, FUSERS)
    return FUSERS[name](shape, positions, rope)
