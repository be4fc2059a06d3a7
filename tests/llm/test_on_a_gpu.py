"""What only a GPU can show: torch sees no more waits than are counted on a CPU, and recorded passes replay."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import needs
import pytest
import torch

from gcache.cache.fused_cache import FusedCache
from gcache.llm.cache_budget import Limits
from gcache.llm.forward.attention import masked_attention
from gcache.llm.local import LocalLLM
from gcache.llm.requests import GenerateRequest, ThinkRequest

pytestmark = needs.skips_if(not torch.cuda.is_available(), "no GPU", "use a machine with an NVIDIA GPU")

PROMPT = (5, 9, 17, 5, 9, 30)
Make = Callable[..., LocalLLM]


@pytest.fixture(params=["tiny_llama", "tiny_qwen2", "tiny_qwen3"])
def make(request: pytest.FixtureRequest, tiny_tokenizer: Any) -> Make:
    model = copy.deepcopy(request.getfixturevalue(request.param)).to("cuda")

    def made(**limits: Any) -> LocalLLM:
        llm = LocalLLM(model, tiny_tokenizer, request.param, Limits(**limits))
        llm.stop_tokens = frozenset()
        return llm

    return made


@contextmanager
def waits() -> Iterator[list[str]]:
    """Filled with what made the host wait, by torch's own account."""
    found: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield found
        finally:
            torch.cuda.set_sync_debug_mode("default")
    found += [str(each.message) for each in caught if "called a synchronizing" in str(each.message)]


def requests(rows: int, **more: Any) -> list[GenerateRequest]:
    return [
        GenerateRequest(PROMPT[: 3 + n % 4], max_new_tokens=40 + n, seed=n, context=PROMPT, **more) for n in range(rows)
    ]


@pytest.mark.parametrize("graphs", [False, True])
@pytest.mark.parametrize("more", [{}, {"temperature": 1.0}, {"temperature": 0.8, "top_p": 0.7}])
def test_a_step_waits_once(make: Make, more: dict[str, Any], graphs: bool) -> None:
    llm = make(cuda_graphs=graphs)
    decoding = llm.decoding()
    decoding.join(range(4), requests(4, **more))
    for _ in range(6):  # kernels are loaded, passes are recorded
        decoding.step()
    for _ in range(3):
        with waits() as found:
            assert not decoding.step()
        assert len(found) == 1, found


@torch.no_grad()
def test_a_latent_step_never_waits(make: Make) -> None:
    llm = make()
    rows = llm.rows()
    rows.add([None] * 3, [20] * 3)
    embeds, lengths = llm.embed([PROMPT] * 3)
    hidden = rows.feed(embeds, lengths)[:, -1]
    hidden = rows.feed(llm.alignment(hidden)[:, None])[:, 0]
    with waits() as found:
        for _ in range(5):
            hidden = rows.feed(llm.alignment(hidden)[:, None])[:, 0]
    assert not found


def test_texts_are_the_same_with_recorded_passes(make: Make) -> None:
    plain, recorded = make(cuda_graphs=False), make(cuda_graphs=True)
    past = FusedCache.plain(plain.think([ThinkRequest(PROMPT, latent_steps=2)])[0])
    asked = [GenerateRequest(PROMPT[: 2 + n % 4], past if n % 3 == 0 else None, 30 + n, n % 2, n) for n in range(9)]
    expected = plain.generate(asked)
    decoding = recorded.decoding()
    for _ in range(2):
        found = dict(decoding.join(range(9), list(asked)))
        while len(decoding):
            found.update(decoding.step())
        for number, text in enumerate(expected):
            assert found[number].tokens == text.tokens
    assert decoding.rows.graphs is not None and decoding.rows.graphs.on and decoding.rows.graphs.recorded


def test_thoughts_are_the_same_with_recorded_passes(make: Make) -> None:
    plain, recorded = make(cuda_graphs=False), make()
    asked = [ThinkRequest(PROMPT[: 2 + n % 4], latent_steps=8, owner=n) for n in range(5)]
    expected = plain.think(asked)
    for _ in range(2):
        for own, other in zip(recorded.think(asked), expected, strict=True):
            torch.testing.assert_close(own.keys, other.keys, atol=1e-4, rtol=0)
            assert torch.equal(own.positions, other.positions)
    assert recorded.kept[0].graphs is not None and recorded.kept[0].graphs.recorded


def test_the_check_of_a_gpu_finds_it() -> None:
    from benchmarks.gpu_check.device import described, prepared

    assert described(prepared("auto"))["name"] == torch.cuda.get_device_name()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_masked_attention_keeps_no_weights(dtype: torch.dtype) -> None:
    """The path that keeps them would take 8 GB here."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    def block(heads: int) -> torch.Tensor:
        return torch.randn(4, heads, 8192, 64, dtype=dtype, device="cuda")

    mask = torch.zeros(4, 1, 8192, 8192, dtype=dtype, device="cuda")
    with sdpa_kernel([SDPBackend.EFFICIENT_ATTENTION, SDPBackend.CUDNN_ATTENTION]):
        assert masked_attention(block(6), block(2), block(2), mask, None).isfinite().all()


def test_a_cache_goes_to_the_host_and_back(make: Make) -> None:
    llm = make()
    cache = FusedCache.join(llm.think([ThinkRequest(PROMPT), ThinkRequest(PROMPT[:3], owner=1)]))
    there = cache.to(torch.device("cpu"))
    assert there.keys.device.type == "cpu" and torch.equal(there.keys, cache.keys.cpu())
    back = there.to(llm.device)
    assert torch.equal(back.keys, cache.keys) and torch.equal(back.positions, cache.positions)
    before, after = llm.generate([GenerateRequest(PROMPT, past, 5) for past in (cache, back)])
    assert before.tokens == after.tokens
