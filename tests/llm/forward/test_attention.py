"""Log-weights as one more dimension of the keys."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from gcache.cache.fused_cache import FusedCache
from gcache.llm.forward import attention
from gcache.llm.forward.attention import ALIGNED, grouped_attention, masked_attention, weighted_keys
from gcache.llm.forward.native.decoder import NativeDecoder
from gcache.llm.forward.plain_decoder import PlainDecoder
from gcache.llm.local import LocalLLM
from gcache.llm.requests import GenerateRequest, LogProbRequest, ThinkRequest

LAYER = SimpleNamespace(num_key_value_groups=2, training=False, is_causal=False)


@pytest.mark.parametrize("scaling", [None, 0.3])
@pytest.mark.parametrize("gradient", [True, False])
def test_weighted_keys_attend_as_the_formula_says(scaling: float | None, gradient: bool) -> None:
    query, key, value = torch.randn(2, 4, 3, 8), torch.randn(2, 2, 5, 8), torch.randn(2, 2, 5, 8)
    log_weights = torch.randn(2, 5)
    blocked = torch.where(torch.rand(2, 1, 3, 5) < 0.3, -1e9, 0.0)
    blocked[..., 0] = 0.0  # nobody attends to nothing
    with torch.set_grad_enabled(gradient):
        mixed, _ = grouped_attention(LAYER, query, weighted_keys(key, log_weights), value, blocked, scaling=scaling)
    keys, values = key.repeat_interleave(2, dim=1), value.repeat_interleave(2, dim=1)
    logits = query @ keys.mT * (8**-0.5 if scaling is None else scaling)
    chances = (logits + log_weights[:, None, None, :] + blocked).softmax(dim=-1)
    assert mixed.shape == (2, 3, 4, 8)
    torch.testing.assert_close(mixed, (chances @ values).transpose(1, 2))


@pytest.mark.parametrize("gradient", [True, False])
def test_keys_that_are_aligned_for_a_gpu_attend_alike(gradient: bool) -> None:
    query, key, value = torch.randn(2, 4, 3, 8), torch.randn(2, 2, 5, 8), torch.randn(2, 2, 5, 8)
    log_weights, mask = torch.randn(2, 5), torch.zeros(2, 1, 3, 5)
    with torch.set_grad_enabled(gradient):
        one, aligned = (
            grouped_attention(LAYER, query, weighted_keys(key, log_weights, more), value, mask)[0]
            for more in (1, ALIGNED)
        )
    assert weighted_keys(key, log_weights, ALIGNED).shape[-1] % ALIGNED == 0
    torch.testing.assert_close(aligned, one)


def test_heads_are_repeated_where_no_kernel_shares_them(monkeypatch: pytest.MonkeyPatch) -> None:
    query, key, value = torch.randn(2, 6, 3, 8), torch.randn(2, 2, 16, 8), torch.randn(2, 2, 16, 8)
    mask = torch.randn(2, 1, 3, 16)
    shared = masked_attention(query, key, value, mask, 0.3)
    seen: list[bool] = []
    plain = attention.scaled_dot_product_attention

    def watched(*args: Tensor, enable_gqa: bool, **options: float) -> Tensor:
        seen.append(enable_gqa)
        return plain(*args, enable_gqa=enable_gqa, **options)

    monkeypatch.setattr(attention, "scaled_dot_product_attention", watched)
    monkeypatch.setattr(attention, "_shares_heads", lambda *_: False)
    torch.testing.assert_close(masked_attention(query, key, value, mask, 0.3), shared)
    assert seen == [False]


@torch.no_grad()
def test_masks_of_a_batch_are_as_a_gpus_kernels_want_them(tiny_llm: LocalLLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the query's type, and aligned: a copy of a mask in each layer would cost more than what it masks."""
    if isinstance(tiny_llm.decoder, NativeDecoder):
        tiny_llm.decoder = PlainDecoder(tiny_llm.base)  # compiled code is for the CPU, and makes no mask
    masks: list[Tensor] = []
    plain = attention.scaled_dot_product_attention

    def watched(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, **options: object) -> Tensor:
        assert mask.dtype == query.dtype
        assert all(each.stride(-1) == 1 for each in (query, key, value))
        masks.append(mask)
        return plain(query, key, value, mask, **options)

    monkeypatch.setattr(attention, "scaled_dot_product_attention", watched)
    tiny_llm.think([ThinkRequest((5, 9, 8, 7, 6)[: 1 + n], latent_steps=3) for n in range(4)])
    tiny_llm.generate([GenerateRequest((5, 9, 8), max_new_tokens=7), GenerateRequest((5, 9), max_new_tokens=9)])
    assert {mask.stride(-1) for mask in masks} == {1}
    assert {size % ALIGNED for mask in masks for size in mask.stride()[:-1]} == {0}


def _scores(llm: LocalLLM, weights: Tensor) -> tuple[list[Tensor], Tensor]:
    """log pi of two texts on pasts of different lengths, and its gradient to the log-weights."""
    owns = llm.think([ThinkRequest((5, 9, 8), owner=0), ThinkRequest((7, 6), owner=1)])
    leaf = weights.log().requires_grad_()
    one, two = (FusedCache.plain(own).weighted(log_weight) for own, log_weight in zip(owns, leaf, strict=True))
    requests = [
        LogProbRequest((10, 11), (12, 13, 14), FusedCache.join([one, two])), LogProbRequest((20,), (21, 22), two)
    ]  # fmt: skip
    scores = llm.log_prob(requests)
    sum(score.sum() for score in scores).backward()  # type: ignore[union-attr]
    assert leaf.grad is not None
    return [score.detach() for score in scores], leaf.grad


def test_keys_and_mask_carry_log_weights_alike(tiny_llm: LocalLLM, monkeypatch: pytest.MonkeyPatch) -> None:
    masks: list[bool] = []
    plain = tiny_llm.model.model.forward

    def forward(*args: object, attention_mask: Tensor, **options: object) -> object:
        masks.append(attention_mask.requires_grad)
        return plain(*args, attention_mask=attention_mask, **options)

    monkeypatch.setattr(tiny_llm.model.model, "forward", forward)
    weights = torch.tensor([0.3, 0.8])
    in_keys, gradient = _scores(tiny_llm, weights)
    assert masks and not any(masks)
    masks.clear()
    monkeypatch.setattr("gcache.llm.forward.gradient_pass.is_grouped", lambda model: False)
    in_mask, expected = _scores(tiny_llm, weights)
    assert masks and all(masks)
    for one, other in zip(in_keys, in_mask, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=0)
    assert float(expected.norm()) > 1e-2
    torch.testing.assert_close(gradient, expected, atol=1e-5, rtol=1e-4)


def test_the_lightest_weight_there_is_keeps_gradients_finite(tiny_llm: LocalLLM) -> None:
    scores, gradient = _scores(tiny_llm, torch.tensor([torch.finfo(torch.float32).tiny, 1.0]))
    assert all(bool(torch.isfinite(score).all()) for score in scores)
    assert bool(torch.isfinite(gradient).all()) and float(gradient[0]) == pytest.approx(0.0, abs=1e-6)
