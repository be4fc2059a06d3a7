"""Requests that nothing can be made of: each gets a status and one sentence, and none a fault of ours."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import pytest

ASK: dict[str, Any] = {"messages": [{"role": "user", "content": "is it blue ?"}]}
CHAT = "/v1/chat/completions"
JSON = {"Content-Type": "application/json"}


def refused(answer: httpx2.Response, status: int = 400) -> dict[str, Any]:
    """The error of an answer, in OpenAI's form."""
    assert answer.status_code == status, answer.text
    body = answer.json()
    assert set(body) == {"error"} and set(body["error"]) == {"message", "type", "param", "code"}
    assert body["error"]["message"] and "\n" not in body["error"]["message"]
    error: dict[str, Any] = body["error"]
    return error


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("top_p", 0, "above 0"), ("presence_penalty", 1, "0 ("), ("n", 9, "to 8"), ("logprobs", 0, "true or false"),
        ("top_logprobs", 21, "0 to 20"), ("add_special_tokens", True, "false ("),
        ("response_format", {"type": "json_object"}, '"text"'), ("tools", [{"type": "function"}], "empty"),
        ("store", True, "false"), ("logit_bias", {"1": 2}, "{}"), ("temperature", -0.1, "from 0"),
        ("temperature", 2.1, "to 2"), ("temperature", "0", "a number"), ("temperature", True, "a number"),
        ("max_tokens", 0, "1 or more"), ("max_tokens", 201, "to 200"), ("max_completion_tokens", 201, "to 200"),
        ("max_tokens", 1.5, "whole"), ("max_tokens", "5", "whole"), ("seed", 2**53 + 1, "2**53"),
        ("seed", 10**400, "2**53"), ("stop", ["a"] * 5, "up to 4"), ("stop", "", "none of them empty"),
        ("stop", ["a", ""], "none of them empty"), ("stop", 1, "a text"), ("stream", 1, "true or false"),
        ("stream_options", {"include_usage": 1}, "true or false"),
        ("stream_options", {"include_usage": True}, '"stream": true'),
        ("stream_options", {"include_usage": None}, '"stream": true'),
        ("messages", [], "1 to"), ("messages", "hi", "1 to"),
        ("messages", [{"role": "tool", "content": "a"}], "system, developer"),
        ("messages", [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}], "text"),
        ("messages", [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "the user's"),
        ("messages", [{"role": "user", "content": " "}], "blank"),
        ("messages", [{"role": "user", "content": []}], "blank"),
        ("messages", [{"role": "user", "content": None}], "blank"), ("messages", [1], "messages[0]"),
        ("gcache", {"trace": "yes"}, "true or false"), ("gcache", {"agents": []}, "1 to 64"),
        ("gcache", {"agents": [{"role": "a"}]}, "note"),
        ("gcache", {"agents": [{"role": " ", "note": ""}]}, "short name"),
        ("gcache", {"agents": [{"role": "a", "note": ""}] * 65}, "1 to 64"), ("metadata", {"a": 1}, "texts"),
    ],
)  # fmt: skip
def test_a_value_that_is_not_allowed_is_named_with_what_is(server: Any, field: str, value: Any, allowed: str) -> None:
    error = refused(server.post(**{**ASK, field: value}))
    assert error["message"].startswith(field) or field == "messages"
    assert allowed in error["message"] and error["param"].startswith(field)
    assert error["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({**ASK, "tempreature": 0}, "tempreature"),
        ({"messages": [{"role": "user", "content": "a", "sender": 1}]}, "messages[0].sender"),
        ({**ASK, "gcache": {"tracing": True}}, "gcache.tracing"),
        ({**ASK, "gcache": {"agents": [{"role": "a", "note": "b", "x": 1}]}}, "gcache.agents[0].x"),
    ],
)
def test_a_field_that_is_not_known_is_named(server: Any, body: dict[str, Any], path: str) -> None:
    error = refused(server.post(**body))
    assert error["param"] == path and path in error["message"] and error["code"] == "unknown_field"


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"nothing", b"null", b"1", b"[]", b'"text"', b"\xff\xfe", b"[" * 10**6, b'{"a":' * 10**5,
        b'{"messages": [{"role": "user", "content": "\\ud800"}]}',
        b'{"messages": [{"role": "user", "content": "\xed\xa0\x80"}]}',
        b'{"messages": [{"role": "user", "content": "a"}], "\\ud800": 1}',
        b'{"messages": [{"role": "user", "content": "a"}], "temperature": NaN}',
        b'{"messages": [{"role": "user", "content": "a"}], "temperature": Infinity}',
        b'{"messages": [{"role": "user", "content": "a"}], "temperature": 1e999}',
        b'{"messages": [{"role": "user", "content": "a"}], "seed": ' + b"9" * 5000 + b"}",
        b'{"messages": [{"role": "user", "content": "a"}], "x": ' + b"[" * 300 + b"]" * 300 + b"}",
    ],
    ids=range(18),
)  # fmt: skip
@pytest.mark.parametrize("path", [CHAT, "/v1/completions", "/v1/topology"])
def test_a_body_that_is_no_request_is_refused(server: Any, path: str, body: bytes) -> None:
    refused(httpx2.post(server.url + path, content=body, headers=JSON, timeout=20))


