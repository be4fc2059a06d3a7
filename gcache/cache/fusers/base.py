"""Fusers: how the caches that arrive at an agent become one.

A fuser takes the shared prefix and any number of incoming caches with their edge weights, and
returns a `FusedCache`. To write another one, subclass `CacheFuser` and implement `merge`; docs/extending.md has a
whole one, and how it is named without a change to this package.

What every fuser must keep (`tests/test_invariants_fusers.py` asks it of all in the registry): before training, one
cache of weight 1 is handed over as it is; as an edge's weight goes to 0, whatever the parameters, the edge fades
until the logits are those without it (its place is still counted: the receiver continues after the last occupied
position); moving everything by n moves what comes out by n; and with parallel positions the order does not matter.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from gcache.cache.fused_cache import FusedCache
from gcache.cache.kv_cache import KVCache
from gcache.cache.position_names import check_positions
from gcache.cache.positions import without_repeats
from gcache.cache.rope import Rope

#: The log-weight of weight 0: low enough that nothing is attended to, and a number in every dtype.
BLOCKED = -1e4


def log_weight(weight: Tensor) -> Tensor:
    """log w in float32, and `BLOCKED` for w = 0."""
    weight = weight.float()
    return torch.where(weight > 0, weight.clamp_min(torch.finfo(torch.float32).tiny).log(), BLOCKED)


def yielding(scores: Tensor, weights: Tensor) -> Tensor:
    """(n,) what is added to the log-weights of caches that are scored: r_i = - max over j of w_j (s_j - s_i).

    A cache gives way to one of a higher score as far as that one's edge weighs: at weight 1 by all of the difference
    (with all edges at 1, r_i = s_i - max_j s_j), and an edge whose weight goes to 0 takes nothing from any other.

    Args:
        scores: (n,) s; weights: (n,) of the edges.
    """
    return -(weights.to(scores.device) * (scores - scores[:, None])).amax(dim=1)


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
        positions: see `gcache.cache.position_names.POSITIONS`.
        rope: the rotation of the model whose caches are fused.

    Raises:
        ConfigError: unknown positions, or ones that move caches which must stay where they are.
    """

    #: Whether caches are moved whatever `positions` says.
    moves = False
    #: Whether one cache of weight 1 is handed over as it is, whatever was learned.
    keeps_slots = False
    #: Of the attention to handed-over slots: their logits are divided by the temperature, then each slot counts for
    #: `slot_scale` slots. Caches that were read side by side get too little attention where it matters and too much in
    #: all; a temperature and a scale below 1 mend that without training (Yang et al. 2025, "APE", arXiv:2502.05431,
    #: whose scale stands on the log of the sum of a context's weights instead of its factor).
    slot_temperature = 1.0
    slot_scale = 1.0

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
        return FusedCache.join([prefix, *map(self._attended, merged)])

    def _attended(self, handed: FusedCache) -> FusedCache:
        """Handed-over slots as they are attended to; themselves at temperature and scale 1.

        A logit is (q . k) / sqrt(D), so dividing k divides it, and it commutes with a rotation.
        """
        if self.slot_temperature == 1 and self.slot_scale == 1:
            return handed
        parts = [replace(part, keys=part.keys / self.slot_temperature) for part in handed.parts]
        return FusedCache.of_parts(parts, [bias + math.log(self.slot_scale) for bias in handed.biases])

    def prepare(self, cache: KVCache) -> KVCache:
        """What the fuser does to a cache whoever receives it, at whatever weight and place.

        Done once per cache where many receivers or rollouts share it; `forward` does it for
        those that were not prepared. The default changes nothing.
        """
        return cache

    def log_weights(self, shared: KVCache, incoming: Sequence[Incoming]) -> Sequence[Tensor]:
        """What each incoming cache counts for beside the others, 0-dim log-weights: by default the edges' own."""
        return [item.log_weight for item in incoming]

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
