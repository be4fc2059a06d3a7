"""Agents on two models: what crosses, how, and that nothing else of a run changes."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import torch
from exact import doubled
from two_models import MANY_WORDS, QUESTION, across, ends, model_of, tokenizer_of

from gcache.cache.kv_cache import SHARED, SlotKind
from gcache.errors import ConfigError, GcacheError
from gcache.evaluation.interventions import Recorder, masked
from gcache.gnn.payload import PAYLOADS
from gcache.gnn.topology import Edge, Topology
from gcache.graph.agent_models import AgentModels
from gcache.graph.cache_graph import CacheGraph
from gcache.graph.hand_over import handed_states
from gcache.graph.memo import RolloutMemo
from gcache.graph.passing import Passing
from gcache.graph.result import RunResult
from gcache.graph.run_config import GraphConfig
from gcache.graph.writers.registry import HintWriter
from gcache.links.linear import fit_vocab
from gcache.tasks.example import Example

WORDS = tokenizer_of(MANY_WORDS)
BIG, SMALL = model_of(160, tied=False, hidden_size=48, head_dim=12), model_of(160, seed=2)
DOWN = fit_vocab(ends(BIG, WORDS, "big"), ends(SMALL, WORDS, "small"))
UP = fit_vocab(ends(SMALL, WORDS, "small"), ends(BIG, WORDS, "big"))
CHAIN = Topology(2, (Edge(0, 1), Edge(1, 2)))
BOTH = Topology(2, (Edge(0, 2, 0.5), Edge(1, 2)))


def graph(on: tuple[int, ...] = (1,), link: Any = UP, back: Any = DOWN, **config: Any) -> CacheGraph:
    """Decision maker on the big model; agents marked 1 on the small one."""
    return across((BIG, WORDS), (SMALL, WORDS), link, on=on, back=back, **config)


def log_probs(result: RunResult) -> tuple[float, ...]:
    text = result.spoken[0].generation
    assert text is not None
    return text.log_probs


def received(result: RunResult) -> dict[str, int]:
    return {step.role: step.received for step in result.trace}


def test_what_crosses_is_the_senders_states(monkeypatch: pytest.MonkeyPatch) -> None:
    """The planner's prompt is 6 tokens and it takes 3 latent steps: 8 states of 32 floats; within its own model 9
    slots of 2 layers x 2 (keys, values) x 2 heads x 8 floats."""
    result = graph(on=(1, 1)).run(QUESTION, topology=CHAIN)
    prompt = len(result.prompts[0, 0])
    assert result.edge_bytes == {(0, 1): (prompt + 3) * 64 * 4, (1, 2): (len(result.prompts[0, 1]) + 2) * 32 * 4}
    assert received(result)["critic"] == prompt + 3
    (carried,) = result.kept.carried().values()
    assert set(carried.owners[0].tolist()) == {1}
    assert set(carried.kinds[0].tolist()) == {SlotKind.LATENT}
    assert carried.shape[0] == 2 and carried.shape[4] == 12  # slots of the receiver's model
    start = int(result.shared.next_positions[0])
    assert carried.positions[0].tolist() == list(range(start, start + carried.slots))


def test_an_edge_within_a_model_is_as_if_there_were_no_other() -> None:
    """Agents that are all on the decision maker's model, and those of a graph of one model."""
    mixed = graph(on=(0, 0)).run(QUESTION, topology=CHAIN)
    alone = CacheGraph(
        graph().llm.llm, WORDS, graph().agents, graph().decision, graph().topology_provider, graph().fuser,
        graph().config,
    ).run(QUESTION, topology=CHAIN)  # fmt: skip
    assert log_probs(mixed) == log_probs(alone)
    assert mixed.edge_bytes == alone.edge_bytes
    assert not mixed.kept.carried()


@pytest.mark.parametrize("transfer", ["own", "latent"])
def test_the_states_of_latents_are_those_that_were_fed_back(transfer: str) -> None:
    outputs, latents = torch.arange(10.0).reshape(5, 2), torch.tensor([[8.0, 9.0], [10.0, 11.0], [12.0, 13.0]])
    found = handed_states(outputs, latents, GraphConfig(transfer=transfer).payload)
    assert found.tolist() == (latents if transfer == "latent" else torch.arange(14.0).reshape(7, 2)).tolist()
    assert handed_states(outputs, latents[:0], PAYLOADS["cache"]).tolist() == outputs.tolist()
    assert not len(handed_states(outputs, latents[:0], PAYLOADS["latents"]))


