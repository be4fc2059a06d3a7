"""The compiled passes compute what transformers computes, from weights that are kept exactly, and a number does not
depend on who else is in the pass."""

from __future__ import annotations

import copy
import logging
import subprocess
from pathlib import Path
from typing import Any

import needs
import pytest
import torch
from torch import Tensor

from gcache.cache.fused_cache import FusedCache
from gcache.llm.cache_budget import Limits
from gcache.llm.forward.native import library as library_module
from gcache.llm.forward.native.decoder import NativeDecoder, can_run
from gcache.llm.forward.native.library import machine_options, native_library
from gcache.llm.forward.native.matrices import BF16, F32, INT8, Matrix, NativeLinear
from gcache.llm.forward.paged_batch import PagedBatch
from gcache.llm.forward.pages import Span
from gcache.llm.local import LocalLLM
from gcache.llm.requests import GenerateRequest, ThinkRequest

#: Code for this machine, and for those without its instructions.
CODE = list(dict.fromkeys((
    machine_options(), *([library_module.AVX2] if library_module.AVX512[0] in machine_options() else []), (),
)))  # fmt: skip
needs_compiler = needs.skips_if(
    native_library() is None, "there is no C compiler, or it knows no OpenMP", "install gcc or clang"
)
pytestmark = needs_compiler


def native(model: Any, tokenizer: Any) -> LocalLLM:
    llm = LocalLLM(model, tokenizer, limits=Limits(native=True))
    assert isinstance(llm.decoder, NativeDecoder)
    return llm


@pytest.fixture(params=["tiny_llama", "tiny_qwen2", "tiny_qwen3"])
def llm(request: pytest.FixtureRequest, tiny_tokenizer: Any) -> LocalLLM:
    return native(request.getfixturevalue(request.param), tiny_tokenizer)


def library() -> Any:
    found = native_library()
    assert found is not None
    return found


