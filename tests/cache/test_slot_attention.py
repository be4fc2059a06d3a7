"""Repairs of caches that were read side by side: a temperature and a scale of the attention to handed-over slots."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from toy import toy_built

from gcache.build import assemble
from gcache.cache.fused_cache import FusedCache
from gcache.cache.fusers.base import CacheFuser, Incoming
from gcache.cache.fusers.registry import FUSERS, make_fuser
from gcache.cache.kv_cache import SHARED, KVCache, SlotKind
from gcache.config import GraphSpec
from gcache.errors import ConfigError
from gcache.graph.cache_graph import CacheGraph
from gcache.graph.run_config import GraphConfig
from gcache.llm.forward.attention import watching
from gcache.llm.forward.gradient_pass import GradientPass
from gcache.llm.local import LocalLLM
from gcache.llm.requests import LogProbRequest, ThinkRequest

ASKED = (7, 30, 11)


@pytest.fixture
def caches(tiny_llm: LocalLLM) -> tuple[KVCache, list[KVCache]]:
    """A shared prefix, and two caches behind it."""
    (shared,) = tiny_llm.think([ThinkRequest((1, 22, 5), owner=SHARED, kind=SlotKind.PREFIX)])
    past = FusedCache.plain(shared)
    own = tiny_llm.think([ThinkRequest((40, 41, 9), past, owner=0), ThinkRequest((50, 8), past, owner=1)])
    return shared, own


def fuser(llm: LocalLLM, name: str = "concat", temperature: float = 1.0, scale: float = 1.0) -> CacheFuser:
    made = make_fuser(name, llm.cache_shape, "parallel", llm.rope)
    made.slot_temperature, made.slot_scale = temperature, scale
    return made


def fused(made: CacheFuser, shared: KVCache, own: list[KVCache], weights: tuple[float, ...] = (1.0, 0.4)) -> FusedCache:
    arriving = [Incoming(cache, torch.tensor(weight)) for cache, weight in zip(own, weights, strict=True)]
    with torch.no_grad():
        return made(shared, arriving)


def log_probs(llm: LocalLLM, past: FusedCache) -> Tensor:
    (found,) = llm.log_prob([LogProbRequest(ASKED, (3, 9, 20), past)])
    return found.detach()


def first_layer(llm: LocalLLM, past: FusedCache) -> Tensor:
    """(H, T) attention of the prompt's first token in the first layer, to the slots of `past`."""
    layers: dict[int, Tensor] = {}
    embeds, lengths = llm.embed([ASKED])
    with torch.no_grad(), watching(layers.__setitem__):
        GradientPass(llm.base, past).feed(embeds, lengths)
    return layers[0][0, :, 0, : past.slots]


@pytest.mark.parametrize("name", sorted(FUSERS))
def test_at_one_nothing_is_touched(tiny_llm: LocalLLM, caches: tuple[KVCache, list[KVCache]], name: str) -> None:
    shared, own = caches
    plain, repaired = fused(fuser(tiny_llm, name), shared, own), fused(fuser(tiny_llm, name, 1.0, 1.0), shared, own)
    assert torch.equal(plain.keys, repaired.keys) and torch.equal(plain.bias, repaired.bias)
    assert fused(fuser(tiny_llm), shared, own[:1], (1.0,)).parts[1] is own[0]


@pytest.mark.parametrize("temperature", [0.5, 0.8, 2.0])
def test_a_temperature_divides_the_logits_of_handed_over_slots(
    tiny_llm: LocalLLM, caches: tuple[KVCache, list[KVCache]], temperature: float
) -> None:
    """The odds of two slots of one cache are those before to the power 1 / T; those of two shared slots stay."""
    shared, own = caches
    before = first_layer(tiny_llm, fused(fuser(tiny_llm), shared, own))
    after = first_layer(tiny_llm, fused(fuser(tiny_llm, temperature=temperature), shared, own))
    of_shared, of_own = (0, 2), (shared.slots, shared.slots + 2)
    for (one, other), power in ((of_shared, 1.0), (of_own, 1 / temperature)):
        odds = (before[:, one] / before[:, other]).log()
        torch.testing.assert_close((after[:, one] / after[:, other]).log(), power * odds, atol=1e-4, rtol=1e-4)


def test_a_scale_of_two_is_handing_everything_over_twice(
    tiny_llm: LocalLLM, caches: tuple[KVCache, list[KVCache]]
) -> None:
    shared, own = caches
    plain = fused(fuser(tiny_llm), shared, own)
    prefix, *handed = plain.parts
    twice = FusedCache.of_parts([prefix, *handed, *handed], [plain.biases[0], *plain.biases[1:], *plain.biases[1:]])
    scaled = fused(fuser(tiny_llm, scale=2.0), shared, own)
    torch.testing.assert_close(log_probs(tiny_llm, scaled), log_probs(tiny_llm, twice), atol=1e-4, rtol=0)
    assert not torch.allclose(log_probs(tiny_llm, scaled), log_probs(tiny_llm, plain), atol=1e-4)


def test_a_scale_towards_zero_is_no_edge(tiny_llm: LocalLLM, caches: tuple[KVCache, list[KVCache]]) -> None:
    shared, own = caches
    plain = fused(fuser(tiny_llm), shared, own)
    # the place of what is handed over stays counted
    blocked = FusedCache.of_parts(plain.parts, [plain.biases[0], *(bias - 1e4 for bias in plain.biases[1:])])
    gone = fused(fuser(tiny_llm, scale=1e-12), shared, own)
    torch.testing.assert_close(log_probs(tiny_llm, gone), log_probs(tiny_llm, blocked), atol=1e-4, rtol=0)


def test_a_graph_is_made_with_its_repairs(tiny_llm: LocalLLM, tiny_tokenizer: object) -> None:
    config = GraphConfig(latent_steps=0, max_new_tokens=3)
    graph = assemble(
        GraphSpec(topology="star", slot_temperature=0.7, slot_scale=0.5, graph=config), tiny_llm, tiny_tokenizer
    ).graph
    assert isinstance(graph, CacheGraph)
    assert (graph.fuser.slot_temperature, graph.fuser.slot_scale) == (0.7, 0.5)
    plain = toy_built(tiny_llm, tiny_tokenizer, topology="star", graph=config).graph
    assert isinstance(plain, CacheGraph) and plain.fuser.slot_temperature == 1


@pytest.mark.parametrize(
    "settings, error",
    [
        ({"slot_temperature": 0.0}, "slot_temperature"),
        ({"slot_scale": -1.0}, "slot_scale"),
        ({"slot_scale": 0.5, "graph": GraphConfig(transfer="context")}, "transfer='context'"),
    ],
)
def test_bad_settings(settings: dict[str, object], error: str) -> None:
    with pytest.raises(ConfigError, match=error):
        GraphSpec(**settings)  # type: ignore[arg-type]