@pytest.mark.parametrize(("transfer", "slots"), [("own", 2), ("latent", None)])
def test_transfer_says_what_crosses(transfer: str, slots: int | None) -> None:
    result = graph(on=(1, 1), transfer=transfer).run(QUESTION, topology=CHAIN)
    assert received(result)["decision maker"] == (len(result.prompts[0, 1]) + slots if slots else 3)


def test_the_channel_of_an_edge_says_what_crosses() -> None:
    edges = {name: Topology(2, (Edge(0, 2, payload=name),)) for name in ("cache", "latents", "text")}
    results = {name: graph(on=(1, 1)).run(QUESTION, topology=topology) for name, topology in edges.items()}
    prompt = len(results["cache"].prompts[0, 0])
    assert {name: received(r)["decision maker"] for name, r in results.items()} == {
        "cache": prompt + 2, "latents": 3, "text": 0,
    }  # fmt: skip
    assert results["text"].said[0, 0]
    assert not results["cache"].said and not results["latents"].said


def test_words_go_where_there_is_no_link() -> None:
    result = graph(on=(1, 0), link=None).run(QUESTION, topology=BOTH)
    assert set(result.said) == {(0, 0)}  # the critic shares the decision maker's model
    assert set(result.edge_bytes) == {(1, 2)}
    decision = result.spoken[0].tokens
    assert len(decision) > len(graph().decision_tokens(QUESTION))
    within = graph(on=(1, 1), link=None).run(QUESTION, topology=CHAIN)
    assert set(within.said) == {(0, 1)} and set(within.edge_bytes) == {(0, 1)}


def test_a_solution_goes_to_another_model_as_its_words() -> None:
    """The planner thinks with the small model, the critic with the decision maker's: words of one, slots of the other;
    neither is asked to say anything else."""
    result = graph(on=(1, 0), link=None, back=None, hands="reasoning", reason_tokens=5).run(QUESTION, topology=BOTH)
    assert set(result.solutions) == set(result.said) == {(0, 0), (0, 1)}
    assert set(result.edge_bytes) == {(1, 2)}
    words, slots = result.arrivals[0, 2]
    assert words.slots is None and words.payload == PAYLOADS["text"]
    assert slots.slots == len(result.prompts[0, 1]) + 3 + len(result.solutions[0, 1].tokens) - 1  # three latents
    told = graph(on=(1, 0), link=None, back=None, hands="reasoning", reason_tokens=5)
    alone = told.run(QUESTION, topology=Topology(2, (Edge(1, 2),)))
    assert len(result.spoken[0].tokens) > len(alone.spoken[0].tokens)


def test_a_link_carries_no_solution() -> None:
    with pytest.raises(ConfigError, match="needs --link text"):
        graph(on=(1, 1), hands="reasoning")


def test_words_may_go_beside_what_a_link_carries() -> None:
    result = graph(on=(1, 1), hands="both").run(QUESTION, topology=CHAIN)
    assert set(result.said) == {(0, 0), (0, 1)} and set(result.edge_bytes) == {(0, 1), (1, 2)}


def test_there_and_back_again() -> None:
    """The planner on the small model, the critic on the big one, two rounds."""
    topology = Topology(2, (Edge(0, 1), Edge(1, 2), Edge(1, 0, 0.7, delay=1)))
    result = graph(on=(1, 0), num_rounds=2).run(QUESTION, topology=topology)
    assert set(result.edge_bytes) == {(0, 0), (0, 1), (1, 0), (1, 1), (1, 2)}  # what an agent remembers counts
    assert {(node, model) for node, model, _ in result.kept.carried()} == {((0, 0), 0), ((1, 0), 0), ((0, 1), 1)}


def test_each_model_reads_the_question_once() -> None:
    def questions(result: RunResult) -> int:
        return sum(step.agent == SHARED and step.what == "think" for step in result.trace)

    assert questions(graph(on=(1, 1)).run(QUESTION, topology=CHAIN)) == 2
    assert questions(graph(on=(1, 0)).run(QUESTION, topology=Topology(2, (Edge(1, 2),)))) == 1  # nobody hears the other


