"""Fusers that learn nothing: the weighted sum of slots at like places, and the first cache alone."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from gcache.cache.fused_cache import FusedCache
from gcache.cache.fusers.base import CacheFuser, Incoming, log_weight
from gcache.cache.kv_cache import KVCache
from gcache.cache.positions import place
from gcache.errors import ConfigError


class WeightedSumFuser(CacheFuser):
    """The weighted mean of the incoming caches, slot by slot, aligned at their last slots.

        K = sum_i w_i K_i / sum_i w_i      over the senders that have the slot; likewise V.
        w = 1 - product over i of (1 - w_i)

    A merged slot weighs w: how likely it is that any of the edges that bring it is drawn. So one edge of weight 1 is
    enough for 1, and a slot fades with the edges that bring it. Slots that a sender had received have the weights of
    their whole path.

    Every cache is re-rotated to the positions of the longest one first, so that keys that are averaged stand at one
    position; slots of less than float32's precision of the heaviest one's weight do not count for that. The merged
    slots stand where the longest cache stood, whatever `positions` says. Learns nothing of its own.
    """

    moves = True

    def merge(self, shared: KVCache, incoming: Sequence[Incoming]) -> Sequence[FusedCache]:
        if self.rope is None:
            raise ConfigError("weighted_sum re-rotates keys; pass the model's rope")
        caches = [FusedCache.plain(item.cache) for item in incoming]
        slot_weights = [
            item.weight.float() * cache.bias.exp() * cache.mask for item, cache in zip(incoming, caches, strict=True)
        ]
        end = max(zip(_felt(slot_weights), (int(cache.next_positions[0]) for cache in caches), strict=True))[1]
        longest = max(zip(caches, incoming, strict=True), key=lambda both: (both[0].slots, both[1].rank))[0]
        missing = [(longest.slots - cache.slots, 0) for cache in caches]
        moved = [cache.shift(end - cache.next_positions, self.rope) for cache in caches]
        weights = torch.stack([pad(own, more) for own, more in zip(slot_weights, missing, strict=True)])  # (n, 1, T)
        shares = weights / weights.sum(dim=0).clamp_min(torch.finfo(torch.float32).tiny)

        def mean(states: Sequence[Tensor]) -> Tensor:
            padded = (pad(own.float(), (0, 0, *more)) for own, more in zip(states, missing, strict=True))
            return torch.stack([s[:, None, :, None] * own for s, own in zip(shares, padded, strict=True)]).sum(dim=0)

        merged = KVCache(
            mean([cache.keys for cache in moved]).to(longest.dtype),
            mean([cache.values for cache in moved]).to(longest.dtype),
            longest.positions + (end - longest.next_positions)[:, None],
            torch.stack([pad(cache.mask, more) for cache, more in zip(caches, missing, strict=True)]).any(dim=0),
            longest.kinds, longest.owners, longest.ordinals,
        )  # fmt: skip
        return [FusedCache.of_parts((merged,), (log_weight(_any_of(weights)),))]


def _felt(slot_weights: Sequence[Tensor]) -> list[int]:
    """Of each cache's (1, T) weights, how many slots there are from the first one that is felt beside the heaviest."""
    least = torch.finfo(torch.float32).eps * max(float(own.detach().max()) for own in slot_weights)
    return [int((own[0] >= least).flip(0).nonzero().amax()) + 1 if bool((own >= least).any()) else 0
            for own in slot_weights]  # fmt: skip


def _any_of(chances: Tensor) -> Tensor:
    """(...) 1 - product over the first dimension of (1 - p), of (n, ...); exact for the smallest p too."""
    total = torch.zeros_like(chances[0])
    for chance in chances:
        total = total + chance * (1 - total)
    return total


class FirstFuser(CacheFuser):
    """Only the heaviest edge's cache (the first sender's of equals), at its weight; the rest is dropped.

    So log pi jumps where two edges' weights cross; in between its gradient is exact. Learns nothing of its own.
    """

    def merge(self, shared: KVCache, incoming: Sequence[Incoming]) -> Sequence[FusedCache]:
        chosen = min(incoming, key=lambda item: (-float(item.weight.detach()), item.rank))
        (cache,) = place([chosen.cache], int(shared.next_positions[0]), self.positions, self.rope)
        return [FusedCache.plain(cache).weighted(chosen.log_weight)]