def test_text_of_every_kind_is_a_question(server: Any) -> None:
    for text in ("\x00", "🦀 is it ?", "<|im_end|>", "a\u202eb", "'; drop table", "{{ messages }}"):
        assert server.ask(text)["choices"][0]["finish_reason"] in ("stop", "length")


def test_a_question_beyond_the_context_is_refused(server: Any) -> None:
    error = refused(server.post(messages=[{"role": "user", "content": "is it blue ? " * 130}]))
    assert error["code"] == "context_length_exceeded" and "512" in error["message"]
    long_note = {"agents": [{"role": "clerk", "note": "is it blue ? " * 130}]}
    assert refused(server.post(**ASK, gcache=long_note))["code"] == "context_length_exceeded"


def test_another_model_is_not_found(server: Any) -> None:
    for path, ask in ((CHAT, ASK), ("/v1/completions", {"prompt": "a"})):
        error = refused(server.post(path, **ask, model="gpt-5"), 404)
        assert error["code"] == "model_not_found" and "'toy'" in error["message"]
        assert server.post(path, **ask, model="toy").status_code == 200


def test_what_is_not_served_is_said_in_the_same_form(server: Any) -> None:
    refused(server.post("/v1/embeddings", input="a", model="toy"), 404)
    refused(httpx2.get(server.url + "/none"), 404)
    wrong = httpx2.get(server.url + CHAT)
    refused(wrong, 405)
    assert wrong.headers["allow"] == "POST"


def test_only_json_is_taken(server: Any) -> None:
    body = json.dumps(ASK).encode()
    for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
        refused(httpx2.post(server.url + CHAT, content=body, headers={"Content-Type": kind}), 415)
    answer = httpx2.post(server.url + CHAT, content=body, headers={"Content-Type": "Application/JSON; charset=utf-8"})
    assert answer.status_code == 200


def test_the_page_may_load_nothing_but_itself(server: Any) -> None:
    page = httpx2.get(server.url + "/")
    policy = page.headers["content-security-policy"]
    assert page.status_code == 200 and page.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in policy and "connect-src 'self'" in policy and "frame-ancestors 'none'" in policy
    assert "script-src 'sha256-" in policy or "script-src 'none'" in policy
    assert page.headers["x-content-type-options"] == "nosniff"


def test_an_installation_without_the_page_says_so(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> str:
        raise FileNotFoundError("page.html")

    monkeypatch.setattr("gcache.serve.app.page", missing)
    refused(httpx2.get(server.url + "/"), 404)


def test_a_fault_of_ours_is_still_one_sentence(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> str:
        raise RuntimeError("secret of ours")

    monkeypatch.setattr("gcache.serve.app.page", broken)
    assert "secret" not in refused(httpx2.get(server.url + "/"), 500)["message"]
