"""Chat completions of a graph, whole and streamed, beside what the graph itself answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import openai
import pytest
from toy import AGENTS, QUESTIONS

from gcache.build import Built
from gcache.gnn.topology import DECISION
from gcache.graph.agent_graph import AgentGraph
from gcache.graph.cache_graph import CacheGraph
from gcache.llm.cache_budget import Limits
from gcache.llm.local import LocalLLM
from gcache.serve.model import ServedModel
from gcache.tasks.example import Example, Note


@pytest.fixture(scope="module")
def graph(toy: Callable[..., Built]) -> AgentGraph:
    """The graph that is served, once more."""
    return toy().graph


@pytest.fixture(scope="module")
def client(server: Any) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="any", max_retries=0, timeout=30) as made:
        yield made


def talk(question: str) -> Any:
    return [{"role": "user", "content": question}]


def streamed(server: Any, question: str, **more: Any) -> list[dict[str, Any]]:
    """The chunks of a stream, which must end as streams do."""
    body = {"messages": talk(question), "stream": True, **more}
    lines: list[str] = []
    with httpx2.stream("POST", f"{server.url}/v1/chat/completions", json=body, timeout=30) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = [line for line in answer.iter_lines() if line]
    assert lines[-1] == "data: [DONE]" and all(line.startswith("data: ") for line in lines)
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]


def text_of(chunks: list[dict[str, Any]]) -> str:
    return "".join(choice["delta"].get("content", "") for chunk in chunks for choice in chunk["choices"])


def test_the_answer_is_the_graphs(server: Any, graph: AgentGraph) -> None:
    for question in QUESTIONS[:3]:
        expected = graph.run(question)
        body = server.ask(question)
        choice = body["choices"][0]
        assert choice["message"] == {"role": "assistant", "content": expected.answer, "refusal": None}
        (spoken,) = expected.spoken
        assert spoken.generation is not None
        assert choice["finish_reason"] == ("stop" if spoken.generation.finished else "length")
        read, written = expected.tokens["prefilled"], len(spoken.generation.tokens)
        assert body["usage"] == {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
        assert body["model"] == "toy" and "gcache" not in body


def test_the_stream_is_the_answer_in_pieces(server: Any, graph: AgentGraph) -> None:
    expected = graph.run(QUESTIONS[0])
    chunks = streamed(server, QUESTIONS[0], stream_options={"include_usage": True})
    assert text_of(chunks) == expected.answer
    assert len([c for c in chunks if c["choices"] and c["choices"][0]["delta"].get("content")]) > 1
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert [c["choices"][0]["finish_reason"] for c in chunks if c["choices"]][-1] in ("stop", "length")
    assert chunks[-1]["choices"] == [] and chunks[-1]["usage"]["prompt_tokens"] == expected.tokens["prefilled"]
    assert all(chunk["usage"] is None for chunk in chunks[:-1])
    assert len({chunk["id"] for chunk in chunks}) == 1


def test_the_official_client_reads_both(client: openai.OpenAI, graph: AgentGraph) -> None:
    expected = graph.run(QUESTIONS[1]).answer
    whole = client.chat.completions.create(model="toy", messages=talk(QUESTIONS[1]))
    assert whole.choices[0].message.content == expected
    with client.chat.completions.create(model="toy", messages=talk(QUESTIONS[1]), stream=True) as stream:
        assert "".join(c.choices[0].delta.content or "" for c in stream if c.choices) == expected
    assert [model.id for model in client.models.list()] == ["toy"]


def test_thirty_two_at_once_are_answered_as_one_by_one(client: openai.OpenAI, graph: AgentGraph) -> None:
    questions = [f"{QUESTIONS[i % len(QUESTIONS)]} {i}" for i in range(32)]
    expected = [graph.run(question).answer for question in questions]

    def ask(number: int) -> str:
        if number % 2:
            return str(
                client.chat.completions.create(model="toy", messages=talk(questions[number])).choices[0].message.content
            )
        stream = client.chat.completions.create(model="toy", messages=talk(questions[number]), stream=True)
        return "".join(c.choices[0].delta.content or "" for c in stream if c.choices)

    with ThreadPoolExecutor(32) as threads:
        assert list(threads.map(ask, range(32))) == expected
    assert len(set(expected)) > 8


def test_a_seed_draws_the_same_text_again(server: Any, graph: AgentGraph) -> None:
    texts = {}
    for seed in (1, 2, -3, 2**53):
        expected = graph.run(QUESTIONS[2], temperature=1.5, seed=seed).answer
        body = server.ask(QUESTIONS[2], temperature=1.5, seed=seed)
        texts[seed] = body["choices"][0]["message"]["content"]
        assert texts[seed] == expected
    assert len(set(texts.values())) > 1


def test_a_stop_word_ends_the_text_before_it(server: Any, graph: AgentGraph) -> None:
    whole = graph.run(QUESTIONS[2]).answer
    words = whole.split()
    stop = next(word for word in words[2:] if word not in words[:2])
    expected = whole[: whole.index(stop)]
    for stops in (stop, [stop], ["never there", stop]):
        body = server.ask(QUESTIONS[2], stop=stops)
        assert body["choices"][0]["message"]["content"] == expected
        assert body["choices"][0]["finish_reason"] == "stop"
        assert body["usage"]["completion_tokens"] < len(words)
        assert text_of(streamed(server, QUESTIONS[2], stop=stops)) == expected


def test_guessed_tokens_change_nothing_of_an_answer_with_a_stop_word(
    start: Any, toy: Callable[..., Built], tiny_llama: Any, tiny_tokenizer: Any
) -> None:
    """Greedy texts of tiny models go round in circles, so that most guesses come true."""

    def made(lookup: bool) -> ServedModel:
        llm = LocalLLM(tiny_llama, tiny_tokenizer, "tiny", Limits(prompt_lookup=lookup))
        llm.stop_tokens = frozenset()
        return ServedModel.of(toy(llm), "toy")

    guessing, plain = start(lambda: made(True)), start(lambda: made(False))
    words = plain.ask(QUESTIONS[0], max_tokens=80)["choices"][0]["message"]["content"].split()
    asked = {"include_usage": True}
    for place in range(12, 60, 7):
        stop = " ".join(words[place : place + 2])
        bodies = [each.ask(QUESTIONS[0], max_tokens=80, stop=stop) for each in (guessing, plain)]
        assert bodies[0]["usage"] == bodies[1]["usage"]
        assert bodies[0]["choices"] == bodies[1]["choices"]
        streams = [
            streamed(each, QUESTIONS[0], max_tokens=80, stop=stop, stream_options=asked) for each in (guessing, plain)
        ]
        assert text_of(streams[0]) == text_of(streams[1]) == bodies[0]["choices"][0]["message"]["content"]
        assert streams[0][-1]["usage"] == streams[1][-1]["usage"] == bodies[0]["usage"]
    prompt = " ".join(words[:20])
    for stop in (" ".join(words[30:32]), words[25]):
        completions = [
            each.post("/v1/completions", prompt=prompt, max_tokens=60, stop=stop).json() for each in (guessing, plain)
        ]
        assert completions[0]["usage"] == completions[1]["usage"]
        assert completions[0]["choices"] == completions[1]["choices"]


def test_a_length_is_kept_and_said(server: Any, graph: AgentGraph) -> None:
    expected = graph.run(QUESTIONS[2], max_new_tokens=2).answer
    for lengths in ({"max_tokens": 2}, {"max_completion_tokens": 2}, {"max_tokens": 2, "max_completion_tokens": 9}):
        body = server.ask(QUESTIONS[2], **lengths)
        assert body["choices"][0]["message"]["content"] == expected
        assert (body["choices"][0]["finish_reason"], body["usage"]["completion_tokens"]) == ("length", 2)


def test_a_conversation_is_one_question(server: Any, graph: AgentGraph) -> None:
    messages = [
        {"role": "system", "content": "give the sum"},
        {"role": "user", "content": "what is 2 + 3 ?"},
        {"role": "assistant", "content": "it is 5", "refusal": None},
        {"role": "user", "content": [{"type": "text", "text": "how many "}, {"type": "text", "text": "are red ?"}]},
    ]
    question = "give the sum\n\nuser: what is 2 + 3 ?\nassistant: it is 5\n\nhow many are red ?"
    body = server.post(messages=messages).json()
    assert body["choices"][0]["message"]["content"] == graph.run(question).answer


def test_what_asks_for_nothing_changes_nothing(server: Any, graph: AgentGraph) -> None:
    neutral: dict[str, Any] = {
        "top_p": 1, "presence_penalty": 0, "frequency_penalty": 0.0, "n": 1, "logprobs": False, "tools": [],
        "response_format": {"type": "text"}, "user": "me", "metadata": {"a": "b"}, "store": False,
        "parallel_tool_calls": True, "logit_bias": {}, "tool_choice": "none", "stop": None, "seed": None,
        "temperature": 0, "max_tokens": None, "service_tier": "auto", "gcache": None, "stream": False,
    }  # fmt: skip
    assert server.ask(QUESTIONS[0], **neutral)["choices"][0]["message"]["content"] == graph.run(QUESTIONS[0]).answer


def test_the_trace_says_who_did_what(server: Any, graph: AgentGraph) -> None:
    expected = graph.run(QUESTIONS[0], keep_states=True)
    told = server.ask(QUESTIONS[0], gcache={"trace": True})["gcache"]
    roles = [agent.role for agent in AGENTS] + [DECISION]
    assert told["agents"] == [{"number": i, "role": role} for i, role in enumerate(roles)]
    assert [(e["source"], e["target"], e["weight"]) for e in told["topology"]["edges"]] == [
        (e.source, e.target, e.weight) for e in expected.topology.edges
    ]
    assert {(e["source"], e["target"]): e["bytes"] for e in told["edge_bytes"]} == expected.edge_bytes
    counts = ("agent", "role", "what", "prefilled", "latent", "generated", "received")
    assert [tuple(step[name] for name in counts) for step in told["trace"]] == [
        tuple(getattr(step, name) for name in counts) for step in expected.trace
    ]
    llm: Any = graph.llm.llm if isinstance(graph, CacheGraph) else None
    readings = {step["agent"]: step["reading"] for step in told["trace"]}
    for (_, agent), states in expected.states.items():
        assert readings[agent] == [list(words) for words in llm.lens(states, 5)] and len(readings[agent]) == 2
    assert readings[-1] == readings[len(AGENTS)] == []


def test_the_trace_of_a_stream_comes_as_it_happens(server: Any) -> None:
    chunks = streamed(server, QUESTIONS[0], gcache={"trace": True})
    events = [chunk["gcache"] for chunk in chunks if "gcache" in chunk]
    assert all(chunk["choices"] == [] for chunk in chunks if "gcache" in chunk)
    assert events[0]["kind"] == "topology" and events[-1]["kind"] == "done"
    assert [event["agent"] for event in events if event["kind"] == "turn"] == [0, 1, 2, 3]
    assert [event["agent"] for event in events if event["kind"] == "step"] == [-1, 0, 1, 2, 3]
    whole = server.ask(QUESTIONS[0], gcache={"trace": True})["gcache"]
    assert events[-1]["edge_bytes"] == whole["edge_bytes"] and events[0]["agents"] == whole["agents"]
    assert [e["reading"] for e in events if e["kind"] == "step"] == [step["reading"] for step in whole["trace"]]
    kinds = ["text" if c["choices"] and c["choices"][0]["delta"].get("content") else "" for c in chunks]
    assert kinds.index("text") < len(chunks) - 1 - kinds[::-1].index("") and "gcache" in chunks[1]


def test_a_question_may_bring_its_agents(server: Any, graph: AgentGraph) -> None:
    notes = (Note("clerk", "The clerk.", "the box is blue"), Note("guard", "one who is in the box", "it is 3"))
    expected = graph.run(Example("question", QUESTIONS[4], "", notes))
    brought = [{"role": n.role, "description": n.description, "note": n.text} for n in notes]
    del brought[0]["description"]
    body = server.ask(QUESTIONS[4], gcache={"agents": brought, "trace": True})
    assert body["choices"][0]["message"]["content"] == expected.answer
    assert [agent["role"] for agent in body["gcache"]["agents"]] == ["clerk", "guard", DECISION]


def test_a_graph_without_agents_asks_for_them(start: Any, toy: Callable[..., Built]) -> None:
    from gcache.serve.model import ServedModel

    served = start(lambda: ServedModel.of(toy(n_agents=0), "toy"))
    answer = served.post(messages=talk(QUESTIONS[0]))
    assert answer.status_code == 400 and "agents" in answer.json()["error"]["message"]
    assert served.post("/v1/topology", question=QUESTIONS[0]).status_code == 400
    brought = {"agents": [{"role": "clerk", "note": "the box is blue"}]}
    assert served.ask(QUESTIONS[0], gcache=brought)["choices"][0]["message"]["content"]


def test_the_topology_alone(start: Any, toy: Callable[..., Built]) -> None:
    from gcache.serve.model import ServedModel

    learned = toy(topology="learned", graph=None)
    served = start(lambda: ServedModel.of(toy(topology="learned", graph=None), "toy"))
    expected = learned.graph.topology(QUESTIONS[0])
    body = served.post("/v1/topology", question=QUESTIONS[0]).json()
    assert body["called"] == "most likely"
    assert body["question"] == QUESTIONS[0] and body["agents"][-1]["role"] == DECISION
    assert [(e["source"], e["target"], e["probability"]) for e in body["edges"]] == [
        (e.source, e.target, e.probability) for e in expected.edges
    ]
    assert [(p["source"], p["target"], p["probability"]) for p in body["probabilities"]] == list(expected.probabilities)
    assert len(body["probabilities"]) == 9
