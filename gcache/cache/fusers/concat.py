"""The usual fuser: all slots side by side, at the weights of their edges, with a learned gate and correction."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from gcache.cache.fusers.side_by_side import SideBySideFuser
from gcache.cache.kv_cache import KVCache
from gcache.cache.rope import Rope
from gcache.runtime.numbers import require_whole
from gcache.runtime.streams import generator as generator_of


class ConcatFuser(SideBySideFuser):
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
        require_whole("rank", rank, 1)
        self.gate = nn.Parameter(torch.zeros(layers, heads))
        generator = generator_of("concat fuser")
        for name in ("key", "value"):
            down = torch.randn(layers, heads, dim, rank, generator=generator) / dim**0.5
            self.register_parameter(f"{name}_down", nn.Parameter(down))
            self.register_parameter(f"{name}_up", nn.Parameter(torch.zeros(layers, heads, rank, dim)))

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
