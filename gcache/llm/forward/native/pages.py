"""Pages whose slots are copied in and out by compiled code: one call for all layers."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor

from gcache.llm.forward.pages import Pages, Span

_int64, _pointer = ctypes.c_int64, ctypes.c_void_p


class NativePages(Pages):
    """As `Pages`, on a CPU.

    Args:
        library: `gcache.llm.forward.native.library.native_library`.
    """

    def __init__(self, library: ctypes.CDLL, shape: tuple[int, int, int], dtype: torch.dtype) -> None:
        super().__init__(shape, dtype, torch.device("cpu"))
        self._library = library

    def put_slots(self, table: Tensor, spans: Sequence[Span], keys: Sequence[Tensor], values: Sequence[Tensor]) -> None:
        for pools, blocks in ((self.keys, keys), (self.values, values)):
            for span, block in zip(spans, blocks, strict=True):
                self._move(pools, table[span.row], span.start, block if block.stride(-1) == 1 else block.contiguous(),
                           into=True)  # fmt: skip

    def slots(self, table: Tensor, spans: Sequence[Span]) -> list[tuple[Tensor, Tensor]]:
        heads, _, dim = self.keys[0].shape[1:]
        found = []
        for span in spans:
            shape = (len(self.keys), 1, heads, span.slots, dim)
            keys, values = (torch.empty(shape, dtype=self.keys[0].dtype) for _ in range(2))
            for pools, block in ((self.keys, keys), (self.values, values)):
                self._move(pools, table[span.row], span.start, block[:, 0], into=False)
            found.append((keys, values))
        return found

    def _move(self, pools: Sequence[Tensor], pages: Tensor, first: int, block: Tensor, into: bool) -> None:
        assert pages.stride(0) == 1 and block.stride(-1) == 1 and block.dtype == pools[0].dtype
        layers, heads, slots, dim = block.shape
        places = (_pointer * layers)(*(pool.data_ptr() for pool in pools))
        strides = (_int64 * 3)(*block.stride()[:3])
        self._library.gcache_move_slots(
            places, _pointer(pages.data_ptr()), *map(_int64, (first, slots, layers, heads, dim, block.itemsize)),
            _pointer(block.data_ptr()), strides, _int64(into), _int64(torch.get_num_threads()),
        )  # fmt: skip
