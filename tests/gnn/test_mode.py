"""The most likely topology is the mode of what the sampler draws."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest
import torch
from exact import all_topologies
from toy import AGENTS, DECISION, QUESTIONS, toy_built

from gcache.agents.roles import Agent
from gcache.evaluation.controls import run_controls
from gcache.evaluation.cuts import cost_of_edges
from gcache.evaluation.disagreement import disagreement, disagreement_table
from gcache.gnn.distribution import EdgeDistribution, candidate_edges
from gcache.gnn.greedy import is_greedy, topology_name, warn_where_greedy
from gcache.gnn.mode import greedy_edges, likeliest_edges, score
from gcache.gnn.providers import FixedProvider
from gcache.gnn.summary import learned_edges
from gcache.gnn.team import Team
from gcache.gnn.topology import CHANNELS
from gcache.graph.run_config import GraphConfig
from gcache.inspect.formats import as_json, edges_table, graphml, table
from gcache.inspect.overview import overview
from gcache.llm.local import LocalLLM
from gcache.runtime.streams import generator, stream
from gcache.tasks.example import Example, Note
from gcache.training.report import edges_markdown


def _drawn_from(
    n_agents: int, seed: int, spread: float = 1.5, channels: bool = False, latents: bool = False,
    consult: bool = False, temporal: bool = False,
) -> EdgeDistribution:  # fmt: skip
    drawing = generator("a distribution", n_agents, seed)
    candidates = tuple(candidate_edges(n_agents, temporal))

    def logits(*shape: int) -> torch.Tensor:
        return spread * torch.randn(shape, generator=drawing) - 0.2

    return EdgeDistribution(
        n_agents, candidates, logits(len(candidates)), CHANNELS if channels else (),
        logits(len(candidates), len(CHANNELS)) if channels else None, (0, 3) if latents else (),
        logits(n_agents, 2) if latents else None, logits() if consult else None,
    )  # fmt: skip


def _assert_is_mode(distribution: EdgeDistribution) -> None:
    topology, log_p = distribution.most_likely()
    every = [float(p) for _, p in all_topologies(distribution)]
    assert distribution.is_exact
    assert float(log_p) == pytest.approx(float(distribution.log_prob(topology)), abs=1e-5)
    assert float(log_p) == pytest.approx(max(every), abs=1e-5), topology.pairs


def test_an_edge_may_be_worth_drawing_for_the_one_that_it_shuts_out() -> None:
    """By hand: {0 -> 1} has 0.36 * 0.49, and no edge at all 0.36 * 0.51 * 0.55."""
    chances = torch.tensor([0.4, 0.4, 0.49, 0.45])
    topology, log_p = EdgeDistribution(2, tuple(candidate_edges(2)), torch.logit(chances)).most_likely()
    assert topology.pairs == {(0, 1)}
    assert float(log_p.exp()) == pytest.approx(0.36 * 0.49, rel=1e-5)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("spread", [0.1, 1.5])
def test_of_three_agents_it_is_the_mode(seed: int, spread: float) -> None:
    _assert_is_mode(_drawn_from(3, seed, spread))
    _assert_is_mode(_drawn_from(3, seed, spread, consult=True))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("choices", [{"channels": True}, {"latents": True}, {"temporal": True}, {"consult": True}])
def test_with_choices_it_is_the_mode_too(seed: int, choices: dict[str, bool]) -> None:
    """Channels split an edge's probability: it must be likelier over its likeliest channel than left out."""
    for spread in (0.1, 1.5):
        _assert_is_mode(_drawn_from(2, seed, spread, **choices))


def test_with_all_choices_at_once_it_is_the_mode_too() -> None:
    _assert_is_mode(_drawn_from(2, 0, 0.8, channels=True, latents=True, consult=True, temporal=True))


@pytest.mark.parametrize("seed", range(4))
def test_pruned_edges_stay_out_of_it(seed: int) -> None:
    whole = _drawn_from(3, seed, 0.5)
    gone = {(0, 1), (2, 1), (1, 3)}
    _assert_is_mode(whole.without(gone))
    assert not whole.without(gone).most_likely()[0].pairs & gone


