"""Weights in the layout that a CPU's matrix units read.

In bf16 a CPU with matrix units multiplies blocks; a weight that is stored row by row is put into
blocks anew at every product, which for the few rows of a decoding step costs about as much as the
product. Here every linear layer keeps a second copy that is in blocks already (oneDNN's, through
torch). Passes with gradient use the plain weight.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from gcache.llm.forward.second_copy import SecondCopy, is_plain_linear

#: Rows of the products that the blocks are chosen for: those of a decoding step.
ROWS = 16
#: oneDNN 3.x multiplies 17 to 32 rows by blocks made for 16 in half as much time again as it takes for
#: 33 (102 ms against 74 for all layers of a half-billion model), so these are padded.
SLOW = range(ROWS + 1, 2 * ROWS + 1)


class PackedLinear(SecondCopy):
    """A frozen linear layer with its weight in blocks beside the plain one.

    Args:
        plain: the layer, in bf16 on a CPU.
    """

    def __init__(self, plain: nn.Linear) -> None:
        super().__init__(plain)
        self.packed = torch.ops.mkldnn._reorder_linear_weight(plain.weight.detach(), ROWS)
        self.on = True

    def product(self, states: Tensor) -> Tensor:
        if not self.on:
            return self.plain_product(states)
        rows = states.numel() // states.shape[-1]
        if rows not in SLOW:
            return self._product(states)
        padded = states.new_zeros((SLOW.stop, states.shape[-1]))
        padded[:rows] = states.reshape(rows, -1)
        return self._product(padded)[:rows].view(*states.shape[:-1], -1)

    def _product(self, states: Tensor) -> Tensor:
        product: Tensor = torch.ops.mkldnn._linear_pointwise(states, self.packed, self.plain.bias, "none", [], "")
        return product


def can_pack(model: Any) -> bool:
    """Whether this machine, this torch and this model's weights allow it."""
    weight = model.get_input_embeddings().weight
    return (
        weight.device.type == "cpu"
        and weight.dtype == torch.bfloat16
        and torch.backends.mkldnn.is_available()
        and torch.ops.mkldnn._is_mkldnn_bf16_supported()
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
    )


def pack(model: Any) -> None:
    """Give every linear layer of a frozen model its second copy (once); not those that hooks do something more for."""
    layers = [(name, layer) for name, layer in model.named_modules() if is_plain_linear(layer)]
    for name, layer in layers:
        parent, _, own = name.rpartition(".")
        if not isinstance(model.get_submodule(parent), PackedLinear):
            setattr(model.get_submodule(parent), own, PackedLinear(layer))


def use_packed(model: Any, on: bool) -> None:
    """Switch between the two copies, for all layers that have them."""
    for layer in model.modules():
        if isinstance(layer, PackedLinear):
            layer.on = on
