"""What an intervention does to the caches on their way, on tiny models that are sensitive to every slot."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
import torch
from toy import AGENTS, DECISION, QUESTIONS

from gcache.agents.roles import Agent
from gcache.cache.fused_cache import FusedCache
from gcache.cache.fusers.concat import ConcatFuser
from gcache.cache.kv_cache import SHARED, KVCache, SlotKind
from gcache.errors import ConfigError
from gcache.evaluation import interventions
from gcache.evaluation.interventions import Recorder
from gcache.gnn.providers import FixedProvider
from gcache.gnn.topology import Edge, Topology
from gcache.graph.cache_graph import CacheGraph
from gcache.graph.memo import RolloutMemo
from gcache.graph.passing import Intervention, Passing
from gcache.graph.result import RunResult
from gcache.graph.run_config import GraphConfig
from gcache.graph.text_backends import LocalTextBackend
from gcache.graph.text_graph import TextGraph
from gcache.llm.local import LocalLLM
from gcache.llm.requests import ThinkRequest

#: 0 -> 1 -> decision maker, and 2 -> decision maker
TOPOLOGY = Topology(3, (Edge(0, 1), Edge(1, 3), Edge(2, 3)))
#: the toy agents, knowing other things in as many words
OTHERS = tuple(
    replace(agent, private=private)
    for agent, private in zip(
        AGENTS,
        ("the sum is 9 blue apples", "in the plan you find 7 and 5", "you find 8 red box"),
        strict=True,
    )
)
CUTS = {"masked": interventions.masked, "zeroed": interventions.zeroed, "noise": interventions.noise}


def around(llm: LocalLLM, tokenizer: Any, agents: tuple[Agent, ...] = AGENTS, **config: Any) -> CacheGraph:
    settings = GraphConfig(**{"latent_steps": 2, "max_new_tokens": 6, **config})
    layers, heads, dim = llm.cache_shape
    fuser = ConcatFuser(layers, heads, dim, rope=llm.rope)
    return CacheGraph(llm, tokenizer, agents, DECISION, FixedProvider("chain"), fuser, settings)


def answer(
    graph: CacheGraph, intervention: Intervention | None = None, question: str = QUESTIONS[0], **options: Any
) -> RunResult:
    return graph.run(question, topology=TOPOLOGY, intervention=intervention, **options)


def log_probs(result: RunResult) -> tuple[float, ...]:
    (spoken,) = result.spoken
    assert spoken.generation is not None
    return spoken.generation.log_probs


def test_the_toy_agents_know_other_things_in_as_many_tokens(tiny_tokenizer: Any) -> None:
    for one, other in zip(AGENTS, OTHERS, strict=True):
        assert one.private != other.private
        assert len(tiny_tokenizer(one.private)["input_ids"]) == len(tiny_tokenizer(other.private)["input_ids"])


@pytest.mark.parametrize("name", CUTS)
def test_a_cut_channel_hides_what_agents_know(tiny_llm: LocalLLM, tiny_tokenizer: Any, name: str) -> None:
    graph, others = around(tiny_llm, tiny_tokenizer), around(tiny_llm, tiny_tokenizer, OTHERS)
    open_here, open_there = log_probs(answer(graph)), log_probs(answer(others))
    assert open_here != pytest.approx(open_there, abs=1e-2)
    here, there = answer(graph, CUTS[name]), answer(others, CUTS[name])
    if name == "noise":  # of the norms that the caches have, so it is not to the last bit the same
        assert here.spoken[0].tokens == there.spoken[0].tokens
        assert log_probs(here) != pytest.approx(open_here, abs=1e-2)
        return
    assert here.answer == there.answer
    assert log_probs(here) == pytest.approx(log_probs(there), abs=1e-4)


def test_masking_is_as_good_as_a_weight_of_nothing(tiny_llm: LocalLLM, tiny_tokenizer: Any) -> None:
    graph = around(tiny_llm, tiny_tokenizer)
    weightless = Topology(3, tuple(replace(edge, weight=1e-30) for edge in TOPOLOGY.edges))
    expected = graph.run(QUESTIONS[0], topology=weightless)
    assert log_probs(answer(graph, interventions.masked)) == pytest.approx(log_probs(expected), abs=1e-4)


def passing(llm: LocalLLM, question: str = QUESTIONS[0], latent_steps: int = 3) -> Passing:
    """A hand-over from agent 1 to the decision maker by hand: five words behind a question."""
    tokens = tuple(llm.tokenizer(question)["input_ids"])
    (shared,) = llm.think([ThinkRequest(tokens, owner=SHARED, kind=SlotKind.PREFIX)])
    (own,) = llm.think([ThinkRequest((20, 21, 22, 23, 24), FusedCache.plain(shared), latent_steps, owner=1)])
    return Passing(question, (0, 1), (0, 3), own, shared, llm.rope)


def norms(cache: KVCache) -> tuple[torch.Tensor, torch.Tensor]:
    return cache.keys.norm(dim=-1), cache.values.norm(dim=-1)


def test_noise_keeps_norms_and_places_and_nothing_else(tiny_llm: LocalLLM) -> None:
    given = passing(tiny_llm)
    made = interventions.noise(given)
    for one, other in zip(norms(made), norms(given.cache), strict=True):
        torch.testing.assert_close(one, other)
    assert torch.equal(made.positions, given.cache.positions)
    cosine = torch.nn.functional.cosine_similarity(made.values, given.cache.values, dim=-1)
    assert float(cosine.abs().mean()) < 0.6  # of 8 dimensions: 0.3 by chance, 1 if they were the same
    assert torch.equal(interventions.noise(given).keys, made.keys)
    other_edge = interventions.noise(replace(given, receiver=(0, 2)))
    assert not torch.allclose(other_edge.keys, made.keys)


def test_random_latents_leaves_the_prompt(tiny_llm: LocalLLM) -> None:
    given = passing(tiny_llm)
    made = interventions.random_latents(given)
    latent = given.cache.kinds[0] == SlotKind.LATENT
    assert int(latent.sum()) == 3
    assert torch.equal(made.keys[..., ~latent, :], given.cache.keys[..., ~latent, :])
    assert torch.equal(made.values[..., ~latent, :], given.cache.values[..., ~latent, :])
    assert not torch.isclose(made.values[..., latent, :], given.cache.values[..., latent, :]).all(dim=-1).any()
    torch.testing.assert_close(norms(made)[1], norms(given.cache)[1])


@pytest.mark.parametrize("change", [interventions.zeroed, interventions.noise, interventions.random_latents])
def test_weights_of_a_fused_cache_stay(tiny_llm: LocalLLM, change: Intervention) -> None:
    given = passing(tiny_llm)
    fused = FusedCache.join([given.shared, FusedCache.plain(given.cache).weighted(torch.tensor(-0.7))])
    made = change(replace(given, cache=fused))
    assert isinstance(made, FusedCache)
    assert torch.equal(made.bias, fused.bias)
    assert [part.slots for part in made.parts] == [part.slots for part in fused.parts]


@pytest.mark.parametrize("transfer", ["own", "latent", "context"])
def test_a_recorded_run_replayed_is_the_same_run(tiny_llm: LocalLLM, tiny_tokenizer: Any, transfer: str) -> None:
    graph = around(tiny_llm, tiny_tokenizer, transfer=transfer)
    recorder = Recorder()
    first = answer(graph, recorder)
    assert log_probs(first) == log_probs(answer(graph))
    assert {(s[1], r[1]) for s, r in recorder.passed} == {(0, 1), (1, 3), (2, 3)}
    assert log_probs(answer(graph, recorder.replay)) == pytest.approx(log_probs(first), abs=1e-4)


@pytest.mark.parametrize("transfer", ["own", "context"])
def test_another_questions_caches_say_what_that_question_said(
    tiny_llm: LocalLLM, tiny_tokenizer: Any, transfer: str
) -> None:
    """The answer no longer depends on what this question's agents know, but on what the other's do."""
    heard = {}
    for name, agents in (("known", AGENTS), ("others", OTHERS)):
        recorder = Recorder()
        answer(around(tiny_llm, tiny_tokenizer, agents, transfer=transfer), recorder, QUESTIONS[2])
        for here in (AGENTS, OTHERS):
            graph = around(tiny_llm, tiny_tokenizer, here, transfer=transfer)
            heard[name, here] = log_probs(answer(graph, recorder.replay))
    assert heard["known", AGENTS] == pytest.approx(heard["known", OTHERS], abs=1e-4)
    assert heard["known", AGENTS] != pytest.approx(heard["others", AGENTS], abs=1e-2)


def test_another_questions_slots_stand_right_behind_this_question(tiny_llm: LocalLLM) -> None:
    recorder = Recorder()
    long, short = passing(tiny_llm, QUESTIONS[2]), passing(tiny_llm, QUESTIONS[1])
    recorder(replace(long, cache=FusedCache.join([long.shared, FusedCache.plain(long.cache)])))
    made = recorder.replay(short)
    offset = short.shared.slots - long.shared.slots
    assert offset < 0
    assert made.positions.tolist() == short.cache.positions.tolist()
    assert SHARED not in made.makers
    torch.testing.assert_close(made.keys, long.cache.shift(offset, tiny_llm.rope).keys)
    assert torch.equal(made.values, long.cache.values)
    with pytest.raises(ConfigError, match="nothing passed from"):
        recorder.replay(replace(short, sender=(0, 2)))


def test_what_an_agent_remembers_is_on_no_edge(tiny_llm: LocalLLM, tiny_tokenizer: Any) -> None:
    recorder = Recorder()
    answer(around(tiny_llm, tiny_tokenizer, num_rounds=2), recorder)
    assert {(sender[1], receiver[1]) for sender, receiver in recorder.passed} == {(0, 1), (1, 3), (2, 3)}
    assert {receiver for _, receiver in recorder.passed} == {(0, 1), (1, 1), (1, 3)}


def test_latent_steps_may_be_aligned_otherwise_beside_others(tiny_llm: LocalLLM, tiny_tokenizer: Any) -> None:
    """Two runs in flight at once, each with its own map, are what they are alone."""
    graph = around(tiny_llm, tiny_tokenizer)
    swapped = replace(tiny_llm.alignment, matrix=torch.roll(torch.eye(len(tiny_llm.alignment.matrix)), 1, 0))
    alone = [log_probs(answer(graph)), log_probs(answer(graph, alignment=swapped))]
    assert alone[0] != pytest.approx(alone[1], abs=1e-2)

    async def together() -> list[RunResult]:
        runs = (graph.arun(QUESTIONS[0], topology=TOPOLOGY, alignment=a) for a in (None, swapped))
        return list(await asyncio.gather(*runs))

    for result, expected in zip(asyncio.run(together()), alone, strict=True):
        assert log_probs(result) == pytest.approx(expected, abs=1e-4)


def test_where_it_makes_no_sense_it_is_refused(tiny_llm: LocalLLM, tiny_tokenizer: Any) -> None:
    graph = around(tiny_llm, tiny_tokenizer)
    with pytest.raises(ConfigError, match="share thoughts"):
        answer(graph, interventions.masked, memo=RolloutMemo())
    speaking = TextGraph(
        LocalTextBackend(tiny_llm, tiny_tokenizer), AGENTS, DECISION, FixedProvider("chain"), GraphConfig(hands="text")
    )
    with pytest.raises(ConfigError, match="text alone"):
        speaking.run(QUESTIONS[0], intervention=interventions.masked)
