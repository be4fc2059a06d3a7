"""Where transformers is handed a batch: its passes, what it asks of a cache, and the cache of passes
in which gradients must flow.

transformers hands each layer's fresh keys and values to `update` and attends over what comes
back. `SlotStore` writes nothing in place: fresh slots are appended by concatenation.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from gcache.llm.forward.attention import ALIGNED, weighted_keys


class TransformersCache:
    """What transformers asks of any cache, beside `update` and `get_seq_length`."""

    is_compileable = False

    def get_max_cache_shape(self, layer_idx: int = 0) -> int:
        return -1


class TransformersDecoder:
    """The passes of a transformers base model (without its head), one cache and no options.

    Args:
        model: the base model.
    """

    def __init__(self, model: Any) -> None:
        self.model = model

    def first_layers(self, count: int) -> TransformersDecoder:
        """The same with the first layers alone; weights are shared."""
        few = copy.copy(self.model)  # shares its dictionary of modules with the model
        few._modules = dict(self.model._modules)
        few.layers = self.model.layers[:count]
        return TransformersDecoder(few)

    def __call__(self, embeds: Tensor, mask: Tensor, positions: Tensor, slots: TransformersCache) -> Tensor:
        """(B, S, E) hidden states after the final norm; arguments as for `PlainDecoder`."""
        output = self.model(
            inputs_embeds=embeds, attention_mask=mask, position_ids=positions, past_key_values=slots, use_cache=True
        )
        hidden: Tensor = output.last_hidden_state
        return hidden


def lowest(dtype: torch.dtype) -> float:
    """A log-weight that blocks a slot, finite in float32 and in the model's own dtype."""
    return float(max(torch.finfo(dtype).min, torch.finfo(torch.float32).min)) / 4


class SlotStore(TransformersCache):
    """Past and new slots of a batch.

    Args:
        keys, values: (L, B, H, T, D) of the past, or None where there is none.
        log_weights: (B, T) of the past's slots, where they are to be a dimension of the keys; see
            `gcache.llm.forward.attention`. New slots have 0.
    """

    def __init__(self, keys: Tensor | None, values: Tensor | None, log_weights: Tensor | None = None) -> None:
        self.past = 0 if keys is None else int(keys.shape[3])
        self.log_weights = log_weights
        self.keys: dict[int, Tensor] = {}
        self.values: dict[int, Tensor] = {}
        if keys is not None and values is not None:
            # unbind, not indexing: its gradient is one stack, not a block of zeros per layer
            self.keys, self.values = dict(enumerate(keys.unbind())), dict(enumerate(values.unbind()))

    def update(self, keys: Tensor, values: Tensor, layer_idx: int, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Called by each attention layer with its new slots (B, H, S, D); returns all slots."""
        if layer_idx in self.keys:
            keys = torch.cat((self.keys[layer_idx], keys), dim=2)
            values = torch.cat((self.values[layer_idx], values), dim=2)
        self.keys[layer_idx], self.values[layer_idx] = keys, values
        if self.log_weights is not None:
            log_weights = pad(self.log_weights, (0, keys.shape[2] - self.past))
            keys = weighted_keys(keys, log_weights, 1 if keys.device.type == "cpu" else ALIGNED)
        return keys, values

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return int(self.keys[layer_idx].shape[2]) if layer_idx in self.keys else 0

    def new_slots(self) -> tuple[Tensor, Tensor]:
        """(L, B, H, S, D) keys and values of everything appended since the start."""
        layers = sorted(self.keys)
        keys = torch.stack([self.keys[n][:, :, self.past :] for n in layers])
        values = torch.stack([self.values[n][:, :, self.past :] for n in layers])
        return keys, values
