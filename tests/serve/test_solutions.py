"""A service of agents that write solutions, and of a decision maker that writes nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import httpx2
import pytest
from toy import DECISION, QUESTIONS

from gcache.build import Built
from gcache.graph.run_config import GraphConfig
from gcache.llm.local import LocalLLM
from gcache.serve.model import ServedModel

REASONING = GraphConfig(latent_steps=1, hands="reasoning", reason_tokens=5, max_new_tokens=4)


def built(toy: Callable[..., Built], llm: LocalLLM | None = None) -> Built:
    made = toy(llm, topology="star", graph=REASONING)
    made.graph.decision = replace(DECISION, method="marginal", states="words")
    return made


@pytest.fixture
def service(start: Any, toy: Callable[..., Built]) -> Any:
    return start(lambda: ServedModel.of(built(toy), "toy"))


def test_the_answer_is_the_solution_that_was_chosen(service: Any, toy: Callable[..., Built], llm: LocalLLM) -> None:
    graph = built(toy, llm).graph
    for question in QUESTIONS[:3]:
        alone = graph.run(question, seed=5)
        body = service.ask(question, seed=5, temperature=0)
        assert alone.ballot is not None
        assert body["choices"][0]["message"]["content"] == alone.answer
        node = (0, alone.ballot.choice.writer)
        assert body["usage"]["completion_tokens"] == len(alone.solutions[node].tokens)


def test_a_stream_brings_the_whole_answer(service: Any) -> None:
    asked = {"messages": [{"role": "user", "content": QUESTIONS[1]}], "seed": 5, "temperature": 0}
    whole = service.post(**asked).json()["choices"][0]["message"]["content"]
    pieces = []
    url = service.url + "/v1/chat/completions"
    with httpx2.stream("POST", url, json={**asked, "stream": True}, timeout=20) as come:
        for line in come.iter_lines():
            if line.startswith("data: {"):
                choices = json.loads(line.removeprefix("data: "))["choices"]
                pieces += [choice["delta"].get("content") or "" for choice in choices]
    assert "".join(pieces) == whole


@pytest.mark.parametrize("wanted", [{"logprobs": True}, {"top_p": 0.5}])
def test_how_tokens_are_drawn_is_no_question(service: Any, wanted: dict[str, Any]) -> None:
    body = service.post(messages=[{"role": "user", "content": QUESTIONS[1]}], **wanted)
    assert body.status_code == 400 and "no text is written for it" in body.json()["error"]["message"]


def test_an_answer_ends_where_the_request_says(service: Any) -> None:
    whole, short = (service.ask(QUESTIONS[1], seed=5, temperature=0, **more) for more in ({}, {"max_tokens": 2}))
    assert whole["usage"]["completion_tokens"] > short["usage"]["completion_tokens"] == 2
    assert short["choices"][0]["finish_reason"] == "length"
    text = short["choices"][0]["message"]["content"]
    assert text and whole["choices"][0]["message"]["content"].startswith(text)


def test_words_that_were_chosen_are_counted(start: Any, toy: Callable[..., Built]) -> None:
    """Of agents that say what they found, and write no solution."""

    def served() -> ServedModel:
        made = toy(topology="star", graph=GraphConfig(latent_steps=1, hands="both", speak_tokens=5, max_new_tokens=4))
        made.graph.decision = replace(DECISION, method="marginal", states="words")
        return ServedModel.of(made, "toy")

    body = start(served).ask(QUESTIONS[1], temperature=0)
    assert body["choices"][0]["message"]["content"] and 0 < body["usage"]["completion_tokens"] <= 5


def test_several_choices_share_the_solutions_and_are_drawn_each(service: Any) -> None:
    body = service.ask(QUESTIONS[4], n=8, seed=3, temperature=2.0)
    told = {choice["message"]["content"] for choice in body["choices"]}
    assert 1 < len(told) <= 3  # of three agents
