"""Any body gets a value or one line: fields in every combination, at allowed values and at others."""

from __future__ import annotations

import json
import math
from typing import Any

import httpx2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gcache.serve.scores import LEAST

NUMBERS = st.sampled_from([0, 1, 2, -1, 0.5, 1.0, 1e-45, 5e-324, 1e308, 2**53, -(2**53), 10**30, 3, 20, 21, True])
ODD: st.SearchStrategy[Any] = st.none() | st.booleans() | NUMBERS | st.sampled_from(["", "1", [], {}, [1], [None]])
SHARED: dict[str, st.SearchStrategy[Any]] = {
    "temperature": st.sampled_from([0, 0.0, 1e-300, 1e-45, 1e-38, 0.7, 2, 2.0]),
    "top_p": st.sampled_from([5e-324, 1e-300, 1e-12, 0.5, 0.999999999999, 1, 1.0]),
    "n": st.integers(1, 4) | st.just(2.0), "seed": st.integers(-(2**53), 2**53),
    "stop": st.sampled_from(["a", ["red", "is"], [], " ", "\ufffd", "the sum"]), "stream": st.booleans(),
    "max_tokens": st.integers(1, 5), "add_special_tokens": st.just(False),
}  # fmt: skip
CHAT = {
    **SHARED, "logprobs": st.booleans(), "top_logprobs": st.integers(0, 20), "max_completion_tokens": st.integers(1, 5),
}  # fmt: skip
WORDS = ["one apples", "how", "\u00e9\U0001f980", "<|im_end|>", "<|im_start|>user", "\x00", "a " * 30]
TEXT = {
    **SHARED, "logprobs": st.integers(0, 20), "echo": st.booleans(), "max_tokens": st.integers(0, 5),
    "add_special_tokens": st.booleans(), "best_of": st.integers(1, 4),
    "prompt": st.sampled_from(WORDS) | st.lists(st.sampled_from(WORDS), min_size=1, max_size=3)
    | st.lists(st.integers(0, 63), min_size=1, max_size=5)
    | st.lists(st.lists(st.integers(0, 63), min_size=1, max_size=4), min_size=1, max_size=3),
}  # fmt: skip


@st.composite
def bodies(draw: st.DrawFn, fields: dict[str, st.SearchStrategy[Any]], odd: bool) -> dict[str, Any]:
    """Some of the fields, each at a value of its own; where `odd`, one of them at any value."""
    chosen = draw(st.sets(st.sampled_from(sorted(fields))))
    body = {name: draw(fields[name]) for name in sorted(chosen)}
    if odd:
        body[draw(st.sampled_from(sorted(fields)))] = draw(ODD)
    return body


def check_numbers(value: Any) -> None:
    if isinstance(value, float):
        assert math.isfinite(value) and value >= LEAST
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        check_numbers(inner)


def check(answer: httpx2.Response, body: dict[str, Any], chat: bool) -> None:
    if answer.status_code != 200:
        assert answer.status_code == 400, (answer.status_code, answer.text)
        error = answer.json()["error"]
        assert error["message"] and "\n" not in error["message"] and error["type"] == "invalid_request_error"
        return
    if body.get("stream"):
        lines = [line for line in answer.text.split("\n") if line]
        assert lines[-1] == "data: [DONE]"
        events = [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]
        assert not any("error" in event for event in events)
        check_numbers(events)
        return
    found = answer.json()
    check_numbers(found)
    several = not chat and isinstance(body["prompt"], list) and not isinstance(body["prompt"][0], int)
    prompts = len(body["prompt"]) if several else 1
    assert len(found["choices"]) == prompts * int(body.get("n") or 1)
    asked = body.get("logprobs") if chat else body.get("logprobs") is not None
    for choice in found["choices"]:
        assert (choice["logprobs"] is not None) == bool(asked)
        if asked and not chat:
            assert len({len(column) for column in choice["logprobs"].values()}) == 1
            offsets = choice["logprobs"]["text_offset"]
            assert offsets == sorted(offsets) and all(0 <= offset <= len(choice["text"]) for offset in offsets)


@pytest.mark.parametrize("odd", [False, True])
@pytest.mark.parametrize("chat", [False, True])
def test_any_body_gets_a_value_or_one_line(server: Any, chat: bool, odd: bool) -> None:
    @given(body=bodies(CHAT if chat else TEXT, odd))
    @settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None)
    def asked(body: dict[str, Any]) -> None:
        if chat:
            body = {"messages": [{"role": "user", "content": "is it blue ?"}], **body}
        else:
            body = {"prompt": "one apples", **body}
        path = "/v1/chat/completions" if chat else "/v1/completions"
        check(httpx2.post(server.url + path, json=body, timeout=30), body, chat)

    asked()


@pytest.mark.parametrize("most", range(0, 4))
@pytest.mark.parametrize("count", [510, 511, 512, 513])
def test_a_prompt_as_long_as_the_context_is_scored(server: Any, count: int, most: int) -> None:
    """Where no token is to be written, the prompt may fill the context of 512."""
    answer = server.post("/v1/completions", prompt=[5] * count, echo=True, max_tokens=most, logprobs=0)
    assert answer.status_code == (200 if count + min(most, 1) <= 512 else 400), answer.text
    if answer.status_code == 200:
        assert len(answer.json()["choices"][0]["logprobs"]["tokens"]) >= count
