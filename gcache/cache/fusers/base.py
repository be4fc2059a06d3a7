"""Fusers: how the caches that arrive at an agent become one.

A fuser takes the shared prefix and any number of incoming caches with their edge weights, and
returns a `FusedCache`. To write another one, subclass `CacheFuser`, implement `merge`, and put it
into `gcache.cache.fusers.registry`.

What every fuser must keep (`tests/test_invariants_fusers.py` asks it of all in the registry): before training, one
cache of weight 1 is handed over as it is; as an edge's weight goes to 0, whatever the parameters, the edge fades
until the logits are those without it (its place is still counted: the receiver continues after the last occupied
position); moving everything by n moves what comes out by n; and with parallel positions the order does not matter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from gcache.cache.kv_cache import FusedCache, KVCache
from gcache.cache.positions import check_positions, place, without_lighter_repeats, without_repeats
from gcache.cache.rope import Rope
from gcache.errors import ConfigError
from gcache.runtime.streams import generator as generator_of

#: The log-weight of weight 0: low enough that nothing is attended to, and a number in every dtype.
BLOCKED = -1e4


def log_weight(weight: Tensor) -> Tensor:
    """log w in float32, and `BLOCKED` for w = 0."""
    weight = weight.float()
    return torch.where(weight > 0, weight.clamp_min(torch.finfo(torch.float32).tiny).log(), BLOCKED)


@dataclass(frozen=True)
class Incoming:
    """A cache on an edge.

    Attributes:
        cache: one sequence.
        weight: 0-dim tensor in (0, 1], the edge's weight w; gradient flows through it.
        prepared: whether the cache went through the fuser's `prepare` already.
        order: its sender's place among the senders; decides where two caches are equal otherwise.
    """

    cache: KVCache
    weight: Tensor
    prepared: bool = False
    order: int = 0

    @property
    def log_weight(self) -> Tensor:
        """log w, finite for w = 0 too, where it blocks the slots."""
        return log_weight(self.weight)

    @property
    def rank(self) -> tuple[int, list[int]]:
        """Sorts caches that are equal otherwise, in whatever order they are passed."""
        return self.order, sorted(self.cache.makers)


class CacheFuser(nn.Module):
    """Base of all fusers: a cache is prepared once, then merged with others for each receiver.

    Args:
        positions: see `gcache.cache.positions.Positions`.
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
        new = [self._new_to(prefix, self._ready(item)) for item in incoming if item.cache.slots]
        arrived = [item for item in new if item.cache.slots]
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
        generator = generator_of("concat fuser")
        for name in ("key", "value"):
            down = torch.randn(layers, heads, dim, rank, generator=generator) / dim**0.5
            self.register_parameter(f"{name}_down", nn.Parameter(down))
            self.register_parameter(f"{name}_up", nn.Parameter(torch.zeros(layers, heads, rank, dim)))

    def merge(self, shared: KVCache, incoming: Sequence[Incoming]) -> Sequence[FusedCache]:
        weighted = [
            FusedCache.plain(item.cache).weighted(log_weight)
            for item, log_weight in zip(incoming, self.log_weights(shared, incoming), strict=True)
        ]
        start = int(shared.next_positions[0])
        placed = place(without_lighter_repeats(weighted), start, self.positions, self.rope)
        return [FusedCache.plain(cache) for cache in placed]

    def log_weights(self, shared: KVCache, incoming: Sequence[Incoming]) -> Sequence[Tensor]:
        """What is added to the attention logits of each incoming cache's slots, 0-dim."""
        return [item.log_weight for item in incoming]

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
            longest.kinds, longest.sources, longest.ordinals,
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
