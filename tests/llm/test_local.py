from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from exact import CLOSE_IN_DOUBLE, double
from torch import Tensor, nn
from transformers import CohereConfig, CohereForCausalLM, LlamaForCausalLM, MistralConfig, MistralForCausalLM

from gcache.cache.fused_cache import FusedCache
from gcache.cache.kv_cache import SHARED, KVCache, SlotKind
from gcache.errors import ConfigError, ModelError
from gcache.llm.cache_budget import Limits
from gcache.llm.forward.alignment import Alignment
from gcache.llm.local import LocalLLM
from gcache.llm.requests import GenerateRequest, LogProbRequest, ThinkRequest

PROMPTS = ((5, 9, 17), (30, 4, 11, 52, 7, 23, 8), (61,))
SMALL = {
    "vocab_size": 64,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 128,
    "initializer_range": 0.3,
    "pad_token_id": None,
}


def think(llm: LocalLLM, tokens: tuple[int, ...], past: FusedCache | None = None, **more: Any) -> FusedCache:
    """One agent's own slots, at weight 1."""
    return FusedCache.plain(llm.think([ThinkRequest(tokens, past, **more)])[0])


def fuse(*parts: FusedCache) -> FusedCache:
    joined = FusedCache.join(parts)
    assert isinstance(joined, FusedCache)
    return joined


def at_weight(cache: FusedCache, weight: float) -> FusedCache:
    return replace(cache, bias=torch.full_like(cache.bias, math.log(weight)))


@torch.no_grad()
def own_logits(llm: LocalLLM, tokens: tuple[int, ...]) -> Tensor:
    """(S, V) logits by transformers alone."""
    logits: Tensor = llm.model(torch.tensor([tokens])).logits[0]
    return logits


def random_past(layers: int = 2, batch: int = 1, heads: int = 2, slots: int = 3, dim: int = 8) -> FusedCache:
    block = torch.randn(layers, batch, heads, slots, dim)
    index = torch.arange(slots).expand(batch, slots)
    valid = torch.ones_like(index).bool()
    return FusedCache(block, block, index, valid, index, index, index, bias=torch.zeros(batch, slots))


# -- what is asked --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: ThinkRequest(()), "at least one prompt token"),
        (lambda: GenerateRequest(()), "at least one prompt token"),
        (lambda: LogProbRequest((), (1,)), "at least one prompt token"),
        (lambda: ThinkRequest((1,), latent_steps=-1), "latent_steps must be 0 or more, got -1"),
        (lambda: GenerateRequest((1,), max_new_tokens=0), "max_new_tokens must be 1 or more, got 0"),
        (lambda: GenerateRequest((1,), temperature=-0.5), "temperature must be 0 .* got -0.5"),
        (lambda: LogProbRequest((1,), (2,), temperature=-0.5), "temperature must be 0 .* got -0.5"),
        (lambda: LogProbRequest((1,), ()), "completion is empty"),
    ],
)
def test_impossible_requests_are_refused_by_the_parameters_name(
    make: Callable[[], object], named: str
) -> None:
    with pytest.raises(ConfigError, match=named):
        make()


@pytest.mark.parametrize(
    "wrong",
    [{"layers": 1}, {"layers": 3}, {"heads": 4}, {"dim": 4}, {"batch": 2}],
    ids=["too few layers", "too many layers", "heads", "head dimension", "two sequences"],
)
def test_a_past_that_does_not_fit_the_model_is_refused(
    tiny_llama: LlamaForCausalLM, tiny_tokenizer: Any, wrong: dict[str, int]
) -> None:
    llm, past = LocalLLM(tiny_llama, tiny_tokenizer), random_past(**wrong)
    with pytest.raises(ConfigError):
        llm.generate([GenerateRequest((5, 9), past, max_new_tokens=2)])
    with pytest.raises(ConfigError):
        llm.log_prob([LogProbRequest((5, 9), (3, 4), past)])
    with pytest.raises(ConfigError):
        llm.think([ThinkRequest((5, 9), past)])


