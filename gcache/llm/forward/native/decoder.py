"""A Llama-shaped decoder whose passes without gradient are one call of compiled code each.

What is computed is `gcache.llm.forward.plain_decoder`'s; `decoder.c` says how. Keys and values are read where they
lie, in the pages of a batch, and log-weights where the batch keeps them: no mask is made.
"""

from __future__ import annotations

import copy
import ctypes
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from gcache.llm.forward.native.matrices import Matrix, MatrixStruct
from gcache.llm.forward.pages import PAGE, Pages
from gcache.llm.forward.plain_decoder import PlainDecoder, head_norms, is_known
from gcache.llm.forward.second_copy import is_plain_linear

_int64, _float, _pointer = ctypes.c_int64, ctypes.c_float, ctypes.c_void_p
PRECISIONS = (torch.float32, torch.bfloat16)


class _Layer(ctypes.Structure):
    _fields_ = (
        ("qkv", MatrixStruct), ("out", MatrixStruct), ("gate_up", MatrixStruct), ("down", MatrixStruct),
        ("norm", _pointer), ("mlp_norm", _pointer), ("query_norm", _pointer), ("key_norm", _pointer),
    )  # fmt: skip


class _Model(ctypes.Structure):
    _fields_ = (
        *((name, _int64) for name in ("layers", "heads", "kv_heads", "dim", "hidden", "inner", "half")),
        ("epsilon", _float), ("scale", _float), ("layer", ctypes.POINTER(_Layer)), ("final_norm", _pointer),
    )  # fmt: skip


class _Pass(ctypes.Structure):
    _fields_ = (
        *((name, _int64) for name in ("rows", "threads", "table_stride", "bias_stride", "slots_only")),
        *((name, _pointer) for name in ("table", "ends", "starts", "bias", "cosine", "sine")),
        ("keys", _pointer), ("values", _pointer), ("states", _pointer),
    )  # fmt: skip


def can_run(base: Any) -> bool:
    """Whether a transformers base model is of a shape, precision and place that the compiled code is for."""
    if not is_known(base):
        return False
    weight, config = base.layers[0].self_attn.q_proj.weight, base.config
    return (
        weight.device.type == "cpu"
        and weight.dtype in PRECISIONS
        and config.hidden_size % 2 == 0
        and config.intermediate_size % 2 == 0
        and base.layers[0].self_attn.head_dim % 2 == 0
        and all(map(is_plain_linear, _linears(base)))
    )


def _linears(base: Any) -> list[nn.Module]:
    return [
        getattr(part, f"{name}_proj")
        for layer in base.layers
        for part, names in ((layer.self_attn, "qkvo"), (layer.mlp, ("gate", "up", "down")))
        for name in names
    ]


