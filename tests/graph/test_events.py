"""What a run says of itself while it goes on, and the options of one run alone: its length, its ends, its states."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
import torch
from chat_server import says, serving
from toy import AGENTS, DECISION, QUESTIONS, toy_built

from gcache.cache.fusers.concat import ConcatFuser
from gcache.errors import ConfigError
from gcache.gnn.providers import FixedProvider
from gcache.gnn.topology import Edge, Topology
from gcache.graph.cache_graph import CacheGraph
from gcache.graph.events import KINDS, Event
from gcache.graph.memo import RolloutMemo
from gcache.graph.result import RunResult
from gcache.graph.run_config import GraphConfig
from gcache.graph.text_backends import LocalTextBackend
from gcache.graph.text_graph import TextGraph
from gcache.graph.writers.registry import LocalWriter
from gcache.llm.api.client import ApiLLM, ApiSettings
from gcache.llm.local import LocalLLM

if TYPE_CHECKING:
    from conftest import ScriptedLLM

QUESTION = QUESTIONS[0]


def scripted(llm: ScriptedLLM, tokenizer: Any, **config: Any) -> CacheGraph:
    settings = GraphConfig(**{"latent_steps": 2, "max_new_tokens": 3, **config})
    return CacheGraph(llm, tokenizer, AGENTS, DECISION, FixedProvider("star"), ConcatFuser(1, 1, 2), settings)


def local(llm: LocalLLM, tokenizer: Any, method: str = "refer", **config: Any) -> CacheGraph:
    """A graph whose texts are ended by their length alone."""
    llm.stop_tokens = frozenset()
    settings = GraphConfig(**{"latent_steps": 2, "max_new_tokens": 8, **config})
    decision = replace(DECISION, method=method)
    fuser = ConcatFuser(*llm.cache_shape, rope=llm.rope)
    return CacheGraph(llm, tokenizer, AGENTS, decision, FixedProvider("chain"), fuser, settings)


def speaking(llm: LocalLLM, tokenizer: Any, **config: Any) -> TextGraph:
    llm.stop_tokens = frozenset()
    settings = GraphConfig(**{"hands": "text", "max_new_tokens": 8, "speak_tokens": 3, **config})
    return TextGraph(LocalTextBackend(llm, tokenizer), AGENTS, DECISION, FixedProvider("chain"), settings)


def edges(*pairs: tuple[int, ...]) -> Topology:
    return Topology(3, tuple(Edge(pair[0], pair[1], delay=len(pair) - 2) for pair in pairs))


CHAIN = edges((0, 1), (1, 2), (2, 3))


def told(graph: CacheGraph | TextGraph, **options: Any) -> tuple[RunResult, list[Event]]:
    events: list[Event] = []
    result = graph.run(QUESTION, watch=events.append, **options)
    return result, events


def short(event: Event) -> tuple[Any, ...]:
    """An event in one line: its kind, and whose and what it is."""
    if event.kind == "turn":
        return "turn", event.round, event.agent
    if event.kind == "step":
        assert event.step is not None
        return "step", event.step.round, event.step.agent, event.step.what
    return (event.kind,)


def texts(events: list[Event]) -> list[tuple[int, ...]]:
    return [event.tokens for event in events if event.kind == "text"]


# -- order ----------------------------------------------------------------------------------


def test_the_events_of_a_chain_by_hand(scripted_llm: ScriptedLLM, tiny_tokenizer: Any) -> None:
    result, events = told(scripted(scripted_llm, tiny_tokenizer), topology=CHAIN)
    assert [short(event) for event in events] == [
        ("topology",),
        ("step", 0, -1, "think"),  # the question
        ("turn", 0, 0), ("step", 0, 0, "think"),
        ("turn", 0, 1), ("step", 0, 1, "think"),
        ("turn", 0, 2), ("step", 0, 2, "think"),
        ("turn", 0, 3), ("step", 0, 3, "answer"),
    ]  # fmt: skip
    assert events[0].topology is result.topology
    assert tuple(event.step for event in events if event.kind == "step") == result.trace


def test_every_turn_comes_before_its_step_and_the_decision_makers_step_last(
    tiny_llm: LocalLLM, tiny_tokenizer: Any
) -> None:
    topology = edges((0, 1), (0, 2), (1, 3), (2, 3), (1, 2, 1))
    result, events = told(local(tiny_llm, tiny_tokenizer, num_rounds=2), topology=topology)
    lines = [short(event) for event in events]
    assert {line[0] for line in lines} == set(KINDS)
    assert lines[0] == ("topology",) and lines[-1] == ("step", 1, 3, "answer")
    for node in topology.heard_nodes(2):
        assert lines.index(("turn", *node)) < lines.index(("step", *node, "think"))
    assert [line for line in lines if line[0] == "turn"].count(("turn", 1, 3)) == 1
    first, last = lines.index(("text",)), len(lines) - 2
    assert lines.index(("turn", 1, 3)) == first - 1
    assert lines[first : last + 1] == [("text",)] * (last + 1 - first)
    assert tuple(event.step for event in events if event.kind == "step") == result.trace


def test_who_is_not_heard_has_a_step_and_no_turn(scripted_llm: ScriptedLLM, tiny_tokenizer: Any) -> None:
    _, events = told(scripted(scripted_llm, tiny_tokenizer), topology=edges((1, 3), (0, 2)))
    lines = [short(event) for event in events]
    assert [line for line in lines if line[0] == "turn"] == [("turn", 0, 1), ("turn", 0, 3)]
    assert ("step", 0, 0, "unheard") in lines and ("step", 0, 2, "unheard") in lines


def test_rollouts_that_share_thoughts_are_told_of_all_the_same(tiny_llm: LocalLLM, tiny_tokenizer: Any) -> None:
    graph = local(tiny_llm, tiny_tokenizer)
    seen: list[list[Event]] = [[], []]

    async def both() -> None:
        thoughts = RolloutMemo()
        await asyncio.gather(*(graph.arun(QUESTION, memo=thoughts, watch=events.append) for events in seen))

    asyncio.run(both())
    first, second = ([short(event) for event in events] for events in seen)
    assert [line[:3] for line in first] == [line[:3] for line in second]
    assert {line[3] for line in first + second if line[0] == "step"} == {"think", "shared", "answer"}


def test_the_events_of_agents_that_speak(tiny_llm: LocalLLM, tiny_tokenizer: Any) -> None:
    result, events = told(speaking(tiny_llm, tiny_tokenizer), topology=edges((0, 1), (1, 3)))
    assert [short(event) for event in events if event.kind != "text"] == [
        ("topology",),
        ("step", 0, 2, "unheard"),
        ("turn", 0, 0), ("step", 0, 0, "say"),
        ("turn", 0, 1), ("step", 0, 1, "say"),
        ("turn", 0, 3), ("step", 0, 3, "answer"),
    ]  # fmt: skip
    assert events[0].topology is result.topology
    assert tuple(event.step for event in events if event.kind == "step") == result.trace


# -- the answer as it grows -----------------------------------------------------------------


@pytest.mark.parametrize("make", [local, speaking])
def test_the_last_text_is_what_was_spoken(
    tiny_llm: LocalLLM, tiny_tokenizer: Any, make: Callable[..., CacheGraph | TextGraph]
) -> None:
    result, events = told(make(tiny_llm, tiny_tokenizer))
    (spoken,) = result.spoken
    assert spoken.generation is not None
    grown = texts(events)
    assert grown[-1] == spoken.generation.tokens and len(grown[-1]) == 8
    assert all(len(a) < len(b) and b[: len(a)] == a for a, b in pairwise(grown))
    assert tiny_llm.text(grown[-1]) == result.answer
    assert short(events[-1])[0] == "step", "the decision maker's step comes after its text"


def test_being_watched_changes_nothing(tiny_llm: LocalLLM, tiny_tokenizer: Any) -> None:
    graph = local(tiny_llm, tiny_tokenizer)
    watched, _ = told(graph, keep_states=True)
    assert watched.spoken == graph.run(QUESTION).spoken


def test_several_texts_of_a_vote_are_not_told(tiny_llm: LocalLLM, tiny_tokenizer: Any) -> None:
    graph = local(tiny_llm, tiny_tokenizer, method="vote")
    result, events = told(graph, topology=edges((0, 3), (1, 3)))
    assert len(result.spoken) == 2 and texts(events) == []
    result, events = told(graph, topology=CHAIN)
    assert len(result.spoken) == 1 and texts(events)[-1] == result.spoken[0].generation.tokens  # type: ignore[union-attr]


@pytest.mark.parametrize("spec", [{"generation_mode": "hybrid"}, {"generation_mode": "api_hint", "hint": "draft"}])
def test_a_draft_is_no_answer_so_it_is_neither_told_nor_ended_by_a_word(
    tiny_llm: LocalLLM, tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch, spec: dict[str, str]
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    tiny_llm.stop_tokens = frozenset()
    with serving(says("sum 5")) as server:
        api = ApiLLM(ApiSettings("toy", server.base_url, retries=0, timeout=10))
        graph = toy_built(tiny_llm, tiny_tokenizer, api=api, topology="star", **spec).graph
        draft = graph.run(QUESTION).spoken[0].generation
        assert draft is not None and draft.text.split()
        events: list[Event] = []
        result = graph.run(QUESTION, watch=events.append, stop=[draft.text.split()[0]])
    assert texts(events) == [] and [e.kind for e in events][-1] == "step"
    assert result.answer == "sum 5"
    assert result.spoken[0].generation == draft


# -- options of one run ---------------------------------------------------------------------


@pytest.mark.parametrize("make", [local, speaking])
def test_an_answer_has_its_own_length_and_ends_at_a_word(
    tiny_llm: LocalLLM, tiny_tokenizer: Any, make: Callable[..., CacheGraph | TextGraph]
) -> None:
    graph = make(tiny_llm, tiny_tokenizer, max_new_tokens=3)
    options = {"temperature": 1.0, "seed": 1}
    assert len(written(graph.run(QUESTION, **options))) == 3
    longer = graph.run(QUESTION, max_new_tokens=10, **options)
    assert len(written(longer)) == 10
    assert len(written(graph.run(QUESTION, max_new_tokens=1, **options))) == 1
    word = next(w for w in longer.answer.split()[3:] if longer.answer.index(w) > len(longer.answer) // 4)
    ended, events = told(graph, max_new_tokens=10, stop=[word], **options)
    assert ended.answer == longer.answer[: longer.answer.index(word)]
    assert texts(events)[-1] == written(ended) == written(longer)[: len(written(ended))]
    assert len(written(ended)) < 10
    assert ended.said == longer.said  # what agents say to each other is no answer
    assert graph.config.max_new_tokens == 3


def written(result: RunResult) -> tuple[int, ...]:
    (spoken,) = result.spoken
    assert spoken.generation is not None
    return spoken.generation.tokens


def test_every_text_of_a_vote_ends_at_a_word(tiny_llm: LocalLLM, tiny_tokenizer: Any) -> None:
    graph = local(tiny_llm, tiny_tokenizer, method="vote")
    topology = edges((0, 3), (1, 3), (2, 3))
    free = [s.text for s in graph.run(QUESTION, topology=topology).spoken]
    word = free[0].split()[2]
    ended = [s.text for s in graph.run(QUESTION, topology=topology, stop=[word]).spoken]
    assert ended == [text.split(word)[0] for text in free]
    assert ended != free


def test_a_length_of_none_is_refused(scripted_llm: ScriptedLLM, tiny_tokenizer: Any) -> None:
    graph = scripted(scripted_llm, tiny_tokenizer)
    with pytest.raises(ConfigError, match="max_new_tokens must be 1 or more, got 0"):
        graph.run(QUESTION, max_new_tokens=0)
    assert scripted_llm.thoughts == []


# -- states ---------------------------------------------------------------------------------


@pytest.mark.parametrize("rounds", [1, 2])
def test_states_are_kept_of_exactly_those_who_are_heard(tiny_llm: LocalLLM, tiny_tokenizer: Any, rounds: int) -> None:
    topology = edges((1, 0), (0, 3))  # nobody hears agent 2
    result, events = told(local(tiny_llm, tiny_tokenizer, num_rounds=rounds), topology=topology, keep_states=True)
    assert set(result.states) == topology.heard_nodes(rounds) == set(result.caches)
    assert {tuple(states.shape) for states in result.states.values()} == {(2, 32)}
    with_states = {(e.step.round, e.step.agent): e.states for e in events if e.step and e.states is not None}
    assert with_states.keys() == result.states.keys()
    assert all(torch.equal(with_states[node], states) for node, states in result.states.items())


def test_the_states_kept_are_those_that_latent_steps_feed_back(tiny_llm: LocalLLM, tiny_tokenizer: Any) -> None:
    """The first is the last hidden state of the agent's prompt, by transformers alone."""
    graph = local(tiny_llm, tiny_tokenizer)
    result = graph.run(QUESTION, topology=edges((0, 3)), keep_states=True)
    ids = graph.layout.question(QUESTION) + graph.agent_tokens(AGENTS[0], QUESTION)
    with torch.no_grad():
        hidden = tiny_llm.model.model(torch.tensor([ids])).last_hidden_state[0, -1]
    torch.testing.assert_close(result.states[0, 0][0], hidden, atol=1e-4, rtol=0)