def test_no_requests_give_no_results(tiny_llm: LocalLLM) -> None:
    assert tiny_llm.think([]) == [] and tiny_llm.generate([]) == [] and tiny_llm.log_prob([]) == []


# -- which models ---------------------------------------------------------------------------


def test_a_model_that_rotates_neighbouring_pairs_is_refused() -> None:
    model = CohereForCausalLM(CohereConfig(**SMALL))
    with pytest.raises(ModelError, match=r"'cohere'.*shifting its keys by RoPE misses"):
        LocalLLM(model, None, label="cohere")


def test_a_model_that_does_not_attend_to_everything_is_refused() -> None:
    model = MistralForCausalLM(MistralConfig(**SMALL, sliding_window=16))
    with pytest.raises(ModelError, match="'mistral'"):
        LocalLLM(model, None, label="mistral")


def test_the_same_model_without_a_window_is_accepted() -> None:
    llm = LocalLLM(MistralForCausalLM(MistralConfig(**SMALL, sliding_window=None)), None)
    assert llm.cache_shape == (2, 2, 8)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_every_precision_can_think_and_write(
    tiny_llama: LlamaForCausalLM, tiny_tokenizer: Any, dtype: torch.dtype
) -> None:
    llm = LocalLLM(copy.deepcopy(tiny_llama).to(dtype), tiny_tokenizer)
    past = at_weight(think(llm, (5, 9, 17), latent_steps=2), 1e-30)
    assert past.keys.dtype == dtype
    written = llm.generate([GenerateRequest((4,), past, max_new_tokens=3)])[0]
    assert all(math.isfinite(score) for score in written.log_probs)


# -- thinking -------------------------------------------------------------------------------


def test_without_latent_steps_thinking_gives_exactly_the_prompts_slots(tiny_llm: LocalLLM) -> None:
    llm = double(tiny_llm)
    for tokens, cache in zip(PROMPTS, llm.think([ThinkRequest(p) for p in PROMPTS]), strict=True):
        with torch.no_grad():
            layers = llm.model(torch.tensor([tokens]), use_cache=True).past_key_values.layers
        keys, values = (torch.stack([getattr(layer, name) for layer in layers]) for name in ("keys", "values"))
        torch.testing.assert_close(cache.keys, keys, atol=CLOSE_IN_DOUBLE, rtol=0)
        torch.testing.assert_close(cache.values, values, atol=CLOSE_IN_DOUBLE, rtol=0)
        assert cache.positions.tolist() == [list(range(len(tokens)))]


def test_own_slots_say_what_they_are_and_follow_the_past(tiny_llm: LocalLLM) -> None:
    past = think(tiny_llm, (5, 9, 17, 40, 41), owner=SHARED, kind=SlotKind.PREFIX)
    assert past.kinds.tolist() == [[SlotKind.PREFIX] * 5] and past.owners.tolist() == [[SHARED] * 5]
    own = think(tiny_llm, (7, 8, 6), past, latent_steps=2, owner=4)
    assert own.positions.tolist() == [[5, 6, 7, 8, 9]]  # after the past, which is not repeated
    assert own.kinds.tolist() == [[SlotKind.PROMPT] * 3 + [SlotKind.LATENT] * 2]
    assert own.ordinals.tolist() == [[0, 1, 2, 3, 4]]
    assert own.owners.tolist() == [[4] * 5]
    assert bool(own.mask.all())


def test_a_receiver_continues_after_the_last_occupied_position(tiny_llm: LocalLLM) -> None:
    prefix = think(tiny_llm, (5, 9))
    siblings = [think(tiny_llm, tokens, prefix) for tokens in ((7,), (8, 6, 3))]  # at 2 and at 2, 3, 4
    own = think(tiny_llm, (11, 12), fuse(prefix, *siblings))
    assert own.positions.tolist() == [[5, 6]]


