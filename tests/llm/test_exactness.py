"""Families of models: exact through every path of ours, or refused by the true reason.

`experiments/model_families.py` does this for all families that transformers knows.
"""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from scripts import experiment
from torch import Tensor, nn

from gcache.cache.fused_cache import FusedCache
from gcache.cache.fusers.registry import make_fuser
from gcache.errors import ConfigError, ModelError
from gcache.links.linear import fit_vocab
from gcache.links.link import ModelEnds
from gcache.links.perceiver import embedding_statistics
from gcache.llm import exactness
from gcache.llm.cache_budget import Limits
from gcache.llm.forward.alignment import Alignment
from gcache.llm.local import LocalLLM
from gcache.llm.requests import GenerateRequest, LogProbRequest, ThinkRequest

TINY = experiment("tiny_families")
NUMBERS = experiment("model_families").Numbers()
#: Scales of logits (Granite, HyperCLOVAX, MiniCPM's cousins), a module that scales its embeddings (Gemma), layers that
#: rotate nothing (SmolLM3), attention of experts (JetMoe), a base model of another name (GPT-NeoX).
EXACT = ("llama", "qwen3", "granite", "granitemoe", "hyperclovax", "gemma", "smollm3", "jetmoe", "gpt_neox")
TOKENS = (5, 41, 17, 30, 4, 11, 52, 7, 23, 8, 61, 90)


def made(family: str, **changes: Any) -> Any:
    return TINY.tiny_model(family, **changes)


def loaded(family: str, **changes: Any) -> tuple[LocalLLM, Any]:
    """A model, and the same untouched."""
    return LocalLLM(made(family, **changes), NUMBERS, family), made(family, **changes)


@torch.no_grad()
def wanted(own: Any, tokens: tuple[int, ...], **more: Any) -> Tensor:
    """(S, V) log-probabilities by transformers alone."""
    log_probs: Tensor = own(input_ids=torch.tensor([tokens]), **more).logits[0].log_softmax(-1)
    return log_probs


def thought(llm: LocalLLM, tokens: tuple[int, ...]) -> FusedCache:
    return FusedCache.plain(llm.think([ThinkRequest(tokens)])[0])


def read(llm: LocalLLM, tokens: tuple[int, ...], past: FusedCache) -> Tensor:
    """(S, V) log-probabilities after each token, read on a cache."""
    seen: list[Tensor] = []
    llm.think([ThinkRequest(tokens, past, watch_prompt=seen.append)])
    return llm.logits(seen[0]).log_softmax(-1)


# -- what is exact --------------------------------------------------------------------------


