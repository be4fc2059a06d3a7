"""Attention over fewer key-value heads than query heads, without copying the cache per query head.

Under a mask, transformers' own path repeats every key and value once per query head of its group,
at every decoded token. torch's kernel can share them; that is all that is different here.
Measured on two CPU cores in bf16, one query over 200 slots in a batch of 64: 1.6 ms against 6.4.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

NAME = "gcache_grouped"


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

    Anything out of the ordinary (no mask, gradients, soft caps, position biases) goes through
    transformers' own function.
    """
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    plain = all(options.get(name) is None for name in ("softcap", "position_bias", "cache", "s_aux"))
    if attention_mask is None or torch.is_grad_enabled() or dropout or not plain:
        output, _ = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **options
        )
        return output, None
    mixed = scaled_dot_product_attention(query, key, value, attention_mask, scale=scaling, enable_gqa=True)
    return mixed.transpose(1, 2).contiguous(), None


def use_grouped_attention(model: Any) -> None:
    """Switch a transformers model that uses torch's attention to `grouped_attention`."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    if model.config._attn_implementation != "sdpa":
        return
    AttentionInterface.register(NAME, grouped_attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    model.set_attn_implementation(NAME)