def test_thinking_in_two_parts_is_thinking_once(tiny_llm: LocalLLM) -> None:
    llm = double(tiny_llm)
    whole = think(llm, (5, 9, 17, 30, 4))
    first = think(llm, (5, 9))
    parts = fuse(first, think(llm, (17, 30, 4), first))
    assert torch.equal(parts.positions, whole.positions)
    torch.testing.assert_close(parts.keys, whole.keys, atol=CLOSE_IN_DOUBLE, rtol=0)
    torch.testing.assert_close(parts.values, whole.values, atol=CLOSE_IN_DOUBLE, rtol=0)


def test_a_latent_step_feeds_back_the_aligned_last_hidden_state(tiny_llm: LocalLLM) -> None:
    tokens, llm = (5, 9, 17), double(tiny_llm)
    embeds = llm.model.get_input_embeddings()(torch.tensor([tokens]))
    with torch.no_grad():
        for _ in range(2):  # recomputed from the start every time, by transformers alone
            hidden = llm.model.model(inputs_embeds=embeds).last_hidden_state[:, -1:]
            embeds = torch.cat((embeds, llm.alignment(hidden)), dim=1)
        layers = llm.model(inputs_embeds=embeds, use_cache=True).past_key_values.layers
    own = think(llm, tokens, latent_steps=2)
    torch.testing.assert_close(own.keys, torch.stack([layer.keys for layer in layers]), atol=CLOSE_IN_DOUBLE, rtol=0)
    values = torch.stack([layer.values for layer in layers])
    torch.testing.assert_close(own.values, values, atol=CLOSE_IN_DOUBLE, rtol=0)


def test_a_past_is_never_written_to(tiny_llm: LocalLLM) -> None:
    past = think(tiny_llm, (5, 9, 17))
    before = copy.deepcopy(past)
    think(tiny_llm, (7, 8), past, latent_steps=2)
    tiny_llm.generate([GenerateRequest((7, 8), past, max_new_tokens=4)])
    tiny_llm.log_prob([LogProbRequest((7, 8), (3, 4), past)])
    for name in ("keys", "values", "positions", "mask", "bias"):
        assert torch.equal(getattr(past, name), getattr(before, name)), name


def test_padding_inside_a_past_changes_nothing(tiny_llm: LocalLLM) -> None:
    past = think(tiny_llm, (5, 9, 17))
    noise = replace(random_past(slots=2), mask=torch.zeros(1, 2).bool(), positions=torch.tensor([[90, 91]]))
    requests = [LogProbRequest((7, 8), (3, 4, 60), p) for p in (past, fuse(past, noise), past.pad_to(9))]
    plain, noisy, padded = tiny_llm.log_prob(requests)
    torch.testing.assert_close(noisy, plain, atol=1e-5, rtol=0)
    torch.testing.assert_close(padded, plain, atol=1e-5, rtol=0)


# -- writing --------------------------------------------------------------------------------


def test_greedy_text_is_that_of_transformers(tiny_llm: LocalLLM) -> None:
    requests = [GenerateRequest(tokens, max_new_tokens=24) for tokens in PROMPTS]
    for request, written in zip(requests, tiny_llm.generate(requests), strict=True):
        ids = torch.tensor([request.tokens])
        expected = tiny_llm.model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=24, do_sample=False, pad_token_id=0
        )
        assert list(written.tokens) == expected[0, ids.shape[1] :].tolist()


def test_greedy_text_on_a_past_is_that_on_the_whole_prompt(tiny_llm: LocalLLM) -> None:
    past = think(tiny_llm, PROMPTS[0])
    continued, whole = tiny_llm.generate(
        [
            GenerateRequest(PROMPTS[1], past, max_new_tokens=12),
            GenerateRequest(PROMPTS[0] + PROMPTS[1], max_new_tokens=12),
        ]
    )
    assert continued.tokens == whole.tokens
    assert continued.log_probs == pytest.approx(whole.log_probs, abs=1e-4)