@pytest.mark.parametrize("seed", range(3))
def test_of_four_agents_it_is_the_mode_over_all_orders(seed: int) -> None:
    """Every acyclic graph goes along some order of the agents; of one order, each edge is free or shut out by hand."""
    drawing = generator("gains", seed)
    pairs = [key for key in candidate_edges(4) if key[1] < 4]
    chances = torch.rand(len(pairs), generator=drawing, dtype=torch.float64) * 0.6 + 0.2
    drawn, left = chances.log().tolist(), (1 - chances).log().tolist()
    best = max(
        score(ends, drawn, left, wanted)
        for ends in [[(key[0], key[1]) for key in pairs]]
        for wanted in ({e for e in range(12) if bits >> e & 1} for bits in range(2**12))
        if _is_free(ends, wanted)
    )
    ends = [(key[0], key[1]) for key in pairs]
    assert score(ends, drawn, left, set(likeliest_edges(4, ends, drawn, left))) == pytest.approx(best, abs=1e-9)


def _is_free(pairs: list[tuple[int, int]], wanted: set[int]) -> bool:
    """Whether the wanted edges close no cycle, by taking away agents that nothing points to."""
    edges = {pairs[e] for e in wanted}
    agents = set(range(4))
    while agents:
        first = next((a for a in agents if all(target != a for _, target in edges)), None)
        if first is None:
            return False
        agents.remove(first)
        edges = {edge for edge in edges if edge[0] != first}
    return True


@pytest.mark.parametrize("n_agents", [5, 6])
@pytest.mark.parametrize("spread", [0.01, 1.0])
def test_of_six_agents_no_draw_is_likelier(n_agents: int, spread: float) -> None:
    distribution = _drawn_from(n_agents, 1, spread)
    log_p = float(distribution.most_likely()[1])
    assert distribution.is_exact
    assert log_p >= distribution.best_of_samples(stream("draws"), 500) - 1e-4
    among = [e for e, key in enumerate(distribution.candidates) if key[1] < n_agents]
    pairs = [(distribution.candidates[e][0], distribution.candidates[e][1]) for e in among]
    chances = torch.sigmoid(distribution.logits[among].double())
    drawn, left = chances.log().tolist(), (1 - chances).log().tolist()
    found = score(pairs, drawn, left, set(likeliest_edges(n_agents, pairs, drawn, left)))
    assert found >= score(pairs, drawn, left, set(greedy_edges(pairs, drawn, left)))


class Uneven(FixedProvider):
    """Edges a little more likely than not, so that greedy misses the mode."""

    def distribution(self, agents, decision, question):  # type: ignore[no-untyped-def, override]
        return _drawn_from(len(agents), 0, 0.3)


def test_with_more_agents_it_is_called_greedy_and_measured(caplog: pytest.LogCaptureFixture) -> None:
    many = tuple(Agent(f"agent {n}", f"the agent {n}", "think") for n in range(7))
    examples = [Example(str(n), question, "") for n, question in enumerate(QUESTIONS[:2])]
    team = Team(many, DECISION, Uneven("star"))
    assert is_greedy(team, QUESTIONS[0]) and topology_name(team, QUESTIONS[0]) == "greedy"
    with caplog.at_level(logging.WARNING):
        gaps = warn_where_greedy(team, examples)
    assert len(gaps) == 2
    assert "the topologies of 7 agents are greedy, on 2 of 2 questions" in caplog.text
    assert "best of 1000 drawn ones" in caplog.text
    table = disagreement_table(disagreement(team, team, examples), "a", "b")
    assert table.startswith("The greedy topologies are the same")


def asked(number: int, agents: int) -> Example:
    """A question that brings its agents along."""
    notes = tuple(Note(f"role {n}", f"keeper {n}", f"fact {n}") for n in range(agents))
    return Example(f"q{number}", QUESTIONS[number % len(QUESTIONS)], "", notes)


