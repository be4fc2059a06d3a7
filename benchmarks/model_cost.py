"""What a decoder must compute and read at the least."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ModelCost:
    """Sizes of a transformers causal model.

    Attributes:
        layer_parameters: of all layers, without embeddings and output head.
        layer_bytes, head_bytes: of the weights that a decoded token needs.
        layers, query_width, kv_heads, head_dim: of its attention; query_width is H * D.
        element: bytes of a cached number.
        largest_linear: (K, N) of its largest linear map within a layer.
    """

    layer_parameters: int
    layer_bytes: int
    head_bytes: int
    layers: int
    query_width: int
    kv_heads: int
    head_dim: int
    element: int
    largest_linear: tuple[int, int]

    @classmethod
    def of(cls, model: Any, cache_shape: tuple[int, int, int]) -> ModelCost:
        """Of a model and its (L, H_kv, D)."""
        from torch import nn

        layers, kv_heads, head_dim = cache_shape
        weights = [*model.model.layers.parameters(), *model.model.norm.parameters()]
        linears = [m for m in model.model.layers.modules() if isinstance(m, nn.Linear)]
        largest = max(linears, key=lambda linear: linear.weight.numel())
        head = model.get_output_embeddings().weight
        return cls(
            layer_parameters=sum(w.numel() for w in weights),
            layer_bytes=sum(w.numel() * w.element_size() for w in weights),
            head_bytes=head.numel() * head.element_size(),
            layers=layers,
            query_width=model.config.num_attention_heads * head_dim,
            kv_heads=kv_heads,
            head_dim=head_dim,
            element=head.element_size(),
            largest_linear=(largest.in_features, largest.out_features),
        )

    def prefill_flops(self, lengths: Sequence[int]) -> float:
        """To read prompts of these lengths: 2 per weight and token, and causal attention, whose
        scores and mixing take 2 H D each per pair of slots."""
        pairs = sum(length * (length + 1) / 2 for length in lengths)
        return 2.0 * self.layer_parameters * sum(lengths) + 4.0 * self.layers * self.query_width * pairs

    def step_bytes(self, slots: float) -> float:
        """To decode one token per row of a batch that has `slots` cached slots in all: every weight
        and the output head once, every slot's keys and values once."""
        per_slot = 2 * self.layers * self.kv_heads * self.head_dim * self.element
        return self.layer_bytes + self.head_bytes + slots * per_slot

    def step_flops(self, rows: int, slots: float) -> float:
        """To decode one token per row of such a batch: 2 per weight and row, and attention as for `prefill_flops`."""
        weights = self.layer_parameters + self.head_bytes / self.element
        return 2.0 * weights * rows + 4.0 * self.layers * self.query_width * slots
