"""Several answers to a prompt, and answers that are drawn from the likeliest tokens alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from toy import QUESTIONS

from gcache.build import Built
from gcache.graph.cache_graph import CacheGraph
from gcache.graph.run_config import GraphConfig
from gcache.llm.local import LocalLLM
from gcache.llm.requests import GenerateRequest
from gcache.runtime.streams import derive
from gcache.serve.model import ServedModel

PROMPT = "how many red apples are"
WARM: dict[str, Any] = {"temperature": 1.4, "seed": 7}


def texts(body: dict[str, Any]) -> list[str]:
    return [choice["message"]["content"] for choice in body["choices"]]


def seeds(count: int, seed: int = 7) -> list[int]:
    return [seed, *(derive("choice", seed, number) for number in range(1, count))]


def test_each_choice_of_a_chat_is_the_answer_of_its_own_seed(server: Any) -> None:
    for question in QUESTIONS[:2]:
        body = server.ask(question, n=4, **WARM)
        assert [choice["index"] for choice in body["choices"]] == [0, 1, 2, 3]
        alone = [server.ask(question, **{**WARM, "seed": seed}) for seed in seeds(4)]
        assert texts(body) == [texts(one)[0] for one in alone]
        assert body["usage"]["completion_tokens"] == sum(one["usage"]["completion_tokens"] for one in alone)
        assert body["usage"]["prompt_tokens"] == alone[0]["usage"]["prompt_tokens"]
    assert len(set(texts(body))) > 1


def test_the_agents_think_once_for_all_choices(start: Any, toy: Callable[..., Built]) -> None:
    thinking: list[int] = []

    def made() -> ServedModel:
        served = ServedModel.of(toy(), "toy")
        assert isinstance(served.graph, CacheGraph) and served.llm is not None
        think = served.llm.think
        served.llm.think = lambda requests, *more: thinking.append(len(requests)) or think(requests, *more)  # type: ignore[method-assign]
        return served

    served = start(made)
    served.ask(QUESTIONS[0], n=1, **WARM)
    once = sum(thinking)
    served.ask(QUESTIONS[1], n=5, **WARM)
    assert sum(thinking) == 2 * once


def test_greedy_choices_are_alike_and_each_choice_has_its_own_stop(server: Any) -> None:
    body = server.ask(QUESTIONS[0], n=3)
    assert len(set(texts(body))) == 1 and len(body["choices"]) == 3
    word = texts(server.ask(QUESTIONS[2], n=8, **WARM))[1].split()[2]
    stopped = server.ask(QUESTIONS[2], n=8, stop=word, **WARM)
    assert all(word not in text for text in texts(stopped))


def test_choices_of_several_prompts_come_prompt_by_prompt(
    server: Any, toy: Callable[..., Built]
) -> None:
    llm = toy().llm
    assert isinstance(llm, LocalLLM)
    prompts = [[20, 21, 22], [30, 31]]
    asked = [
        GenerateRequest(tuple(prompt), max_new_tokens=6, temperature=1.4, seed=seed, top_p=0.8)
        for prompt in prompts
        for seed in seeds(3)
    ]
    expected = llm.generate(asked)
    body = server.post("/v1/completions", prompt=prompts, max_tokens=6, n=3, top_p=0.8, best_of=3, **WARM).json()
    assert [choice["index"] for choice in body["choices"]] == list(range(6))
    assert [choice["text"] for choice in body["choices"]] == [text.text for text in expected]
    assert body["usage"]["prompt_tokens"] == 5
    assert body["usage"]["completion_tokens"] == sum(len(text.tokens) for text in expected)


def test_top_p_draws_what_the_graph_draws(server: Any, toy: Callable[..., Built]) -> None:
    graph = toy().graph
    found = set()
    for top_p in (1e-300, 0.3, 0.9, 1, 1.0):
        expected = graph.run(QUESTIONS[2], temperature=1.5, seed=3, top_p=top_p).answer
        body = server.ask(QUESTIONS[2], temperature=1.5, seed=3, top_p=top_p)
        assert texts(body) == [expected]
        found.add(expected)
    assert len(found) > 1
    assert texts(server.ask(QUESTIONS[2], temperature=1.5, top_p=1e-300)) == texts(server.ask(QUESTIONS[2]))
    assert texts(server.ask(QUESTIONS[2], top_p=0.2)) == texts(server.ask(QUESTIONS[2]))  # greedy


def test_an_api_that_writes_is_asked_once_for_each_choice(start: Any, held: Any) -> None:
    held.let_go()
    served = start(held.served)
    body = served.ask("what is it ?", n=3)
    assert texts(body) == ["at last"] * 3 and body["usage"]["completion_tokens"] == 6


@pytest.mark.parametrize("hands", ["cache", "both"])
def test_choices_where_agents_speak(start: Any, toy: Callable[..., Built], hands: str) -> None:
    config = GraphConfig(hands=hands, max_new_tokens=5, speak_tokens=4)
    served = start(lambda: ServedModel.of(toy(graph=config), "toy"))
    body = served.ask(QUESTIONS[0], n=3, **WARM)
    assert texts(body) == [texts(served.ask(QUESTIONS[0], **{**WARM, "seed": seed}))[0] for seed in seeds(3)]


@pytest.mark.parametrize(
    ("path", "fields", "said"),
    [
        ("chat", {"n": 9}, "from 1"), ("chat", {"n": 0}, "from 1"), ("chat", {"n": True}, "from 1"),
        ("chat", {"n": 2, "gcache": {"trace": True}}, "beside a trace"),
        ("chat", {"top_p": 0}, "above 0"), ("chat", {"top_p": 1.01}, "at most 1"), ("chat", {"top_p": "1"}, "number"),
        ("chat", {"top_logprobs": 1}, '"logprobs": true'), ("chat", {"logprobs": 1}, "true or false"),
        ("chat", {"logprobs": True, "top_logprobs": 21}, "0 to 20"), ("chat", {"add_special_tokens": True}, "template"),
        ("text", {"max_tokens": 0}, '"echo": true'), ("text", {"logprobs": 21}, "0 to 20"),
        ("text", {"logprobs": True}, "0 to 20"), ("text", {"best_of": 2}, "as n"),
        ("text", {"n": 2, "best_of": 1}, "as n"),
        ("text", {"prompt": [[5]] * 200, "n": 8}, "1024 choices"), ("text", {"echo": 1}, "true or false"),
        ("text", {"add_special_tokens": "no"}, "true (the default)"),
    ],
)  # fmt: skip
def test_what_is_not_allowed_is_one_line(server: Any, path: str, fields: dict[str, Any], said: str) -> None:
    if path == "chat":
        answer = server.post(**{"messages": [{"role": "user", "content": "a"}], **fields})
    else:
        answer = server.post("/v1/completions", **{"prompt": "a", **fields})
    assert answer.status_code == 400, answer.text
    message = answer.json()["error"]["message"]
    assert said in message and "\n" not in message
