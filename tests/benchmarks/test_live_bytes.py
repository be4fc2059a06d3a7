"""The gauge sees what is alive, whoever holds it, and each storage once."""

from __future__ import annotations

import gc
from typing import Any

import pytest
import torch
from conftest import TINY
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.live_bytes import STEP, CacheLook, LiveBytes

#: Of a model that no other test has: what these leave alive is not to be seen here.
HEADS, DIM, LAYERS = 2, 20, 2
SLOT = 2 * LAYERS * HEADS * DIM * 4  # bytes of a slot's keys and values, fp32


@pytest.fixture(scope="module")
def tiny_llama() -> LlamaForCausalLM:
    torch.manual_seed(0)
    sizes = {**TINY, "hidden_size": 4 * DIM, "head_dim": DIM, "num_key_value_heads": HEADS, "num_hidden_layers": LAYERS}
    return LlamaForCausalLM(LlamaConfig(**sizes)).eval()


def gauge(model: Any, every: int = 1) -> LiveBytes:
    return LiveBytes(model, HEADS, DIM, every)


def test_it_sees_the_cache_of_a_prompt(tiny_llama: Any) -> None:
    with gauge(tiny_llama) as seen, torch.no_grad():
        tiny_llama(torch.ones(3, 5, dtype=torch.long), use_cache=True)
    assert seen.peak.nbytes == 3 * 5 * SLOT
    assert seen.peak.storages == 2 * LAYERS
    assert seen.peak.where == "pass 1, 3 rows of 5, after the last layer"


def test_storages_count_once_and_whole() -> None:
    block = torch.zeros(1, HEADS, 100, DIM)
    views = [block[:, :, :10], block[:, :, 10:20]]
    assert CacheLook(HEADS, DIM, torch.float32).storages([block, *views]) == {block.data_ptr(): block.nbytes}
    assert sum(CacheLook(HEADS, DIM, torch.float32).storages(views).values()) == block.nbytes


@pytest.mark.parametrize(
    "other",
    [
        torch.zeros(1, HEADS, 3, DIM, dtype=torch.bfloat16),
        torch.zeros(1, HEADS + 2, 3, DIM),
        torch.zeros(HEADS, 3, DIM),
        torch.nn.Parameter(torch.zeros(1, HEADS, 3, DIM)),
        torch.zeros(1, HEADS, 0, DIM),
        "no tensor",
    ],
)
def test_what_is_no_cache_does_not_count(other: object) -> None:
    assert not CacheLook(HEADS, DIM, torch.float32).storages([other])


def test_it_counts_what_others_hold_made_before_or_within(tiny_llama: Any) -> None:
    before = torch.zeros(LAYERS, 1, HEADS, 7, DIM)
    with gauge(tiny_llama) as seen, torch.no_grad():
        within = torch.zeros(LAYERS, 1, HEADS, 4, DIM)
        tiny_llama(torch.ones(1, 1, dtype=torch.long), use_cache=True)
    assert seen.peak.nbytes == before.nbytes + within.nbytes + SLOT


def test_what_was_let_go_does_not_count(tiny_llama: Any) -> None:
    held = [torch.zeros(LAYERS, 1, HEADS, 7, DIM)]
    with gauge(tiny_llama) as seen, torch.no_grad():
        held.clear()
        tiny_llama(torch.ones(1, 1, dtype=torch.long), use_cache=True)
    assert seen.peak.nbytes == SLOT


def test_of_decoding_steps_only_some_are_looked_into(tiny_llama: Any) -> None:
    with gauge(tiny_llama, every=3) as seen, torch.no_grad():
        cache = tiny_llama(torch.ones(1, STEP + 1, dtype=torch.long), use_cache=True).past_key_values
        for _ in range(5):
            tiny_llama(torch.ones(1, 1, dtype=torch.long), past_key_values=cache, use_cache=True)
    assert seen.passes == 6
    assert seen.peak.nbytes == (STEP + 1 + 3) * SLOT  # after the third step; the fifth was not looked at


def test_it_leaves_nothing_behind(tiny_llama: Any) -> None:
    with gauge(tiny_llama) as seen, torch.no_grad():
        tiny_llama(torch.ones(1, 2, dtype=torch.long), use_cache=True)
    peak = seen.peak
    with torch.no_grad():
        tiny_llama(torch.ones(1, 9, dtype=torch.long), use_cache=True)
    assert seen.peak == peak
    assert gc.get_freeze_count() == 0


def test_a_model_that_was_never_called_is_an_error(tiny_llama: Any) -> None:
    with pytest.raises(RuntimeError, match="never called"), gauge(tiny_llama):
        pass
