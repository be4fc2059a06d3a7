from __future__ import annotations

import math

import pytest

from gcache.errors import ConfigError
from gcache.gnn.topology import Edge, Topology, is_acyclic, reaches


def test_edges_are_sorted_whatever_order_they_came_in() -> None:
    edges = (Edge(1, 2), Edge(0, 2, 0.5), Edge(0, 1))
    assert Topology(2, edges) == Topology(2, edges[::-1])
    assert [(e.source, e.target) for e in Topology(2, edges).edges] == [(0, 1), (0, 2), (1, 2)]


@pytest.mark.parametrize("weight", [0.0, -0.1, 1.0001, math.nan, math.inf])
def test_a_weight_outside_zero_to_one_is_refused(weight: float) -> None:
    with pytest.raises(ConfigError, match=r"weight must be in \(0, 1\], got"):
        Edge(0, 1, weight)


@pytest.mark.parametrize(
    ("pairs", "named"),
    [
        ([(0, 4)], "edge 0 -> 4 is out of range"),
        ([(-1, 0)], "edge -1 -> 0 is out of range"),
        ([(0, -1)], "edge 0 -> -1 is out of range"),
        ([(3, 0)], "edge 3 -> 0 is out of range: sources are agents 0 to 2"),
        ([(0, 1), (0, 1)], "edge 0 -> 1 occurs twice"),
        ([(1, 1)], r"cycle among its edges \[\(1, 1\)\]"),
        ([(0, 1), (1, 0)], "cycle"),
        ([(0, 1), (1, 2), (2, 0), (2, 3)], "cycle"),
    ],
)
def test_impossible_edges_are_refused_by_name(pairs: list[tuple[int, int]], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        Topology(3, tuple(Edge(*pair) for pair in pairs))


def test_the_same_edge_at_two_weights_is_refused() -> None:
    with pytest.raises(ConfigError, match="edge 0 -> 1 occurs twice"):
        Topology(1, (Edge(0, 1, 0.5), Edge(0, 1, 0.6)))


def test_into_lists_the_senders_of_a_node_in_order() -> None:
    topology = Topology(3, (Edge(2, 3), Edge(0, 3, 0.5), Edge(0, 1)))
    assert topology.decision_node == 3
    assert topology.into(3) == (Edge(0, 3, 0.5), Edge(2, 3))
    assert topology.into(0) == ()
    assert topology.pairs == {(0, 1), (0, 3), (2, 3)}


@pytest.mark.parametrize(
    ("pairs", "heard"),
    [
        ([], set()),
        ([(0, 1), (1, 2)], set()),
        ([(0, 1), (1, 2), (2, 3)], {0, 1, 2}),
        ([(0, 1), (0, 3)], {0}),
        ([(0, 2), (1, 2), (2, 3), (0, 1)], {0, 1, 2}),
        ([(2, 0), (0, 3), (2, 1)], {0, 2}),
    ],
)
def test_heard_are_the_agents_with_a_path_to_the_decision_maker(pairs: list[tuple[int, int]], heard: set[int]) -> None:
    assert Topology(3, tuple(Edge(*pair) for pair in pairs)).heard(rounds=1) == heard


def test_heard_over_rounds_are_those_of_the_round_before_too() -> None:
    topology = Topology(3, (Edge(0, 1, delay=1), Edge(1, 3), Edge(2, 0, delay=1)))
    assert [topology.heard(rounds) for rounds in (1, 2, 3)] == [{1}, {0, 1}, {0, 1, 2}]


@pytest.mark.parametrize(
    ("pairs", "acyclic"),
    [
        ([], True),
        ([(0, 1), (1, 2), (0, 2)], True),
        ([(2, 1), (1, 0)], True),
        ([(0, 0)], False),
        ([(0, 1), (1, 2), (2, 1)], False),
        ([(0, 1), (1, 2), (2, 0)], False),
    ],
)
def test_is_acyclic(pairs: list[tuple[int, int]], acyclic: bool) -> None:
    assert is_acyclic(3, pairs) is acyclic


def test_reaches_follows_edges_forwards_only() -> None:
    pairs = [(0, 1), (1, 2), (1, 3), (3, 0)]
    assert reaches(pairs, 0, 2)
    assert reaches(pairs, 3, 2)
    assert not reaches(pairs, 2, 0)
    assert reaches(pairs, 2, 2)  # a node reaches itself without an edge
    assert not reaches([], 0, 1)


def test_a_networkx_graph_carries_weights_probabilities_and_roles() -> None:
    graph = Topology(2, (Edge(0, 1, 0.5, 0.25), Edge(1, 2))).to_networkx(["baker", "miller"])
    assert dict(graph.nodes(data="role")) == {0: "baker", 1: "miller", 2: "decision maker"}
    assert list(graph.edges(data=True)) == [
        (0, 1, {"weight": 0.5, "probability": 0.25, "delay": 0, "payload": None}),
        (1, 2, {"weight": 1.0, "probability": 1.0, "delay": 0, "payload": None}),
    ]
    assert dict(Topology(1).to_networkx().nodes(data="role")) == {0: "agent 0", 1: "decision maker"}


def test_edges_from_the_round_before_may_go_both_ways() -> None:
    topology = Topology(2, (Edge(1, 0, delay=1), Edge(0, 1, delay=1), Edge(0, 1), Edge(1, 2)))
    assert [edge.key for edge in topology.edges] == [(0, 1), (0, 1, 1), (1, 0, 1), (1, 2)]
    assert topology.senders(0, 1) == [((0, 0), (0, 1))]
    assert topology.senders(1, 1) == [((1, 0), (0, 1)), ((0, 0), (0, 1, 1)), ((0, 1), None)]
    assert topology.heard_nodes(1) == {(0, 0), (0, 1)}
    assert topology.heard_nodes(2) == {(0, 0), (0, 1), (1, 0), (1, 1)}
    assert topology.to_networkx().number_of_edges() == 4


@pytest.mark.parametrize("pair", [(0, 2), (1, 1)])
def test_impossible_edges_from_the_round_before_are_refused(pair: tuple[int, int]) -> None:
    with pytest.raises(ConfigError, match=f"edge {pair[0]} -> {pair[1]} from the round before is not possible"):
        Topology(2, (Edge(*pair, delay=1),))


@pytest.mark.parametrize("steps", [(1,), (1, 2, 3), (1, -1)])
def test_latent_steps_are_one_number_per_agent(steps: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match="latent_steps must be 2 numbers"):
        Topology(2, latent_steps=steps)


def test_unknown_channels_and_delays_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"payload.*'smoke'.*cache"):
        Edge(0, 1, payload="smoke")
    with pytest.raises(ConfigError, match="delay must be 0"):
        Edge(0, 1, delay=2)
