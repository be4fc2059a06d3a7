"""Fusers by name, as a command line or a configuration names them."""

from __future__ import annotations

from typing import Any

from gcache.cache.fusers.base import CacheFuser
from gcache.cache.fusers.concat import ConcatFuser
from gcache.cache.fusers.relevance import RelevanceFuser
from gcache.cache.fusers.simple import FirstFuser, WeightedSumFuser
from gcache.cache.rope import Rope
from gcache.errors import unknown
from gcache.runtime.registry import Registry, needs_more, takes

#: What a fuser may be made of; it names those that it has a use for among the parameters of its constructor.
OFFERED = ("layers", "heads", "dim", "positions", "rope")

_BUILT_IN: dict[str, type[CacheFuser]] = {
    "concat": ConcatFuser,
    "relevance": RelevanceFuser,
    "weighted_sum": WeightedSumFuser,
    "first": FirstFuser,
}


def _wrong(found: Any) -> str:
    if not (isinstance(found, type) and issubclass(found, CacheFuser)):
        return f"is not a subclass of {CacheFuser.__module__}.CacheFuser"
    if found.merge is CacheFuser.merge and found.forward is CacheFuser.forward:
        return "lacks merge"
    missing = needs_more(found, OFFERED)
    return f"asks for {', '.join(missing)}, but a fuser is made of {', '.join(OFFERED)}" if missing else ""


FUSERS: Registry[type[CacheFuser]] = Registry("fuser", "gcache.fusers", _BUILT_IN, _wrong)


def make_fuser(name: str, shape: tuple[int, int, int], positions: str, rope: Rope) -> CacheFuser:
    """A fuser by name, for caches of `shape` = (L, H_kv, D).

    Raises:
        ConfigError: unknown name or positions.
    """
    if name not in FUSERS:
        raise unknown("fuser", name, FUSERS)
    made = FUSERS[name]
    return made(**takes(made, dict(zip(OFFERED, (*shape, positions, rope), strict=True))))
