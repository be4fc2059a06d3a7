from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from toy import AGENTS, DECISION, QUESTIONS, ToyTask, toy_built

from gcache.cache.fusers.concat import ConcatFuser
from gcache.errors import ConfigError
from gcache.evaluation.controls import (
    CONTROLS,
    OF_LATENT_STEPS,
    Controlled,
    controls_markdown,
    random_topology,
    run_controls,
)
from gcache.evaluation.evaluate import Evaluation, Row
from gcache.gnn.providers import FixedProvider
from gcache.gnn.topology import Topology
from gcache.graph.cache_graph import CacheGraph
from gcache.graph.passing import Passing
from gcache.graph.run_config import GraphConfig
from gcache.inspect.controls_picture import draw_controls
from gcache.llm.local import LocalLLM
from gcache.tasks.example import Example, Grade, Note
from gcache.tasks.split_facts import SplitFacts

TASK = ToyTask()


def chain(llm: LocalLLM, tokenizer: Any, **config: Any) -> CacheGraph:
    settings = GraphConfig(**{"latent_steps": 1, "max_new_tokens": 3, **config})
    layers, heads, dim = llm.cache_shape
    return CacheGraph(
        llm, tokenizer, AGENTS, DECISION, FixedProvider("chain"), ConcatFuser(layers, heads, dim, rope=llm.rope),
        settings,
    )


def test_every_control_asks_the_same_questions(tiny_llm: LocalLLM, tiny_tokenizer: Any) -> None:
    graph = chain(tiny_llm, tiny_tokenizer)
    rows = run_controls(graph, tiny_llm, TASK, TASK.test(), progress=False)
    assert [row.found.name for row in rows] == list(CONTROLS)
    assert all([r.id for r in row.found.rows] == [e.id for e in TASK.test()] for row in rows)
    by_name = {row.found.name: row for row in rows}
    assert by_name["no transfer"].found.edges == 0
    assert by_name["all edges"].found.edges == 6
    # 0 -> 1 -> 2 -> decision maker; everyone to it; 0 to 1 and 2, these to it; 0 to all, all to it
    expected = {"star": 3, "chain": 3, "layered": 4, "debate": 5}
    assert {name: by_name[name].found.edges for name in expected} == expected
    kept = {name for name, row in by_name.items() if row.found.edges == 3}
    assert kept == set(CONTROLS) - {"no transfer", "all edges", "layered", "debate", "same words as text"}


def test_no_control_moves_caches_that_must_stay_where_they_are(tiny_llm: LocalLLM, tiny_tokenizer: Any) -> None:
    tiny_llm.rope = replace(tiny_llm.rope, fixed="layer 0 scales its attention")
    graph = chain(tiny_llm, tiny_tokenizer)
    with pytest.raises(ConfigError, match=r"cannot be moved: layer 0 scales.*other than 'other question'"):
        run_controls(graph, tiny_llm, TASK, TASK.test(), ["masked", "other question"], progress=False)
    rows = run_controls(graph, tiny_llm, TASK, TASK.test(), progress=False)
    assert [row.found.name for row in rows] == [name for name in CONTROLS if name != "other question"]


def test_each_control_changes_what_is_written(tiny_llm: LocalLLM, tiny_tokenizer: Any) -> None:
    """On models this sensitive every control but one moves some of 8 answers of 8 tokens; so a
    control that did nothing would show. (Where embeddings are tied, W_a is near the identity.)"""
    graph = chain(tiny_llm, tiny_tokenizer, max_new_tokens=8)
    rows = run_controls(graph, tiny_llm, TASK, TASK.test(), progress=False)
    texts = {row.found.name: [r.text for r in row.found.rows] for row in rows}
    same = {"as it is", "chain"} | ({"identity W_a"} if tiny_llm.alignment.tied else set())
    assert {name for name in texts if texts[name] == texts["as it is"]} == same


def test_the_graph_as_it_is_is_the_graph(tiny_llm: LocalLLM, tiny_tokenizer: Any) -> None:
    built = toy_built(tiny_llm, tiny_tokenizer)
    assert isinstance(built.graph, CacheGraph)
    examples = TASK.test()
    (own,) = run_controls(built.graph, tiny_llm, TASK, examples, ["as it is"], progress=False)
    expected = built.graph.run_all(examples)
    assert [row.text for row in own.found.rows] == [result.answer for result in expected]
    assert [row.edges for row in own.found.rows] == [tuple(sorted(r.topology.pairs)) for r in expected]
    assert (own.difference, own.low, own.high) == (0, 0, 0)


