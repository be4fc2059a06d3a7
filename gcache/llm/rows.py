"""Sequences that a decoder continues side by side, without gradient: the caches of a batch.

Every row is a sequence of slots without a gap: what it received, its prompt, what it thought or
wrote. Rows of any lengths stand in one block per layer, each from the left; what lies beyond a
row's end is never attended to and is written over later. So rows join a running batch and leave
it, and batching changes nothing: a row sees its own slots at its own positions.

Blocks grow by a few slots at a time, one layer after another, and only by what is needed: the
cache of a batch is never held twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gcache.cache.kv_cache import FusedCache, KVCache, SlotKind
from gcache.llm.hf_slots import TransformersCache, TransformersDecoder, lowest
from gcache.llm.plain_decoder import PlainDecoder

#: Slots that blocks grow by when a row has reached their end.
GROWTH = 16
Decoder = PlainDecoder | TransformersDecoder


class Rows(TransformersCache):
    """A batch in flight, in the form in which transformers asks for a cache.

    Args:
        decoder: runs a pass.
        shape: (layers, key-value heads, head dimension).
    """

    def __init__(self, decoder: Decoder, shape: tuple[int, int, int], dtype: torch.dtype, device: torch.device) -> None:
        self.decoder = decoder
        layers, heads, dim = shape
        self.dtype = dtype
        # per layer (R, H, C, D), R rows of capacity C; rows from `count` on are unused
        self.keys = [torch.empty((0, heads, 0, dim), dtype=dtype, device=device) for _ in range(layers)]
        self.values = [torch.empty_like(block) for block in self.keys]
        self.bias = torch.zeros((0, 0), device=device)  # (R, C), added to the logits of each slot
        self.used = torch.zeros(0, dtype=torch.long, device=device)  # (R,) slots of each row
        self.positions = torch.zeros(0, dtype=torch.long, device=device)  # (R,) of each row's next slot
        self.count = 0
        self.longest = 0
        # of the pass going on: its rows, their numbers (n, 1), the fresh slots (n, S), the slots seen
        self._at: tuple[slice, Tensor, Tensor, int] | None = None

    @property
    def capacity(self) -> int:
        return int(self.bias.shape[1])

    @property
    def nbytes(self) -> int:
        """Bytes of keys and values, of unused room as well."""
        return sum(block.nbytes for block in (*self.keys, *self.values))

    # -- joining and leaving ------------------------------------------------------------------

    def add(self, pasts: Sequence[FusedCache | None], room: int) -> int:
        """New rows behind the others, with room for `room` slots; returns the first one's number."""
        first, slots = self.count, [0 if past is None else past.slots for past in pasts]
        self._resize(first + len(pasts), max(self.longest, max(slots) + room))
        blocked = lowest(self.dtype)
        for row, (past, length) in enumerate(zip(pasts, slots, strict=True), start=first):
            self.used[row] = length
            self.positions[row] = 0 if past is None else past.next_positions[0]
            self.bias[row] = 0.0
            if past is not None and length:
                self.bias[row, :length] = past.bias[0].clamp_min(blocked).masked_fill(~past.mask[0], blocked)
                self._copy_in(row, past)
        self.count += len(pasts)
        self.longest = max(self.longest, *slots)
        return first

    def _copy_in(self, row: int, past: FusedCache) -> None:
        start = 0
        for part in past.parts:
            stop = start + part.slots
            for layer, (keys, values) in enumerate(zip(part.keys[:, 0], part.values[:, 0], strict=True)):
                self.keys[layer][row, :, start:stop] = keys
                self.values[layer][row, :, start:stop] = values
            start = stop

    def _resize(self, rows: int, slots: int) -> None:
        """Room for so many rows of so many slots; whatever is there stays."""
        if rows > len(self.used) or slots > self.capacity:
            self._allocate(rows, max(slots, self.capacity))

    def _allocate(self, rows: int, capacity: int) -> None:
        """Blocks of exactly this size, one layer after another."""
        kept, width = self.count, min(self.longest, capacity)
        for blocks in (self.keys, self.values):
            for layer, old in enumerate(blocks):
                # zeros: a blocked slot has weight 0, and 0 times whatever memory held may be nan
                blocks[layer] = old.new_zeros((rows, old.shape[1], capacity, old.shape[3]))
                blocks[layer][:kept, :, :width] = old[:kept, :, :width]
        self.bias = grown(self.bias, (rows, capacity))
        self.used = grown(self.used, (rows,))
        self.positions = grown(self.positions, (rows,))

    def remove(self, gone: Sequence[int]) -> list[tuple[int, int]]:
        """Let rows leave; the last rows move into their places.

        Returns the moves made, (from, to), in order: whoever keeps something per row follows them.
        """
        moves: list[tuple[int, int]] = []
        for row in sorted(gone, reverse=True):
            self.count -= 1
            if row == self.count:
                continue
            moves.append((self.count, row))
            width = int(self.used[self.count])
            for blocks in (self.keys, self.values):
                for block in blocks:
                    block[row, :, :width] = block[self.count, :, :width]
            for per_row in (self.bias, self.used, self.positions):
                per_row[row] = per_row[self.count]
        self.longest = int(self.used[: self.count].max()) if self.count else 0
        if self.count <= len(self.used) // 2:
            self._allocate(self.count, self.longest)
        return moves

    # -- one pass -----------------------------------------------------------------------------

    def feed(self, embeds: Tensor, lengths: Tensor | None = None, first: int = 0) -> Tensor:
        """Continue rows first .. first + n by a chunk (n, S, E), padded at the end.

        Args:
            lengths: (n,) real inputs of each row; None where all are real.

        Returns (n, S, E) hidden states after the final norm. A pass that fails leaves the rows as
        they were.
        """
        count, width, _ = embeds.shape
        rows = slice(first, first + count)
        used = self.used[rows]
        # padded inputs write behind their row's end, where nothing is yet
        reach = self.longest + width if lengths is None else int(used.max()) + width
        if reach > self.capacity:
            self._resize(max(self.count, 1), reach + GROWTH if lengths is None else reach)
            used = self.used[rows]
        steps = torch.arange(width, device=embeds.device)
        slots = used[:, None] + steps  # (n, S)
        self._at = (rows, torch.arange(first, first + count, device=embeds.device)[:, None], slots, reach)
        hidden = self.decoder(embeds, self._mask(rows, slots, reach), self.positions[rows, None] + steps, self)
        added = width if lengths is None else lengths
        self.used[rows] += added
        self.positions[rows] += added
        self.longest = max(self.longest, reach if lengths is None else int(self.used[rows].max()))
        return hidden

    def take_back(self, slots: Tensor) -> None:
        """Forget so many of each row's last slots, (count,), as if they had not been fed."""
        self.used[: self.count] -= slots
        self.positions[: self.count] -= slots
        self.longest = int(self.used[: self.count].max())

    def _mask(self, rows: slice, slots: Tensor, reach: int) -> Tensor:
        """(n, 1, S, T) additive: each slot's bias up to the query's own slot, blocked beyond."""
        columns = torch.arange(reach, device=slots.device)
        seen = columns <= slots[:, :, None]  # (n, S, T)
        bias = self.bias[rows, None, :reach].expand(seen.shape)
        return torch.where(seen, bias, lowest(self.dtype)).to(self.dtype)[:, None]

    # -- what transformers asks of a cache ----------------------------------------------------

    def update(self, keys: Tensor, values: Tensor, layer_idx: int, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Write a layer's fresh (n, H, S, D) at their slots; returns the rows' slots so far."""
        assert self._at is not None
        rows, numbers, slots, reach = self._at
        key_block, value_block = self.keys[layer_idx], self.values[layer_idx]
        key_block[numbers, :, slots] = keys.transpose(1, 2)
        value_block[numbers, :, slots] = values.transpose(1, 2)
        return key_block[rows, :, :reach], value_block[rows, :, :reach]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self.longest

    # -- what was added -----------------------------------------------------------------------

    def slots_of(self, row: int, start: int, prompt: int, source: int, kind: SlotKind) -> KVCache:
        """A copy of a row's slots from `start` on, as a cache: `prompt` prompt slots, then latents."""
        stop = int(self.used[row])
        ordinals = torch.arange(stop - start, device=self.used.device)[None]
        kinds = torch.where(ordinals < prompt, int(kind), int(SlotKind.LATENT))
        return KVCache(
            torch.stack([block[row : row + 1, :, start:stop] for block in self.keys]),
            torch.stack([block[row : row + 1, :, start:stop] for block in self.values]),
            self.positions[row] - (stop - start) + ordinals,
            torch.ones_like(ordinals, dtype=torch.bool),
            kinds,
            torch.full_like(ordinals, source),
            ordinals,
        )


def grown(old: Tensor, shape: tuple[int, ...]) -> Tensor:
    """A copy in a block of another shape; what is new in it is 0."""
    new = old.new_zeros(shape)
    corner = tuple(slice(0, min(a, b)) for a, b in zip(old.shape, shape, strict=True))
    new[corner] = old[corner]
    return new
