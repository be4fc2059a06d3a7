"""Where the slots of several caches go when they are joined behind a shared prefix."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from gcache.cache.fused_cache import FusedCache
from gcache.cache.kv_cache import KVCache
from gcache.cache.rope import Rope
from gcache.errors import ConfigError


def place(caches: Sequence[KVCache], start: int, positions: str, rope: Rope | None) -> list[KVCache]:
    """The caches, each of one sequence, moved to where the receiver will see them.

    Args:
        start: first free position after the shared prefix.
        rope: the model's rotation; `sequential` needs it.
    """
    if positions == "parallel":
        return list(caches)
    if rope is None:
        raise ConfigError("sequential positions re-rotate keys; pass the model's rope, or use positions='parallel'")
    moved: list[KVCache] = []
    cursor = start
    for cache in caches:
        if cache.slots:
            cache = cache.shift(cursor - int(cache.positions.min()), rope)
            cursor = int(cache.next_positions[0])
        moved.append(cache)
    return moved


def without_repeats(caches: Sequence[KVCache]) -> list[KVCache]:
    """Each cache of one sequence without the slots that an earlier one brought, see `first_seen`."""
    makers = [cache.makers for cache in caches]
    if sum(map(len, makers)) == len(frozenset().union(*makers)):
        return list(caches)  # no maker in two of them, so no slot either
    return [
        cache if bool(fresh.all()) else cache.take(fresh)
        for cache, fresh in zip(caches, first_seen(caches), strict=True)
    ]


def without_lighter_repeats(caches: Sequence[FusedCache]) -> list[FusedCache]:
    """Each cache of one sequence without the slots that another one brings at a greater weight (of equals, an
    earlier one): a slot that arrives over several paths comes over the heaviest."""
    makers = [cache.makers for cache in caches]
    if sum(map(len, makers)) == len(frozenset().union(*makers)):
        return list(caches)
    names = torch.cat([_names(cache) for cache in caches])
    heaviest = torch.cat([cache.bias[0].detach() for cache in caches]).argsort(descending=True, stable=True)
    by_name = heaviest[names[heaviest].argsort(stable=True)]  # of each name the heaviest comes first
    fresh = torch.ones_like(names, dtype=torch.bool)
    fresh[by_name[1:]] = names[by_name[1:]] != names[by_name[:-1]]
    kept = fresh.split([cache.slots for cache in caches])
    return [cache if bool(own.all()) else cache.take(own) for cache, own in zip(caches, kept, strict=True)]


def first_seen(caches: Sequence[KVCache]) -> list[torch.Tensor]:
    """For each cache of one sequence, a (T,) mask of the slots that no earlier cache brought.

    A slot is known by (owner, ordinal), so one that arrives over two paths is kept once, and
    two slots that merely look alike are both kept.
    """
    names = [_names(cache) for cache in caches]
    masks = [torch.ones_like(own, dtype=torch.bool) for own in names[:1]]
    masks += [~torch.isin(own, torch.cat(names[:number])) for number, own in enumerate(names[1:], start=1)]
    return masks


def _names(cache: KVCache) -> torch.Tensor:
    """(T,) one number per slot's name."""
    return (cache.owners[0] << 40) + cache.ordinals[0]
