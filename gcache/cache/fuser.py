"""Fusers: how the caches that arrive at an agent become one.

A fuser takes the shared prefix and any number of incoming caches with their edge weights, and
returns a `FusedCache`. To write another one, subclass `CacheFuser`, implement `merge`, and put it
into `gcache.cache.fusers`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from gcache.cache.kv_cache import FusedCache, KVCache
from gcache.cache.placement import check_positions, place, without_repeats
from gcache.cache.rope import Rope
from gcache.errors import ConfigError


@dataclass(frozen=True)
class Incoming:
    """A cache on an edge.

    Attributes:
        cache: one sequence.
        weight: 0-dim tensor in (0, 1], the edge's weight w; gradient flows through it.
        prepared: whether the cache went through the fuser's `prepare` already.
    """

    cache: KVCache
    weight: Tensor
    prepared: bool = False

    @property
    def log_weight(self) -> Tensor:
        """log w, finite for w = 0 too (where it blocks the slots as good as entirely)."""
        return self.weight.float().clamp_min(torch.finfo(torch.float32).tiny).log()


class CacheFuser(nn.Module):
    """Base of all fusers: a cache is prepared once, then merged with others for each receiver.

    Args:
        positions: see `gcache.cache.placement.Positions`.
        rope: the rotation of the model whose caches are fused.

    Raises:
        ConfigError: unknown positions, or ones that move caches which must stay where they are.
    """

    #: Whether caches are moved whatever `positions` says.
    moves = False

    def __init__(self, positions: str = "parallel", rope: Rope | None = None) -> None:
        super().__init__()
        check_positions(positions)
        if rope is not None and (self.moves or positions == "sequential"):
            rope.require_movable()
        self.positions = positions
        self.rope = rope

    def forward(self, shared: KVCache, incoming: Sequence[Incoming]) -> FusedCache:
        """One cache: the shared prefix at weight 1, then what `merge` makes of the incoming.

        Args:
            shared: the question's slots, one sequence (zero slots where there is no prefix).
            incoming: in the order of their senders; with parallel positions the order does
                not matter.
        """
        prefix = FusedCache.plain(shared)
        arrived = [self._new_to(prefix, self._ready(item)) for item in incoming if item.cache.slots]
        if not arrived:
            return prefix
        merged = self.merge(shared, arrived)
        return FusedCache.join([prefix, *merged])

    def prepare(self, cache: KVCache) -> KVCache:
        """What the fuser does to a cache whoever receives it, at whatever weight and place.

        Done once per cache where many receivers or rollouts share it; `forward` does it for
        those that were not prepared. The default changes nothing.
        """
        return cache

    def _ready(self, item: Incoming) -> Incoming:
        return item if item.prepared else replace(item, cache=self.prepare(item.cache), prepared=True)

    def merge(self, shared: KVCache, incoming: Sequence[Incoming]) -> Sequence[FusedCache]:
        """Caches that go, in this order, behind the shared prefix, of one or more prepared ones."""
        raise NotImplementedError

    @staticmethod
    def _new_to(prefix: KVCache, item: Incoming) -> Incoming:
        """Without the slots of the prefix (a sender that hands on its whole context has them)."""
        kept = without_repeats([prefix, item.cache])[1]
        return item if kept is item.cache else replace(item, cache=kept)


class ConcatFuser(CacheFuser):
    """Incoming slots side by side; an edge's weight is a bias on the attention to its slots.

    The logits of attention to the slots of an edge of weight w get log w added, in every layer:
    w = 1 is plain concatenation, w -> 0 is no edge. On top of it, for each layer l,

        v <- (1 + g_l) v + (v A_l) B_l         k <- k + R(p) [ (R(-p) k) A'_l ] B'_l

    with g_l = 0 and B_l, B'_l = 0 at the start, so that an untrained fuser changes nothing. Keys
    are corrected before their rotation R(p), so the correction does not depend on where a slot
    stands.

    Args:
        layers, heads, dim: the model's cache shape (L, H_kv, D).
        rank: of the corrections.
    """

    def __init__(
        self,
        layers: int,
        heads: int,
        dim: int,
        rank: int = 8,
        positions: str = "parallel",
        rope: Rope | None = None,
    ) -> None:
        super().__init__(positions, rope)
        if rank < 1:
            raise ConfigError(f"rank must be 1 or more, got {rank}")
        self.gate = nn.Parameter(torch.zeros(layers, heads))
        generator = torch.Generator().manual_seed(0)
        for name in ("key", "value"):
            down = torch.randn(layers, heads, dim, rank, generator=generator) / dim**0.5
            self.register_parameter(f"{name}_down", nn.Parameter(down))
            self.register_parameter(f"{name}_up", nn.Parameter(torch.zeros(layers, heads, rank, dim)))

    def merge(self, shared: KVCache, incoming: Sequence[Incoming]) -> Sequence[FusedCache]:
        caches = [item.cache for item in incoming]
        # where one slot comes over several edges, the heaviest edge brings it
        order = sorted(range(len(caches)), key=lambda i: (-float(incoming[i].weight.detach()), i))
        kept = dict(zip(order, without_repeats([caches[i] for i in order]), strict=True))
        start = int(shared.next_positions[0])
        placed = place([kept[i] for i in range(len(caches))], start, self.positions, self.rope)
        return [FusedCache.plain(c).weighted(item.log_weight) for c, item in zip(placed, incoming, strict=True)]

    def prepare(self, cache: KVCache) -> KVCache:
        """The gate and the low-rank corrections: they commute with a shift, and no weight is in them."""
        if not torch.is_grad_enabled() and self._changes_nothing():
            return cache
        values = cache.values.float()  # (L, 1, H, T, D)
        change = self._low_rank(values, "value") + self.gate[:, None, :, None, None] * values
        return replace(
            cache,
            keys=(cache.keys.float() + self._key_change(cache)).to(cache.keys.dtype),
            values=(values + change).to(cache.values.dtype),
        )

    def _changes_nothing(self) -> bool:
        """Whether it is as it was before training: then a cache need not be copied."""
        return not any(bool(getattr(self, name).any()) for name in ("gate", "key_up", "value_up"))

    def _key_change(self, cache: KVCache) -> Tensor:
        keys = cache.keys.float()
        if self.rope is None:
            return self._low_rank(keys, "key")
        where = cache.positions[:, None]  # (1, 1, T), broadcast over layers and heads
        return self.rope.rotate(self._low_rank(self.rope.rotate(keys, -where), "key"), where)

    def _low_rank(self, states: Tensor, name: str) -> Tensor:
        down, up = getattr(self, f"{name}_down"), getattr(self, f"{name}_up")
        change: Tensor = (states @ down[:, None]) @ up[:, None]
        return change


class WeightedSumFuser(CacheFuser):
    """The weighted mean of the incoming caches, slot by slot, aligned at their last slots.

        K = sum_i w_i K_i / sum_i w_i      over the senders that have the slot; likewise V.

    Every cache is re-rotated to the positions of the longest one first, so that keys that are
    averaged stand at one position. The merged slots have weight 1: only the ratios of the edge
    weights matter, and the merged slots stand where the longest cache stood, whatever
    `positions` says. Learns nothing of its own.
    """

    moves = True

    def merge(self, shared: KVCache, incoming: Sequence[Incoming]) -> Sequence[FusedCache]:
        if self.rope is None:
            raise ConfigError("weighted_sum re-rotates keys; pass the model's rope")
        longest = max((item.cache for item in incoming), key=lambda cache: cache.slots)
        width, end = longest.slots, int(longest.next_positions[0])
        total = torch.zeros((1, width), device=longest.mask.device)
        keys = torch.zeros(longest.keys.shape, device=longest.keys.device)
        values = torch.zeros_like(keys)
        for item in incoming:
            cache = item.cache.shift(end - int(item.cache.next_positions[0]), self.rope)
            missing = (width - cache.slots, 0)
            weight = torch.nn.functional.pad(item.weight.float() * cache.mask.float(), missing)  # (1, T)
            spread = weight[:, None, :, None]
            keys = keys + spread * torch.nn.functional.pad(cache.keys.float(), (0, 0, *missing))
            values = values + spread * torch.nn.functional.pad(cache.values.float(), (0, 0, *missing))
            total = total + weight
        scale = total.clamp_min(torch.finfo(torch.float32).tiny)[:, None, :, None]
        mean = replace(
            longest, keys=(keys / scale).to(longest.keys.dtype), values=(values / scale).to(longest.values.dtype)
        )
        return [FusedCache.plain(mean)]


class FirstFuser(CacheFuser):
    """Only the heaviest edge's cache (the first of equals), at its weight; the rest is dropped.

    Learns nothing of its own.
    """

    def merge(self, shared: KVCache, incoming: Sequence[Incoming]) -> Sequence[FusedCache]:
        chosen = max(incoming, key=lambda item: float(item.weight.detach()))
        (cache,) = place([chosen.cache], int(shared.next_positions[0]), self.positions, self.rope)
        return [FusedCache.plain(cache).weighted(chosen.log_weight)]
