"""Numbers and tensors that go from the host to a device and back, with as few waits as there can be.

A copy from ordinary memory to a GPU makes the host wait for all that the GPU has to do. A copy from pinned memory does
not: torch keeps that memory until the copy is done. The other way the host must wait, once, before it looks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def to_device(numbers: Sequence[Any], device: torch.device, dtype: torch.dtype = torch.long) -> Tensor:
    """A tensor of the host's numbers on a device; the host does not wait for it."""
    return moved(torch.tensor(numbers, dtype=dtype), device)


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor on a device, itself where it is there already. To a GPU the host does not wait; to the host it does."""
    if tensor.device == device or device.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    return tensor.detach().pin_memory().to(device, non_blocking=True)
