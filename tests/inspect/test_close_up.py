"""One question looked at closely: what went where, what the answer attended to, what was thought in words."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import toy
from toy import AGENTS, QUESTIONS, toy_built

from gcache.agents.roles import Agent
from gcache.cache.fused_cache import FusedCache
from gcache.cache.fusers.concat import ConcatFuser
from gcache.errors import GcacheError
from gcache.gnn.providers import FixedProvider
from gcache.gnn.topology import DECISION, Edge, Topology
from gcache.graph.cache_graph import CacheGraph
from gcache.graph.run_config import GraphConfig
from gcache.inspect.close_up import attention_rows, close_up, find_example, unique, view_of
from gcache.inspect.readings import ASKED, TEXT, TOKENS, readings
from gcache.inspect.view import View
from gcache.llm.local import LocalLLM
from gcache.llm.requests import GenerateRequest
from gcache.tasks.example import Example

EXAMPLE = Example("q", QUESTIONS[0], "")
SLOT = 2 * 2 * 2 * 8 * 4  # bytes of keys and values: layers, heads, dimension, float32


class Given:
    """The same topology for every question."""

    def __init__(self, topology: Topology) -> None:
        self.topology = topology

    def distribution(self, *_: Any) -> Given:
        return self

    def most_likely(self) -> tuple[Topology, torch.Tensor]:
        return self.topology, torch.zeros(())


def graph_of(
    llm: LocalLLM, tokenizer: Any, topology: str | Topology = "layered", method: str = "refer",
    agents: tuple[Agent, ...] = AGENTS, **config: Any,
) -> CacheGraph:  # fmt: skip
    settings = GraphConfig(**{"latent_steps": 2, "max_new_tokens": 4, **config})
    source: Any = FixedProvider(topology) if isinstance(topology, str) else Given(topology)
    fuser = ConcatFuser(*llm.cache_shape, rope=llm.rope)
    return CacheGraph(llm, tokenizer, agents, replace(toy.DECISION, method=method), source, fuser, settings)


def shown(graph: CacheGraph, llm: LocalLLM, **options: Any) -> View:
    close = close_up(graph, llm, EXAMPLE, **options)
    return view_of(close, graph, title="a title", task="toy", model="tiny", step=7)


# -- what went over the edges, and where the answer looked ----------------------------------


@pytest.mark.parametrize("transfer", ["own", "latent", "context"])
@pytest.mark.parametrize("rounds", [1, 2])
@pytest.mark.parametrize("method", ["refer", "vote", "direct"])
def test_bytes_are_the_runs_and_attention_is_divided_whole(
    tiny_llm: LocalLLM, tiny_tokenizer: Any, transfer: str, rounds: int, method: str
) -> None:
    graph = graph_of(tiny_llm, tiny_tokenizer, method=method, transfer=transfer, num_rounds=rounds)
    close = close_up(graph, tiny_llm, EXAMPLE, write=False)
    by_ends = {(source, target): size for (source, target, _), (_, size) in close.handed.items()}
    # an agent's memory of itself is on no edge
    assert by_ends == {ends: size for ends, size in close.result.edge_bytes.items() if ends[0] != ends[1]}
    assert all(size == slots * SLOT for slots, size in close.handed.values())
    assert len(by_ends) == (3 if method == "direct" else 4)
    assert close.attention is not None and close.attention.shape == (2, 3 + 2)
    torch.testing.assert_close(close.attention.sum(dim=1), torch.ones(2))
    assert bool((close.attention[:, 3:] > 0).all())  # its own words, and the question
    heard = {agent for spoken in close.result.spoken for agent in spoken.heard}
    # with all that they had, agents hand on what they heard: 0 is heard through 1 and 2
    reaching = heard | ({0} if transfer == "context" else set())
    assert {agent for agent in range(3) if float(close.attention[:, agent].min()) > 0} == reaching
    assert all(float(close.attention[:, agent].max()) == 0 for agent in {0, 1, 2} - reaching)


def test_slots_by_hand(tiny_llm: LocalLLM, tiny_tokenizer: Any) -> None:
    """An agent hands on its words and its latents; with two rounds, twice to whom it tells in each."""
    topology = Topology(3, (Edge(0, 1), Edge(0, 2, delay=1), Edge(1, 3, 0.5), Edge(2, 3)))
    graph = graph_of(tiny_llm, tiny_tokenizer, topology, num_rounds=2)
    own = [len(graph.agent_tokens(agent, EXAMPLE.question)) + 2 for agent in AGENTS]
    handed = close_up(graph, tiny_llm, EXAMPLE, write=False).handed
    assert {key: slots for key, (slots, _) in handed.items()} == {
        (0, 1, 0): 2 * own[0], (0, 2, 1): own[0], (1, 3, 0): own[1], (2, 3, 0): own[2]
    }  # fmt: skip


def test_without_edges_nothing_goes_to_agents(tiny_llm: LocalLLM, tiny_tokenizer: Any) -> None:
    close = close_up(graph_of(tiny_llm, tiny_tokenizer, "none"), tiny_llm, EXAMPLE)
    assert close.handed == {} and close.readings == (None, None, None)
    assert close.attention is not None
    assert float(close.attention[:, :3].abs().max()) == 0.0
    torch.testing.assert_close(close.attention.sum(dim=1), torch.ones(2))


def test_an_edge_that_weighs_less_is_looked_at_less(tiny_llm: LocalLLM, tiny_tokenizer: Any) -> None:
    def on_planner(weight: float) -> float:
        graph = graph_of(tiny_llm, tiny_tokenizer, Topology(3, (Edge(0, 3, weight), Edge(1, 3))), max_new_tokens=1)
        close = close_up(graph, tiny_llm, EXAMPLE, write=False)
        assert close.attention is not None
        return float(close.attention[:, 0].mean())

    assert on_planner(1.0) > on_planner(0.2) > on_planner(0.01)


def test_attention_of_a_vote_is_the_mean_over_its_texts(tiny_llm: LocalLLM, tiny_tokenizer: Any) -> None:
    def attention(method: str, *edges: Edge) -> torch.Tensor:
        graph = graph_of(tiny_llm, tiny_tokenizer, Topology(3, edges), method)
        found = close_up(graph, tiny_llm, EXAMPLE, write=False).attention
        assert found is not None
        return found

    each = [attention("refer", Edge(agent, 3)) for agent in (1, 2)]
    torch.testing.assert_close(attention("vote", Edge(1, 3), Edge(2, 3)), torch.stack(each).mean(dim=0))


def test_looking_changes_no_answer(tiny_llm: LocalLLM, tiny_tokenizer: Any) -> None:
    graph = graph_of(tiny_llm, tiny_tokenizer, max_new_tokens=8)
    assert close_up(graph, tiny_llm, EXAMPLE).result.spoken == graph.run(EXAMPLE).spoken


def test_words_that_go_over_an_edge_instead_of_a_cache_are_no_slots(tiny_llm: LocalLLM, tiny_tokenizer: Any) -> None:
    topology = Topology(3, (Edge(0, 3, payload="text"), Edge(1, 3, payload="cache"), Edge(2, 3, payload="latents")))
    graph = graph_of(tiny_llm, tiny_tokenizer, topology, speak_tokens=3)
    close = close_up(graph, tiny_llm, EXAMPLE)
    assert set(close.handed) == {(1, 3, 0), (2, 3, 0)} and close.handed[2, 3, 0] == (2, 2 * SLOT)
    assert close.attention is not None and float(close.attention[:, 0].max()) == 0.0
    torch.testing.assert_close(close.attention.sum(dim=1), torch.ones(2))
    view = view_of(close, graph, title="t", task="toy", model="tiny", step=0)
    assert [(e.channel, e.slots, e.bytes) for e in view.edges] == [
        ("text", 0, 0), ("cache", *close.handed[1, 3, 0]), ("latents", 2, 2 * SLOT)
    ]  # fmt: skip
    assert view.nodes[0].text == close.result.said[0, 0] and view.nodes[1].text is None


# -- the view -------------------------------------------------------------------------------


def test_the_view_of_a_fixed_topology(tiny_llm: LocalLLM, tiny_tokenizer: Any) -> None:
    graph = graph_of(tiny_llm, tiny_tokenizer, "chain")
    result = graph.run(EXAMPLE)
    view = shown(graph, tiny_llm)
    assert (view.title, view.task, view.model, view.step) == ("a title", "toy", "tiny", 7)
    assert (view.question, view.answer) == (QUESTIONS[0], result.answer)
    assert [node.id for node in view.nodes] == ["planner", "critic", "solver", DECISION]
    assert [node.decision for node in view.nodes] == [False, False, False, True]
    assert [node.prompt for node in view.nodes] == [*(a.prompt for a in AGENTS), toy.DECISION.instructions]
    assert [(e.source, e.target, e.probability, e.kept, e.weight) for e in view.edges] == [
        ("planner", "critic", 1.0, 1.0, 1.0), ("critic", "solver", 1.0, 1.0, 1.0), ("solver", DECISION, 1.0, 1.0, 1.0)
    ]  # fmt: skip
    assert [e.bytes for e in view.edges] == [*result.edge_bytes.values()]
    assert [e.slots for e in view.edges] == [size // SLOT for size in result.edge_bytes.values()]
    details = [dict(node.details) for node in view.nodes]
    thoughts = {step.agent: step for step in result.trace if step.what == "think"}
    for number in range(3):
        assert details[number]["latent steps"] == "2"
        assert details[number]["read, tokens"] == str(thoughts[number].prefilled)
        assert details[number]["slots that arrived"] == str(thoughts[number].received)
        assert len(view.nodes[number].reading) == 2
    assert details[3]["tokens written"] == str(result.tokens["generated"])
    shares = ("attention on the question", "attention on its own words", "attention on what was handed over")
    assert sum(float(details[3][name]) for name in shares) == pytest.approx(1.0, abs=0.002)


@pytest.mark.parametrize("method", ["refer", "marginal"])
def test_the_view_of_agents_that_reason(tiny_llm: LocalLLM, tiny_tokenizer: Any, method: str) -> None:
    """What the decision maker was told, what each agent wrote, and whose text the answer is."""
    graph = graph_of(
        tiny_llm, tiny_tokenizer, "star", method, hands="reasoning", latent_steps=0, reason_tokens=5
    )
    graph.decision = replace(graph.decision, states="words", judging="which is it ?")
    result = graph.run(EXAMPLE)
    view = shown(graph, tiny_llm)
    details = [dict(node.details) for node in view.nodes]
    assert [details[n]["tokens written"] for n in range(3)] == [
        str(len(result.solutions[0, n].tokens)) for n in range(3)
    ]
    assert view.nodes[3].prompt == "which is it ?" != graph.decision.instructions
    assert ("the answer is the text of" in details[3]) == (method == "marginal")
    if result.ballot is not None and result.ballot.choice.writer is not None:
        assert details[3]["the answer is the text of"] == AGENTS[result.ballot.choice.writer].role
    assert ["share in the decision" in details[n] for n in range(4)] == [method == "marginal"] * 3 + [False]


def test_the_view_says_who_was_believed_and_what_each_cache_says(tiny_llm: LocalLLM, tiny_tokenizer: Any) -> None:
    """Shares sum to 1, and what the decision finds likely is what each cache finds likely, by their shares."""
    topology = Topology(3, (Edge(0, 3, weight=0.9), Edge(2, 3, weight=0.3)))
    graph = graph_of(
        tiny_llm, tiny_tokenizer, topology, "marginal", hands="reasoning", latent_steps=0, reason_tokens=5
    )
    graph.decision = replace(graph.decision, states="words")
    ballot = graph.run(EXAMPLE).ballot
    assert ballot is not None and len(ballot.options) > 1
    first, unheard, third, decision = (dict(node.details) for node in shown(graph, tiny_llm).nodes)
    assert (first["share in the decision"], third["share in the decision"]) == ("0.750", "0.250")
    assert not any("probability" in name or "share" in name for name in unheard)
    chances = [name for name in decision if name.startswith("probability of ")]
    assert len(chances) == len(ballot.options) and chances[0].endswith(ballot.choice.answer[:40])
    for name in chances:
        mixed = 0.75 * float(first[name]) + 0.25 * float(third[name])
        assert float(decision[name]) == pytest.approx(mixed, abs=0.002)


def test_the_view_of_a_policy_has_what_was_drawn_and_what_was_not(tiny_llm: LocalLLM, tiny_tokenizer: Any) -> None:
    graph = toy_built(
        tiny_llm, tiny_tokenizer, optimized_temporal=True,
        graph=GraphConfig(latent_steps=1, max_new_tokens=3, num_rounds=2),
    ).graph
    assert isinstance(graph, CacheGraph)
    result = graph.run(EXAMPLE)
    view = shown(graph, tiny_llm, write=False)
    chances = graph.distribution(EXAMPLE).probabilities.tolist()  # type: ignore[union-attr]
    assert len(view.edges) == len(chances) == 3 + 6 + 6
    assert sorted(e.probability for e in view.edges) == pytest.approx(sorted(chances))
    drawn = [e for e in view.edges if e.kept]
    assert 0 < len(drawn) == len(result.topology.edges) < len(view.edges)
    assert [e.weight for e in drawn] == pytest.approx([e.weight for e in result.topology.edges])
    rest = [e for e in view.edges if not e.kept]
    assert all((e.weight, e.bytes, e.slots) == (None, None, None) and e.kept == 0.0 for e in rest)
    assert sum(e.later for e in view.edges) == 6
    assert all(node.reading_text is None for node in view.nodes)


def test_agents_of_one_name_are_told_apart(tiny_llm: LocalLLM, tiny_tokenizer: Any) -> None:
    agents = (AGENTS[0], replace(AGENTS[1], role="planner"), replace(AGENTS[2], role=DECISION))
    view = shown(graph_of(tiny_llm, tiny_tokenizer, "star", agents=agents), tiny_llm, write=False)
    assert [node.id for node in view.nodes] == ["planner", "planner 2", f"{DECISION} 2", DECISION]
    assert [(e.source, e.target) for e in view.edges] == [(node.id, DECISION) for node in view.nodes[:3]]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["a", "b", "a"], ["a", "b", "a 2"]),
        (["a", "a", "a 2", "a"], ["a", "a 2", "a 2 2", "a 3"]),
        (["a 2", "a", "a"], ["a 2", "a", "a 3"]),
        ([], []),
    ],
)
def test_names_are_made_unique(names: list[str], expected: list[str]) -> None:
    assert unique(names) == expected


def test_attention_rows_by_hand(tiny_llm: LocalLLM, tiny_tokenizer: Any) -> None:
    graph = graph_of(tiny_llm, tiny_tokenizer, "star")
    close = close_up(graph, tiny_llm, EXAMPLE, write=False)
    assert close.attention is not None
    rows = attention_rows(view_of(close, graph, title="t", task="toy", model="tiny", step=0))
    assert [row[0] for row in rows] == ["planner", "critic", "solver", DECISION]
    for number, (_, mean, *layers) in enumerate(rows):
        assert layers == close.attention[:, number].tolist() and mean == pytest.approx(sum(layers) / 2)


# -- readings -------------------------------------------------------------------------------


def test_readings_are_the_nearest_tokens_and_what_is_written_of_the_cache_alone(
    tiny_llm: LocalLLM, tiny_tokenizer: Any
) -> None:
    graph = graph_of(tiny_llm, tiny_tokenizer, "chain")
    results = [graph.run(question, keep_states=True) for question in QUESTIONS[:2]]
    found = readings(graph, tiny_llm, results, tokens=3)
    asked = graph.layout.decision(ASKED, question=QUESTIONS[0])
    for result, by_node in zip(results, found, strict=True):
        assert list(by_node) == [(0, 0), (0, 1), (0, 2)]
        for node, reading in by_node.items():
            assert reading.steps == tuple(tiny_llm.lens(result.states[node], 3))
            assert [len(step) for step in reading.steps] == [3, 3]
            alone = GenerateRequest(asked, FusedCache.plain(result.caches[node]), TEXT)
            assert reading.text == tiny_llm.generate([alone])[0].text.strip()
    assert len({reading.text for by_node in found for reading in by_node.values()}) > 1


def test_the_last_rounds_thought_is_read(tiny_llm: LocalLLM, tiny_tokenizer: Any) -> None:
    topology = Topology(3, (Edge(0, 1, delay=1), Edge(1, 3)))  # 0 is heard in the first round, 1 in both
    graph = graph_of(tiny_llm, tiny_tokenizer, topology, num_rounds=2)
    close = close_up(graph, tiny_llm, EXAMPLE, write=False)
    states = close.result.states
    assert set(states) == {(0, 0), (0, 1), (1, 1)}
    first, second, third = close.readings
    assert first is not None and second is not None and third is None
    assert first.steps == tuple(tiny_llm.lens(states[0, 0], TOKENS))
    assert second.steps == tuple(tiny_llm.lens(states[1, 1], TOKENS)) != tuple(tiny_llm.lens(states[0, 1], TOKENS))


def test_without_latent_steps_a_cache_is_read_by_writing_alone(tiny_llm: LocalLLM, tiny_tokenizer: Any) -> None:
    graph = graph_of(tiny_llm, tiny_tokenizer, "chain", latent_steps=0)
    result = graph.run(EXAMPLE, keep_states=True)
    (by_node,) = readings(graph, tiny_llm, [result])
    assert {reading.steps for reading in by_node.values()} == {()}
    assert any(reading.text for reading in by_node.values())


def test_writing_needs_the_caches_and_steps_do_not(tiny_llm: LocalLLM, tiny_tokenizer: Any) -> None:
    graph = graph_of(tiny_llm, tiny_tokenizer, "chain")
    result = graph.run(EXAMPLE, keep_states=True, keep_caches=False)
    (by_node,) = readings(graph, tiny_llm, [result], write=False)
    assert all(len(reading.steps) == 2 and reading.text == "" for reading in by_node.values())
    with pytest.raises(GcacheError, match="caches of this run are gone"):
        readings(graph, tiny_llm, [result])


# -- which question -------------------------------------------------------------------------


def test_of_questions_that_say_the_same_the_first_is_taken_and_that_is_said(caplog: pytest.LogCaptureFixture) -> None:
    examples = [Example(f"q-{n}", "what ?" if n else "q-2", "") for n in range(4)]
    assert find_example(examples, "what ?").id == "q-1"
    assert "3 questions say this; here is q-1" in caplog.text
    caplog.clear()
    assert find_example(examples, "q-2").id == "q-2"  # an id is an id, whatever others say
    assert caplog.text == ""


def test_a_question_is_found_by_its_id_or_its_words() -> None:
    examples = [Example("q-0", "what ?", ""), Example("q-1", "who ?", "")]
    assert find_example(examples, "q-1") is find_example(examples, "who ?") is examples[1]
    with pytest.raises(GcacheError, match=r"called or says 'whose \?'.*--question 'q-0'"):
        find_example(examples, "whose ?")
    with pytest.raises(GcacheError, match="called or says 'q-0'"):
        find_example([], "q-0")
