from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch

from gcache.agents.decision import DecisionMaker
from gcache.agents.roles import Agent
from gcache.cache.fusers.concat import ConcatFuser
from gcache.gnn.distribution import EdgeDistribution, candidate_edges
from gcache.gnn.features import HashEncoder
from gcache.gnn.policy import TopologyPolicy
from gcache.gnn.providers import FixedProvider, PolicyProvider, TopologyProvider
from gcache.gnn.summary import (
    LATER,
    learned_consulting,
    learned_edges,
    learned_steps,
)
from gcache.gnn.topology import DECISION
from gcache.graph.cache_graph import CacheGraph
from gcache.tasks.example import Example, Note
from gcache.training.report import consulting_markdown, edges_markdown, steps_markdown

if TYPE_CHECKING:
    from conftest import ScriptedLLM

AGENTS = (Agent("planner", "plans", "plan"), Agent("critic", "checks", "find it"))
#: question -> the probabilities of 0 -> decision, 1 -> decision, 0 -> 1, 1 -> 0
CHANCES = {"one": (0.8, 0.2, 0.4, 0.1), "two": (0.6, 0.7, 0.9, 0.3)}
EXAMPLES = [Example(question, question, "") for question in CHANCES]


class Table:
    """A source that says what it is told to."""

    def distribution(self, agents: Sequence[Agent], decision: DecisionMaker, question: str) -> EdgeDistribution:
        return EdgeDistribution(2, tuple(candidate_edges(2)), torch.logit(torch.tensor(CHANCES[question])))


def around(provider: TopologyProvider, llm: ScriptedLLM, tokenizer: Any) -> CacheGraph:
    return CacheGraph(llm, tokenizer, AGENTS, DecisionMaker("decides", "answer"), provider, ConcatFuser(1, 1, 2))


def test_rows_by_hand(scripted_llm: ScriptedLLM, tiny_tokenizer: Any) -> None:
    rows = learned_edges(around(Table(), scripted_llm, tiny_tokenizer), EXAMPLES)
    assert [(r.source, r.target) for r in rows] == [
        ("planner", DECISION), ("critic", DECISION), ("planner", "critic"), ("critic", "planner")
    ]  # fmt: skip
    assert [r.probability for r in rows] == pytest.approx([0.7, 0.45, 0.65, 0.2])
    assert [r.kept for r in rows] == [1.0, 0.5, 0.5, 0.0]
    assert [r.pairs for r in rows] == [2, 2, 2, 2]
    # the 5 % and 95 % points between 0.6 and 0.8
    assert (rows[0].low, rows[0].high) == pytest.approx((0.61, 0.79))


def test_agents_of_one_kind_are_averaged_together(scripted_llm: ScriptedLLM, tiny_tokenizer: Any) -> None:
    notes = (Note("baker", "bakes", "x", kind="keeper"), Note("miller", "grinds", "y", kind="keeper"))
    rows = learned_edges(around(Table(), scripted_llm, tiny_tokenizer), [Example("1", "two", "", notes)])
    assert [(r.source, r.target, r.pairs, r.kept) for r in rows] == [
        ("keeper", DECISION, 2, 1.0), ("keeper", "keeper", 2, 0.5)
    ]  # fmt: skip
    assert [r.probability for r in rows] == pytest.approx([0.65, 0.6])


