"""Fusers by name, as a command line or a configuration names them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from gcache.cache.fusers.base import CacheFuser
from gcache.cache.fusers.concat import ConcatFuser
from gcache.cache.fusers.relevance import RelevanceFuser
from gcache.cache.fusers.simple import FirstFuser, WeightedSumFuser
from gcache.cache.rope import Rope
from gcache.errors import unknown

FuserFactory = Callable[[tuple[int, int, int], str, Rope], CacheFuser]

FUSERS: Mapping[str, FuserFactory] = {
    "concat": lambda shape, positions, rope: ConcatFuser(*shape, positions=positions, rope=rope),
    "relevance": lambda shape, positions, rope: RelevanceFuser(*shape, positions=positions, rope=rope),
    "weighted_sum": lambda shape, positions, rope: WeightedSumFuser(positions, rope),
    "first": lambda shape, positions, rope: FirstFuser(positions, rope),
}


def make_fuser(name: str, shape: tuple[int, int, int], positions: str, rope: Rope) -> CacheFuser:
    """A fuser by name, for caches of `shape` = (L, H_kv, D).

    Raises:
        ConfigError: unknown name or positions.
    """
    if name not in FUSERS:
        raise unknown("fuser", name, FUSERS)
    return FUSERS[name](shape, positions, rope)
