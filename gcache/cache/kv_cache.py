"""The one thing that flows between agents: a KV cache that knows what its slots are.

A cache carries its own mask and positions everywhere, so that nothing downstream ever has to
guess them from a length: wrong guesses (all-ones masks over padding, positions counted from the
number of slots) are what makes published latent multi-agent code wrong when batched.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from enum import IntEnum
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from gcache.cache.rope import Rope
from gcache.errors import ConfigError
from gcache.runtime.transfers import all_moved

#: `owner` of the slots of the question, which belong to no agent.
SHARED = -1


class SlotKind(IntEnum):
    """What a slot holds."""

    PREFIX = 0  # the question, the same for all agents
    PROMPT = 1  # an agent's instructions and private notes
    LATENT = 2  # a latent step
    TEXT = 3  # a generated token


@dataclass(frozen=True, repr=False, eq=False)
class KVCache:
    """Keys and values of every layer for B sequences of T slots. Immutable.

    Attributes:
        keys: (L, B, H_kv, T, D), rotated to `positions`.
        values: (L, B, H_kv, T, D).
        positions: (B, T) int64, the RoPE position of each slot.
        mask: (B, T) bool, False where a slot is padding.
        kinds: (B, T) int64, a `SlotKind`.
        owners: (B, T) int64, the node of the graph that made the slot, or `SHARED`.
        ordinals: (B, T) int64, the slot's number among those of its owner. (owner, ordinal)
            names a slot for life: a shift changes its position, never its name.

    Raises:
        ConfigError: shapes that do not agree.
    """

    keys: Tensor
    values: Tensor
    positions: Tensor
    mask: Tensor
    kinds: Tensor
    owners: Tensor
    ordinals: Tensor
    #: Whether slots have weights, which a plain cache cannot hold.
    is_weighted: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.keys.dim() != 5 or self.keys.shape != self.values.shape:
            raise ConfigError(
                f"keys and values must both be (L, B, H, T, D), got {tuple(self.keys.shape)} "
                f"and {tuple(self.values.shape)}"
            )
        expected = (self.keys.shape[1], self.keys.shape[3])
        for name in self._slot_fields():
            shape = tuple(getattr(self, name).shape)
            if shape != expected:
                raise ConfigError(f"{name} must be (B, T) = {expected} like the keys, got {shape}")

    @classmethod
    def _slot_fields(cls) -> tuple[str, ...]:
        """Names of the (B, T) tensors, those of subclasses included."""
        return tuple(f.name for f in fields(cls) if f.name not in ("keys", "values"))

    def __repr__(self) -> str:
        layers, batch, heads, slots, dim = self.shape
        return f"{type(self).__name__}(L={layers}, B={batch}, H={heads}, T={slots}, D={dim}, {self.dtype})"

    # -- size -----------------------------------------------------------------------------

    @cached_property
    def shape(self) -> tuple[int, int, int, int, int]:
        """(L, B, H_kv, T, D)."""
        layers, batch, heads, slots, dim = self.keys.shape
        return layers, batch, heads, slots, dim

    @property
    def dtype(self) -> torch.dtype:
        """Of keys and values."""
        return self.keys.dtype

    @property
    def batch_size(self) -> int:
        return self.shape[1]

    @property
    def slots(self) -> int:
        """T, padding included."""
        return self.shape[3]

    @property
    def lengths(self) -> Tensor:
        """(B,) number of valid slots."""
        return self.mask.sum(dim=1)

    @cached_property
    def next_positions(self) -> Tensor:
        """(B,) the position after the last occupied one; 0 for an empty sequence."""
        if self.slots == 0:
            return torch.zeros(self.batch_size, dtype=torch.long, device=self.positions.device)
        return self.positions.masked_fill(~self.mask, -1).amax(dim=1) + 1

    @cached_property
    def makers(self) -> frozenset[int]:
        """The owners of its slots, over all sequences."""
        return frozenset(self.owners.unique().tolist())

    @cached_property
    def nbytes(self) -> int:
        """Bytes of keys and values of the valid slots."""
        layers, _, heads, _, dim = self.shape
        return int(self.lengths.sum()) * layers * heads * dim * 2 * self.dtype.itemsize

    # -- moving, choosing -----------------------------------------------------------------

    def shift(self, offset: int | Tensor, rope: Rope) -> KVCache:
        """The same slots `offset` positions later: an int, or (B,) one per sequence.

        Raises:
            ConfigError: caches of that model must stay where they were computed.
        """
        rope.require_movable()
        amount = torch.as_tensor(offset, device=self.positions.device)
        per_slot = amount.reshape(-1, 1).expand(self.positions.shape)  # (B, T)
        keys = rope.rotate(self.keys, per_slot.unsqueeze(1))  # angles (B, 1, T, R/2)
        return replace(self, keys=keys, positions=self.positions + per_slot)

    def take(self, columns: Tensor) -> KVCache:
        """The slots `columns` (int indices or a (T,) bool mask) of every sequence."""
        index = columns.nonzero().squeeze(1) if columns.dtype == torch.bool else columns
        changes = {name: getattr(self, name).index_select(1, index) for name in self._slot_fields()}
        return replace(
            self, keys=self.keys.index_select(3, index), values=self.values.index_select(3, index), **changes
        )

    def first_layers(self, count: int) -> KVCache:
        """What the model's first so many layers have of the same slots."""
        return replace(self, keys=self.keys[:count], values=self.values[:count])

    def of_kind(self, *kinds: SlotKind) -> KVCache:
        """Only the slots of these kinds, of a single sequence.

        Raises:
            ConfigError: for a batch, whose rows would keep different numbers of slots.
        """
        self._require_single("of_kind")
        wanted = torch.zeros_like(self.mask[0])
        for kind in kinds:
            wanted |= self.kinds[0] == kind
        return self.take(wanted)

    def to(self, device: torch.device) -> KVCache:
        """The same cache on another device, itself where it is there already; see `gcache.runtime.transfers`."""
        if self.keys.device == device:
            return self
        names = ("keys", "values", *self._slot_fields())
        tensors = all_moved([getattr(self, name) for name in names], device)
        return replace(self, **dict(zip(names, tensors, strict=True)))

    def detach(self) -> KVCache:
        return replace(self, keys=self.keys.detach(), values=self.values.detach())

    def _require_single(self, what: str) -> None:
        if self.batch_size != 1:
            raise ConfigError(f"{what} takes a cache of one sequence, got {self.batch_size}; unbatch it first")

    # -- putting together -----------------------------------------------------------------

    def unbatch(self) -> list[KVCache]:
        """One cache per sequence, without padding."""
        rows: list[KVCache] = []
        for b in range(self.batch_size):
            changes = {name: getattr(self, name)[b : b + 1] for name in self._slot_fields()}
            row = replace(self, keys=self.keys[:, b : b + 1], values=self.values[:, b : b + 1], **changes)
            rows.append(row if bool(row.mask.all()) else row.take(row.mask[0]))
        return rows

    @classmethod
    def batch(cls, caches: Sequence[KVCache]) -> KVCache:
        """Sequences side by side, padded at the end to the longest.

        Raises:
            ConfigError: no caches, or caches of different models.
        """
        caches = of_one_model(caches)
        cls._require_plain(caches)
        longest = max(cache.slots for cache in caches)
        padded = [cache.pad_to(longest) for cache in caches]
        changes = {name: torch.cat([getattr(c, name) for c in padded]) for name in cls._slot_fields()}
        return replace(
            padded[0],
            keys=torch.cat([c.keys for c in padded], dim=1),
            values=torch.cat([c.values for c in padded], dim=1),
            **changes,
        )

    @classmethod
    def join(cls, caches: Sequence[KVCache]) -> KVCache:
        """Slots of the same sequences one after another; positions stay as they are.

        Raises:
            ConfigError: no caches, or caches of different models or numbers of sequences.
        """
        caches = of_one_model(caches)
        cls._require_plain(caches)
        require_same_batch(caches)
        if len(caches) == 1:
            return caches[0]
        changes = {name: torch.cat([getattr(c, name) for c in caches], dim=1) for name in cls._slot_fields()}
        return replace(
            caches[0],
            keys=torch.cat([c.keys for c in caches], dim=3),
            values=torch.cat([c.values for c in caches], dim=3),
            **changes,
        )

    def pad_to(self, slots: int) -> KVCache:
        """Invalid slots appended up to `slots`."""
        extra = slots - self.slots
        if extra <= 0:
            return self
        pad = torch.nn.functional.pad
        changes = {name: pad(getattr(self, name), (0, extra)) for name in self._slot_fields()}
        return replace(
            self, keys=pad(self.keys, (0, 0, 0, extra)), values=pad(self.values, (0, 0, 0, extra)), **changes
        )

    @staticmethod
    def _require_plain(caches: Sequence[KVCache]) -> None:
        if any(cache.is_weighted for cache in caches):
            raise ConfigError("a fused cache has weights that a KVCache cannot hold; use FusedCache.join or .batch")


def of_one_model(caches: Sequence[KVCache]) -> Sequence[KVCache]:
    """The caches, if there are any and all are of one model."""
    if not caches:
        raise ConfigError("no caches to put together; pass at least one")
    shapes = {(c.shape[0], c.shape[2], c.shape[4], c.dtype) for c in caches}
    if len(shapes) > 1:
        seen = "; ".join(f"{n} layers, {h} heads of {d}, {t}" for n, h, d, t in sorted(shapes, key=str))
        raise ConfigError(f"caches of different models cannot be put together: {seen}")
    return caches


def require_same_batch(caches: Sequence[KVCache]) -> None:
    if len({cache.batch_size for cache in caches}) > 1:
        sizes = ", ".join(str(cache.batch_size) for cache in caches)
        raise ConfigError(f"joined caches must have the same number of sequences, got {sizes}")
