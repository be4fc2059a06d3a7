"""Linear layers of a frozen model that keep their weight twice: as it is, and as passes without gradient read it
fastest."""

from __future__ import annotations

from typing import TypeGuard

import torch
from torch import Tensor, nn
from torch.nn.functional import linear


class SecondCopy(nn.Module):
    """A linear layer with another copy of its weight. Where gradients flow the plain one counts.

    Args:
        plain: the layer.
    """

    def __init__(self, plain: nn.Linear) -> None:
        super().__init__()
        self.plain = plain

    @property
    def weight(self) -> Tensor:
        return self.plain.weight

    @property
    def bias(self) -> Tensor | None:
        return self.plain.bias

    def forward(self, states: Tensor) -> Tensor:
        """(..., E_in) to (..., E_out)."""
        return self.plain_product(states) if torch.is_grad_enabled() else self.product(states)

    def plain_product(self, states: Tensor) -> Tensor:
        return linear(states, self.plain.weight, self.plain.bias)

    def product(self, states: Tensor) -> Tensor:
        """By the other copy, without gradient."""
        raise NotImplementedError


def is_plain_linear(layer: object) -> TypeGuard[nn.Linear]:
    """Whether a layer does nothing but multiply: a quantized layer is of another type, and hooks do something more."""
    return type(layer) is nn.Linear and not (layer._forward_hooks or layer._forward_pre_hooks)