@pytest.mark.parametrize("family", EXACT)
def test_texts_are_written_and_scored_as_by_transformers_alone(family: str) -> None:
    llm, own = loaded(family)
    llm.stop_tokens = frozenset()
    past = thought(llm, TOKENS[:5])
    (written,) = llm.generate([GenerateRequest(TOKENS[5:], past, 4)])
    (scores,) = llm.log_prob([LogProbRequest(TOKENS[5:], written.tokens, past)])
    by_token = wanted(own, TOKENS + written.tokens)[-5:-1]
    assert written.tokens == tuple(by_token.argmax(-1).tolist())
    expected = by_token.gather(1, torch.tensor(written.tokens)[:, None])[:, 0]
    torch.testing.assert_close(scores, expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(torch.tensor(written.log_probs), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("family", EXACT)
def test_weights_and_their_gradient_are_exact(family: str) -> None:
    llm, own = loaded(family)
    past = thought(llm, TOKENS[:5])
    log_weight = torch.tensor(math.log(0.3), requires_grad=True)

    def score(weight: Tensor) -> Tensor:
        rest = math.log(0.7)
        twice = FusedCache.join([past.weighted(weight), past.weighted(torch.tensor(rest))])
        (scores,) = llm.log_prob([LogProbRequest(TOKENS[5:7], TOKENS[7:], twice)])
        return scores

    scores = score(log_weight)
    expected = wanted(own, TOKENS)[6:-1].gather(1, torch.tensor(TOKENS[7:])[:, None])[:, 0]
    torch.testing.assert_close(scores.detach(), expected, atol=1e-4, rtol=0)
    (slope,) = torch.autograd.grad(scores.mean(), log_weight)
    with torch.no_grad():
        by_steps = (score(log_weight + 0.01).mean() - score(log_weight - 0.01).mean()) / 0.02
    assert float(slope) == pytest.approx(float(by_steps), abs=2e-3)


@pytest.mark.parametrize("family", EXACT)
def test_an_agent_that_is_moved_behind_another_is_exact(family: str) -> None:
    """As by transformers alone, with a mask by which the two do not see each other."""
    llm, own = loaded(family)
    first, second, third = TOKENS[:4], TOKENS[4:7], TOKENS[7:]
    past = FusedCache.join([thought(llm, first), thought(llm, second).shift(4, llm.rope)])
    allowed = torch.ones(12, 12).tril().bool()
    allowed[4:7, :4] = False
    mask = torch.zeros(12, 12).masked_fill(~allowed, torch.finfo(torch.float32).min)
    # by themselves, the second agent's tokens stand at 4, 5, 6 as well: nothing is before them there
    expected = wanted(own, TOKENS, attention_mask=mask[None, None], position_ids=torch.arange(12)[None])[7:]
    torch.testing.assert_close(read(llm, third, past), expected, atol=1e-4, rtol=0)


def test_layers_that_rotate_nothing_are_found_and_left_as_they_are() -> None:
    llm, _ = loaded("smollm3")  # every fourth layer
    assert llm.rope.still == (3,) and not llm.rope.fixed
    keys = thought(llm, TOKENS).keys
    moved = llm.rope.rotate(keys, torch.tensor(9))
    assert torch.equal(moved[3], keys[3]) and not torch.allclose(moved[:3], keys[:3], atol=0.1)
    assert loaded("llama")[0].rope.still == ()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("family", EXACT)
def test_half_precision_is_accepted(family: str, dtype: torch.dtype) -> None:
    LocalLLM(made(family).to(dtype), NUMBERS, family)


# -- what is refused ------------------------------------------------------------------------


def refusal(model: Any) -> str:
    with pytest.raises(ModelError) as caught:
        LocalLLM(model, NUMBERS, "odd")
    text = str(caught.value)
    assert text.startswith("model 'odd' (") and "\n" not in text and len(text) < 500
    return text


def test_a_model_that_takes_no_weights_in_its_mask_is_refused() -> None:
    model = made("doge", **TINY.full_attention("doge"))
    assert "a slot does not count in its attention by the log-weight that its mask has for it" in refusal(model)


def test_a_rotation_inside_the_layers_is_the_reason() -> None:
    text = refusal(made("gptj"))
    assert "it has rotary positions, but no part beside its layers" in text


def test_no_rotation_is_the_reason() -> None:
    assert "its caches have no rotary positions" in refusal(made("gpt2"))


def test_caches_of_unlike_shapes_are_the_reason() -> None:
    assert "keys and values of unlike shapes" in refusal(made("deepseek_v3"))


def test_a_first_embedding_of_zeros_hides_no_rotation() -> None:
    model = made("cohere")
    with torch.no_grad():
        model.get_input_embeddings().weight[0] = 0
    assert "shifting its keys by RoPE misses by" in refusal(model)


@pytest.mark.parametrize("layer", [1, 3])
def test_a_rotation_of_its_own_in_any_layer_is_found(layer: int) -> None:
    model = made("granite")

    def faster(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        angles = model.model.rotary_emb(args[0], 2 * kwargs["position_ids"])
        return args, {**kwargs, "position_embeddings": angles}

    model.model.layers[layer].register_forward_pre_hook(faster, with_kwargs=True)
    assert f"in layer {layer}," in refusal(model)


def test_what_nobody_thought_of_is_found_by_its_size() -> None:
    """Here: the first token of a prompt is written less often after it."""
    model = made("granite")
    plain = type(model).forward

    class Odd(type(model)):  # type: ignore[misc]
        def forward(self, input_ids: Tensor | None = None, **more: Any) -> Any:
            output = plain(self, input_ids=input_ids, **more)
            if input_ids is not None:
                output.logits[..., input_ids[0, 0]] -= 0.01
            return output

    model.__class__ = Odd
    assert "the log-probability of a prompt is 0.01 off that of its own forward pass" in refusal(model)


def test_a_wrong_scale_of_logits_is_found_in_half_precision() -> None:
    from gcache.llm.exactness import OwnForward, require_exact

    model = made("llama").bfloat16()
    own = OwnForward.of_model(model, "half")
    llm = LocalLLM(model, NUMBERS, "half")
    require_exact(llm, own)
    plain = llm.head
    llm.head = lambda states: plain(states) * 1.2
    with pytest.raises(ModelError, match="log-probability of a prompt is"):
        require_exact(llm, own)


def granite_with(hook: Any, dtype: torch.dtype = torch.float32, where: str = "mlp") -> Any:
    """A model whose layers' parts do something more to their outputs."""
    model = made("granite").to(dtype)
    for layer in model.model.layers:
        layer.get_submodule(where).register_forward_hook(hook)
    return model


def test_what_a_model_does_from_some_length_on_is_found() -> None:
    for width in (12, 20, 36):
        model = granite_with(lambda _, args, output, width=width: output * (1 + 0.2 * (args[0].shape[1] > width)))
        assert "of its own forward pass" in refusal(model), width


@pytest.mark.parametrize("kept", [6, 16, 30])
def test_attention_that_leaves_out_all_but_the_largest_logits_is_found(kept: int) -> None:
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    def largest(
        module: Any, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, scaling: float, **_: Any
    ) -> tuple[Tensor, None]:
        groups = queries.shape[1] // keys.shape[1]
        keys, values = keys.repeat_interleave(groups, 1), values.repeat_interleave(groups, 1)
        logits = queries @ keys.transpose(-1, -2) * scaling
        if mask is None:
            mask = torch.ones(logits.shape[-2:]).tril(logits.shape[-1] - logits.shape[-2]).bool()
        logits = logits.masked_fill(~mask, -1e9) if mask.dtype == torch.bool else logits + mask
        if logits.shape[-1] > kept:
            logits = logits.masked_fill(logits < logits.topk(kept, -1).values[..., -1:], -1e9)
        return (logits.softmax(-1) @ values).transpose(1, 2).contiguous(), None

    name = f"largest {kept}"
    AttentionInterface.register(name, largest)
    AttentionMaskInterface.register(name, sdpa_mask)
    model = made("granite")
    model.set_attn_implementation(name)
    assert "a slot does not count in its attention by the log-weight" in refusal(model)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("start", [3, 10, 100, 400])
def test_values_that_depend_on_where_they_stand_are_found(start: int, dtype: torch.dtype) -> None:
    model = made("granite").to(dtype)
    seen: list[Tensor] = []
    for layer in model.model.layers:
        layer.register_forward_pre_hook(lambda _, args, kwargs: seen.append(kwargs["position_ids"]), with_kwargs=True)
        layer.self_attn.v_proj.register_forward_hook(
            lambda _, args, output: output * (1 + 0.2 * (seen[-1] >= start)[..., None].to(output.dtype))
        )
    assert "its values in layer 0 depend on where they stand" in refusal(model)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("below", "factor"), [(0.02, 0.5), (0.02, 0.7), (0.005, 0.125), (9.0, 1.005)])
def test_slow_rotations_that_are_wrong_are_found_far_away(below: float, factor: float, dtype: torch.dtype) -> None:
    model = made("granite").to(dtype)
    frequencies = model.model.rotary_emb.inv_freq.clone().float()
    wrong = torch.where(frequencies < below, frequencies * factor, frequencies)

    def turn(_: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        angles = (kwargs["position_ids"][..., None].float() * wrong).repeat(1, 1, 2)
        return args, {**kwargs, "position_embeddings": (angles.cos().to(dtype), angles.sin().to(dtype))}

    model.model.layers[1].register_forward_pre_hook(turn, with_kwargs=True)
    text = refusal(model)
    assert "shifting its keys by RoPE misses by" in text and "in layer 1," in text


# -- half precision -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "seed", "dtype"),
    [
        ("qwen3_next", 1, torch.bfloat16), ("qwen3_5_moe_text", 1, torch.bfloat16), ("qwen3_moe", 102, torch.float16),
        ("dbrx", 1, torch.float16), ("phimoe", 0, torch.bfloat16), ("gpt_oss", 0, torch.bfloat16),
    ],
)  # fmt: skip
def test_tokens_that_go_to_other_experts_are_no_reason(family: str, seed: int, dtype: torch.dtype) -> None:
    """Nor frequencies that are computed anew in each pass (PhiMoE), nor sinks beside a slot (GPT-OSS)."""
    LocalLLM(TINY.tiny_model(family, seed, **TINY.full_attention(family)).to(dtype), NUMBERS, family)


@pytest.mark.parametrize("family", ["gpt_oss", "llama"])
def test_rounding_does_not_add_up_over_layers(family: str) -> None:
    kinds = {"layer_types": ["full_attention"] * 12} if family == "gpt_oss" else {}
    for seed in (0, 2):
        model = TINY.tiny_model(family, seed, num_hidden_layers=12, **kinds)
        LocalLLM(model.bfloat16(), NUMBERS, family)


def test_no_reason_is_given_where_rounding_may_be_it() -> None:
    """In half precision nobody knows why a path differs by a little more than rounding explains."""
    from gcache.llm.exactness import require_exact

    llm = LocalLLM(made("llama").bfloat16(), NUMBERS, "half")
    own = exactness.OwnForward.of_model(llm.model, "half")
    with pytest.raises(ModelError) as caught:
        require_exact(llm, replace(own, tolerance=1e-9))
    assert "where rounding explains 1e-09; use a model" in str(caught.value)


# -- embeddings that are no numbers, or zeros -----------------------------------------------


@pytest.mark.parametrize("family", ["llama", "granite"])
@pytest.mark.parametrize(("value", "word"), [(math.nan, "nan"), (math.inf, "infinite")])
def test_an_embedding_that_is_no_number_is_the_reason(family: str, value: float, word: str) -> None:
    model = made(family)
    with torch.no_grad():
        model.get_input_embeddings().weight[7] = value
    with pytest.raises(ModelError) as caught:
        LocalLLM(model, NUMBERS, "odd")
    assert f"of 1 of its 97 tokens are nan or infinite, that of token 7 is {word}; put zeros there" in str(caught.value)


def test_weights_that_are_no_numbers_are_the_reason() -> None:
    model = made("granite")
    with torch.no_grad():
        model.model.layers[2].mlp.up_proj.weight[3] = math.nan
    assert "the log-probabilities of its own forward pass are nan" in refusal(model)


def test_keys_that_are_no_numbers_are_the_reason() -> None:
    hooked = granite_with(lambda _, args, output: output / (args[0].shape[1] > 20), where="self_attn.v_proj")
    text = refusal(hooked)
    assert "its layer 1 keeps keys or values that are nan; use" in text
    hooked = granite_with(lambda _, args, output: output * (args[0].shape[1] < 20), where="self_attn.k_proj")
    assert "of its own forward pass" in refusal(hooked)


@pytest.mark.parametrize("guesses", [True, False])
def test_a_token_without_an_embedding_spoils_no_other_text(guesses: bool) -> None:
    """Without an epsilon, the norm of its zeros is nan: in a prompt that has it, and in no other."""
    model = made("granite", rms_norm_eps=0.0)
    with torch.no_grad():
        model.get_input_embeddings().weight[0] = 0
    llm = LocalLLM(model, NUMBERS, "zeros", Limits(prompt_lookup=guesses, max_batch_size=3))
    llm.stop_tokens = frozenset()
    prompts = [tuple(range(1, 2 + 3 * number)) for number in range(1, 5)]
    broken = (3, 0, 5, 8, 11)
    alone = [llm.generate([GenerateRequest(prompt, max_new_tokens=12)])[0] for prompt in prompts]
    asked = [GenerateRequest(p, max_new_tokens=12, context=(0, *p, 0)) for p in (*prompts[:2], broken, *prompts[2:])]
    together = llm.generate(asked)
    assert math.isnan(together.pop(2).log_probs[0])
    for one, other in zip(alone, together, strict=True):
        assert one.tokens == other.tokens
        assert other.log_probs == pytest.approx(one.log_probs, abs=1e-4)
    thoughts = [llm.think([ThinkRequest(prompt, latent_steps=2)])[0] for prompt in prompts]
    found = llm.think([ThinkRequest(prompt, latent_steps=2) for prompt in (broken, *prompts)])[1:]
    for thought_alone, among in zip(thoughts, found, strict=True):
        torch.testing.assert_close(thought_alone.keys, among.keys, atol=1e-4, rtol=1e-4)
    scored = [LogProbRequest(p, (4, 9)) for p in (prompts[0], broken, prompts[3])]
    for request, scores in zip(scored[::2], llm.log_prob(scored)[::2], strict=True):
        torch.testing.assert_close(llm.log_prob([request])[0], scores, atol=1e-4, rtol=0)


# -- attention that is sharpened where a token stands far from the first ---------------------


def far_sighted() -> LocalLLM:
    """Queries are scaled from position 64 on."""
    rope = {
        "rope_type": "default", "rope_theta": 10000.0, "llama_4_scaling_beta": 0.5,
        "original_max_position_embeddings": 64,
    }  # fmt: skip
    changes = {**TINY.full_attention("ministral3"), "rope_parameters": rope}
    return LocalLLM(made("ministral3", **changes), NUMBERS, "far")


def test_caches_whose_attention_depends_on_their_place_stay_where_they_are() -> None:
    llm = far_sighted()
    assert "scales its attention by where a token stands" in llm.rope.fixed
    shape, rope = llm.cache_shape, llm.rope
    for name, positions in (("concat", "sequential"), ("weighted_sum", "parallel"), ("first", "sequential")):
        with pytest.raises(ConfigError, match=r"caches of this model cannot be moved.*use positions='parallel'"):
            make_fuser(name, shape, positions, rope)
    make_fuser("concat", shape, "parallel", rope)
    with pytest.raises(ConfigError, match="cannot be moved"):
        thought(llm, TOKENS).shift(3, rope)


# -- embeddings -----------------------------------------------------------------------------


def test_latent_steps_have_the_norm_that_the_embedding_module_gives() -> None:
    llm, own = loaded("gemma")
    module = own.get_input_embeddings()
    fed = module(torch.arange(97))
    assert float(fed.norm()) == pytest.approx(32**0.5 * float(module.weight.norm()), rel=1e-5)
    mean = float(fed.norm(dim=1).mean())
    assert llm.alignment.norm == pytest.approx(mean, rel=1e-5)
    latents = llm.alignment(torch.randn(3, 32))
    torch.testing.assert_close(latents.norm(dim=1), torch.full((3,), mean), rtol=1e-4, atol=0)
    assert llm.alignment.tied  # so W_a is what the module multiplies by
    torch.testing.assert_close(llm.alignment.matrix, 32**0.5 * torch.eye(32), atol=0.05, rtol=0)


def test_links_end_at_the_norm_that_the_embedding_module_gives() -> None:
    model = made("gemma")

    class Words:
        def get_vocab(self) -> dict[str, int]:
            return {str(number): number for number in range(97)}

    ends = ModelEnds.of(model, Words(), "gemma", "of gemma")
    mean = float(model.get_input_embeddings()(torch.arange(97)).norm(dim=1).mean())
    link = fit_vocab(ends, ends)
    assert link.norm == pytest.approx(mean, rel=1e-5)
    states = torch.randn(4, 32)
    torch.testing.assert_close(link.carry(states), Alignment.of_model(model)(states), atol=1e-3, rtol=0)
    centre, spread, norm = embedding_statistics(ends)
    assert norm == pytest.approx(mean, rel=1e-5) and len(centre) == len(spread) == 32


def test_a_plain_table_is_not_copied() -> None:
    from gcache.llm.forward.alignment import input_embeddings

    model = made("llama")
    assert input_embeddings(model).data_ptr() == model.get_input_embeddings().weight.data_ptr()


def test_a_model_is_left_as_it_was() -> None:
    model, own = made("granite"), made("granite")
    before = copy.deepcopy(model.state_dict())
    llm = LocalLLM(model, NUMBERS, "granite")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    torch.testing.assert_close(wanted(model, TOKENS), wanted(own, TOKENS), atol=1e-5, rtol=0)
    states = torch.randn(2, 3, 32)
    torch.testing.assert_close(llm.head(states), own.lm_head(states) / 3.0)  # logits_scaling
