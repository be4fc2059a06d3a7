"""Attention with gradient on a CPU: weights are not kept but computed again, by plain products in float32.

torch's own backward pass of fused attention works through small blocks. With some twenty queries over some hundred
slots, as where a text is scored on the caches that it was written on, it takes twice as long as the products

    P = softmax(s Q K' + M)      dV = P' dO      dS = P (dO V' - rowsum(dO O))      dQ = s dS K      dK = s dS' Q

(Dao et al., FlashAttention, 2022, section B.2). What they need at once is bounded by taking some rows at a time.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

#: Attention weights that there are at once, in numbers.
MOST_WEIGHTS = 2**24


class RecomputedAttention(torch.autograd.Function):
    """(B, H, S, D) attention of query (B, H, S, D) over key (B, H_kv, T, D) and value under a mask (B, 1, S, T).

    The mask is added to the logits and gets no gradient. H is a multiple of H_kv; heads of a group stand side by side.
    """

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scaling: float) -> Tensor:
        with torch.no_grad():
            output = scaled_dot_product_attention(query, key, value, mask, scale=scaling, enable_gqa=True)
        ctx.save_for_backward(query, key, value, mask, output)
        ctx.scaling = scaling
        return output

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        query, key, value, mask, output = ctx.saved_tensors
        batch, heads, width, dim = query.shape
        slots, group = key.shape[2], heads // key.shape[1]
        together = max(1, MOST_WEIGHTS // (heads * width * slots))
        found: list[tuple[Tensor, Tensor, Tensor]] = []
        for start in range(0, batch, together):
            rows = slice(start, start + together)
            # the heads of a group are queries of one head: (n, H_kv, g S, D)
            q, o, d = (
                each[rows].reshape(-1, key.shape[1], group * width, each.shape[-1]).float()
                for each in (query, output, upstream[0])
            )
            k, v = key[rows].float(), value[rows].float()
            wide = mask[rows].float().expand(-1, -1, width, slots).repeat(1, 1, group, 1)
            weights = torch.softmax(torch.matmul(q, k.mT).mul_(ctx.scaling).add_(wide), dim=-1)  # (n, H_kv, g S, T)
            slopes = torch.matmul(d, v.mT).sub_((d * o).sum(-1, keepdim=True)).mul_(weights).mul_(ctx.scaling)
            found.append((torch.matmul(slopes, k), torch.matmul(slopes.mT, q), torch.matmul(weights.mT, d)))
        to_query, to_key, to_value = (torch.cat(parts) for parts in zip(*found, strict=True))
        to_query = to_query.view(batch, heads, width, dim)
        return to_query.to(query.dtype), to_key.to(key.dtype), to_value.to(value.dtype), None, None


def recomputed_attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scaling: float | None) -> Tensor:
    """See `RecomputedAttention`; `scaling`: None for one over the root of D."""
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    found: Tensor = RecomputedAttention.apply(query, key, value, mask, scale)
    return found


def can_recompute(query: Tensor, key: Tensor, mask: Tensor | None) -> bool:
    """Whether attention with gradient goes that way: on a CPU, under a mask of numbers that gets no gradient."""
    return (
        query.device.type == "cpu"
        and mask is not None
        and mask.is_floating_point()
        and mask.shape[1] == 1
        and not mask.requires_grad
        and query.dtype != torch.float64
        and query.shape[1] % key.shape[1] == 0
    )
