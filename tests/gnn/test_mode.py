"""The most likely topology is the mode of what the sampler draws."""

from __future__ import annotations

import logging

import pytest
import torch
from exact import all_topologies
from toy import AGENTS, DECISION, QUESTIONS

from gcache.agents.roles import Agent
from gcache.gnn.distribution import EdgeDistribution, candidate_edges
from gcache.gnn.mode import greedy_edges, likeliest_edges, score
from gcache.gnn.topology import CHANNELS
from gcache.graph.cast import Cast
from gcache.graph.greedy import is_greedy, topology_name, warn_where_greedy
from gcache.graph.sources import FixedSource
from gcache.inspect.disagreement import disagreement, disagreement_table
from gcache.streams import generator, stream
from gcache.tasks.example import Example


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


class Uneven(FixedSource):
    """Edges a little more likely than not, so that greedy misses the mode."""

    def distribution(self, agents, decision, question):  # type: ignore[no-untyped-def, override]
        return _drawn_from(len(agents), 0, 0.3)


def test_with_more_agents_it_is_called_greedy_and_measured(caplog: pytest.LogCaptureFixture) -> None:
    many = tuple(Agent(f"agent {n}", f"the agent {n}", "think") for n in range(7))
    examples = [Example(str(n), question, "") for n, question in enumerate(QUESTIONS[:2])]
    cast = Cast(many, DECISION, Uneven("star"))
    assert is_greedy(cast, QUESTIONS[0]) and topology_name(cast, QUESTIONS[0]) == "greedy"
    with caplog.at_level(logging.WARNING):
        gaps = warn_where_greedy(cast, examples)
    assert len(gaps) == 2
    assert "the topologies of 7 agents are greedy" in caplog.text and "best of 1000 drawn ones" in caplog.text
    table = disagreement_table(disagreement(cast, cast, examples), "a", "b")
    assert table.startswith("The greedy topologies are the same")


def test_with_few_agents_nothing_is_said(caplog: pytest.LogCaptureFixture) -> None:
    for source in (Uneven("star"), FixedSource("full")):
        cast = Cast(AGENTS, DECISION, source)
        assert topology_name(cast, QUESTIONS[0]) == "most likely"
        assert warn_where_greedy(cast, [Example("0", QUESTIONS[0], "")]) == []
    assert not caplog.records
