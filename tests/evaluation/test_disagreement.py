"""Where two casts disagree, with numbers worked out by hand."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from tables import AGENTS, DECIDES, Table

from gcache.agents.roles import Agent
from gcache.errors import ConfigError
from gcache.evaluation.disagreement import NAMED, Disagreement, disagreement, disagreement_table
from gcache.gnn.providers import FixedProvider
from gcache.gnn.summary import LATER
from gcache.gnn.team import Team
from gcache.gnn.topology import DECISION
from gcache.tasks.example import Example, Note

#: question -> the probabilities of 0 -> decision, 1 -> decision, 0 -> 1, 1 -> 0
FIRST = {"one": (0.8, 0.2, 0.4, 0.1), "two": (0.6, 0.7, 0.9, 0.3)}
SECOND = {"one": (0.3, 0.2, 0.4, 0.9), "two": (0.6, 0.7, 0.9, 0.3)}
EXAMPLES = [Example(f"q-{question}", question, "") for question in FIRST]


def cast(source: Any, agents: Sequence[Agent] = AGENTS) -> Team:
    return Team(agents, DECIDES, source)


def found_between(first: Mapping[str, Sequence[float]], second: Mapping[str, Sequence[float]]) -> Disagreement:
    return disagreement(cast(Table(first)), cast(Table(second)), EXAMPLES)


def test_the_numbers_by_hand() -> None:
    found = found_between(FIRST, SECOND)
    assert (found.n, found.same) == (2, 0.5)
    rows = {(e.source, e.target): e for e in found.edges}
    assert list(rows)[:2] == [("critic", "planner"), ("planner", DECISION)]  # the largest difference first
    up, down = found.edges[:2]
    assert (up.first, up.second, up.difference) == pytest.approx((0.2, 0.6, 0.4))
    assert (down.first, down.second, down.difference) == pytest.approx((0.7, 0.45, -0.25))
    # two questions drawn with replacement: both the one, or both the other, a quarter of the time each
    assert (up.low, up.high) == pytest.approx((0.0, 0.8)) and (down.low, down.high) == pytest.approx((-0.5, 0.0))
    assert (up.apart, down.apart, up.questions) == (0.5, 0.5, 2)
    for ends in (("critic", DECISION), ("planner", "critic")):
        assert (rows[ends].difference, rows[ends].low, rows[ends].high, rows[ends].apart) == (0, 0, 0, 0)
    first, second = found.questions
    assert (first.id, first.question) == ("q-one", "one") and first.distance == pytest.approx(0.5 + 0.8)
    assert first.only_first == (f"planner -> {DECISION}",) and first.only_second == ("critic -> planner",)
    assert (second.id, second.distance, second.only_first, second.only_second) == ("q-two", 0.0, (), ())


def test_the_other_way_round_signs_and_sides_change() -> None:
    there, back = found_between(FIRST, SECOND), found_between(SECOND, FIRST)
    assert [e.difference for e in back.edges] == pytest.approx([-e.difference for e in there.edges])
    assert back.questions[0].only_first == there.questions[0].only_second
    assert back.same == there.same


def test_a_cast_agrees_with_itself() -> None:
    found = found_between(FIRST, FIRST)
    assert found.same == 1.0
    assert all((e.difference, e.low, e.high, e.apart) == (0, 0, 0, 0) for e in found.edges)
    assert "| question |" not in disagreement_table(found, "a", "b"), "no question is named where all are alike"
    assert "| question |" in disagreement_table(found_between(FIRST, SECOND), "a", "b")


def test_agents_of_one_kind_are_averaged_within_a_question() -> None:
    notes = (Note("baker", "bakes", "x", kind="keeper"), Note("miller", "grinds", "y", kind="keeper"))
    examples = [Example("1", "one", "", notes)]
    found = disagreement(cast(Table(FIRST)), cast(Table(SECOND)), examples)
    assert [(e.source, e.target, e.questions, e.apart) for e in found.edges] == [
        ("keeper", "keeper", 1, 1.0), ("keeper", DECISION, 1, 1.0)
    ]  # fmt: skip
    among, decides = found.edges
    assert (among.first, among.second) == pytest.approx((0.25, 0.65))
    assert (decides.first, decides.second) == pytest.approx((0.5, 0.25))
    assert found.questions[0].only_first == (f"baker -> {DECISION}",)  # by role: which of them


def test_fixed_topologies_have_each_edge_or_not() -> None:
    found = disagreement(cast(FixedProvider("chain")), cast(FixedProvider("star")), EXAMPLES)
    # planner -> critic -> decision maker beside planner -> decision maker <- critic
    assert {(e.source, e.target): (e.first, e.second, e.apart) for e in found.edges} == {
        ("planner", "critic"): (1.0, 0.0, 1.0),
        ("planner", DECISION): (0.0, 1.0, 1.0),
        ("critic", DECISION): (1.0, 1.0, 0.0),
    }
    assert found.same == 0.0 and [q.distance for q in found.questions] == [2.0, 2.0]
    learned = disagreement(cast(Table(FIRST)), cast(FixedProvider("none")), EXAMPLES)
    assert {(e.source, e.target): e.second for e in learned.edges} == dict.fromkeys(
        [("planner", DECISION), ("critic", DECISION), ("planner", "critic"), ("critic", "planner")], 0.0
    )


def test_an_edge_from_the_round_before_is_another_edge() -> None:
    keys = ((0, 2), (0, 1, 1))
    one, two = (Table(dict.fromkeys(FIRST, chances), keys) for chances in ((0.9, 0.6), (0.9, 0.2)))
    found = disagreement(cast(one), cast(two), EXAMPLES)
    assert (found.edges[0].source, found.edges[0].target) == ("planner", "critic" + LATER)
    assert found.questions[0].only_first == ("planner -> critic" + LATER,)


def test_the_farthest_questions_are_named() -> None:
    names = [f"q{n}" for n in range(NAMED + 3)]
    one = Table({name: (0.5, 0.1, 0.1, 0.1) for name in names})
    two = Table({name: (0.5 + n / 20, 0.1, 0.1, 0.1) for n, name in enumerate(names)})
    found = disagreement(cast(one), cast(two), [Example(name, name, "") for name in names])
    assert [q.id for q in found.questions] == names[: -NAMED - 1 : -1]
    assert found.n == NAMED + 3


def test_other_agents_are_refused_by_name() -> None:
    others = (AGENTS[0], Agent("poet", "rhymes", "rhyme"))
    with pytest.raises(ConfigError, match=r"other agents: planner, critic and planner, poet; compare checkpoints with"):
        disagreement(cast(Table(FIRST)), cast(Table(SECOND), others), EXAMPLES)
    with pytest.raises(ConfigError, match="other agents"):
        disagreement(cast(Table(FIRST)), cast(Table(SECOND), AGENTS[:1]), EXAMPLES)


def test_no_question_is_refused() -> None:
    with pytest.raises(ConfigError, match="no question to compare topologies on; raise the limit"):
        disagreement(cast(Table(FIRST)), cast(Table(SECOND)), [])


def test_the_table_and_the_json_by_hand() -> None:
    found = found_between(FIRST, SECOND)
    lines = disagreement_table(found, "a|b", "c").splitlines()
    assert lines[0] == "The most likely topologies are the same on 50.0% of 2 questions."
    assert lines[2] == "| from | to | a\\|b | c | difference | bootstrap interval | kept by one alone | questions |"
    assert lines[4] == "| critic | planner | 0.200 | 0.600 | +0.400 | +0.000 to +0.800 | 50.0% | 2 |"
    assert lines[-1] == f"| q-one | one | 1.300 | planner -> {DECISION} | critic -> planner |"
    assert not any("q-two" in line for line in lines)  # the same under both
    assert json.loads(json.dumps(found.to_json()))["edges"][0]["difference"] == pytest.approx(0.4)
