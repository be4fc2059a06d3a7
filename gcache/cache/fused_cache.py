"""A cache that agents read: slots of several caches side by side, each with a weight of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor

from gcache.cache.kv_cache import KVCache, of_one_model, require_same_batch
from gcache.cache.rope import Rope
from gcache.errors import ConfigError
from gcache.runtime.transfers import all_moved


def _joined(name: str, dim: int) -> Any:
    """A property of a `FusedCache`: what its parts have under that name, side by side along `dim`."""

    def join(cache: FusedCache) -> Tensor:
        pieces = [getattr(part, name) for part in cache.parts]
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim=dim)

    return property(join)


@dataclass(frozen=True, repr=False, eq=False, init=False)
class FusedCache(KVCache):
    """A cache that was merged from several: every slot also has a log-weight.

    It keeps the caches it was joined from as they are: joining copies nothing, and a prefix that
    many fused caches share is held once. `keys` and `values` put the parts side by side anew at
    every access; what reads them once per pass goes through `parts`.

    Attributes:
        parts: the caches it is made of, in order, of the same number of sequences.
        biases: (B, T_i) float32 for each part, added to the attention logits of its slots in
            every layer; log w for the slots of an edge of weight w, 0 for plain ones. Gradient
            flows through it.

    Args:
        keys, ..., ordinals: as for `KVCache`: a cache of one part.
        bias: (B, T), its log-weights.
    """

    bias: Tensor
    is_weighted: ClassVar[bool] = True

    def __init__(
        self,
        keys: Tensor,
        values: Tensor,
        positions: Tensor,
        mask: Tensor,
        kinds: Tensor,
        owners: Tensor,
        ordinals: Tensor,
        bias: Tensor,
    ) -> None:
        part = KVCache(keys, values, positions, mask, kinds, owners, ordinals)
        if bias.shape != mask.shape:
            raise ConfigError(f"bias must be (B, T) = {tuple(mask.shape)} like the keys, got {tuple(bias.shape)}")
        self._set((part,), (bias,))

    # of each instance; ClassVar keeps them from being fields, which `replace` would pass on
    parts: ClassVar[tuple[KVCache, ...]]
    biases: ClassVar[tuple[Tensor, ...]]

    def _set(self, parts: tuple[KVCache, ...], biases: tuple[Tensor, ...]) -> None:
        object.__setattr__(self, "parts", parts)
        object.__setattr__(self, "biases", biases)

    @classmethod
    def of_parts(cls, parts: Sequence[KVCache], biases: Sequence[Tensor]) -> FusedCache:
        """Plain caches and their log-weights, one after another, without a copy."""
        made = cls.__new__(cls)
        made._set(tuple(parts), tuple(biases))
        return made

    @classmethod
    def plain(cls, cache: KVCache) -> FusedCache:
        """The cache itself, every slot at weight 1."""
        if isinstance(cache, FusedCache):
            return cache
        return cls.of_parts((cache,), (torch.zeros((), device=cache.mask.device).expand(cache.mask.shape),))

    @cached_property
    def makers(self) -> frozenset[int]:
        return frozenset().union(*(part.makers for part in self.parts))

    @cached_property
    def nbytes(self) -> int:
        return sum(part.nbytes for part in self.parts)

    def weighted(self, log_weight: Tensor) -> FusedCache:
        """Every slot's log-weight raised by `log_weight`."""
        return self.of_parts(self.parts, [bias + log_weight for bias in self.biases])

    # -- what a KVCache has, put together from the parts ------------------------------------

    keys = _joined("keys", 3)
    values = _joined("values", 3)
    positions = _joined("positions", 1)
    mask = _joined("mask", 1)
    kinds = _joined("kinds", 1)
    owners = _joined("owners", 1)
    ordinals = _joined("ordinals", 1)

    @property  # type: ignore[no-redef]
    def bias(self) -> Tensor:
        return self.biases[0] if len(self.biases) == 1 else torch.cat(self.biases, dim=1)

    @cached_property
    def shape(self) -> tuple[int, int, int, int, int]:
        layers, batch, heads, _, dim = self.parts[0].shape
        return layers, batch, heads, sum(part.slots for part in self.parts), dim

    @property
    def dtype(self) -> torch.dtype:
        return self.parts[0].dtype

    @cached_property
    def next_positions(self) -> Tensor:
        return torch.stack([part.next_positions for part in self.parts]).amax(dim=0)

    def take(self, columns: Tensor) -> FusedCache:
        if columns.dtype != torch.bool:
            return self.of_parts((self.dense().take(columns),), (self.bias.index_select(1, columns),))
        wanted = columns.split([part.slots for part in self.parts])
        return self.join(
            [
                self.of_parts((part if bool(own.all()) else part.take(own),), (bias[:, own],))
                for part, bias, own in zip(self.parts, self.biases, wanted, strict=True)
            ]
        )

    def first_layers(self, count: int) -> FusedCache:
        return self.of_parts([part.first_layers(count) for part in self.parts], self.biases)

    def shift(self, offset: int | Tensor, rope: Rope) -> FusedCache:
        return self.of_parts([part.shift(offset, rope) for part in self.parts], self.biases)

    def to(self, device: torch.device) -> FusedCache:
        if all(part.keys.device == device for part in self.parts):
            return self
        return self.of_parts([part.to(device) for part in self.parts], all_moved(self.biases, device))

    def detach(self) -> FusedCache:
        return self.of_parts([part.detach() for part in self.parts], [bias.detach() for bias in self.biases])

    def dense(self) -> KVCache:
        """One plain cache of all parts, copied if there are several."""
        return self.parts[0] if len(self.parts) == 1 else KVCache.join(self.parts)

    def unbatch(self) -> list[KVCache]:
        dense, bias = self.dense(), self.bias
        rows = dense.unbatch()
        return [self.of_parts((row,), (bias[b : b + 1, dense.mask[b]],)) for b, row in enumerate(rows)]

    def pad_to(self, slots: int) -> FusedCache:
        extra = slots - self.slots
        if extra <= 0:
            return self
        bias = torch.nn.functional.pad(self.bias, (0, extra))
        return self.of_parts((self.dense().pad_to(slots),), (bias,))

    @classmethod
    def join(cls, caches: Sequence[KVCache]) -> FusedCache:
        fused = [cls.plain(cache) for cache in of_one_model(caches)]
        require_same_batch(fused)
        full = [cache for cache in fused if cache.slots] or fused[:1]
        return cls.of_parts(
            [part for cache in full for part in cache.parts], [bias for cache in full for bias in cache.biases]
        )

    @classmethod
    def batch(cls, caches: Sequence[KVCache]) -> FusedCache:
        fused = [cls.plain(cache) for cache in of_one_model(caches)]
        longest = max(cache.slots for cache in fused)
        padded = [cache.pad_to(longest) for cache in fused]
        bias = torch.cat([cache.bias for cache in padded])
        return cls.of_parts((KVCache.batch([cache.dense() for cache in padded]),), (bias,))
