"""First slots of caches that were read side by side, computed again behind those before them."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from exact import awake, double
from toy import QUESTIONS, ToyTask, toy_built

from gcache.build import Built
from gcache.cache.fused_cache import FusedCache
from gcache.cache.kv_cache import KVCache
from gcache.config import GraphSpec
from gcache.errors import ConfigError
from gcache.evaluation.controls import run_controls
from gcache.gnn.topology import Edge, Topology
from gcache.graph.cache_graph import CacheGraph
from gcache.graph.context_length import PlannedRun, positions_of_caches
from gcache.graph.result import RunResult
from gcache.graph.run_config import GraphConfig
from gcache.llm.local import LocalLLM
from gcache.llm.requests import GenerateRequest, LogProbRequest, ThinkRequest
from gcache.training.config import TrainConfig
from gcache.training.trainer import Reinforce

STAR = Topology(3, tuple(Edge(n, 3) for n in range(3)))


def built(
    llm: LocalLLM, tokenizer: Any, slots: int, positions: str = "sequential", share: float = 0.0, **spec: Any
) -> Built:
    config = GraphConfig(latent_steps=0, max_new_tokens=4, question_order="last", reread=slots, reread_share=share)
    spec = {"agent_probability": 0.0, "hard_edges": True, **spec}
    return toy_built(llm, tokenizer, graph=config, positions=positions, **spec)


def ran(llm: LocalLLM, tokenizer: Any, slots: int, **settings: Any) -> RunResult:
    return built(llm, tokenizer, slots, **settings).graph.run(QUESTIONS[0], topology=STAR)


def likely(result: RunResult) -> tuple[tuple[int, ...], float]:
    (spoken,) = result.spoken
    assert spoken.generation is not None
    return spoken.generation.tokens, spoken.generation.log_prob


@pytest.mark.parametrize(("slots", "share"), [(1000, 0.0), (0, 1.0), (2, 1.0)])
def test_all_slots_behind_each_other_are_one_prompt_of_all_words(
    tiny_llm: LocalLLM, tiny_tokenizer: Any, slots: int, share: float
) -> None:
    """In float64, where what is left is no rounding."""
    llm = double(tiny_llm)
    result = ran(llm, tiny_tokenizer, slots, share=share)
    graph = built(llm, tiny_tokenizer, 0).graph
    assert isinstance(graph, CacheGraph)
    prefix = graph.layout.question(QUESTIONS[0])
    words = [token for node in sorted(result.prompts) for token in result.prompts[node]]
    (spoken,) = result.spoken
    prompt = (*prefix, *words, *spoken.tokens)
    (plain,) = llm.generate([GenerateRequest(prompt, None, 4)])
    tokens, log_prob = likely(result)
    assert tokens == plain.tokens
    (scores,) = llm.log_prob([LogProbRequest(prompt, tokens)])
    assert log_prob == pytest.approx(float(scores.sum()), abs=1e-6)
    side_by_side = likely(ran(llm, tiny_tokenizer, 0))
    assert abs(log_prob - side_by_side[1]) > 1e-4 or tokens != side_by_side[0], "else this shows nothing"


@pytest.mark.parametrize("positions", ["parallel", "sequential"])
def test_only_the_first_slots_of_all_but_the_first_cache_are_others(
    tiny_llm: LocalLLM, tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch, positions: str
) -> None:
    heard: list[list[KVCache]] = []
    from gcache.graph import agent_models

    real = agent_models.fused_for

    def fused_for(fuser: Any, shared: KVCache, arriving: Any, weights: Any) -> Any:
        heard.append([cache for cache, _ in arriving])
        return real(fuser, shared, arriving, weights)

    monkeypatch.setattr(agent_models, "fused_for", fused_for)
    before = ran(tiny_llm, tiny_tokenizer, 0, positions=positions)
    old = heard[-1]
    heard.clear()
    after = ran(tiny_llm, tiny_tokenizer, 3, positions=positions)
    new = heard[-1]
    for number, (one, other) in enumerate(zip(old, new, strict=True)):
        for name in ("positions", "mask", "kinds", "owners", "ordinals"):
            assert torch.equal(getattr(one, name), getattr(other, name))
        assert torch.equal(one.keys[..., 3:, :], other.keys[..., 3:, :])
        assert torch.equal(one.values[..., 3:, :], other.values[..., 3:, :])
        same = torch.equal(one.keys, other.keys) and torch.equal(one.values, other.values)
        assert same == (number == 0)
        assert torch.allclose(one.values[0], other.values[0], atol=1e-5), "layer 0 has no past in its values"
    counts = [next(s for s in result.trace if s.role == "decision maker").prefilled for result in (before, after)]
    assert counts[1] - counts[0] == 6, "three slots of two caches"


@pytest.mark.parametrize("positions", ["parallel", "sequential"])
def test_slots_here_and_there_are_what_one_pass_over_all_would_make_of_them(
    tiny_llm: LocalLLM, tiny_tokenizer: Any, positions: str
) -> None:
    """The first, then another two: these read their own slots before them, the fresh one and those as they were. In
    float64, against transformers' own module, which is given the same keys and values."""
    from gcache.graph import reread as rereading

    llm = double(tiny_llm)
    graph = built(llm, tiny_tokenizer, 0, positions).graph
    assert isinstance(graph, CacheGraph)
    result = graph.run(QUESTIONS[0], topology=STAR)
    shared, rope = result.shared, graph.fuser.rope
    assert shared is not None and rope is not None
    nodes = sorted(result.prompts)[:2]
    arrived = [(result.caches[node], (node[1], 3), result.prompts[node]) for node in nodes]
    weights = {(n, 3): torch.ones(()) for n in range(3)}
    chosen = {0, 3, 4}
    slots = torch.arange(5)

    async def again() -> KVCache:
        model, (cache, _, tokens) = graph.models[0], arrived[1]
        past = model.fuse(shared, [arrived[0][:2]], weights)
        for start, stop in rereading._runs(chosen):
            own = rereading._behind(model, past, cache, start)
            fresh = await rereading._read(model, tokens[start:stop], own, cache)
            cache = rereading._with_fresh(model, cache, fresh, start)
        return cache

    found = asyncio.run(again())
    cache, _, tokens = arrived[1]
    start = int(graph.models[0].fuse(shared, [arrived[0][:2]], weights).next_positions[0])
    here = start - int(cache.positions[0, 0])
    for slot in sorted(chosen):
        own = found.take(slots[:slot]).shift(here, rope)
        before = KVCache.join([shared, _placed(graph, shared, arrived[0][0]), own])
        (plain,) = llm.think([ThinkRequest(tokens[slot : slot + 1], FusedCache.plain(before), 0, 1)])
        moved = plain.shift(-here, rope)
        assert torch.allclose(moved.keys[..., 0, :], found.keys[..., slot, :], atol=1e-8)
        assert torch.allclose(moved.values[..., 0, :], found.values[..., slot, :], atol=1e-8)
    kept = [slot for slot in range(cache.slots) if slot not in chosen]
    assert torch.equal(found.keys[..., kept, :], cache.keys[..., kept, :])
    assert not torch.equal(found.keys, cache.keys), "else this shows nothing"