def test_differences_are_paired(tiny_llm: LocalLLM, tiny_tokenizer: Any) -> None:
    """Right is whatever the graph writes as it is, but for the last two questions."""
    graph = chain(tiny_llm, tiny_tokenizer, max_new_tokens=8)
    examples = TASK.test()
    written = [result.answer for result in graph.run_all(examples)]
    wanted = {e.id: text for e, text in zip(examples[:6], written[:6], strict=True)}

    class Same(ToyTask):
        def grade(self, text: str, example: Example) -> Grade:
            return Grade("right" if wanted.get(example.id) == text else "wrong", text)

    own, cut = run_controls(graph, tiny_llm, Same(), examples, ["masked"], progress=False)
    assert own.found.accuracy == 0.75
    assert cut.difference == cut.found.accuracy - 0.75
    assert cut.low <= cut.difference <= cut.high
    assert cut.low < 0


def test_another_questions_caches_are_those_of_the_next_question(
    tiny_llm: LocalLLM, tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import gcache.evaluation.interventions as channel

    seen: dict[str, set[str]] = {}
    replay = channel.Recorder.replay

    def noted(self: channel.Recorder, passing: Passing) -> Any:
        seen.setdefault(passing.question, set()).update(known.question for known in self.passed.values())
        return replay(self, passing)

    monkeypatch.setattr(channel.Recorder, "replay", noted)
    run_controls(chain(tiny_llm, tiny_tokenizer), tiny_llm, TASK, TASK.test(), ["other question"], progress=False)
    assert seen == {q: {QUESTIONS[(i + 1) % len(QUESTIONS)]} for i, q in enumerate(QUESTIONS)}


def test_text_is_of_those_that_are_heard(tiny_llm: LocalLLM, tiny_tokenizer: Any) -> None:
    """With no edge, the words in the prompt are none: the text is that without transfer."""
    layers, heads, dim = tiny_llm.cache_shape
    fuser = ConcatFuser(layers, heads, dim, rope=tiny_llm.rope)
    settings = GraphConfig(latent_steps=1, max_new_tokens=8)
    alone = CacheGraph(tiny_llm, tiny_tokenizer, AGENTS, DECISION, FixedProvider("none"), fuser, settings)
    rows = run_controls(
        alone, tiny_llm, TASK, TASK.test(), ["no transfer", "same words as text"], progress=False
    )  # fmt: skip
    texts = [[r.text for r in row.found.rows] for row in rows]
    assert texts[0] == texts[1] == texts[2]
    heard = chain(tiny_llm, tiny_tokenizer, max_new_tokens=8)
    _, said = run_controls(heard, tiny_llm, TASK, TASK.test(), ["same words as text"], progress=False)
    assert [r.text for r in said.found.rows] != texts[0]
    assert said.found.tokens["prefilled"] > rows[0].found.tokens["prefilled"]


def test_controls_of_latent_steps_need_latent_steps(tiny_llm: LocalLLM, tiny_tokenizer: Any) -> None:
    still = chain(tiny_llm, tiny_tokenizer, latent_steps=0)
    rows = run_controls(still, tiny_llm, TASK, TASK.test(2), progress=False)
    assert [row.found.name for row in rows] == [name for name in CONTROLS if name not in OF_LATENT_STEPS]
    with pytest.raises(ConfigError, match=r"random W_a: no agent of this graph takes a latent step"):
        run_controls(still, tiny_llm, TASK, TASK.test(2), ["masked", "random W_a"], progress=False)


def test_controls_of_a_graph_that_chooses_channels_steps_and_edges_over_rounds(
    tiny_llm: LocalLLM, tiny_tokenizer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    built = toy_built(
        tiny_llm, tiny_tokenizer, graph=GraphConfig(latent_steps=0, num_rounds=2, max_new_tokens=3, speak_tokens=2),
        optimized_temporal=True, channels=("cache", "text"), latent_choices=(0, 2), decision_probability=0.9,
        agent_probability=0.8,
    )  # fmt: skip
    assert isinstance(built.graph, CacheGraph)
    names = ["no transfer", "masked", "random W_a", "random edges"]
    rows = run_controls(built.graph, tiny_llm, TASK, TASK.test(3), names, progress=False)
    own, cut, _, _, random_edges = (row.found for row in rows)
    assert [row.found.name for row in rows] == ["as it is", *names]
    within = sum(len([key for key in row.edges if len(key) == 2]) for row in own.rows) / len(own.rows)
    assert cut.edges == 0 and random_edges.edges == within < own.edges
    assert "carry words" in caplog.text


def test_unknown_controls_and_lonely_questions_are_refused(tiny_llm: LocalLLM, tiny_tokenizer: Any) -> None:
    graph = chain(tiny_llm, tiny_tokenizer)
    with pytest.raises(ConfigError, match=r"'mask'.*masked"):
        run_controls(graph, tiny_llm, TASK, TASK.test(2), ["mask"], progress=False)
    with pytest.raises(ConfigError, match=r"toy-0 is the only one with 3 agents.*other question"):
        run_controls(graph, tiny_llm, TASK, TASK.test(1), ["other question"], progress=False)


def test_a_donor_has_as_many_agents(tiny_llm: LocalLLM, tiny_tokenizer: Any) -> None:
    notes = tuple(Note(f"role {i}", "what is it ?", f"the box has {i}") for i in range(3))
    examples = [Example(f"q{i}", QUESTIONS[i], "", notes[: 2 + i % 2]) for i in range(4)]
    _, row = run_controls(
        chain(tiny_llm, tiny_tokenizer), tiny_llm, TASK, examples, ["other question"], progress=False
    )  # fmt: skip
    assert row.found.n == 4


def test_a_lonely_question_has_all_controls_but_the_one_that_needs_another(
    tiny_llm: LocalLLM, tiny_tokenizer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    rows = run_controls(chain(tiny_llm, tiny_tokenizer, latent_steps=0), tiny_llm, TASK, TASK.test(1), progress=False)
    names = [row.found.name for row in rows]
    assert "masked" in names and "other question" not in names
    assert "1 of 1 questions are left out" in caplog.text


@pytest.mark.parametrize("hands", ["both", "reasoning"])
def test_controls_of_caches_say_what_they_leave_in_place(
    tiny_llm: LocalLLM, tiny_tokenizer: Any, hands: str, caplog: pytest.LogCaptureFixture
) -> None:
    config = GraphConfig(hands=hands, latent_steps=0, max_new_tokens=3, speak_tokens=2, reason_tokens=3)
    built = toy_built(tiny_llm, tiny_tokenizer, graph=config, topology="star")
    if hands == "reasoning":
        built.graph.decision = replace(DECISION, method="marginal", states="words", judging="which ?")
    assert isinstance(built.graph, CacheGraph)
    run_controls(built.graph, tiny_llm, TASK, TASK.test(2), ["no transfer"], progress=False)
    wanted = "edges carry words" if hands == "both" else "marginal chooses among the answers that agents state"
    assert wanted in caplog.text


def test_a_question_without_a_donor_is_left_out_and_its_rows_are_not_paired(
    tiny_llm: LocalLLM, tiny_tokenizer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    notes = tuple(Note(f"role {i}", "what is it ?", f"the box has {i}") for i in range(3))
    counts = (2, 3, 2)
    examples = [Example(f"q{i}", QUESTIONS[i], "", notes[:n]) for i, n in enumerate(counts)]
    names = ["other question", "no transfer"]
    own, other, cut = run_controls(
        chain(tiny_llm, tiny_tokenizer), tiny_llm, TASK, examples, names, progress=False
    )  # fmt: skip
    assert [row.id for row in other.found.rows] == ["q0", "q2"]
    assert (own.found.n, other.found.n, cut.found.n) == (3, 2, 3)
    assert "1 of 3 questions are left out" in caplog.text

    def scored(row: Controlled, outcomes: str, f1s: Sequence[float]) -> Controlled:
        rows = tuple(
            replace(each, outcome={"r": "right", "w": "wrong"}[outcome], f1=f1)
            for each, outcome, f1 in zip(row.found.rows, outcomes, f1s, strict=True)
        )
        return replace(row, found=replace(row.found, rows=rows))

    table = controls_markdown([scored(own, "rrr", (0.9, 0.1, 0.5)), scored(other, "rr", (0.4, 0.2))])
    assert "| -0.400 | -0.500 to -0.300 |" in table.splitlines()[3], "of q0 and q2, -0.5 and -0.3"


@pytest.mark.parametrize(("agents", "edges"), [(1, 0), (1, 1), (2, 3), (3, 2), (5, 15), (5, 4)])
def test_random_topologies_have_so_many_edges_and_no_cycle(agents: int, edges: int) -> None:
    for seed in range(50):
        topology = random_topology(agents, edges, random.Random(seed))  # raises on a cycle
        assert len(topology.pairs) == edges


def test_random_edges_go_both_ways_and_into_the_decision_maker() -> None:
    seen = Counter(pair for seed in range(600) for pair in random_topology(2, 1, random.Random(seed)).pairs)
    # 0 -> decision maker, 1 -> decision maker, and one of the two directions: a third each
    assert set(seen) == {(0, 2), (1, 2), (0, 1), (1, 0)}
    assert all(150 < seen[pair] < 250 for pair in ((0, 2), (1, 2)))
    assert 60 < seen[0, 1] < 140


def test_too_many_edges_are_refused() -> None:
    with pytest.raises(ConfigError, match="0 to 3 edges, got 4"):
        random_topology(2, 4, random.Random(0))


def outcome(name: str, accuracy: float, difference: float) -> Controlled:
    rows = (Row("q0", "right", "1", "1"), Row("q1", "wrong", "2", "2"))
    return Controlled(
        Evaluation(name, accuracy, 0.1, 0.9, 2, 0, 1.5, 0.5, {}, 1.0, rows), difference, difference - 0.2, 0.1
    )


def test_the_table_by_hand() -> None:
    table = controls_markdown([outcome("as it is", 0.5, 0.0), outcome("masked", 0.25, -0.25)]).splitlines()
    assert table[2] == "| as it is | 0.500 | 0.100 to 0.900 |  |  | 0 | 0 | 0.000 | 1.50 | 2 |"
    assert table[3] == "| masked | 0.250 | 0.100 to 0.900 | -0.250 | -0.450 to +0.100 | 0 | 0 | 0.000 | 1.50 | 2 |"
    assert {line.count("|") for line in table} == {11}


def test_the_picture_is_a_png(tmp_path: Path) -> None:
    draw_controls([outcome("as it is", 0.5, 0.0), outcome("masked", 0.25, -0.25)], tmp_path / "new" / "c.png", "t")
    assert (tmp_path / "new" / "c.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_on_split_facts_the_caches_are_what_answers(embedded_llm: LocalLLM) -> None:
    """The right edge alone answers; cut, masked or with another question's caches it never does."""
    task = SplitFacts(n_agents=3)
    examples = task.test(12)
    graph = toy_split_facts(embedded_llm)
    names = ["no transfer", "masked", "zeroed", "noise", "other question", "same words as text"]
    found = {row.found.name: row.found.accuracy for row in run_controls(
        graph, embedded_llm, task, examples, names, progress=False
    )}  # fmt: skip
    assert found.pop("as it is") >= 0.8
    assert found.pop("same words as text") >= 0.5
    assert set(found.values()) == {0.0}


def toy_split_facts(llm: LocalLLM) -> CacheGraph:
    """A graph that knows whom to hear: the asked keeper."""
    from gcache.agents.decision import decision_maker
    from gcache.agents.roles import Agent
    from gcache.gnn.topology import Edge

    class Oracle(CacheGraph):
        def topology(self, example: Example | str) -> Topology:
            assert isinstance(example, Example)
            asked = [i for i, note in enumerate(example.notes) if note.kind == "asked keeper"]
            return Topology(len(example.notes), tuple(Edge(i, len(example.notes)) for i in asked))

    layers, heads, dim = llm.cache_shape
    nobody: tuple[Agent, ...] = ()
    return Oracle(
        llm, llm.tokenizer, nobody, decision_maker("split_facts"), FixedProvider("none"),
        ConcatFuser(layers, heads, dim, rope=llm.rope), GraphConfig(latent_steps=0, max_new_tokens=6),
    )  # fmt: skip