def test_a_stop_token_ends_the_text_and_is_counted(tiny_llm: LocalLLM) -> None:
    tiny_llm.stop_tokens = frozenset()
    free = tiny_llm.generate([GenerateRequest(PROMPTS[1], max_new_tokens=12)])[0]
    assert len(free.tokens) == 12 and not free.finished  # without stop tokens only the limit ends a text
    last = max(free.tokens.index(token) for token in free.tokens)  # the latest first appearance
    assert last > 0
    tiny_llm.stop_tokens = frozenset({free.tokens[last]})
    stopped = tiny_llm.generate([GenerateRequest(PROMPTS[1], max_new_tokens=12)])[0]
    assert stopped.finished
    assert stopped.tokens == free.tokens[: last + 1]
    assert len(stopped.log_probs) == last + 1
    assert stopped.text == tiny_llm.tokenizer.decode(list(free.tokens[:last]), skip_special_tokens=True)


def test_stop_tokens_come_from_the_tokenizer_and_from_the_model(tiny_llm: LocalLLM) -> None:
    assert tiny_llm.stop_tokens == {2}
    model = copy.deepcopy(tiny_llm.model)
    model.generation_config.eos_token_id = [7, 9]
    assert LocalLLM(model, tiny_llm.tokenizer).stop_tokens == {2, 7, 9}


def test_the_limit_cuts_the_text_and_says_so(tiny_llm: LocalLLM) -> None:
    tiny_llm.stop_tokens = frozenset()
    requests = [GenerateRequest(PROMPTS[0], max_new_tokens=n) for n in (1, 5, 3)]
    one, five, three = tiny_llm.generate(requests)
    assert [len(text.tokens) for text in (one, five, three)] == [1, 5, 3]
    assert not (one.finished or five.finished or three.finished)
    assert five.tokens[:3] == three.tokens and three.tokens[:1] == one.tokens


def test_a_stop_token_at_the_limit_is_an_end_not_a_cut(tiny_llm: LocalLLM) -> None:
    first = int(own_logits(tiny_llm, PROMPTS[0])[-1].argmax())
    tiny_llm.stop_tokens = frozenset({first})
    written = tiny_llm.generate([GenerateRequest(PROMPTS[0], max_new_tokens=1)])[0]
    assert (written.tokens, written.finished, written.text) == ((first,), True, "")


def test_draws_follow_the_models_probabilities(tiny_llm: LocalLLM) -> None:
    n, temperature = 2000, 0.7
    requests = [
        GenerateRequest(PROMPTS[0], max_new_tokens=1, temperature=temperature, seed=s) for s in range(n)
    ]
    drawn = torch.tensor([written.tokens[0] for written in tiny_llm.generate(requests)])
    counts = torch.bincount(drawn, minlength=64).double()
    p = torch.softmax(own_logits(tiny_llm, PROMPTS[0])[-1].double() / temperature, dim=0)
    common = n * p >= 5  # the others are counted as one
    counts = torch.cat((counts[common], counts[~common].sum().reshape(1)))
    p = torch.cat((p[common], p[~common].sum().reshape(1)))
    assert len(p) > 10
    errors = (counts - n * p).abs() / (n * p * (1 - p)).sqrt()
    assert errors.max().item() < 4


def test_draws_are_a_requests_own_whatever_is_in_its_batch(tiny_llm: LocalLLM) -> None:
    request = GenerateRequest(PROMPTS[1], max_new_tokens=9, temperature=1.0, seed=5)
    others = [
        GenerateRequest(tokens, think(tiny_llm, PROMPTS[2]), max_new_tokens=20 + s, temperature=t, seed=s)
        for s, (tokens, t) in enumerate(zip(PROMPTS, (0.0, 0.7, 1.5), strict=True))
    ]
    alone = tiny_llm.generate([request])[0]
    among = tiny_llm.generate([*others, request, replace(request, seed=6)])
    assert among[3].tokens == alone.tokens
    assert among[4].tokens != alone.tokens  # another seed, another text
    assert alone.tokens != tiny_llm.generate([replace(request, temperature=0.0)])[0].tokens


