"""The pass without transformers' machinery is transformers' pass; other shapes go through it."""

from __future__ import annotations

import copy
from typing import Any

import needs
import pytest
import torch

from gcache.cache.fused_cache import FusedCache
from gcache.llm.cache_budget import Limits
from gcache.llm.forward.packing import PackedLinear, can_pack, pack, use_packed
from gcache.llm.forward.plain_decoder import PlainDecoder
from gcache.llm.local import LocalLLM
from gcache.llm.requests import GenerateRequest, LogProbRequest, ThinkRequest

needs_packing = needs.skips_if(
    not (torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()),
    "oneDNN multiplies no bf16 on this processor",
    "use one with AVX-512 or AMX, and a torch with oneDNN",
)


@pytest.mark.parametrize("native", [False, True])
@pytest.mark.parametrize("name", ["tiny_llama", "tiny_qwen2", "tiny_qwen3"])
@torch.no_grad()
def test_it_computes_what_transformers_computes(
    name: str, native: bool, tiny_tokenizer: Any, request: pytest.FixtureRequest
) -> None:
    llm = LocalLLM(request.getfixturevalue(name), tiny_tokenizer, limits=Limits(native=native))
    assert isinstance(llm.decoder, PlainDecoder)
    tokens = tuple(range(3, 40))
    rows = llm.rows()
    rows.add([None], [len(tokens)])
    embeds, lengths = llm.embed([tokens])
    own = rows.feed(embeds, lengths)
    theirs = llm.model.model(torch.tensor([tokens])).last_hidden_state
    torch.testing.assert_close(own, theirs, atol=1e-5, rtol=1e-5)


def test_a_decoder_of_another_shape_goes_through_transformers(other_llm: LocalLLM) -> None:
    """RolloutMemo, texts and log-probabilities of it agree with each other, in a batch and alone."""
    llm = other_llm
    assert not isinstance(llm.decoder, PlainDecoder)
    past = FusedCache.plain(llm.think([ThinkRequest((5, 9, 8), latent_steps=2)])[0])
    asked = [GenerateRequest(tuple(range(3, 5 + n)), past if n % 2 else None, 4 + n) for n in range(5)]
    for request, text in zip(asked, llm.generate(asked), strict=True):
        assert llm.generate([request])[0].tokens == text.tokens
        scores = llm.log_prob([LogProbRequest(request.tokens, text.tokens, request.past)])[0]
        assert scores.tolist() == pytest.approx(text.log_probs, abs=1e-4)


@needs_packing
def test_packed_weights_multiply_like_plain_ones(tiny_tokenizer: Any, tiny_qwen2: Any) -> None:
    model = copy.deepcopy(tiny_qwen2).bfloat16()
    assert can_pack(model)
    plain = LocalLLM(copy.deepcopy(model), tiny_tokenizer, limits=Limits(native=False, pack_weights=False))
    packed = LocalLLM(model, tiny_tokenizer, limits=Limits(native=False))
    layers = [m for m in packed.model.modules() if isinstance(m, PackedLinear)]
    assert len(layers) == 2 * 7 + 1
    assert not any(isinstance(m, PackedLinear) for m in plain.model.modules())
    request = ThinkRequest(tuple(range(3, 30)), latent_steps=2)
    one, other = packed.think([request])[0], plain.think([request])[0]
    error = (one.keys.float() - other.keys.float()).norm() / other.keys.float().norm()
    assert float(error) < 2e-2  # the rounding of bf16
    pack(packed.model)  # once is enough
    assert len([m for m in packed.model.modules() if isinstance(m, PackedLinear)]) == len(layers)


@needs_packing
@pytest.mark.parametrize("shape", [(16, 1, 32), (17, 1, 32), (8, 3, 32), (32, 1, 32), (33, 1, 32), (20, 32)])
def test_every_number_of_rows_is_multiplied_right(shape: tuple[int, ...]) -> None:
    torch.manual_seed(1)
    plain = torch.nn.Linear(32, 48).bfloat16().requires_grad_(False)
    states = torch.randn(shape).bfloat16()
    with torch.no_grad():
        product = PackedLinear(plain)(states)
    expected = torch.nn.functional.linear(states.float(), plain.weight.float(), plain.bias.float())
    assert product.shape == expected.shape
    torch.testing.assert_close(product.float(), expected, atol=2e-2, rtol=2e-2)


@needs_packing
def test_gradients_go_through_the_plain_weights(tiny_tokenizer: Any, tiny_qwen2: Any) -> None:
    model = copy.deepcopy(tiny_qwen2).bfloat16()
    llm = LocalLLM(model, tiny_tokenizer, limits=Limits(native=False))
    past = FusedCache.plain(llm.think([ThinkRequest((5, 9, 8))])[0])
    bias = torch.zeros(1, 3, requires_grad=True)
    (scores,) = llm.log_prob([LogProbRequest((4, 7), (9, 8), FusedCache.of_parts(past.parts, (bias,)))])
    scores.sum().backward()
    assert bias.grad is not None and bool(bias.grad.any())
    layer = next(m for m in model.modules() if isinstance(m, PackedLinear))
    states = torch.randn(3, layer.weight.shape[1]).bfloat16()
    use_packed(model, False)
    with torch.no_grad():
        assert torch.equal(layer(states), torch.nn.functional.linear(states, layer.weight, layer.bias))


def test_only_bf16_is_packed(tiny_llm: LocalLLM) -> None:
    assert not can_pack(tiny_llm.model)
    assert not any(isinstance(m, PackedLinear) for m in tiny_llm.model.modules())


@torch.no_grad()
def test_a_layer_with_a_forward_of_its_own_is_asked(tiny_qwen2: Any, tiny_tokenizer: Any) -> None:
    """A quantised layer's weight means nothing without it."""

    class Doubled(torch.nn.Linear):
        def forward(self, states: torch.Tensor) -> torch.Tensor:
            return 2 * super().forward(states)

    model = copy.deepcopy(tiny_qwen2)
    plain = model.model.layers[0].mlp.up_proj
    own = Doubled(plain.in_features, plain.out_features, bias=False)
    own.weight = plain.weight
    model.model.layers[0].mlp.up_proj = own
    llm, tokens = LocalLLM(model, tiny_tokenizer), tuple(range(3, 20))
    rows = llm.rows()
    rows.add([None], [len(tokens)])
    states = rows.feed(*llm.embed([tokens]))
    torch.testing.assert_close(states, model.model(torch.tensor([tokens])).last_hidden_state, atol=1e-5, rtol=1e-5)