def test_an_edge_that_closes_a_cycle_with_one_drawn_before_it_is_likely_but_not_kept(
    scripted_llm: ScriptedLLM, tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(CHANCES, "one", (0.5001, 0.1, 0.6, 0.9))
    rows = learned_edges(around(Table(), scripted_llm, tiny_tokenizer), EXAMPLES[:1])
    kept = {(r.source, r.target): r.kept for r in rows}
    assert kept == {
        ("planner", DECISION): 1.0, ("critic", DECISION): 0.0, ("planner", "critic"): 1.0, ("critic", "planner"): 0.0
    }  # fmt: skip


def test_rows_of_a_policy_that_cannot_tell_its_agents_apart(scripted_llm: ScriptedLLM, tiny_tokenizer: Any) -> None:
    policy = TopologyPolicy(8, hidden_dim=4, decision_probability=0.7, agent_probability=0.2)
    with torch.no_grad():
        for head in policy.heads:
            head[-1].weight.zero_()  # only the configured probabilities are left
    rows = learned_edges(around(PolicyProvider(policy, HashEncoder(8)), scripted_llm, tiny_tokenizer), EXAMPLES)
    assert {(r.target == DECISION, round(r.probability, 5), r.kept) for r in rows} == {
        (True, 0.7, 1.0), (False, 0.2, 0.0)
    }  # fmt: skip
    assert all(r.low == pytest.approx(r.high) == pytest.approx(r.probability) for r in rows)
    assert all(parameter.grad is None for parameter in policy.parameters())


def test_a_fixed_topology_has_learned_nothing(scripted_llm: ScriptedLLM, tiny_tokenizer: Any) -> None:
    assert learned_edges(around(FixedProvider("chain"), scripted_llm, tiny_tokenizer), EXAMPLES) == []


def test_nothing_is_asked_of_the_model(scripted_llm: ScriptedLLM, tiny_tokenizer: Any) -> None:
    learned_edges(around(Table(), scripted_llm, tiny_tokenizer), EXAMPLES)
    assert scripted_llm.thoughts == scripted_llm.texts == []


class Chosen:
    """Two agents, one edge a round later, channels and latent steps, the same for every question."""

    def distribution(self, agents: Sequence[Agent], decision: DecisionMaker, question: str) -> EdgeDistribution:
        keys: tuple[tuple[int, ...], ...] = ((0, 2), (1, 2), (0, 1, 1))
        return EdgeDistribution(
            2, keys, torch.logit(torch.tensor([0.9, 0.4, 0.6])), ("cache", "text"),
            torch.tensor([[0.75, 0.25], [0.5, 0.5], [0.1, 0.9]]).log(), (0, 4),
            torch.tensor([[0.2, 0.8], [0.6, 0.4]]).log(),
        )  # fmt: skip


def test_channels_latent_steps_and_edges_over_rounds_are_told(scripted_llm: ScriptedLLM, tiny_tokenizer: Any) -> None:
    graph = around(Chosen(), scripted_llm, tiny_tokenizer)
    rows = learned_edges(graph, EXAMPLES)
    assert [(r.source, r.target, r.kept) for r in rows] == [
        ("planner", DECISION, 1.0), ("critic", DECISION, 0.0), ("planner", "critic" + LATER, 1.0)
    ]  # fmt: skip
    assert rows[2].channels == pytest.approx({"cache": 0.1, "text": 0.9})
    steps = learned_steps(graph, EXAMPLES)
    assert [(s.agent, s.chances) for s in steps] == [
        ("critic", pytest.approx({0: 0.6, 4: 0.4})), ("planner", pytest.approx({0: 0.2, 4: 0.8}))
    ]  # fmt: skip
    head, _, first, *_ = edges_markdown(rows).splitlines()
    assert head.endswith("| pairs | cache | text |") and first.endswith("| 2 | 0.750 | 0.250 |")
    assert steps_markdown(steps).splitlines()[2] == "| critic | 0.600 | 0.400 |"


def test_without_a_choice_no_steps_are_told(scripted_llm: ScriptedLLM, tiny_tokenizer: Any) -> None:
    assert learned_steps(around(Table(), scripted_llm, tiny_tokenizer), EXAMPLES) == []
    assert learned_steps(around(FixedProvider("chain"), scripted_llm, tiny_tokenizer), EXAMPLES) == []


class Consults(Table):
    """The same, where consulting anybody is a choice: for one question as good as certain, for the other hardly one."""

    def distribution(self, agents: Sequence[Agent], decision: DecisionMaker, question: str) -> EdgeDistribution:
        chance = torch.tensor({"one": 0.9, "two": 0.1}[question])
        return replace(super().distribution(agents, decision, question), consult_logit=torch.logit(chance))


def test_how_often_anybody_is_consulted(scripted_llm: ScriptedLLM, tiny_tokenizer: Any) -> None:
    graph = around(Consults(), scripted_llm, tiny_tokenizer)
    found = learned_consulting(graph, EXAMPLES)
    assert found is not None
    assert (found.probability, found.low, found.high) == pytest.approx((0.5, 0.14, 0.86))
    assert consulting_markdown(found).splitlines()[-1] == "| 0.500 | 0.140 to 0.860 |"
    planner = learned_edges(graph, EXAMPLES)[0]
    assert planner.probability == pytest.approx((0.9 * 0.8 + 0.1 * 0.6) / 2)
    assert planner.kept == 0.5
    assert learned_consulting(around(Table(), scripted_llm, tiny_tokenizer), EXAMPLES) is None
    assert learned_consulting(around(FixedProvider("full"), scripted_llm, tiny_tokenizer), EXAMPLES) is None
