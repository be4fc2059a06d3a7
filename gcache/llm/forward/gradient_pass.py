"""A batch on its way through a decoder with gradient: past slots, new slots, exact masks and positions.

The counterpart of `gcache.llm.forward.paged_batch`, where nothing is written in place. Rows are padded at the end, of
the past and of every chunk that is fed; a padded slot is never attended to, and every row counts positions from its
own past.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gcache.cache.fused_cache import FusedCache
from gcache.cache.kv_cache import KVCache, SlotKind
from gcache.llm.forward.attention import is_grouped
from gcache.llm.forward.hf_decoder import SlotStore, TransformersDecoder, lowest
from gcache.runtime.transfers import to_device


class GradientPass:
    """B sequences being continued.

    Args:
        decoder: the transformers base model (without its head).
        past: a batch of fused caches; of zero slots where there is none.
    """

    def __init__(self, decoder: Any, past: FusedCache) -> None:
        self.decoder = TransformersDecoder(decoder)
        bias, log_weights = past.bias, None
        if bias.requires_grad and is_grouped(decoder):
            bias, log_weights = torch.zeros_like(bias), torch.where(past.mask, bias, 0.0)
        self.store = SlotStore(past.keys, past.values, log_weights) if past.slots else SlotStore(None, None)
        self.dtype = past.dtype
        self.blocked = lowest(torch.float32)
        # (B, T so far) float32: what is added to the attention logits of each slot, beside log-weights in the keys
        self.bias = torch.where(past.mask, bias, torch.full_like(bias, self.blocked))
        self.next_positions = past.next_positions
        self.past_slots = past.slots

    def feed(self, embeds: Tensor, lengths: Tensor) -> Tensor:
        """Run a chunk (B, S, E), of which row b has `lengths[b]` real inputs, padded at the end.

        Returns (B, S, E) hidden states after the final norm.
        """
        _, width, _ = embeds.shape
        steps = torch.arange(width, device=embeds.device)
        real = steps < lengths[:, None]  # (B, S)
        fresh = torch.where(real, 0.0, self.blocked)
        self.bias = torch.cat((self.bias, fresh), dim=1)
        positions = self.next_positions[:, None] + steps
        self.next_positions = self.next_positions + lengths
        return self.decoder(embeds, self._mask(width), positions, self.store)

    def _mask(self, width: int) -> Tensor:
        """(B, 1, S, T) additive mask for the last `width` slots as queries, causal among them."""
        rows = self.bias[:, None, None, :].expand(-1, 1, width, -1)
        if width > 1:
            future = torch.full((width, width), self.blocked, device=self.bias.device).triu(1)
            future = torch.nn.functional.pad(future, (self.bias.shape[1] - width, 0))
            rows = (rows + future).clamp_min(self.blocked)
        return rows.clamp_min(lowest(self.dtype)).to(self.dtype)


def last_real(hidden: Tensor, lengths: Tensor) -> Tensor:
    """(B, E): of (B, S, E), each row's state at its last real input, never at a pad."""
    return hidden[torch.arange(hidden.shape[0], device=hidden.device), lengths - 1]


@dataclass(frozen=True)
class Chunk:
    """Slots that were fed together: (B,) real ones of each row, of so many with padding."""

    lengths: Tensor
    width: int
    kind: SlotKind


def own_slots(batch: GradientPass, start: Tensor, chunks: Sequence[Chunk], owners: Sequence[int]) -> KVCache:
    """What a batch appended, as a cache.

    Args:
        start: (B,) the position of each row's first new slot.
        chunks: all that was fed, in order.
    """
    keys, values = batch.store.new_slots()
    masks, ordinals, kinds = [], [], []
    before = torch.zeros_like(start)  # (B,) real slots of each row so far
    for chunk in chunks:
        columns = torch.arange(chunk.width, device=keys.device)
        masks.append(columns < chunk.lengths[:, None])  # (B, S)
        ordinals.append(before[:, None] + columns)
        kinds.append(torch.full_like(ordinals[-1], int(chunk.kind)))
        before = before + chunk.lengths
    mask, ordinal, kind = (torch.cat(each, dim=1) for each in (masks, ordinals, kinds))
    owner = to_device(owners, keys.device)[:, None].expand(mask.shape)
    return KVCache(keys, values, start[:, None] + ordinal, mask, kind, owner, ordinal)