def _placed(graph: CacheGraph, shared: KVCache, cache: KVCache) -> KVCache:
    """A cache where the fuser puts it behind a prefix."""
    rope = graph.fuser.rope
    assert rope is not None
    return cache.shift(int(shared.next_positions[0]) - int(cache.positions[0, 0]), rope)


@pytest.mark.parametrize("share", [0.2, 0.5])
def test_a_share_is_those_that_deviate_most_in_the_second_layer(
    tiny_llm: LocalLLM, tiny_tokenizer: Any, share: float
) -> None:
    """Against all slots read again, one cache behind the other, in all layers."""
    from gcache.graph.reread import reread

    llm = double(tiny_llm)
    graph = built(llm, tiny_tokenizer, 0).graph
    assert isinstance(graph, CacheGraph)
    result = graph.run(QUESTIONS[0], topology=STAR)
    nodes = sorted(result.prompts)
    arrived = [(result.caches[node], (node[1], 3), result.prompts[node]) for node in nodes]
    weights = {(n, 3): torch.ones(()) for n in range(3)}

    async def again(first: int, part: float) -> tuple[list[tuple[KVCache, Any]], int]:
        return await reread(graph.models[0], result.shared, arrived, weights, first, part)  # type: ignore[arg-type]

    whole, _ = asyncio.run(again(1000, 0.0))
    some, read = asyncio.run(again(0, share))
    off, changed = [], []
    for (old, _, _), (new, _), (part, _) in list(zip(arrived, whole, some, strict=True))[1:]:
        pairs = ((new.keys, old.keys), (new.values, old.values))
        off.append(sum((one[1, 0] - other[1, 0]).square().sum(dim=(0, 2)) for one, other in pairs))
        changed.append((part.values[1, 0] != old.values[1, 0]).any(dim=2).any(dim=0))
    deviations, mine = torch.cat(off), torch.cat(changed)
    count = round(share * len(deviations))
    expected = set(deviations.topk(count).indices.tolist())
    assert set(mine.nonzero()[:, 0].tolist()) == expected
    layers = arrived[0][0].shape[0]
    assert read == count + -(-2 * len(deviations) // layers)
    assert 0 < count < len(deviations)


@pytest.mark.parametrize("kind", ["own", "plain", "transformers"])
def test_the_first_layers_alone_are_those_of_the_whole_model(
    tiny_llm: LocalLLM, tiny_tokenizer: Any, kind: str
) -> None:
    from gcache.llm.forward.hf_decoder import TransformersDecoder

    llm = tiny_llm if kind == "own" else double(tiny_llm)
    if kind == "transformers":
        llm.decoder = TransformersDecoder(llm.base)
    close = 1e-5 if kind == "own" else 1e-10
    before, prompt = (tuple(tiny_tokenizer(words)["input_ids"]) for words in ("Red apples are", "sweet and round"))
    (past,) = llm.think([ThinkRequest(before)])
    requests = [ThinkRequest(prompt, FusedCache.plain(past)), ThinkRequest(prompt[:2])]
    whole = llm.think(requests)
    few = llm.think([replace(request, layers=1) for request in requests])
    mixed = llm.think([requests[0], replace(requests[1], layers=1)])
    for one, other in zip(whole, few, strict=True):
        assert other.shape[0] == 1 < one.shape[0]
        assert torch.allclose(one.keys[:1], other.keys, atol=close)
        assert torch.allclose(one.values[:1], other.values, atol=close)
    assert [cache.shape[0] for cache in mixed] == [whole[0].shape[0], 1]
    assert torch.equal(llm.think(requests)[0].keys, whole[0].keys), "the model has all its layers still"
    with pytest.raises(ConfigError, match=f"has {whole[0].shape[0]} layers, got 99"):
        llm.think([ThinkRequest(prompt, layers=99)])
    with pytest.raises(ConfigError, match="have no gradient"):
        llm.think([ThinkRequest(prompt, layers=1)], gradient=True)
    with pytest.raises(ConfigError, match="have no states"):
        ThinkRequest(prompt, latent_steps=1, layers=1)
    with pytest.raises(ConfigError, match="layers"):
        ThinkRequest(prompt, layers=0)


def test_the_keys_of_the_first_layer_stand_where_they_stood(tiny_llm: LocalLLM, tiny_tokenizer: Any) -> None:
    """Nothing before them is in them, so computed again behind others, and moved back, they are what they were."""
    from gcache.graph.reread import reread

    graph = built(tiny_llm, tiny_tokenizer, 0, "parallel").graph
    assert isinstance(graph, CacheGraph)
    result = graph.run(QUESTIONS[0], topology=STAR)
    assert result.shared is not None
    nodes = sorted(result.prompts)
    arrived = [(result.caches[node], (node[1], 3), result.prompts[node]) for node in nodes]
    weights = {(n, 3): torch.ones(()) for n in range(3)}

    async def again() -> tuple[list[tuple[KVCache, Any]], int]:
        return await reread(graph.models[0], result.shared, arrived, weights, 4)  # type: ignore[arg-type]

    found, read = asyncio.run(again())
    assert read == 8
    for (cache, _, _), (other, _) in zip(arrived, found, strict=True):
        assert torch.allclose(cache.keys[0], other.keys[0], atol=1e-4)


def test_one_that_is_heard_alone_is_not_read_again(tiny_llm: LocalLLM, tiny_tokenizer: Any) -> None:
    one = Topology(3, (Edge(1, 3),))
    runs = [built(tiny_llm, tiny_tokenizer, slots).graph.run(QUESTIONS[0], topology=one) for slots in (0, 5)]
    assert likely(runs[0]) == likely(runs[1])
    assert [step.prefilled for step in runs[0].trace] == [step.prefilled for step in runs[1].trace]


def test_questions_together_are_answered_as_alone(tiny_llm: LocalLLM, tiny_tokenizer: Any) -> None:
    graph = built(tiny_llm, tiny_tokenizer, 4).graph
    awake(graph.fuser)  # type: ignore[attr-defined]

    async def together() -> list[RunResult]:
        return list(await asyncio.gather(*(graph.arun(question, topology=STAR) for question in QUESTIONS)))

    for question, result in zip(QUESTIONS, asyncio.run(together()), strict=True):
        alone = likely(graph.run(question, topology=STAR))
        assert likely(result)[0] == alone[0]
        assert likely(result)[1] == pytest.approx(alone[1], abs=1e-4)


@pytest.mark.parametrize(
    "settings",
    [{"hands": "both"}, {"hands": "text"}, {"hands": "reasoning"}, {"transfer": "context"},
     {"transfer": "latent", "latent_steps": 1}, {"reread": -1}, {"reread_share": 1.5},
     {"reread": 0, "reread_share": 0.1, "hands": "both"}],
)  # fmt: skip
def test_what_is_no_prompt_is_not_read_again(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="reread"):
        GraphConfig(**{"latent_steps": 0, "reread": 8, **settings})


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"channels": ("cache", "text")}, "reread computes slots again that are heard together"),
        ({"decision_method": "vote"}, "reread computes slots again that are heard together"),
        ({"agent_models": ("smollm2",)}, "reread computes slots again that are heard together"),
        ({"generation_mode": "api_hint"}, "in the mode 'api_hint' the API writes without them"),
        ({"agent_probability": 0.1}, "must hear nobody; use --agent_probability 0"),
        ({"topology": "chain", "hard_edges": False}, "must hear nobody; use --topology star"),
        ({"hard_edges": False}, "add --hard_edges true"),
    ],
)
def test_where_it_makes_no_sense_it_is_refused_before_a_model_is_loaded(spec: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        GraphSpec(**{
            "agent_probability": 0.0, "hard_edges": True, "graph": GraphConfig(latent_steps=0, reread=8), **spec
        })  # fmt: skip


def test_agents_that_hear_themselves_of_the_round_before_are_not_read_again() -> None:
    with pytest.raises(ConfigError, match="and one round"):
        GraphSpec(agent_probability=0.0, hard_edges=True, graph=GraphConfig(num_rounds=2, reread=8))
    assert GraphSpec(topology="star", graph=GraphConfig(latent_steps=0, reread=8)).graph.reread == 8


def test_a_topology_on_which_agents_hear_each_other_is_refused_where_it_is_known(
    tiny_llm: LocalLLM, tiny_tokenizer: Any
) -> None:
    for seed in range(20):
        with pytest.raises(ConfigError, match="must hear nobody; use --topology star"):
            GraphSpec(topology="random", seed=seed, graph=GraphConfig(latent_steps=0, reread_share=0.5))
    graph = built(tiny_llm, tiny_tokenizer, 4).graph
    with pytest.raises(ConfigError, match="on this topology they hear each other"):
        graph.run(QUESTIONS[0], topology=Topology(3, (Edge(0, 1), Edge(1, 3))))


def test_a_share_is_one_slot_at_least() -> None:
    from gcache.graph.reread import _most_deviating

    assert _most_deviating([torch.tensor([0.0, 2, 1]), torch.tensor([1.5])], 0.001) == [{1}, set()]
    assert _most_deviating([torch.tensor([0.0, 2, 1]), torch.tensor([1.5])], 0.5) == [{1}, {0}]


@pytest.mark.parametrize("fuser", ["first", "weighted_sum"])
def test_fusers_that_do_not_put_caches_side_by_side_are_refused(
    tiny_llm: LocalLLM, tiny_tokenizer: Any, fuser: str
) -> None:
    with pytest.raises(ConfigError, match=f"reread is for fusers that put caches side by side, which '{fuser}' does"):
        built(tiny_llm, tiny_tokenizer, 4, fuser=fuser)


def test_a_question_that_fits_until_it_is_read_again_is_refused_beforehand(
    tiny_llm: LocalLLM, tiny_tokenizer: Any
) -> None:
    needed = {}
    for slots in (0, 3, 1000):
        graph = built(tiny_llm, tiny_tokenizer, slots, "parallel").graph
        assert isinstance(graph, CacheGraph)
        agents = [replace(agent, private="red apples " * 30) for agent in graph.agents]
        needed[slots] = positions_of_caches(graph, PlannedRun(QUESTIONS[0], agents, STAR, 4))
    longest = max(len(graph.agent_tokens(agent, QUESTIONS[0])) for agent in agents)
    assert needed[0] == needed[3] < needed[1000] == len(graph.layout.question(QUESTIONS[0])) + 2 * longest


def test_a_topology_is_learned_on_it_and_a_fuser_is_not(
    tiny_llm: LocalLLM, tiny_tokenizer: Any, tmp_path: Path
) -> None:
    config = TrainConfig(iterations=2, batch_size=2, rollouts=2)
    with pytest.raises(ConfigError, match="not learned from"):
        fixed = built(tiny_llm, tiny_tokenizer, 4, topology="star", hard_edges=False)
        Reinforce(fixed, ToyTask(), config, tmp_path)
    hard = built(tiny_llm, tiny_tokenizer, 4)
    assert len(Reinforce(hard, ToyTask(), config, tmp_path).train(progress=False)) == 2


def test_controls_of_caches_do_not_go_with_it(
    tiny_llm: LocalLLM, tiny_tokenizer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    made = built(tiny_llm, tiny_tokenizer, 4)
    assert isinstance(made.graph, CacheGraph)
    with pytest.raises(ConfigError, match="use reread=0"):
        made.graph.run(QUESTIONS[0], topology=STAR, intervention=lambda passing: passing.cache)
    examples = ToyTask().train(3)
    with pytest.raises(ConfigError, match=r"masked: this graph computes slots of its caches again \(reread\)"):
        run_controls(made.graph, tiny_llm, ToyTask(), examples, ["masked", "star"], progress=False)
    found = run_controls(made.graph, tiny_llm, ToyTask(), examples, progress=False)
    names = [row.found.name for row in found]
    assert "star" in names and "masked" not in names and "left out: masked" in caplog.text
