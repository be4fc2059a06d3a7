from __future__ import annotations

import networkx
import pytest
import torch

from gcache.agents.decision import DecisionMaker
from gcache.agents.roles import Agent
from gcache.errors import ConfigError
from gcache.gnn.fixed import TOPOLOGIES, FixedTopology
from gcache.gnn.providers import FixedProvider

FULL = {(0, 1), (0, 2), (0, 3), (0, 4), (1, 2), (1, 3), (1, 4), (2, 3), (2, 4), (3, 4)}
OF_FOUR = {
    "none": set(),
    "chain": {(0, 1), (1, 2), (2, 3), (3, 4)},
    "star": {(0, 4), (1, 4), (2, 4), (3, 4)},
    "layered": {(0, 2), (0, 3), (1, 2), (1, 3), (2, 4), (3, 4)},
    "full": FULL,
    "debate": {(0, 1), (0, 2), (0, 3), (0, 4), (1, 4), (2, 4), (3, 4)},
}


def test_every_named_topology_is_tested_here() -> None:
    assert set(TOPOLOGIES) == {*OF_FOUR, "random"}


@pytest.mark.parametrize("name", sorted(OF_FOUR))
def test_the_edges_of_four_agents(name: str) -> None:
    topology, log_prob = FixedTopology(name, 4).most_likely()
    assert topology.pairs == OF_FOUR[name]
    assert {(e.weight, e.probability) for e in topology.edges} <= {(1.0, 1.0)}
    assert topology.probabilities == ()
    assert float(log_prob) == 0.0


@pytest.mark.parametrize("n_agents", range(1, 7))
@pytest.mark.parametrize("name", sorted(TOPOLOGIES))
def test_every_named_topology_is_acyclic(name: str, n_agents: int) -> None:
    for seed in range(10 if name == "random" else 1):
        topology = FixedTopology(name, n_agents, seed).most_likely()[0]
        assert topology.n_agents == n_agents
        assert networkx.is_directed_acyclic_graph(networkx.DiGraph(list(topology.pairs)))


@pytest.mark.parametrize("n_agents", range(1, 7))
@pytest.mark.parametrize("name", ["chain", "star", "layered", "full", "debate"])
def test_everybody_is_heard(name: str, n_agents: int) -> None:
    assert FixedTopology(name, n_agents).most_likely()[0].heard(rounds=1) == set(range(n_agents))


def test_the_random_topology_is_one_half_of_the_full_one_and_the_same_for_a_seed() -> None:
    drawn = [FixedTopology("random", 4, seed).most_likely()[0].pairs for seed in range(200)]
    assert drawn == [FixedTopology("random", 4, seed).most_likely()[0].pairs for seed in range(200)]
    assert all(pairs <= FULL for pairs in drawn)
    assert len(set(drawn)) > 100
    for pair in FULL:  # a share of 200 draws at 1/2 has a deviation of 0.035
        assert 0.35 < sum(pair in pairs for pairs in drawn) / 200 < 0.65


def test_sampling_is_the_most_likely_whatever_the_generator() -> None:
    fixed = FixedTopology("random", 5, seed=3)
    for seed in (0, 1):
        assert fixed.sample(torch.Generator().manual_seed(seed))[0] == fixed.most_likely()[0]


def test_unknown_names_and_no_agents_are_refused() -> None:
    for make in (lambda: FixedTopology("ring", 3), lambda: FixedProvider("ring")):
        with pytest.raises(ConfigError, match="unknown topology 'ring'; choose one of: chain, debate, full"):
            make()
    with pytest.raises(ConfigError, match="n_agents must be 1 or more, got 0"):
        FixedTopology("chain", 0)


def test_a_fixed_source_is_the_same_for_every_question_and_as_large_as_its_agents() -> None:
    source, decision = FixedProvider("random", seed=5), DecisionMaker("decides", "decide")
    agents = [Agent("a", "an agent")] * 4
    first, second = (source.distribution(agents, decision, question) for question in ("what is 2 ?", "who ?"))
    assert first == second == FixedTopology("random", 4, seed=5)
    assert source.distribution(agents[:2], decision, "who ?").n_agents == 2