def test_draws_do_not_touch_the_global_random_state(tiny_llm: LocalLLM) -> None:
    before = torch.get_rng_state()
    tiny_llm.generate([GenerateRequest(PROMPTS[0], max_new_tokens=3, temperature=1.0)])
    assert torch.equal(torch.get_rng_state(), before)


def test_a_small_batch_limit_changes_nothing(tiny_llm: LocalLLM) -> None:
    past = think(tiny_llm, PROMPTS[1])
    requests = [
        GenerateRequest(
            PROMPTS[i % 3], past if i % 2 else None, max_new_tokens=4 + i, temperature=0.5 * (i % 4), seed=i
        )
        for i in range(8)
    ]
    together = tiny_llm.generate(requests)
    tiny_llm.limits = Limits(max_batch_tokens=30)
    for small, large in zip(tiny_llm.generate(requests), together, strict=True):
        assert small.tokens == large.tokens  # in the order asked, too
        assert small.log_probs == pytest.approx(large.log_probs, abs=1e-4)


# -- probabilities --------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0])
def test_log_prob_is_the_models_own(tiny_llm: LocalLLM, temperature: float) -> None:
    prompt, completion = (5, 9, 17), (30, 4, 11, 52)
    logits = own_logits(tiny_llm, prompt + completion)[2:6] / (temperature or 1.0)
    expected = torch.log_softmax(logits, dim=-1)[torch.arange(4), torch.tensor(completion)]
    scores = tiny_llm.log_prob([LogProbRequest(prompt, completion, temperature=temperature)])[0]
    torch.testing.assert_close(scores, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_log_prob_asked_again_is_that_of_the_draw(tiny_llm: LocalLLM, temperature: float) -> None:
    past = at_weight(think(tiny_llm, PROMPTS[1], latent_steps=2), 0.3)
    asked = [
        GenerateRequest(tokens, p, max_new_tokens=15, temperature=temperature, seed=s)
        for s, (tokens, p) in enumerate(zip(PROMPTS, (past, None, past), strict=True))
    ]
    written = tiny_llm.generate(asked)
    scores = tiny_llm.log_prob(
        [LogProbRequest(r.tokens, w.tokens, r.past, temperature) for r, w in zip(asked, written, strict=True)]
    )
    for text, score in zip(written, scores, strict=True):
        assert score.tolist() == pytest.approx(text.log_probs, abs=1e-4)
        assert text.log_prob == pytest.approx(sum(text.log_probs))


def test_an_edge_whose_weight_goes_to_zero_is_no_edge(tiny_llm: LocalLLM) -> None:
    prefix = think(tiny_llm, (5, 9, 17, 30, 4, 11))
    extra = think(tiny_llm, (52, 7, 23, 8))  # at positions the prefix has too, so nothing is moved
    pasts = [prefix, fuse(prefix, at_weight(extra, 1e-30)), fuse(prefix, at_weight(extra, 0.5))]
    without, vanished, half = tiny_llm.log_prob([LogProbRequest((40, 41), (3, 60, 20), p) for p in pasts])
    torch.testing.assert_close(vanished, without, atol=1e-5, rtol=0)
    assert (half - without).abs().max().item() > 1e-3


def test_weight_one_is_plain_concatenation(tiny_llm: LocalLLM) -> None:
    prefix, tokens = think(tiny_llm, (5, 9, 17)), (30, 4)
    fused = fuse(prefix, at_weight(think(tiny_llm, tokens, prefix), 1.0))
    scores = tiny_llm.log_prob([LogProbRequest((40, 41), (3, 60, 20), fused)])[0]
    whole = tiny_llm.log_prob([LogProbRequest((5, 9, 17, *tokens, 40, 41), (3, 60, 20))])[0]
    torch.testing.assert_close(scores, whole, atol=1e-4, rtol=0)


def test_a_weight_of_one_half_counts_a_doubled_slot_once(tiny_llm: LocalLLM) -> None:
    """Two copies of a slot at weight 1/2 take the attention that one takes at weight 1."""
    past = think(tiny_llm, (5, 9, 17), latent_steps=1)
    twice = fuse(at_weight(past, 0.5), at_weight(past, 0.5))
    once, doubled = tiny_llm.log_prob([LogProbRequest((40, 41), (3, 60), p) for p in (past, twice)])
    torch.testing.assert_close(doubled, once, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("dtype", "step", "tolerance"),
    [(torch.float64, 2e-3, 1e-3), (torch.float32, 1e-2, 1e-2)],
    ids=["float64", "float32"],
)
def test_log_prob_gradient_to_the_past_is_that_of_finite_differences(
    tiny_llm: LocalLLM, dtype: torch.dtype, step: float, tolerance: float
) -> None:
    llm = double(tiny_llm) if dtype == torch.float64 else tiny_llm
    past = at_weight(think(llm, (5, 9, 17), latent_steps=1), 0.6)
    leaves = {"keys": past.keys, "values": past.values, "bias": past.bias.to(dtype)}

    def score(tensors: dict[str, Tensor]) -> Tensor:
        request = LogProbRequest((40, 41), (3, 60, 20), replace(past, **tensors), temperature=0.7)
        return llm.log_prob([request, LogProbRequest((8,), (6, 19))])[0].sum()

    watched = {name: tensor.clone().requires_grad_() for name, tensor in leaves.items()}
    score(watched).backward()
    for name, leaf in watched.items():
        assert leaf.grad is not None
        for flat in torch.randperm(leaf.numel())[:5].tolist():
            ends = []
            for sign in (1, -1):
                moved = leaves[name].clone()
                moved.view(-1)[flat] += sign * step
                ends.append(score({**leaves, name: moved}).item())
            slope = (ends[0] - ends[1]) / (2 * step)
            assert leaf.grad.view(-1)[flat].item() == pytest.approx(slope, abs=tolerance), (name, flat)
        assert leaf.grad.abs().max().item() > 10 * tolerance  # there was something to compare


def test_gradient_goes_to_the_past_and_never_to_the_model(tiny_llm: LocalLLM) -> None:
    past = think(tiny_llm, (5, 9))
    assert not past.keys.requires_grad
    leaf = replace(past, bias=past.bias.clone().requires_grad_())
    tiny_llm.log_prob([LogProbRequest((40,), (3, 60), leaf)])[0].sum().backward()
    assert leaf.bias.grad is not None
    assert all(weight.grad is None and not weight.requires_grad for weight in tiny_llm.model.parameters())


# -- the latent map -------------------------------------------------------------------------


def model_of(w_in: list[list[float]], w_out: list[list[float]]) -> SimpleNamespace:
    """Nothing but two embedding tables, one row per token."""
    first, second = nn.Embedding.from_pretrained(torch.tensor(w_in)), nn.Linear(2, 2, bias=False)
    second.weight = nn.Parameter(torch.tensor(w_out))
    return SimpleNamespace(get_input_embeddings=lambda: first, get_output_embeddings=lambda: second)


def test_the_latent_map_by_hand() -> None:
    # W_out' W_out = diag(1, 4), mean 2.5, so lambda = 0.4 * 2.5 = 1 and
    # W_a = diag(1 / 2, 1 / 5) diag(1, 2) [[0, 3], [4, 0]] = [[0, 1.5], [1.6, 0]]
    alignment = Alignment.of_model(model_of([[0.0, 3.0], [4.0, 0.0]], [[1.0, 0.0], [0.0, 2.0]]), ridge=0.4)
    torch.testing.assert_close(alignment.matrix, torch.tensor([[0.0, 1.5], [1.6, 0.0]]))
    assert alignment.norm == 3.5 and not alignment.tied
    # (1, 0) W_a points along the second axis; it is given the mean norm of the rows of W_in, 3.5
    torch.testing.assert_close(alignment(torch.tensor([1.0, 0.0])), torch.tensor([0.0, 3.5]))
    torch.testing.assert_close(alignment(torch.tensor([0.0, -0.2])), torch.tensor([-3.5, 0.0]))


def test_the_latent_map_of_an_untied_model_is_its_closed_form(tiny_llm: LocalLLM) -> None:
    w_in = tiny_llm.model.get_input_embeddings().weight.double()
    w_out = tiny_llm.model.get_output_embeddings().weight.double()
    gram = w_out.T @ w_out
    ridge = 1e-4 * gram.diagonal().mean() * torch.eye(32, dtype=torch.float64)
    expected = torch.linalg.inv(gram + ridge) @ w_out.T @ w_in
    torch.testing.assert_close(tiny_llm.alignment.matrix.double(), expected, atol=1e-3, rtol=1e-3)
    assert tiny_llm.alignment.tied == (tiny_llm.label == "tiny_llama")


def test_tied_embeddings_make_the_latent_map_near_the_identity(
    tiny_llama: LlamaForCausalLM, tiny_tokenizer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        alignment = LocalLLM(tiny_llama, tiny_tokenizer).alignment
    assert alignment.tied and "tied" in caplog.text  # said, not hidden
    torch.testing.assert_close(alignment.matrix, torch.eye(32), atol=5e-3, rtol=0)


def test_untied_embeddings_do_not(tiny_qwen2: Any) -> None:
    alignment = Alignment.of_model(tiny_qwen2)
    assert not alignment.tied
    assert (alignment.matrix - torch.eye(32)).abs().max().item() > 0.3


def test_every_latent_has_the_mean_norm_of_an_input_embedding(tiny_llm: LocalLLM) -> None:
    mean = tiny_llm.model.get_input_embeddings().weight.norm(dim=1).mean().item()
    latents = tiny_llm.alignment(torch.randn(3, 5, 32) * torch.tensor([0.01, 1.0, 100.0])[:, None, None])
    torch.testing.assert_close(latents.norm(dim=-1), torch.full((3, 5), mean), atol=1e-4, rtol=0)


def test_a_hidden_state_of_zero_stays_finite(tiny_llm: LocalLLM) -> None:
    assert tiny_llm.alignment(torch.zeros(1, 32)).tolist() == [[0.0] * 32]


def test_empty_cache_has_the_models_shape_and_no_slot(tiny_llm: LocalLLM) -> None:
    empty = tiny_llm.empty_cache()
    assert tiny_llm.cache_shape == (2, 2, 8)
    assert tuple(empty.keys.shape) == (2, 1, 2, 0, 8) and empty.keys.dtype == torch.float32
    assert isinstance(empty, KVCache) and empty.next_positions.tolist() == [0]


# -- the fixtures themselves ----------------------------------------------------------------


def test_tiny_tokenizer_knows_its_words_and_its_turns(tiny_tokenizer: Any) -> None:
    text = tiny_tokenizer.apply_chat_template(
        [{"role": "user", "content": "what is 12+3?"}], tokenize=False, add_generation_prompt=True
    )
    assert text == "<|im_start|>user\nwhat is 12+3?<|im_end|>\n<|im_start|>assistant\n"
    pieces = tiny_tokenizer.convert_ids_to_tokens(tiny_tokenizer(text, add_special_tokens=False).input_ids)
    assert pieces == [
        *("<|im_start|>", "user", "what", "is", "1", "2", "+", "3", "?", "<|im_end|>"),
        *("<|im_start|>", "assistant"),
    ]
    assert len(tiny_tokenizer) == 64 and tiny_tokenizer.eos_token_id == 2 and tiny_tokenizer.unk_token_id == 0
