"""A GPU that is none: tensors that say they are on one, hold numbers, and refuse what a real one refuses.

    with fake_gpu():
        torch.zeros(3, device="fake:0") + torch.ones(3)        # raises WrongDevice

Every operator runs on the CPU. Before it does, it is looked at as CUDA would: all tensors on one device, but for those
of no dimension and for indices, which may be on the CPU; a generator on the device that is drawn on. What is found so
is a tensor that was made where it should not be. Speed, memory and how a GPU rounds are not found.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._mode_utils import no_dispatch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

aten = torch.ops.aten
#: As torch calls it.
KIND, DEVICE = "fake", "fake:0"
#: Operators that take tensors of several devices.
ANY_DEVICE = {aten.copy_.default, aten._to_copy.default}
#: Operators whose indices may be on the CPU; what else they take may not.
INDEXED = {aten.index.Tensor, aten.index_put_.default, aten.index_put.default, aten._unsafe_index.Tensor}
#: Operators that do not even take tensors of no dimension from elsewhere.
STRICT = {aten.cat.default, aten.stack.default}


class WrongDevice(AssertionError):
    """CUDA would have refused this."""


class OnGpu(Tensor):
    """A tensor that says it is on a GPU."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> OnGpu:
        made: OnGpu = torch.Tensor._make_wrapper_subclass(
            cls, inner.size(), strides=inner.stride(), storage_offset=inner.storage_offset(), dtype=inner.dtype,
            layout=inner.layout, device=DEVICE, requires_grad=False,
        )  # fmt: skip
        made.inner = inner
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})

    def tolist(self) -> Any:
        return self.detach().cpu().tolist()

    def __repr__(self) -> str:
        return f"OnGpu({self.inner!r})"


class _Mode(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    if func is aten._fused_sdp_choice.default:
        return 0  # the path that is made of plain operators
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    on_gpu = any(isinstance(tensor, OnGpu) for tensor in tensors)
    wanted = kwargs.get("device")
    target = on_gpu if wanted is None else torch.device(wanted).type == KIND
    if on_gpu:
        _check(func, args, kwargs, tensors)
    drawn_with = kwargs.get("generator")
    if target and drawn_with is not None and drawn_with.device.type == "cpu":
        raise WrongDevice(f"{func}: a generator of the CPU for a tensor on the GPU")
    if wanted is not None:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    inner_args, inner_kwargs = tree_map(_unwrapped, (args, kwargs))
    found = func(*inner_args, **inner_kwargs)
    if torch.Tag.inplace_view in func.tags and isinstance(args[0], OnGpu):  # `squeeze_`: the tensor gets another shape
        with no_dispatch():
            func(*args, **kwargs)
    if func._schema.is_mutable:
        pairs = zip([*args, *kwargs.values()], [*inner_args, *inner_kwargs.values()], strict=True)
        for own, inner in pairs:
            if found is inner:
                return own
    return tree_map(lambda each: OnGpu(each) if isinstance(each, Tensor) else each, found) if target else found


def _check(func: Any, args: Any, kwargs: dict[str, Any], tensors: list[Tensor]) -> None:
    if func in ANY_DEVICE:
        return
    if func in INDEXED:
        tensors = [leaf for leaf in (args[0], *args[2:]) if isinstance(leaf, Tensor)]
        on_cpu = [index for index in args[1] if isinstance(index, Tensor) and not isinstance(index, OnGpu)]
        if isinstance(args[0], OnGpu):
            on_cpu = []
        tensors += on_cpu
    elsewhere = [each for each in tensors if not isinstance(each, OnGpu) and (each.dim() or func in STRICT)]
    if elsewhere and any(isinstance(each, OnGpu) for each in tensors):
        shapes = ", ".join(f"{'cuda' if isinstance(t, OnGpu) else 'cpu'} {tuple(t.shape)}" for t in tensors)
        raise WrongDevice(f"{func}: tensors on several devices: {shapes}")
    if func in INDEXED and not isinstance(args[0], OnGpu):
        raise WrongDevice(f"{func}: indices on the GPU for a tensor on the CPU")


def _unwrapped(leaf: Any) -> Any:
    return leaf.inner if isinstance(leaf, OnGpu) else leaf


@contextmanager
def fake_gpu() -> Iterator[None]:
    """Within it there is a device `fake:0`. A process that had it once has the name for good."""
    _register()
    before = torch._C._only_lift_cpu_tensors()
    torch._C._set_only_lift_cpu_tensors(True)
    try:
        with _Mode():
            yield
    finally:
        torch._C._set_only_lift_cpu_tensors(before)


@cache
def _register() -> None:
    from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

    _setup_privateuseone_for_python_backend(KIND)
