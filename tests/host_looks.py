"""How often the host would wait for a GPU, counted on a CPU: what is computed goes through torch's dispatcher, and each
operation that needs a number of the device's, or whose shape depends on one, is known by its name.

    with HostLooks() as looks:
        decoding.step()
    assert looks.waits == {"tolist": 1}
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

#: Operations that a GPU cannot run without telling the host something first.
WAITING = frozenset(
    (
        "_local_scalar_dense", "item", "is_nonzero", "equal", "allclose", "nonzero", "nonzero_numpy", "argwhere",
        "masked_select", "masked_scatter", "unique", "_unique", "_unique2", "unique_dim", "unique_consecutive",
        "unique_dim_consecutive", "repeat_interleave", "bincount", "isin",
    )
)  # fmt: skip
#: Operations that wait where an index is a mask.
INDEXING = frozenset(("index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"))
#: Copies, which wait where they go from one device to another, unless they are told not to.
COPIES = frozenset(("_to_copy", "copy_"))
#: What takes numbers off the device at once; the first three need no operation on a CPU.
METHODS = ("tolist", "numpy", "__array__", "cpu")
#: How numbers of the host become a tensor: a copy to the device.
UPLOADS = frozenset(("lift_fresh", "lift"))


class HostLooks(TorchDispatchMode):
    """Counts while it is entered.

    Attributes:
        waits: what made the host wait, by name.
        uploads: tensors that were made of the host's numbers.
        calls: all operations, by name.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waits: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()
        self._patches = [mock.patch.object(Tensor, name, self._counted(name)) for name in METHODS]

    @property
    def uploads(self) -> int:
        return sum(self.calls[name] for name in UPLOADS)

    def __enter__(self) -> HostLooks:
        for patch in self._patches:
            patch.start()
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        for patch in self._patches:
            patch.stop()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        self.calls[name] += 1
        by_mask = name in INDEXING and _by_mask(args[1])
        if name in WAITING or by_mask or (name in COPIES and _moves(args, kwargs)):
            self.waits[name] += 1
        return func(*args, **(kwargs or {}))

    def _counted(self, name: str) -> Callable[..., Any]:
        original = getattr(Tensor, name)

        def counted(tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
            self.waits[name] += 1
            return original(tensor, *args, **kwargs)

        return counted


def _by_mask(indices: Any) -> bool:
    return any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in indices)


def _moves(args: Any, kwargs: Any) -> bool:
    """Whether a copy goes from one device to another and is waited for."""
    device = (kwargs or {}).get("device") if len(args) < 2 or not isinstance(args[1], Tensor) else args[1].device
    waits = not ((kwargs or {}).get("non_blocking") or args[-1] is True)
    return device is not None and torch.device(device).type != args[0].device.type and waits
