from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from gcache.cache.rope import SHIFTABLE, Rope
from gcache.errors import ModelError

QUARTER = math.pi / 2


def turn(frequencies: list[float], key: list[float], offset: int) -> list[float]:
    """One key of one slot, `offset` positions later."""
    rope = Rope(torch.tensor(frequencies))
    turned: list[float] = rope.rotate(torch.tensor([key]), torch.tensor([offset]))[0].tolist()
    return turned


def llama_with(rope_parameters: dict[str, Any]) -> LlamaForCausalLM:
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=8,
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=8,
            intermediate_size=16,
            max_position_embeddings=64,
            rope_parameters={"rope_theta": 10000.0, **rope_parameters},
        )
    )


@pytest.mark.parametrize(
    ("frequency", "key", "offset", "expected"),
    [
        (QUARTER, [1.0, 0.0], 0, [1.0, 0.0]),
        (QUARTER, [1.0, 0.0], 1, [0.0, 1.0]),
        (QUARTER, [0.0, 1.0], 1, [-1.0, 0.0]),
        (QUARTER, [2.0, 3.0], 2, [-2.0, -3.0]),
        (QUARTER, [2.0, 3.0], -1, [3.0, -2.0]),
        (math.pi / 6, [2.0, 0.0], 1, [math.sqrt(3), 1.0]),
        (math.pi / 6, [2.0, 0.0], 2, [1.0, math.sqrt(3)]),
    ],
)
def test_a_plane_turns_by_frequency_times_offset(
    frequency: float, key: list[float], offset: int, expected: list[float]
) -> None:
    assert turn([frequency], key, offset) == pytest.approx(expected, abs=1e-6)


def test_dimension_i_is_paired_with_i_plus_half() -> None:
    # (1, 3) by a quarter turn is (-3, 1); (2, 4) by half a turn is (-2, -4)
    assert turn([QUARTER, math.pi], [1.0, 2.0, 3.0, 4.0], 1) == pytest.approx(
        [-3.0, -2.0, 1.0, -4.0], abs=1e-6
    )


def test_dimensions_beyond_the_rotated_ones_stay() -> None:
    assert turn([QUARTER], [1.0, 0.0, 5.0, 7.0], 1) == pytest.approx([0.0, 1.0, 5.0, 7.0], abs=1e-6)


def test_every_slot_turns_by_its_own_offset() -> None:
    keys = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    turned = Rope(torch.tensor([QUARTER])).rotate(keys, torch.tensor([0, 1, 2]))
    torch.testing.assert_close(turned, torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]), atol=1e-6, rtol=0)


def test_rotations_add_up() -> None:
    rope = Rope(torch.tensor([1.0, 0.1, 0.01, 0.001]))
    keys = torch.randn(2, 3, 5, 8)
    twice = rope.rotate(rope.rotate(keys, torch.tensor(7)), torch.tensor(11))
    torch.testing.assert_close(twice, rope.rotate(keys, torch.tensor(18)), atol=1e-5, rtol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_keys_are_turned_in_float32(dtype: torch.dtype) -> None:
    rope = Rope(torch.tensor([1.0, 0.3]))
    keys = torch.randn(4, 4).to(dtype)
    turned = rope.rotate(keys, torch.tensor(1001))  # bfloat16 cannot even hold the angle
    assert turned.dtype == dtype
    assert torch.equal(turned, rope.rotate(keys.float(), torch.tensor(1001)).to(dtype))


def test_frequencies_are_the_models_own(tiny_llama: LlamaForCausalLM) -> None:
    # theta = 10000 and 8 dimensions: 10000 ** (-2 i / 8) = 10 ** -i
    expected = torch.tensor([1.0, 0.1, 0.01, 0.001])
    torch.testing.assert_close(Rope.of_model(tiny_llama, "tiny").inverse_frequencies, expected)


@pytest.mark.parametrize(
    ("parameters", "first", "last"),
    [
        ({"rope_type": "default"}, 1.0, 0.001),
        ({"rope_type": "linear", "factor": 2.0}, 0.5, 0.0005),
        (
            {
                "rope_type": "llama3",
                "factor": 4.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 32,
            },
            1.0,
            0.00025,
        ),
    ],
)
def test_variants_with_fixed_angles_are_accepted(
    parameters: dict[str, Any], first: float, last: float
) -> None:
    frequencies = Rope.of_model(llama_with(parameters), "tiny").inverse_frequencies
    assert frequencies[0].item() == pytest.approx(first)
    assert frequencies[3].item() == pytest.approx(last)


@pytest.mark.parametrize(
    ("variant", "parameters"),
    [
        ("dynamic", {"rope_type": "dynamic", "factor": 2.0}),
        (
            "longrope",
            {
                "rope_type": "longrope",
                "factor": 2.0,
                "long_factor": [2.0] * 4,
                "short_factor": [1.0] * 4,
                "original_max_position_embeddings": 32,
            },
        ),
        ("mrope", {"rope_type": "default", "mrope_section": [1, 1, 2]}),
    ],
)
def test_variants_without_fixed_angles_are_refused_by_name(variant: str, parameters: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match=f"'odd one'.*'{variant}' cannot be shifted exactly") as refusal:
        Rope.of_model(llama_with(parameters), "odd one")
    assert all(name in str(refusal.value) for name in SHIFTABLE)


def test_a_model_without_rotary_positions_is_refused_by_name() -> None:
    config = GPT2Config(
        vocab_size=8, n_positions=8, n_embd=8, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0
    )
    with pytest.raises(ModelError, match=r"'old one' \(gpt2\).*no rotary positions"):
        Rope.of_model(GPT2LMHeadModel(config), "old one")


def test_a_model_that_rotates_its_layers_differently_is_refused() -> None:
    several = SimpleNamespace(
        model=SimpleNamespace(rotary_emb=SimpleNamespace(global_inv_freq=torch.ones(4))),
        config=SimpleNamespace(rope_parameters=None),
    )
    with pytest.raises(ModelError, match=r"'mixed one'.*different ways"):
        Rope.of_model(several, "mixed one")