def test_each_agent_has_as_many_states_as_it_takes_latent_steps(tiny_llm: LocalLLM, tiny_tokenizer: Any) -> None:
    topology = Topology(3, CHAIN.edges, latent_steps=(0, 3, 1))
    result = local(tiny_llm, tiny_tokenizer).run(QUESTION, topology=topology, keep_states=True)
    assert {node: len(states) for node, states in result.states.items()} == {(0, 0): 0, (0, 1): 3, (0, 2): 1}


def test_states_are_not_kept_unless_asked_for(tiny_llm: LocalLLM, tiny_tokenizer: Any) -> None:
    result, events = told(local(tiny_llm, tiny_tokenizer))
    assert result.states == {}
    assert all(event.states is None for event in events)


class Curious(LocalWriter):
    """Reads the states itself."""

    wants_states = True


def test_states_that_the_writer_alone_wants_are_not_told(tiny_llm: LocalLLM, tiny_tokenizer: Any) -> None:
    graph = local(tiny_llm, tiny_tokenizer)
    graph.writer = Curious()
    result, events = told(graph)
    assert result.states == {}
    assert all(event.states is None for event in events)


def test_runs_that_share_thoughts_keep_no_states(scripted_llm: ScriptedLLM, tiny_tokenizer: Any) -> None:
    with pytest.raises(ConfigError, match="runs that share thoughts keep no states"):
        scripted(scripted_llm, tiny_tokenizer).run(QUESTION, memo=RolloutMemo(), keep_states=True)