def test_many_at_once_are_each_alone() -> None:
    asked = [Example(str(n), f"what is {n} + 3 and {n} ?" + " and 2" * n, "") for n in range(7)]
    # in float64, where rounding, which differs with what is batched together, is far below any difference that counts
    big, small = doubled(BIG), doubled(SMALL)
    up, down = (fit_vocab(ends(a, WORDS, "a"), ends(b, WORDS, "b")) for a, b in ((small, big), (big, small)))

    def made() -> CacheGraph:
        return across((big, WORDS), (small, WORDS), up, on=(1, 0), back=down)

    together = made().run_all(asked, topology=lambda _: BOTH, keep_caches=True)
    for example, result in zip(asked, together, strict=True):
        alone = made().run(example, topology=BOTH)
        assert alone.answer == result.answer
        assert log_probs(alone) == pytest.approx(log_probs(result), abs=1e-9)


def test_rollouts_share_what_was_carried() -> None:
    one, thoughts = graph(on=(1, 1)), RolloutMemo()
    calls: list[int] = []
    real = one.models[0].read

    async def counted(*args: Any) -> Any:
        calls.append(1)
        return await real(*args)

    one.models[0].read = counted  # type: ignore[method-assign]

    async def both() -> list[RunResult]:
        runs = [one.arun(QUESTION, topology=BOTH, memo=thoughts, seed=seed) for seed in (0, 1)]
        return list(await asyncio.gather(*runs))

    first, second = asyncio.run(both())
    assert len(calls) == 2  # one per sender, not per rollout
    alone = graph(on=(1, 1)).run(QUESTION, topology=BOTH)
    assert log_probs(first) == log_probs(second) == pytest.approx(log_probs(alone), abs=1e-4)


def test_without_keeping_caches_it_is_the_same() -> None:
    kept, gone = (graph(on=(1, 0)).run(QUESTION, topology=CHAIN, keep_caches=keep) for keep in (True, False))
    assert log_probs(kept) == log_probs(gone)
    assert gone.kept.released
    with pytest.raises(GcacheError, match="caches of this run are gone"):
        gone.kept.carried()


def test_the_weight_of_an_edge_counts_across_models() -> None:
    """w -> 0 is no edge."""
    none = graph(on=(1, 1)).run(QUESTION, topology=Topology(2))
    faint, strong = (graph(on=(1, 1)).run(QUESTION, topology=Topology(2, (Edge(0, 2, w),))) for w in (1e-30, 1.0))
    assert received(faint)["decision maker"] == received(strong)["decision maker"]
    # the decision maker goes on behind the carried slots, so its positions are not those of no edge
    blocked = graph(on=(1, 1)).run(QUESTION, topology=Topology(2, (Edge(0, 2),)), intervention=masked)
    assert log_probs(faint) == pytest.approx(log_probs(blocked), abs=1e-4)
    assert log_probs(strong) != pytest.approx(log_probs(blocked), abs=1e-3)
    assert none.edge_bytes == {}


def test_controls_see_what_the_receiver_gets() -> None:
    passed: list[Passing] = []

    def look(passing: Passing) -> Any:
        passed.append(passing)
        return passing.cache

    one = graph(on=(1, 1))
    one.run(QUESTION, topology=CHAIN, intervention=look)
    assert [p.rope for p in passed] == [one.models[1].fuser.rope, one.models[0].fuser.rope]
    assert [p.cache.shape[4] for p in passed] == [p.shared.shape[4] for p in passed] == [8, 12]
    recorder = Recorder()
    one.run("what is 4 and the red box", topology=CHAIN, intervention=recorder)
    other = one.run(QUESTION, topology=CHAIN, intervention=recorder.replay)
    assert log_probs(other) != pytest.approx(log_probs(one.run(QUESTION, topology=CHAIN)), abs=1e-4)


def test_what_cannot_be_mixed_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"transfer='context' hands on .* use own or latent"):
        graph(transfer="context")
    with pytest.raises(ConfigError, match="the question has 2 agents, but models are named for 3"):
        graph(on=(1, 0, 1)).run(QUESTION)
    with pytest.raises(ConfigError, match=r"agents are on models 0 to 0, got \(1,\)"):
        AgentModels((), (1,))
    with pytest.raises(ConfigError, match="no link from model 1 to model 0; pass None for text"):
        AgentModels(graph().agent_models.others, (1,))
    with pytest.raises(ConfigError, match=r"the mode 'api_hint' reads the thoughts of one model.*local or hybrid"):
        CacheGraph(
            graph().llm.llm, WORDS, graph().agents, graph().decision, graph().topology_provider, graph().fuser,
            writer=HintWriter(api=None, hint=None), agent_models=graph().agent_models,  # type: ignore[arg-type]
        )  # fmt: skip
