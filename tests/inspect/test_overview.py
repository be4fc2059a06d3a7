"""A checkpoint without a question, and the plain values of a view."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tables import AGENTS, DECIDES, Table

from gcache.evaluation.cost import Cost
from gcache.gnn.providers import FixedProvider
from gcache.gnn.summary import LATER
from gcache.gnn.team import Team
from gcache.gnn.topology import DECISION
from gcache.inspect.overview import overview
from gcache.inspect.view import Frame, View, ViewEdge, edges_of, nodes_of
from gcache.tasks.example import Example, Note

#: question -> the probabilities of 0 -> decision, 1 -> decision, 0 -> 1, 1 -> 0
CHANCES = {"one": (0.8, 0.2, 0.4, 0.1), "two": (0.6, 0.7, 0.9, 0.3)}
EXAMPLES = [Example(question, question, "") for question in CHANCES]
BEFORE = [["planner", DECISION, 0.5, 0.4, 0.6, 0.0], ["poet", "critic" + LATER, 0.25, 0.2, 0.3, 1.0]]


def of(source: Any, examples: list[Example] = EXAMPLES, **more: Any) -> View:
    return overview(
        Team(AGENTS, DECIDES, source), examples, title="toy: run", task="toy", model="tiny", step=2, **more
    )


def test_edges_are_means_over_questions_by_hand() -> None:
    view = of(Table(CHANCES))
    assert [(e.source, e.target) for e in view.edges] == [
        ("planner", DECISION), ("critic", DECISION), ("planner", "critic"), ("critic", "planner")
    ]  # fmt: skip
    assert [e.probability for e in view.edges] == pytest.approx([0.7, 0.45, 0.65, 0.2])
    assert [e.kept for e in view.edges] == [1.0, 0.5, 0.5, 0.0]
    assert (view.edges[0].low, view.edges[0].high) == pytest.approx((0.61, 0.79))
    assert [node.id for node in view.nodes] == ["critic", "planner", DECISION]
    assert (view.title, view.task, view.model, view.step) == ("toy: run", "toy", "tiny", 2)
    assert view.subtitle == "edges by role, mean over 2 questions"
    assert (view.question, view.answer, view.curves) == (None, None, ())
    assert [(frame.step, frame.label) for frame in view.frames] == [(2, "after 2 steps")]


def test_steps_of_the_training_come_before_the_checkpoint() -> None:
    metrics = [
        {"step": 0, "utility": 0.25, "edges": 3.0, "seconds": 1.5, "learned_edges": BEFORE},
        {"step": 1, "utility": 0.5, "edges": 2.0, "tokens_generated": 9},
    ]
    view = of(Table(CHANCES), metrics=metrics)
    # the second step is of a run that did not yet say how likely edges were
    assert [(frame.step, frame.label) for frame in view.frames] == [(0, "before step 1"), (2, "after 2 steps")]
    assert view.frames[0].edges == (
        ViewEdge("planner", DECISION, 0.5, False, 0.4, 0.6, 0.0), ViewEdge("poet", "critic", 0.25, True, 0.2, 0.3, 1.0)
    )  # fmt: skip
    assert view.edges is view.frames[-1].edges and len(view.edges) == 4
    # who was there once is there still
    assert [node.id for node in view.nodes] == ["critic", "planner", "poet", DECISION]
    assert {curve.name: curve.points for curve in view.curves} == {
        "utility of the rollouts": ((1, 0.25), (2, 0.5)),
        "edges per question": ((1, 3.0), (2, 2.0)),
        "tokens generated per step": ((2, 9.0),),
        "seconds per step": ((1, 1.5),),
    }


def test_costs_stand_at_their_edges() -> None:
    cost = Cost(-0.5, -1.0, 0.0, 2, 1)
    view = of(Table(CHANCES), costs={("critic", DECISION): cost})
    assert {(e.source, e.target): e.cost for e in view.edges if e.cost} == {("critic", DECISION): cost}


def test_a_fixed_topology_has_the_share_of_questions_that_have_an_edge() -> None:
    view = of(FixedProvider("chain"))
    assert view.subtitle == "a fixed topology"
    assert [(e.source, e.target, e.probability, e.kept) for e in view.edges] == [
        ("planner", "critic", 1.0, 1.0), ("critic", DECISION, 1.0, 1.0)
    ]  # fmt: skip
    notes = tuple(Note(f"n{i}", "", "x", kind="keeper") for i in range(3))
    mixed = [Example("1", "one", "", notes[:1]), Example("2", "two", "", notes)]
    # one agent alone has nobody to hand to
    assert {(e.source, e.target): e.probability for e in of(FixedProvider("chain"), mixed).edges} == {
        ("keeper", DECISION): 1.0, ("keeper", "keeper"): 0.5
    }  # fmt: skip


def test_agents_without_an_edge_are_there() -> None:
    view = of(FixedProvider("none"))
    assert view.edges == () and [node.id for node in view.nodes] == ["critic", "planner", DECISION]


def test_rows_become_edges_and_edges_nodes() -> None:
    cost = Cost(0.0, 0.0, 0.0, 2, 2)
    found = edges_of(BEFORE, {("poet", "critic" + LATER): cost})
    assert [(e.target, e.later, e.cost) for e in found] == [(DECISION, False, None), ("critic", True, cost)]
    assert [node.id for node in nodes_of([Frame(0, "", found)], ["z"])] == ["critic", "planner", "poet", "z", DECISION]
    assert [node.id for node in nodes_of([])] == [DECISION]


def test_a_view_is_plain_values() -> None:
    view = of(Table(CHANCES), metrics=[{"step": 0, "utility": 0.25, "learned_edges": BEFORE}])
    found = json.loads(json.dumps(view.to_json()))
    assert found["frames"][-1]["edges"][0]["target"] == DECISION
    assert [node["decision"] for node in found["nodes"]] == [False, False, False, True]
    assert found["curves"] == [{"name": "utility of the rollouts", "points": [[1, 0.25]]}]
