"""Fusers by name, as a command line or a configuration names them.

Each is imported when it is made: the command line knows the names before torch is there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gcache.errors import unknown
from gcache.runtime.registry import Deferred, Registry, needs_more, takes

if TYPE_CHECKING:
    from gcache.cache.fusers.base import CacheFuser
    from gcache.cache.rope import Rope

#: What a fuser may be made of; it names those that it has a use for among the parameters of its constructor.
OFFERED = ("layers", "heads", "dim", "positions", "rope")


def _concat() -> type[CacheFuser]:
    from gcache.cache.fusers.concat import ConcatFuser

    return ConcatFuser


def _relevance() -> type[CacheFuser]:
    from gcache.cache.fusers.relevance import RelevanceFuser

    return RelevanceFuser


def _trust() -> type[CacheFuser]:
    from gcache.cache.fusers.trust import TrustFuser

    return TrustFuser


def _weighted_sum() -> type[CacheFuser]:
    from gcache.cache.fusers.simple import WeightedSumFuser

    return WeightedSumFuser


def _first() -> type[CacheFuser]:
    from gcache.cache.fusers.simple import FirstFuser

    return FirstFuser


_BUILT_IN = Deferred({
    "concat": _concat, "relevance": _relevance, "trust": _trust, "weighted_sum": _weighted_sum, "first": _first,
})  # fmt: skip


def _wrong(found: Any) -> str:
    from gcache.cache.fusers.base import CacheFuser

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
