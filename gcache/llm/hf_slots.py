"""The only place where caches become transformers' own: a layer store that remembers new slots.

transformers hands each layer's fresh keys and values to `update` and attends over what comes
back. Past slots are given at the start; new ones are appended, either by writing into a block
reserved beforehand (decoding) or by concatenation (where gradients must flow).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class SlotStore:
    """Past and new slots of a batch during forward passes, in the form transformers asks for.

    Args:
        keys, values: (L, B, H, T, D) of the past, or None where there is none.
        reserve: how many new slots to make room for; 0 appends by concatenation instead.
    """

    def __init__(self, keys: Tensor | None, values: Tensor | None, reserve: int = 0) -> None:
        self.reserve = reserve
        self.past = 0 if keys is None else int(keys.shape[3])
        self.used: dict[int, int] = {}
        self.keys: dict[int, Tensor] = {}
        self.values: dict[int, Tensor] = {}
        if keys is not None and values is not None:
            # unbind, not indexing: its gradient is one stack, not a block of zeros per layer
            for layer, (key, value) in enumerate(zip(keys.unbind(), values.unbind(), strict=True)):
                self.keys[layer], self.values[layer] = self._room(key), self._room(value)
                self.used[layer] = self.past

    def _room(self, tensor: Tensor) -> Tensor:
        if not self.reserve:
            return tensor
        batch, heads, slots, dim = tensor.shape
        block = tensor.new_empty((batch, heads, slots + self.reserve, dim))
        block[:, :, :slots] = tensor
        return block

    def update(self, keys: Tensor, values: Tensor, layer_idx: int, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Called by each attention layer with its new slots (B, H, S, D); returns all slots."""
        if layer_idx not in self.keys:
            empty = keys.new_empty((*keys.shape[:2], 0, keys.shape[3]))
            self.keys[layer_idx], self.values[layer_idx] = self._room(empty), self._room(empty)
            self.used[layer_idx] = 0
        start, stop = self.used[layer_idx], self.used[layer_idx] + keys.shape[2]
        if self.reserve:
            self.keys[layer_idx][:, :, start:stop] = keys
            self.values[layer_idx][:, :, start:stop] = values
        else:
            self.keys[layer_idx] = torch.cat((self.keys[layer_idx], keys), dim=2)
            self.values[layer_idx] = torch.cat((self.values[layer_idx], values), dim=2)
        self.used[layer_idx] = stop
        return self.keys[layer_idx][:, :, :stop], self.values[layer_idx][:, :, :stop]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self.used.get(layer_idx, 0)

    def get_max_cache_shape(self, layer_idx: int = 0) -> int:
        return -1

    @property
    def is_compileable(self) -> bool:
        return False

    def new_slots(self) -> tuple[Tensor, Tensor]:
        """(L, B, H, S, D) keys and values of everything appended since the start."""
        layers = sorted(self.keys)
        keys = torch.stack([self.keys[n][:, :, self.past : self.used[n]] for n in layers])
        values = torch.stack([self.values[n][:, :, self.past : self.used[n]] for n in layers])
        return keys, values

    def select_rows(self, rows: Tensor) -> None:
        """Keep only these sequences of the batch."""
        for layer in self.keys:
            self.keys[layer] = self.keys[layer].index_select(0, rows)
            self.values[layer] = self.values[layer].index_select(0, rows)
