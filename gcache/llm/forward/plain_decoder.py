"""A Llama-shaped decoder without the machinery around it: the passes that learn nothing.

    h <- h + W_o attend(rope(W_q n), rope(W_k n), W_v n)      n = norm(h)
    h <- h + W_down( silu(W_gate n) * W_up n )                n = norm(h)

Some models (Qwen3) normalise each head's queries and keys before they are rotated. The same weights as in transformers'
own module, and the same arithmetic but for the rounding between operations; what is left out is what a decoding step of
a small model spends much of its time on: a call, a dictionary of options and a tuple of results per layer and part, and
on a GPU every operator that is started. Models of another shape go through transformers.
"""

from __future__ import annotations

import copy
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.functional import rms_norm, silu

from gcache.llm.forward.attention import masked_attention

#: transformers' decoders that are computed as above, with or without biases of queries, keys and values.
KNOWN = ("LlamaModel", "Qwen2Model", "Qwen3Model")
#: In passes of up to so many tokens a row, the heads of a group are attended to as queries of one
#: head, if that makes at least so many: their keys are read once then. On a CPU (16 rows, 400 slots)
#: 7 queries take 0.44 ms a layer that way, against 0.68; 3 take 0.86 against 0.70.
MOST_FOLDED, LEAST_FOLDED = 8, 5


class Slots(Protocol):
    """Where a layer's fresh keys and values go."""

    def update(self, keys: Tensor, values: Tensor, layer_idx: int) -> tuple[Tensor, Tensor]: ...


def is_known(decoder: Any) -> bool:
    """Whether a transformers base model is of the shape that is computed here."""
    config = decoder.config
    return type(decoder).__name__ in KNOWN and config.hidden_act == "silu"


def head_norms(attention: Any) -> tuple[Tensor | None, Tensor | None]:
    """(D,) weights of the norms of each head's queries and keys; none in most models."""
    norms = (getattr(attention, name, None) for name in ("q_norm", "k_norm"))
    query, key = (None if norm is None else norm.weight for norm in norms)
    return query, key


class PlainDecoder:
    """The forward pass of a decoder of a known shape, without gradient.

    Args:
        decoder: the transformers base model; its modules are used as they are.
    """

    def __init__(self, decoder: Any) -> None:
        self.rotary = decoder.rotary_emb
        self.final_norm = decoder.norm.weight
        self.epsilon: float = decoder.norm.variance_epsilon
        self.dim: int = decoder.layers[0].self_attn.head_dim
        self.scale: float = decoder.layers[0].self_attn.scaling
        self.group: int = decoder.config.num_attention_heads // decoder.config.num_key_value_heads
        self.layers = [
            (
                layer.input_layernorm.weight,
                *(getattr(layer.self_attn, f"{name}_proj").forward for name in "qkvo"),
                *head_norms(layer.self_attn),
                layer.post_attention_layernorm.weight,
                *(getattr(layer.mlp, f"{name}_proj").forward for name in ("gate", "up", "down")),
            )
            for layer in decoder.layers
        ]

    def first_layers(self, count: int) -> PlainDecoder:
        """The same with the first layers alone; weights are shared."""
        few = copy.copy(self)
        few.layers = self.layers[:count]
        return few

    def __call__(self, embeds: Tensor, mask: Tensor, positions: Tensor, slots: Slots) -> Tensor:
        """(B, S, E) hidden states after the final norm.

        Args:
            embeds: (B, S, E). mask: (B, 1, S, T), additive. positions: (B, S).
            slots: gets each layer's fresh (B, H_kv, S, D) and returns all (B, H_kv, T, D).
        """
        states = embeds
        batch, width, _ = states.shape
        least = LEAST_FOLDED if states.device.type == "cpu" else 1  # a GPU's kernels may know no groups
        group = self.group if width <= MOST_FOLDED and width * self.group >= least else 1
        mask = mask.repeat(1, 1, group, 1) if group > 1 else mask
        cos, sin = (angles[:, None] for angles in self.rotary(states, positions))  # (B, 1, S, D)
        first, second = sin.chunk(2, dim=-1)
        sin = torch.cat((-first, second), dim=-1)
        for number, layer in enumerate(self.layers):
            norm, query, key, value, out, query_norm, key_norm, mlp_norm, gate, up, down = layer
            normed = self._norm(states, norm)
            queries, keys, values = (
                product(normed).view(batch, width, -1, self.dim).transpose(1, 2) for product in (query, key, value)
            )
            if query_norm is not None:
                queries, keys = self._norm(queries, query_norm), self._norm(keys, key_norm)
            keys, values = slots.update(_rotated(keys, cos, sin), values, number)
            queries = _rotated(queries, cos, sin)
            if group > 1:  # the heads of a group, side by side, as queries of the same keys
                queries = queries.reshape(batch, -1, group * width, self.dim)
            mixed = masked_attention(queries, keys, values, mask, self.scale).reshape(batch, -1, width, self.dim)
            states = states + out(mixed.transpose(1, 2).reshape(batch, width, -1))
            normed = self._norm(states, mlp_norm)
            states = states + down(silu(gate(normed)) * up(normed))
        return self._norm(states, self.final_norm)

    def _norm(self, states: Tensor, weight: Tensor) -> Tensor:
        return rms_norm(states, weight.shape, weight, self.epsilon)


def _rotated(heads: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """RoPE of (B, H, S, D) in the halves convention; the first half of `sin` is negated."""
    return torch.addcmul(heads * cos, heads.roll(heads.shape[-1] // 2, -1), sin)