def lattice(outputs: int, inputs: int, block: int, levels: int, symmetric: bool) -> Tensor:
    """Weights as a file of few bits unpacks them."""
    torch.manual_seed(levels + block)
    scale = torch.rand(outputs, inputs // block, 1).half().float() * 0.1
    q = torch.randint(0, levels, (outputs, inputs // block, block)).float()
    minimum = -scale * (levels // 2) if symmetric else -torch.rand(outputs, inputs // block, 1).half().float()
    return (scale * q + minimum).view(outputs, inputs)


# -- weights ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", CODE, ids=str)
@pytest.mark.parametrize("kind", ["integers", "integers from a minimum on", "bfloat16", "float32"])
def test_a_product_is_the_same_to_the_bit_with_any_number_of_tokens(
    kind: str, options: tuple[str, ...]
) -> None:
    """Tiles of every size, one or several of them."""
    compiled = library_module._library(options)
    assert not isinstance(compiled, str)
    torch.manual_seed(5)
    plain = torch.randn(70, 640)
    weights = {
        "integers": lattice(70, 640, 32, 16, True), "integers from a minimum on": lattice(70, 640, 16, 255, False),
        "bfloat16": plain.bfloat16().float(), "float32": plain,
    }  # fmt: skip
    matrix = Matrix(compiled, [weights[kind]])
    assert (matrix.kind == INT8) is kind.startswith("integers")
    states = torch.randn(150, 640)
    alone = torch.cat([matrix(state[None], 1) for state in states])
    for tokens in (*range(1, 41), 97, 150):
        assert torch.equal(matrix(states[:tokens], 1 + tokens % 2), alone[:tokens]), tokens


@pytest.mark.parametrize("block", [16, 32])
@pytest.mark.parametrize("levels", [2, 16, 32, 64, 255])
@pytest.mark.parametrize("symmetric", [False, True])
def test_weights_of_few_bits_are_kept_as_integers_and_multiplied_exactly(
    block: int, levels: int, symmetric: bool
) -> None:
    weight = lattice(70, 128, block, levels, symmetric)
    matrix = Matrix(library(), [weight])
    assert matrix.kind == INT8
    assert bool(matrix.struct.minimum) is not symmetric
    product = matrix(torch.eye(128), 1).T  # each weight, alone
    torch.testing.assert_close(product, weight, atol=2.0**-22 * float(weight.abs().max()), rtol=0)
    states = torch.randn(5, 128)
    torch.testing.assert_close(matrix(states, 1), states @ weight.T, atol=1e-4, rtol=1e-5)


def test_one_weight_off_its_lattice_is_not_rounded_onto_it() -> None:
    weight = lattice(40, 64, 32, 16, symmetric=False)
    weight[33, 50] += 1e-4
    matrix = Matrix(library(), [weight])
    assert matrix.kind == F32
    assert torch.equal(matrix(torch.eye(64), 1).T, weight)


def test_other_weights_are_kept_in_bf16_where_that_holds_them_else_in_float() -> None:
    torch.manual_seed(3)
    wide = torch.randn(33, 48)
    narrow = wide.bfloat16().float()
    for weight, kind in ((wide, F32), (narrow, BF16)):
        matrix = Matrix(library(), [weight])
        assert matrix.kind == kind
        assert torch.equal(matrix(torch.eye(48), 1).T, weight)


@pytest.mark.parametrize("special", [0.0, float("inf"), float("nan"), 1e-42])
def test_weights_that_are_no_ordinary_numbers_are_kept(special: float) -> None:
    weight = torch.full((16, 32), special)
    weight[3, 5] = 1.0
    product = Matrix(library(), [weight])(torch.eye(32)[5:6], 1)[0]
    if special == special and special not in (float("inf"),):
        torch.testing.assert_close(product, weight[:, 5], atol=1e-7, rtol=0)
    else:
        assert not bool(product.isfinite().any())


@pytest.mark.parametrize("inputs", [2, 30, 126, 128, 130, 384])
@pytest.mark.parametrize("tokens", [1, 2, 5, 6, 7, 12, 13, 25, 145, 289])
@pytest.mark.parametrize("half", [False, True])
def test_every_number_of_tokens_and_inputs_is_multiplied_right(inputs: int, tokens: int, half: bool) -> None:
    torch.manual_seed(tokens)
    weight, bias, states = torch.randn(37, inputs), torch.randn(37), torch.randn(tokens, inputs)
    if half:
        weight, states = weight.bfloat16(), states.bfloat16()
    expected = states.double() @ weight.double().T + bias.double()
    found = Matrix(library(), [weight], bias, half)(states, 2)
    torch.testing.assert_close(found.double(), expected, atol=1e-4, rtol=1e-5)


def test_the_head_gives_gradients_through_the_plain_weights(tiny_qwen2: Any) -> None:
    head = NativeLinear(tiny_qwen2.lm_head, library(), half=False)
    states = torch.randn(2, head.weight.shape[1], requires_grad=True)
    head(states).sum().backward()
    assert states.grad is not None
    torch.testing.assert_close(states.grad, head.weight.sum(0).expand_as(states))
    with torch.no_grad():
        torch.testing.assert_close(head(states), tiny_qwen2.lm_head(states), atol=1e-5, rtol=1e-5)


# -- passes -----------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_it_computes_what_transformers_computes(llm: LocalLLM) -> None:
    tokens = tuple(range(3, 40))
    rows = llm.rows()
    rows.add([None], [len(tokens)])
    own = rows.feed(*llm.embed([tokens]))
    theirs = llm.model.model(torch.tensor([tokens])).last_hidden_state
    torch.testing.assert_close(own, theirs, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_state_is_the_same_to_the_bit_alone_in_a_batch_and_before_guesses(llm: LocalLLM) -> None:
    """Prompts of 1 to 40 tokens, then steps of 1 to 5."""
    torch.manual_seed(0)
    prompts = [tuple(torch.randint(3, 60, (1 + 3 * n,)).tolist()) for n in range(14)]
    more = torch.randint(3, 60, (len(prompts), 5))
    together = llm.rows()
    together.add([None] * len(prompts), [len(p) + 5 for p in prompts])
    read = together.feed(*llm.embed(prompts))
    ahead = together.feed(llm.embedding(more))
    for row, prompt in enumerate(prompts):
        alone = llm.rows()
        alone.add([None], [len(prompt) + 5])
        assert torch.equal(alone.feed(*llm.embed([prompt]))[0], read[row, : len(prompt)])
        one_by_one = [alone.feed(llm.embedding(more[row : row + 1, n : n + 1]))[0, 0] for n in range(5)]
        assert torch.equal(torch.stack(one_by_one), ahead[row])
        keys, values = alone.pages.slots(alone._table, [Span(0, 0, len(prompt) + 5)])[0]
        others, other_values = together.pages.slots(together._table, [Span(row, 0, len(prompt) + 5)])[0]
        assert torch.equal(keys, others) and torch.equal(values, other_values)


@torch.no_grad()
def test_the_number_of_threads_changes_no_bit(llm: LocalLLM) -> None:
    prompts = [tuple(range(3, 6 + 4 * n)) for n in range(9)]
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            rows = llm.rows()
            rows.add([None] * len(prompts), [len(p) for p in prompts])
            states = rows.feed(*llm.embed(prompts))
            found.append(torch.cat([own[: len(p)] for own, p in zip(states, prompts, strict=True)]))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


@torch.no_grad()
def test_log_weights_count_as_they_do_in_torch(llm: LocalLLM, request: pytest.FixtureRequest) -> None:
    past = llm.think([ThinkRequest(tuple(range(3, 30)), latent_steps=3)])[0]
    bias = torch.linspace(-6, 0, past.slots)[None].clone()
    bias[0, 4] = -1e38  # blocked
    weighted = FusedCache.of_parts([past], [bias])
    states = []
    for decoder in (llm.decoder, llm.decoder.__class__.__mro__[1](llm.base)):
        rows = PagedBatch(decoder, llm.cache_shape, llm.dtype, llm.device)
        rows.add([weighted, None], [4, 4])
        states.append(rows.feed(*llm.embed([(5, 9, 8), (5, 9)])))
    torch.testing.assert_close(states[0][0], states[1][0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(states[0][1, :2], states[1][1, :2], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_row_that_is_nan_stays_alone(llm: LocalLLM) -> None:
    embeds, lengths = llm.embed([(5, 9, 8), (4, 6), (7, 3, 2)])
    rows = llm.rows()
    rows.add([None] * 3, [4] * 3)
    whole = rows.feed(embeds, lengths)
    broken = embeds.clone()
    broken[1] = float("nan")
    rows = llm.rows()
    rows.add([None] * 3, [4] * 3)
    states = rows.feed(broken, lengths)
    assert torch.equal(states[0], whole[0]) and torch.equal(states[2], whole[2])
    assert bool(states[1, :2].isnan().all())


@torch.no_grad()
def test_bf16_is_at_least_as_close_to_float32_as_transformers_is(tiny_qwen2: Any, tiny_tokenizer: Any) -> None:
    model = copy.deepcopy(tiny_qwen2).bfloat16()
    precise = copy.deepcopy(model).float()
    theirs = model(torch.tensor([range(3, 60)])).logits[0].float()
    llm = native(model, tiny_tokenizer)
    rows = llm.rows()
    rows.add([None], [57])
    own = llm.logits(rows.feed(*llm.embed([tuple(range(3, 60))])))[0]
    exact = precise(torch.tensor([range(3, 60)])).logits[0]
    assert float((own - exact).norm()) <= 1.05 * float((theirs - exact).norm())


def test_texts_with_guesses_are_the_texts_without(llm: LocalLLM) -> None:
    requests = [GenerateRequest(tuple(range(3, 9 + n)), None, 30, 0.8 * (n % 2), seed=n) for n in range(6)]
    texts = llm.generate(requests)
    llm.limits = Limits(prompt_lookup=False, max_batch_size=2)
    for one, other in zip(texts, llm.generate(requests), strict=True):
        assert one.tokens == other.tokens
        assert one.log_probs == pytest.approx(other.log_probs, abs=1e-6)  # summed by torch


def test_it_is_a_choice(tiny_qwen2: Any, tiny_tokenizer: Any) -> None:
    llm = LocalLLM(tiny_qwen2, tiny_tokenizer, limits=Limits(native=False))
    assert not isinstance(llm.decoder, NativeDecoder) and not isinstance(llm.head, NativeLinear)


def test_layers_that_do_more_than_multiply_are_left_to_torch(tiny_qwen2: Any, other_llm: LocalLLM) -> None:
    model = copy.deepcopy(tiny_qwen2)
    assert can_run(model.model)
    assert not can_run(copy.deepcopy(model).double().model)
    assert not can_run(other_llm.base)
    hook = model.model.layers[1].mlp.up_proj.register_forward_hook(lambda *_: None)
    assert not can_run(model.model)
    hook.remove()
    own = model.model.layers[0].self_attn.q_proj
    model.model.layers[0].self_attn.q_proj = type("Own", (torch.nn.Linear,), {})(own.in_features, own.out_features)
    assert not can_run(model.model)


def test_a_head_with_a_hook_is_asked_itself(tiny_qwen2: Any, tiny_tokenizer: Any) -> None:
    model, calls = copy.deepcopy(tiny_qwen2), list[int]()
    model.lm_head.register_forward_hook(lambda *_: calls.append(1))
    llm = native(model, tiny_tokenizer)
    assert not isinstance(llm.head, NativeLinear)
    calls.clear()
    llm.generate([GenerateRequest((4, 5), None, 3)])
    assert calls


# -- the compiler -----------------------------------------------------------------------------------------------------


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GCACHE_HOME", str(tmp_path))
    library_module._library.cache_clear()
    yield tmp_path
    library_module._library.cache_clear()


def test_it_is_compiled_once(own_cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    for _ in range(2):
        library_module._library.cache_clear()
        assert native_library() is not None
    assert caplog.text.count("compiled decoder.c") == 1
    assert [path.suffix for path in (own_cache / "native").iterdir()] == [".so"]


def test_code_for_plainer_machines_computes_the_same(own_cache: Path, tiny_qwen2: Any, tiny_tokenizer: Any) -> None:
    found = []
    for options in CODE:
        compiled = library_module._library(options)
        assert not isinstance(compiled, str)
        decoder = NativeDecoder(tiny_qwen2.model, compiled)
        shape = (2, tiny_qwen2.config.num_key_value_heads, decoder.dim)
        rows = PagedBatch(decoder, shape, torch.float32, torch.device("cpu"))
        rows.add([None, None], [30, 30])
        with torch.no_grad():
            ids = torch.arange(3, 53).view(2, 25)
            found.append(rows.feed(tiny_qwen2.model.embed_tokens(ids)))
    for other in found[1:]:
        torch.testing.assert_close(found[0], other, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("fails", ["no compiler", "it refuses", "it hangs", "no folder"])
def test_without_a_compiler_passes_go_through_torch_and_the_log_says_so(
    fails: str, own_cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
    tiny_qwen2: Any, tiny_tokenizer: Any,
) -> None:  # fmt: skip
    def refuses(*_: Any, **__: Any) -> Any:
        raise subprocess.CalledProcessError(1, "cc", stderr="decoder.c: nothing here\nerror: no such instruction")

    def hangs(*_: Any, **__: Any) -> Any:
        raise subprocess.TimeoutExpired("cc", 120)

    if fails == "no compiler":
        monkeypatch.setattr(library_module.shutil, "which", lambda _: None)
    elif fails == "no folder":
        (own_cache / "native").write_text("a file")
    else:
        monkeypatch.setattr(library_module.subprocess, "run", refuses if fails == "it refuses" else hangs)
    caplog.set_level(logging.INFO)
    llm = LocalLLM(tiny_qwen2, tiny_tokenizer)
    assert not isinstance(llm.decoder, NativeDecoder)
    assert "through torch's operators" in caplog.text
    assert len(llm.generate([GenerateRequest((4, 5), None, 3)])[0].tokens) > 0
