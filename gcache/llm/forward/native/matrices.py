"""Weights as the compiled code reads them: panels of outputs, in the fewest bits that hold them exactly.

    INT8   w = scale q + minimum with an integer q of 8 bits, scale and minimum per block of inputs
    BF16   two bytes each
    F32    four

Weights that were once quantized to 4 to 8 bits (a GGUF file's) lie on lattices, however they are stored since; the
lattice is found from the weights themselves and checked against every one of them. So nothing is rounded here: each
weight is the plain one, to 2^-20 of the largest of its block where it is an integer (its float was rounded in unpacking
to about as much), else to the bit.
"""

from __future__ import annotations

import copy
import ctypes
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gcache.llm.forward.second_copy import SecondCopy

#: Blocks of inputs that formats in use share a scale over: most of them, and 6 bits of GGUF.
BLOCKS = (32, 16)
F32, BF16, INT8 = range(3)

_int64, _pointer = ctypes.c_int64, ctypes.c_void_p


class MatrixStruct(ctypes.Structure):
    """`Matrix` of decoder.c."""

    _fields_ = (
        ("outputs", _int64), ("inputs", _int64), ("kind", _int64), ("block", _int64),
        ("data", _pointer), ("scale", _pointer), ("minimum", _pointer), ("bias", _pointer),
    )  # fmt: skip


class Matrix:
    """One matrix in panels.

    Args:
        weights: (n, k) each, of one type and as many inputs; their rows one after the other.
        bias: (n,) of all of them, or None.
        half: products are of bf16 inputs.
        places: (n,) where each row is to stand; None: in order.

    Attributes:
        struct: what the compiled code is given.
        outputs: rows of all weights.
    """

    def __init__(
        self,
        library: ctypes.CDLL,
        weights: Sequence[Tensor],
        bias: Tensor | None = None,
        half: bool = False,
        places: Tensor | None = None,
    ) -> None:
        self.library, self.half = library, half
        rows = torch.cat([weight.detach() for weight in weights]) if len(weights) > 1 else weights[0].detach()
        self.outputs, inputs = rows.shape
        places = torch.arange(self.outputs) if places is None else places
        panel = int(library.gcache_panel())
        padded = -(-int(places.max() + 1) // panel) * panel
        self.struct = MatrixStruct(outputs=padded, inputs=inputs)
        self._kept: list[Tensor] = []
        self._pack(rows, places, padded)
        if bias is not None:
            spread = torch.zeros(padded)
            spread[places] = bias.detach().float()
            self.struct.bias = self._keep(spread)

    def _keep(self, tensor: Tensor) -> int:
        self._kept.append(tensor)
        return tensor.data_ptr()

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self._kept)

    @property
    def kind(self) -> int:
        return int(self.struct.kind)

    def _pack(self, rows: Tensor, places: Tensor, padded: int) -> None:
        if not self.half and self._on_lattice(rows, places, padded):
            return
        narrow = rows.bfloat16()
        even = rows.shape[1] % 2 == 0  # inputs are multiplied two by two
        if even and (self.half or torch.equal(narrow.to(rows.dtype), rows)):
            self.struct.kind = BF16
            self._in_panels(self.library.gcache_pack_bf16, narrow, places, padded)
        else:
            self.struct.kind = F32
            self._in_panels(self.library.gcache_pack_floats, rows.float(), places, padded)

    def _in_panels(self, pack: Any, rows: Tensor, places: Tensor, padded: int) -> None:
        rows, packed = rows.contiguous(), torch.zeros(padded * rows.shape[1], dtype=rows.dtype)
        pack(_at(rows), *map(_int64, rows.shape), _at(places), _at(packed))
        self.struct.data = self._keep(packed)

    def _on_lattice(self, rows: Tensor, places: Tensor, padded: int) -> bool:
        """Pack the rows as integers, if they all are some."""
        rows = rows.float().contiguous()
        inputs = rows.shape[1]
        for block in BLOCKS:
            if inputs % block:
                continue
            packed = torch.zeros(padded * inputs, dtype=torch.int8)
            scale, minimum = (torch.zeros(padded * inputs // block) for _ in range(2))
            if self.library.gcache_pack_int8(
                _at(rows), *map(_int64, (*rows.shape, block)), _at(places), _at(packed), _at(scale), _at(minimum)
            ):
                self.struct.kind, self.struct.block = INT8, block
                self.struct.data, self.struct.scale = self._keep(packed), self._keep(scale)
                if minimum.any():
                    self.struct.minimum = self._keep(minimum)
                return True
        return False

    def first_outputs(self, count: int) -> Matrix:
        """The same with the first outputs alone, to be timed; weights are shared."""
        few = copy.copy(self)
        panel = int(self.library.gcache_panel())
        few.struct = MatrixStruct.from_buffer_copy(self.struct)
        few.struct.outputs = min(int(self.struct.outputs), -(-count // panel) * panel)
        few.outputs = min(self.outputs, int(few.struct.outputs))
        return few

    def __call__(self, states: Tensor, threads: int) -> Tensor:
        """(..., n) float32 products of (..., k)."""
        wide = states.float().contiguous()
        made = torch.empty((*states.shape[:-1], self.outputs))
        tokens = wide.numel() // wide.shape[-1]
        sizes = map(_int64, (tokens, self.outputs, self.half, threads))
        if self.library.gcache_linear(ctypes.byref(self.struct), _at(wide), _at(made), *sizes):
            raise MemoryError(f"no memory for {tokens} tokens' products")
        return made


class NativeLinear(SecondCopy):
    """A frozen linear layer whose products without gradient are the compiled code's, in float32.

    Args:
        plain: the layer.
        half: whether products are of bf16 inputs.
    """

    def __init__(self, plain: nn.Linear, library: ctypes.CDLL, half: bool) -> None:
        super().__init__(plain)
        self.matrix = Matrix(library, [plain.weight], plain.bias, half)

    def product(self, states: Tensor) -> Tensor:
        return self.matrix(states, torch.get_num_threads())


def _at(tensor: Tensor) -> ctypes.c_void_p:
    return _pointer(tensor.data_ptr())
