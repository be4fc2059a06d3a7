"""Attention whose backward pass computes its weights again: torch's gradients, of any shape, in parts or at once."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from gcache.llm.forward import recomputed_attention as module
from gcache.llm.forward.recomputed_attention import can_recompute, recomputed_attention


def inputs(kv_heads: int, width: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(width)
    query, key, value = (
        torch.randn(shape, generator=generator).to(dtype).requires_grad_()
        for shape in ((3, 6, width, 9), (3, kv_heads, 31, 9), (3, kv_heads, 31, 9))
    )
    mask = torch.randn((3, 1, width, 31), generator=generator)
    mask[:, :, :, 20:25] = -1e30  # blocked
    return query, key, value, mask.to(dtype)


@pytest.mark.parametrize("most", [1, 2**24])
@pytest.mark.parametrize("scaling", [None, 0.3])
@pytest.mark.parametrize("width", [1, 7])
@pytest.mark.parametrize("kv_heads", [1, 2, 6])
def test_output_and_gradients_are_torchs(
    kv_heads: int, width: int, scaling: float | None, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_WEIGHTS", most)
    query, key, value, mask = inputs(kv_heads, width, torch.float32)
    found = recomputed_attention(query, key, value, mask, scaling)
    expected = scaled_dot_product_attention(query, key, value, mask, scale=scaling, enable_gqa=True)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)
    upstream = torch.randn(found.shape, generator=torch.Generator().manual_seed(1))
    own = torch.autograd.grad(found, (query, key, value), upstream)
    theirs = torch.autograd.grad(expected, (query, key, value), upstream)
    for one, other in zip(own, theirs, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)
    assert not bool(own[1][:, :, 20:25].any())  # nothing of what is blocked


def test_in_bf16_gradients_are_closer_to_float32s_than_torchs() -> None:
    query, key, value, mask = inputs(2, 7, torch.bfloat16)
    wide = [each.detach().float().requires_grad_() for each in (query, key, value)]

    def gradients(output: Tensor, to: list[Tensor]) -> list[Tensor]:
        return [each.float() for each in torch.autograd.grad(output.float().square().sum(), to)]

    own = gradients(recomputed_attention(query, key, value, mask, None), [query, key, value])
    theirs = gradients(scaled_dot_product_attention(query, key, value, mask, enable_gqa=True), [query, key, value])
    exact = gradients(scaled_dot_product_attention(*wide, mask.float(), enable_gqa=True), wide)
    off = [sum(float((a - b).norm()) for a, b in zip(some, exact, strict=True)) for some in (own, theirs)]
    assert off[0] <= 1.1 * off[1]


def test_masks_that_learn_or_are_of_heads_and_float64_are_left_to_torch() -> None:
    query, key, _, mask = inputs(2, 7, torch.float32)
    assert can_recompute(query, key, mask)
    assert not can_recompute(query, key, None)
    assert not can_recompute(query, key, mask.clone().requires_grad_())
    assert not can_recompute(query, key, mask < 0)
    assert not can_recompute(query, key, mask.expand(-1, 6, -1, -1))  # one per head
    assert not can_recompute(query.double(), key.double(), mask.double())
