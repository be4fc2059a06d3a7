"""Do readings name what was thought of? Counted by hand, on readings that were made up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from gcache.agents.decision import decision_maker
from gcache.cache.fusers.concat import ConcatFuser
from gcache.errors import ConfigError
from gcache.evaluation.intervals import wilson
from gcache.gnn.providers import FixedProvider
from gcache.gnn.topology import Edge, Topology
from gcache.graph.cache_graph import CacheGraph
from gcache.graph.run_config import GraphConfig
from gcache.inspect.reading_check import (
    ASKED,
    COUNTED,
    WRITTEN,
    Named,
    ReadThought,
    count_named,
    names_word,
    read_thoughts,
)
from gcache.inspect.readings import readings
from gcache.llm.local import LocalLLM
from gcache.tasks.example import Example, Note
from gcache.tasks.split_facts import SplitFacts

#: Of four questions' keepers; everybody's donor is the next, the last one's the first.
THOUGHTS = [
    # its place and its value, in both
    ReadThought("q0", "old mill", "856", (("mil", "the"), ("8",)), "The Old Mill has 856."),
    # the next question's, in both, but the place only second
    ReadThought("q1", "barn", "123", (("li", "lib"), ("456",)), "the library, 456"),
    # its value, in its steps
    ReadThought("q2", "library", "456", (("x", "y"), ("45",)), "nothing"),
    # its place and its value, in both; that of the first as well, fourth, but not in writing
    ReadThought("q3", "dock", "789", (("DOCK",), ("7", "x", "y", "85")), "789 at the Dock"),
]
FIRST, THIRD, TENTH = "latent steps, 1 token each", "latent steps, 3 tokens each", "latent steps, 10 tokens each"


def counted(thoughts: Sequence[ReadThought] = THOUGHTS) -> dict[tuple[str, str], Named]:
    return {(row.read, row.what): row for row in count_named(thoughts)}


def test_counts_by_hand() -> None:
    rows = counted()
    assert {key: (row.share, row.chance, row.above) for key, row in rows.items()} == {
        (FIRST, "place"): (0.5, 0.0, 0.5),  # 0 and 3 their own
        (FIRST, "value"): (0.75, 0.25, 0.5),  # 0, 2 and 3; 1 that of 2
        (THIRD, "place"): (0.5, 0.25, 0.25),  # 1 that of 2, with its second token
        (THIRD, "value"): (0.75, 0.25, 0.5),
        (TENTH, "place"): (0.5, 0.25, 0.25),
        (TENTH, "value"): (0.75, 0.5, 0.25),  # 3 that of 0, with its fourth
        (WRITTEN, "place"): (0.5, 0.25, 0.25),
        (WRITTEN, "value"): (0.5, 0.25, 0.25),
    }
    row = rows[TENTH, "place"]
    assert (row.low, row.high) == wilson(2, 4) and row.n == 4
    # per question, own less another's: 1, -1, 0, 1
    assert row.above_low <= -0.5 and row.above_high == 1.0
    assert COUNTED == (1, 3, 10)


def test_readings_that_are_always_right_and_never_by_chance() -> None:
    right = [replace(t, steps=((t.place, t.value),), written=f"{t.place} {t.value}") for t in THOUGHTS]
    assert {(r.share, r.chance, r.above, r.above_low, r.above_high) for r in count_named(right)} >= {(1, 0, 1, 1, 1)}
    assert counted(right)[FIRST, "value"].share == 0.0  # the value comes second


def test_without_latent_steps_writing_alone_is_counted() -> None:
    assert list(counted([replace(t, steps=()) for t in THOUGHTS])) == [(WRITTEN, "place"), (WRITTEN, "value")]


@pytest.mark.parametrize(
    ("token", "word", "named"),
    [
        ("Clo", "clock", True), ("c", "clock", False), ("cl", "clock", False), ("clock", "clock", True),
        ("clocks", "clock", False), (" CLOCK ", "clock", True), ("lock", "clock", False), ("8", "856", True),
        ("85", "856", True), ("56", "856", False), ("8567", "856", False), ("", "856", False), (" ", "a", False),
        ("a", "a", True), ("in", "inn", False), ("inn", "inn", True), ("of", "of", True),
    ],
)  # fmt: skip
def test_whether_a_token_names_a_word(token: str, word: str, named: bool) -> None:
    assert names_word(token, word) is named


def test_chance_is_another_place_and_value() -> None:
    """The first one's neighbours are of its place or its value, so it is held against the fourth."""
    made = [("mill", "111"), ("mill", "222"), ("barn", "111"), ("barn", "222")]
    thoughts = [ReadThought(f"q{n}", place, value, (), "barn 222") for n, (place, value) in enumerate(made)]
    rows = counted(thoughts)
    # donors: of 0 it is 3, of 1 it is 2, of 2 it is 1, of 3 it is 0
    assert (rows[WRITTEN, "place"].share, rows[WRITTEN, "place"].chance) == (0.5, 0.5)
    assert (rows[WRITTEN, "value"].share, rows[WRITTEN, "value"].chance) == (0.5, 0.5)
    only = [replace(t, written="barn 222" if t.id == "q0" else "") for t in thoughts]
    assert (counted(only)[WRITTEN, "value"].share, counted(only)[WRITTEN, "value"].chance) == (0.0, 0.25)


def test_questions_all_of_one_place_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"all questions are about one place.*raise the limit"):
        count_named([replace(thought, place="mill") for thought in THOUGHTS])


def graph_of(llm: LocalLLM, tokenizer: Any, **config: Any) -> CacheGraph:
    return CacheGraph(
        llm, tokenizer, (), decision_maker("split_facts"), FixedProvider("full"),
        ConcatFuser(*llm.cache_shape, rope=llm.rope), GraphConfig(latent_steps=2, max_new_tokens=2, **config),
    )  # fmt: skip


@pytest.mark.parametrize("rounds", [1, 2])
def test_the_asked_keeper_is_read_as_it_thinks_where_nobody_else_is_heard(
    tiny_llm: LocalLLM, tiny_tokenizer: Any, rounds: int
) -> None:
    graph, examples = graph_of(tiny_llm, tiny_tokenizer, num_rounds=rounds), SplitFacts(n_agents=3).test(4)
    found = read_thoughts(graph, tiny_llm, examples)
    assert [(t.id, t.place, t.value) for t in found] == [(e.id, e.meta["place"], e.answer) for e in examples]
    assert all([len(step) for step in thought.steps] == [10, 10] for thought in found)
    keepers = [[note.kind for note in example.notes].index(ASKED) for example in examples]
    assert len(set(keepers)) > 1
    for thought, example, keeper in zip(found, examples, keepers, strict=True):
        result = graph.run(example, topology=Topology(3, (Edge(keeper, 3),)), keep_states=True)
        (by_node,) = readings(graph, tiny_llm, [result], 10)
        reading = by_node[rounds - 1, keeper]
        assert (thought.steps, thought.written) == (reading.steps, reading.text)
    assert len(count_named(found)) == 8


def test_questions_of_another_task_are_refused(tiny_llm: LocalLLM, tiny_tokenizer: Any) -> None:
    other = Example("x", "what ?", "1", (Note("a", "", "x", kind="other"),), {"place": "mill"})
    with pytest.raises(ConfigError, match="question x has no asked keeper; readings are checked on split_facts"):
        read_thoughts(graph_of(tiny_llm, tiny_tokenizer), tiny_llm, [other])
