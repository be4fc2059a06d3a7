"""Attention over fewer key-value heads than query heads, and over slots whose log-weights carry gradient.

Under a mask, transformers' own path repeats every key and value once per query head of its group,
at every decoded token. torch's kernel can share them. Measured on two CPU cores in bf16, one query
over 200 slots in a batch of 64: 1.6 ms against 6.4.

A mask that carries gradient sends torch to the path that keeps every attention weight. So where
log-weights do, they are no part of the mask but one more dimension of the keys (`weighted_keys`),
which every query meets with a constant:

    scaling ([q, 1 / scaling] . [k, log w]) = scaling (q . k) + log w

On a GPU torch picks a kernel by what it is handed (aten/src/ATen/native/transformers: attention.cpp, cuda/sdp_utils.cpp
and cuda/attention.cu). FlashAttention takes no mask. The memory-efficient kernel, and cuDNN's in half precision, take
one:

    of the query's own type, of a stride of 1 in the last dimension and of multiples of 8 in the others: masks of
        `PagedBatch` are, since slots come in pages of 8; others are copied by torch, once per layer
    for head dimensions that are multiples of 8 in half precision, of 4 in float32: so `weighted_keys` adds 8 there
    for fewer key-value heads than query heads in newer versions alone: so torch is asked, and keys and values are
        repeated where they must be, since the path that takes anything keeps every attention weight
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention

from gcache.llm.forward.recomputed_attention import can_recompute, recomputed_attention

NAME = "gcache_grouped"
#: Kernels for a GPU take head dimensions that are multiples of this, in any precision.
ALIGNED = 8
#: Is given a layer's number and its attention weights (B, H, S, T) float32, in passes of this thread alone.
Watcher = Callable[[int, Tensor], None]
_WATCHER: ContextVar[Watcher | None] = ContextVar("gcache_attention_watcher", default=None)


@contextmanager
def watching(watcher: Watcher) -> Iterator[None]:
    """Passes through transformers, of a model for which `is_grouped`, tell their attention weights."""
    token = _WATCHER.set(watcher)
    try:
        yield
    finally:
        _WATCHER.reset(token)


def grouped_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Attention of query (B, H, S, D) over key and value (B, H_kv, T, D); returns (B, S, H, D).

    Keys of more dimensions than the queries are `weighted_keys`. Anything out of the ordinary (no
    mask, gradients, soft caps, position biases) goes through transformers' own function.
    """
    dim = query.shape[-1]
    watcher = _WATCHER.get()
    if watcher is not None:
        watcher(module.layer_idx, _weights(query, key, attention_mask, dim**-0.5 if scaling is None else scaling))
    if key.shape[-1] > dim:
        scaling, more = dim**-0.5 if scaling is None else scaling, key.shape[-1] - dim
        meets = query.new_full((*query.shape[:-1], 1), 1 / scaling)
        query, value = pad(torch.cat((query, meets), dim=-1), (0, more - 1)), pad(value, (0, more))
        output, _ = grouped_attention(module, query, key, value, attention_mask, dropout, scaling, **options)
        return output[..., :dim].contiguous(), None  # some models look at it as (B, S, H D), without a copy
    plain = all(options.get(name) is None for name in ("softcap", "position_bias", "cache", "s_aux"))
    learns = torch.is_grad_enabled() and any(each.requires_grad for each in (query, key, value))
    if learns and plain and not dropout and can_recompute(query, key, attention_mask):
        assert attention_mask is not None
        found = recomputed_attention(query, key, value, attention_mask, scaling)
        return found.transpose(1, 2).contiguous(), None
    if attention_mask is None or torch.is_grad_enabled() or dropout or not plain:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        output, _ = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **options
        )
        return output, None
    return masked_attention(query, key, value, attention_mask, scaling).transpose(1, 2).contiguous(), None


def masked_attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scaling: float | None) -> Tensor:
    """(B, H, S, D) attention of query (B, H, S, D) over key and value (B, H_kv, T, D) under an additive mask, without
    gradient, by a kernel that keeps no attention weights where there is one."""
    group = query.shape[1] // key.shape[1]
    if group > 1 and not _shares_heads(query, key, value, mask):
        key, value = (each.repeat_interleave(group, dim=1) for each in (key, value))
    shares = key.shape[1] < query.shape[1]
    return scaled_dot_product_attention(query, key, value, mask, scale=scaling, enable_gqa=shares)


def _shares_heads(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> bool:
    """Whether a kernel of torch's takes fewer key-value heads beside a mask; nothing is computed."""
    if query.device.type != "cuda":
        return True
    from torch.backends import cuda

    params = cuda.SDPAParams(query, key, value, mask, 0.0, False, True)
    asked = (getattr(cuda, name, None) for name in ("can_use_efficient_attention", "can_use_cudnn_attention"))
    return any(can_use is not None and can_use(params) for can_use in asked)


def _weights(query: Tensor, key: Tensor, mask: Tensor | None, scaling: float) -> Tensor:
    """(B, H, S, T) float32, what each query makes of each slot."""
    keys = key[..., : query.shape[-1]].repeat_interleave(query.shape[1] // key.shape[1], dim=1)
    scores = query.float() @ keys.float().transpose(-1, -2) * scaling
    return torch.softmax(scores if mask is None else scores + mask.float(), dim=-1)


def weighted_keys(key: Tensor, log_weights: Tensor, more: int = 1) -> Tensor:
    """(B, H, T, D + n): keys (B, H, T, D) with the log-weights (B, T) of their slots; of a model for which
    `is_grouped`.

    Args:
        more: n, at least 1; what is beside the log-weights is 0.
    """
    extra = log_weights.to(key.dtype)[:, None, :, None].expand(*key.shape[:-1], 1)
    return torch.cat((key, pad(extra, (0, more - 1))), dim=-1)


def is_grouped(model: Any) -> bool:
    """Whether a transformers model attends by `grouped_attention`."""
    return bool(model.config._attn_implementation == NAME)


def use_grouped_attention(model: Any) -> None:
    """Switch a transformers model that uses torch's attention to `grouped_attention`."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    if model.config._attn_implementation != "sdpa":
        return
    AttentionInterface.register(NAME, grouped_attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    model.set_attn_implementation(NAME)
