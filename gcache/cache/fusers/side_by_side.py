"""Incoming slots side by side, at the weights of their edges: what most fusers begin with."""

from __future__ import annotations

from collections.abc import Sequence

from gcache.cache.fused_cache import FusedCache
from gcache.cache.fusers.base import CacheFuser, Incoming
from gcache.cache.kv_cache import KVCache
from gcache.cache.positions import place, without_lighter_repeats


class SideBySideFuser(CacheFuser):
    """Incoming slots side by side; a cache's log-weight is a bias on the attention to its slots, in every layer.

    w = 1 is plain concatenation, w -> 0 is no edge. Subclasses say by `log_weights` what else a cache counts for, and
    by `prepare` what becomes of its slots.
    """

    def merge(self, shared: KVCache, incoming: Sequence[Incoming]) -> Sequence[FusedCache]:
        weighted = [
            FusedCache.plain(item.cache).weighted(log_weight)
            for item, log_weight in zip(incoming, self.log_weights(shared, incoming), strict=True)
        ]
        start = int(shared.next_positions[0])
        placed = place(without_lighter_repeats(weighted), start, self.positions, self.rope)
        return [FusedCache.plain(cache) for cache in placed]