def test_every_question_is_looked_at_and_four_greedy_ones_are_measured(caplog: pytest.LogCaptureFixture) -> None:
    team = Team((), DECISION, Uneven("star"))
    examples = [asked(number, 3) for number in range(4)] + [asked(number, 7 + number % 2) for number in range(4, 10)]
    with caplog.at_level(logging.WARNING):
        gaps = warn_where_greedy(team, examples)
    assert len(gaps) == 4
    assert "the topologies of 7 to 8 agents are greedy, on 6 of 10 questions" in caplog.text
    assert topology_name(team, *examples) == "most likely or greedy"
    assert topology_name(team, *examples[:4]) == "most likely" and topology_name(team, *examples[4:]) == "greedy"


def test_all_tables_and_files_say_what_the_topologies_are() -> None:
    many = tuple(Agent(f"agent {n}", f"the agent {n}", "think") for n in range(7))
    examples = [Example(str(n), question, "") for n, question in enumerate(QUESTIONS[:3])]
    greedy, fixed = Team(many, DECISION, Uneven("star")), Team(many, DECISION, FixedProvider("star"))
    own = Team((), DECISION, Uneven("star"))
    for team, asked_of, called in (
        (greedy, examples, "greedy"),
        (Team(AGENTS, DECISION, Uneven("star")), examples, "most likely"),
        (own, [asked(0, 3), asked(1, 7)], "most likely or greedy"),
    ):
        view = overview(team, asked_of, title="t", task="t", model="m", step=1)
        assert ("greedy" in view.subtitle) == ("greedy" in called)
        assert f"| kept ({called}) |" in edges_table(view.edges, view.topologies) and f"kept ({called})" in table(view)
        assert json.loads(as_json(view))["topologies"] == called and f">{called}<" in graphml(view)
        assert f"| kept ({called}) |" in edges_markdown(learned_edges(team, asked_of))
        assert all(edge.topologies == called for edge in learned_edges(team, asked_of))
    for one, other in ((fixed, greedy), (greedy, fixed)):
        found = disagreement(one, other, examples)
        assert found.topologies == "most likely or greedy"
        assert disagreement_table(found, "a", "b").startswith("The most likely or greedy topologies are the same")


def test_a_single_run_says_once_that_its_topology_is_greedy(
    tiny_llm: LocalLLM, tiny_tokenizer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    graph = toy_built(tiny_llm, tiny_tokenizer, graph=GraphConfig(latent_steps=0, max_new_tokens=2)).graph
    graph.agents = tuple(Agent(f"agent {n}", f"the agent {n}", "think") for n in range(7))
    graph.topology_provider = Uneven("star")
    with caplog.at_level(logging.WARNING):
        graph.run(QUESTIONS[0], sample=True)
        assert "greedy" not in caplog.text
        graph.run(QUESTIONS[0])
        graph.topology(QUESTIONS[1])
    assert caplog.text.count("the topology of 7 agents is greedy") == 1


@pytest.mark.parametrize("look", [cost_of_edges, run_controls])
def test_what_is_measured_edge_by_edge_says_so_first(look: Any, caplog: pytest.LogCaptureFixture) -> None:
    class Stopped(Exception):
        pass

    class Looked(Team):
        def topology(self, example: Any) -> Any:
            raise Stopped

    many = tuple(Agent(f"agent {n}", f"the agent {n}", "think") for n in range(7))
    examples = [Example(str(n), question, "") for n, question in enumerate(QUESTIONS[:5])]
    graph = Looked(many, DECISION, Uneven("star"))
    more = (None, examples) if look is cost_of_edges else (None, None, examples)
    with caplog.at_level(logging.WARNING), pytest.raises(Stopped):
        look(graph, *more)
    assert "on 5 of 5 questions" in caplog.text


def test_with_few_agents_nothing_is_said(caplog: pytest.LogCaptureFixture) -> None:
    for source in (Uneven("star"), FixedProvider("full")):
        team = Team(AGENTS, DECISION, source)
        assert topology_name(team, QUESTIONS[0]) == "most likely"
        assert warn_where_greedy(team, [Example("0", QUESTIONS[0], "")]) == []
    assert not caplog.records
