"""Families of models: exact through every path of ours, or refused by the true reason.

`experiments/model_families.py` does this for all families that transformers knows.
"""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from scripts import experiment
from torch import Tensor, nn

from gcache.cache.fusers import make_fuser
from gcache.cache.kv_cache import FusedCache
from gcache.errors import ConfigError, ModelError
from gcache.links.linear import fit_vocab
from gcache.links.link import ModelEnds
from gcache.links.perceiver import embedding_statistics
from gcache.llm.alignment import Alignment
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
    assert "its attention does not add the log-weights that its mask gives it" in refusal(model)


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
    model = made("qwen3")

    def faster(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        angles = model.model.rotary_emb(args[0], 2 * kwargs["position_ids"])
        return args, {**kwargs, "position_embeddings": angles}

    model.model.layers[layer].register_forward_pre_hook(faster, with_kwargs=True)
    assert f"in layer {layer}," in refusal(model)


def test_what_nobody_thought_of_is_found_by_its_size() -> None:
    """Here: the first token of a prompt is written less often after it."""
    model = made("qwen3")
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
    from gcache.llm.alignment import input_embeddings

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
