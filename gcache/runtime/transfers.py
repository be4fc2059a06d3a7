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
    (found,) = all_moved([tensor], device)
    return found


def all_moved(tensors: Sequence[Tensor], device: torch.device) -> list[Tensor]:
    """Tensors on a device, each itself where it is there already.

    From a GPU to the host they go side by side, and the host waits once, for the last; there they stay in pinned
    memory, from which they go back without another copy. One that carries gradient goes by itself.
    """
    found, waited_for = [], set()
    for tensor in tensors:
        kinds = (tensor.device.type, device.type)
        if tensor.device == device or "cuda" not in kinds or tensor.requires_grad:
            found.append(tensor.to(device))
        elif kinds == ("cpu", "cuda"):
            found.append(tensor.pin_memory().to(device, non_blocking=True))
        elif kinds == ("cuda", "cpu"):
            staged = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
            found.append(staged.copy_(tensor, non_blocking=True))
            waited_for.add(tensor.device)
        else:
            found.append(tensor.to(device, non_blocking=True))
    for each in waited_for:
        torch.cuda.current_stream(each).synchronize()
    return found