class NativeDecoder(PlainDecoder):
    """The forward pass of a decoder for which `can_run`. Called as a `PlainDecoder` it is one.

    Args:
        base: the transformers base model, frozen: its weights are copied.
        library: `gcache.llm.forward.native.library.native_library`.
    """

    def __init__(self, base: Any, library: ctypes.CDLL) -> None:
        attention, config = base.layers[0].self_attn, base.config
        super().__init__(base)
        self.library = library
        self.half = attention.q_proj.weight.dtype == torch.bfloat16
        self._kept: list[Any] = []  # what the structures point to
        self._layers = (_Layer * len(base.layers))(*map(self._layer, base.layers))
        self._model = _Model(
            len(base.layers), config.num_attention_heads, config.num_key_value_heads, attention.head_dim,
            config.hidden_size, config.intermediate_size, self.half,
            base.norm.variance_epsilon, attention.scaling, self._layers, self._floats(base.norm.weight),
        )  # fmt: skip

    @property
    def nbytes(self) -> int:
        """Bytes of its own copy of the weights."""
        return sum(kept.nbytes for kept in self._kept)

    def _floats(self, weight: Tensor) -> int:
        wide = weight.detach().float().clone(memory_format=torch.contiguous_format)
        self._kept.append(wide)
        return wide.data_ptr()

    def _matrix(self, *layers: nn.Linear, places: Tensor | None = None) -> MatrixStruct:
        biases = [layer.bias for layer in layers]
        bias = None
        if any(own is not None for own in biases):
            bias = torch.cat([
                layer.weight.new_zeros(len(layer.weight)) if own is None else own
                for layer, own in zip(layers, biases, strict=True)
            ])  # fmt: skip
        matrix = Matrix(self.library, [layer.weight for layer in layers], bias, self.half, places)
        self._kept.append(matrix)
        return matrix.struct

    def _layer(self, layer: Any) -> _Layer:
        attention, mlp = layer.self_attn, layer.mlp
        panel, row = int(self.library.gcache_panel()), torch.arange(len(mlp.gate_proj.weight))
        gate = row // panel * 2 * panel + row % panel  # a panel of gate, a panel of up, and so on
        return _Layer(
            self._matrix(attention.q_proj, attention.k_proj, attention.v_proj),
            self._matrix(attention.o_proj),
            self._matrix(mlp.gate_proj, mlp.up_proj, places=torch.cat((gate, gate + panel))),
            self._matrix(mlp.down_proj),
            self._floats(layer.input_layernorm.weight),
            self._floats(layer.post_attention_layernorm.weight),
            *(None if norm is None else self._floats(norm) for norm in head_norms(attention)),
        )

    def first_layers(self, count: int) -> NativeDecoder:
        few = copy.copy(self)
        few.layers = self.layers[:count]
        few._model = _Model.from_buffer_copy(self._model)
        few._model.layers = count
        return few

    def over_pages(
        self,
        embeds: Tensor,
        positions: Tensor,
        pages: Pages,
        table: Tensor,
        bias: Tensor,
        ends: Tensor,
        lengths: Tensor | None,
        slots_only: bool = False,
    ) -> Tensor:
        """(n, S, E) hidden states after the final norm, 0 at padding. Fresh keys and values are written into the pages.

        A row's states do not depend on the others, nor on what is fed behind them.

        Args:
            embeds: (n, S, E). positions: (n, S).
            table: (n, M) pages of each row, which have room for what is fed. bias: (n, M * PAGE) float32, added to
                the attention logits of each slot.
            ends: (n,) slots of each row before. lengths: (n,) real inputs of each row; None where all are real.
            slots_only: end with the keys and values of the last layer; the states are no states then.

        Raises:
            MemoryError: there is no room for the pass.
        """
        assert table.stride(1) == bias.stride(1) == ends.stride(0) == 1 and bias.shape[1] <= table.shape[1] * PAGE
        rows, width, _ = embeds.shape
        real = None if lengths is None else torch.arange(width) < lengths[:, None]  # (n, S); padding is not computed
        inputs = embeds.flatten(0, 1) if real is None else embeds[real]
        states = inputs.float().clone(memory_format=torch.contiguous_format)
        where = positions.reshape(1, -1) if real is None else positions[real][None]
        cosine, sine = (angles.float().contiguous() for angles in self.rotary(inputs[None], where))
        starts = torch.arange(rows + 1) * width if lengths is None else pad(lengths.cumsum(0), (1, 0))
        keys, values = (
            (_pointer * len(pools))(*(pool.data_ptr() for pool in pools)) for pools in (pages.keys, pages.values)
        )
        asked = _Pass(
            rows, torch.get_num_threads(), table.stride(0), bias.stride(0), slots_only,
            table.data_ptr(), ends.data_ptr(), starts.data_ptr(), bias.data_ptr(), cosine.data_ptr(), sine.data_ptr(),
            ctypes.addressof(keys), ctypes.addressof(values), states.data_ptr(),
        )  # fmt: skip
        if self.library.gcache_pass(ctypes.byref(self._model), ctypes.byref(asked)):
            raise MemoryError(f"no memory for a pass of {len(states)} tokens")
        if real is None:
            return states.to(embeds.dtype).view_as(embeds)
        padded = torch.zeros_like(embeds)
        padded[real] = states.to(embeds.dtype)
        return padded