# -- a watcher that fails -------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("make", [local, speaking])
def test_a_watcher_that_raises_fails_its_run_alone(
    tiny_llm: LocalLLM, tiny_tokenizer: Any, make: Callable[..., CacheGraph | TextGraph], kind: str
) -> None:
    graph = make(tiny_llm, tiny_tokenizer)
    expected = [graph.run(question).answer for question in QUESTIONS[:3]]

    def raises(event: Event) -> None:
        if event.kind == kind:
            raise RuntimeError(f"gone at a {kind}")

    async def together() -> list[Any]:
        runs = [graph.arun(q, watch=raises if n == 1 else None) for n, q in enumerate(QUESTIONS[:3])]
        return list(await asyncio.gather(*runs, return_exceptions=True))

    first, failed, last = asyncio.run(together())
    assert isinstance(failed, RuntimeError) and str(failed) == f"gone at a {kind}"
    assert [first.answer, last.answer] == [expected[0], expected[2]]
    assert graph.run(QUESTIONS[1]).answer == expected[1], "the graph goes on"


def test_a_text_comes_with_its_scores_where_they_are_asked_for(tiny_llm: LocalLLM, tiny_tokenizer: Any) -> None:
    for graph in (local(tiny_llm, tiny_tokenizer), speaking(tiny_llm, tiny_tokenizer)):
        result, events = told(graph, top_log_probs=1)
        texts = [event for event in events if event.kind == "text"]
        for event in texts:
            assert tuple(score.token for score in event.scores) == event.tokens
        assert result.spoken[0].generation is not None and texts[-1].scores == result.spoken[0].generation.scores
        assert all(not event.scores for event in told(graph)[1])
