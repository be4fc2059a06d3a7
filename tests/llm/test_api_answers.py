"""HTTP 200 is no answer yet: how a text ended, and what else a body may hold."""

from __future__ import annotations

import re
from typing import Any

import pytest
from asking import alone, asked, failed
from chat_server import answers, chooses, completion, replies, says, serving
from hypothesis import given
from hypothesis import strategies as st
from toy import QUESTIONS, ToyTask, toy_built

from gcache.agents.thinking import split_thinking
from gcache.evaluation.evaluate import evaluate
from gcache.llm.api.client import ApiLLM, ApiSettings, Budget
from gcache.llm.api.message import all_thinking
from gcache.llm.local import LocalLLM


@pytest.fixture(autouse=True)
def no_surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    alone(monkeypatch)
    monkeypatch.chdir(tmp_path)


# -- why a text ended -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reason", "kept"),
    [
        ("stop", "stop"), ("STOP", "stop"), ("eos", "stop"), ("eos_token", "stop"), ("stop_sequence", "stop"),
        ("end_turn", "stop"), ("length", "length"), ("max_tokens", "length"), ("model_length", "length"),
    ],
)  # fmt: skip
def test_a_text_is_whole_or_cut_off_in_the_words_of_any_server(reason: str, kept: str) -> None:
    text, seen = asked(chooses(reason))
    assert (text.text, text.finish_reason, len(seen)) == ("four", kept, 1)


@pytest.mark.parametrize("reason", ["error", "abort", "insufficient_system_resource", None, "", "null"])
def test_a_text_that_broke_off_is_asked_for_again(reason: str | None) -> None:
    text, seen = asked(chooses(reason, ""), chooses(reason, "fo"), says("four"))
    assert (text.text, text.attempts, len(seen)) == ("four", 3, 3)
    message, requests = failed(chooses(reason, "fo"), retries=2)
    assert requests == 3 and "finish_reason" in message and "after 3 attempts" in message


def test_an_absent_reason_is_none() -> None:
    body = completion("four")
    del body["choices"][0]["finish_reason"]
    assert "without a finish_reason" in failed(answers(body), retries=0)[0]


@pytest.mark.parametrize("reason", ["content_filter", "tool_calls", "function_call", "refusal", "banana", 7, {"a": 1}])
def test_other_ends_are_final(reason: Any) -> None:
    message, requests = failed(chooses(reason))
    assert requests == 1 and "finish_reason" in message


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ({"content": None, "refusal": "I cannot help"}, "the model refused: I cannot help"),
        ({"content": "no", "refusal": "I cannot help"}, "the model refused"),
        ({"content": None, "tool_calls": [{"id": "1"}]}, "a call of a tool"),
        ({"content": "let me see", "function_call": {"name": "f"}}, "a call of a tool"),
        ({"content": "", "reasoning_content": "4, surely"}, "reasoning and no text"),
        ({"content": None, "reasoning": "4, surely"}, "reasoning and no text"),
        ({"content": None}, "without text"),
        ({"content": 4}, "without text"),
        ({"content": []}, "without text"),
        ({"content": [{"type": "thinking", "thinking": "hm"}]}, "reasoning and no text"),
        ({"content": [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": " "}]}, "reasoning and no text"),
        ({"content": "<think>2 and 2 are"}, "reasoning and no text"),
        ({"content": " \n<think>\n"}, "reasoning and no text"),
        ({"content": "<think>2 and 2 are 4</think>\n"}, "reasoning and no text"),
        ({"content": "2 and 2 are 4</think>"}, "reasoning and no text"),
        ({"content": "[THINK]2 and 2"}, "reasoning and no text"),
        ({"content": [{"type": "text", "text": "<think>2 and"}]}, "reasoning and no text"),
        ({"content": [{"type": "refusal", "refusal": "I cannot help"}]}, "the model refused: I cannot help"),
        ({"content": [{"type": "text", "text": "no"}, {"type": "refusal", "refusal": "I won't"}]}, "refused: I won't"),
        ({"content": [{"type": "text", "text": "let me see"}, {"type": "tool_use", "name": "f"}]}, "a call of a tool"),
    ],
)
def test_a_message_without_a_text_is_no_answer(message: dict[str, Any], said: str) -> None:
    found, requests = failed(chooses("stop", **message))
    assert requests == 1 and said in found


@pytest.mark.parametrize(
    ("message", "reason", "text"),
    [
        ({"content": ""}, "stop", ""),
        ({"content": "", "tool_calls": [], "refusal": None, "reasoning_content": ""}, "stop", ""),
        ({"content": "four", "reasoning_content": "2 and 2", "tool_calls": None}, "stop", "four"),
        ({"content": "", "reasoning_content": "2 and"}, "length", ""),
        ({"content": None, "reasoning": "2 and"}, "length", ""),
        ({"content": [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "four"}]}, "stop", "four"),
    ],
)
def test_what_the_server_says_is_an_answer_is_one(message: dict[str, Any], reason: str, text: str) -> None:
    found, _ = asked(chooses(reason, **message))
    assert (found.text, found.finish_reason) == (text, reason)


@pytest.mark.parametrize(
    "text",
    [
        "<think>2 and 2</think>four", "2 and 2</think> four", "four", "say <think>", "<think></think>", " ",
        "<think>\n\n</think>\n", "write <think> and </think>", "four <think>",
    ],
)  # fmt: skip
def test_a_text_with_an_answer_is_kept_whole(text: str) -> None:
    assert asked(chooses("stop", text))[0].text == text
    assert asked(chooses("length", "<think>2 and"))[0].finish_reason == "length"


PIECES = st.sampled_from(["<think>", "</think>", "[THINK]", "[/THINK]", "<thinking>", "four", " ", "\n"])


@given(st.lists(PIECES, max_size=6).map("".join))
def test_and_is_none_where_all_is_thought(text: str) -> None:
    thinking, answer = split_thinking(text, opened=None)
    assert not all_thinking(text) or not answer.strip()
    assert all_thinking(text) or answer.strip() or not thinking


def test_a_text_can_be_written_to_a_file() -> None:
    halves = b'{"choices": [{"finish_reason": "stop", "message": {"content": "a\\ud800b\\ud83d\\ude00"}}]}'
    found, _ = asked(replies(halves))
    assert found.text.encode() == "a\ufffdb\U0001f600".encode()


@pytest.mark.parametrize("count", [True, -1, 1.5, "3", 10**400, None])
def test_a_count_that_is_none_is_not_counted(count: Any) -> None:
    budget = Budget(10)
    body = {**completion("four"), "usage": {"prompt_tokens": 3, "completion_tokens": count}}
    found, _ = asked(answers(body), budget=budget)
    assert found.completion_tokens is None and (budget.read, budget.written) == (3, 0)


def test_a_failure_is_paid_for_as_well() -> None:
    budget = Budget(1000, "tokens")
    asked(chooses("error", "fo"), says("four", prompt=3, written=2), budget=budget)
    assert (budget.requests, budget.read, budget.written) == (2, 6, 7)


# -- errors in a body of HTTP 200 -----------------------------------------------------------------


def chat_with(**fields: Any) -> dict[str, Any]:
    """A good answer with further fields in its message."""
    body = completion("four")
    body["choices"][0]["message"] |= fields
    return body


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"code": 429, "message": "slow down"}},
        {"error": {"code": "429", "message": "slow down"}},
        {"error": {"message": "slow down", "status": 429}, "choices": []},
        {"object": "error", "message": "slow down", "code": 429},
        {"status_code": 429, "message": "slow down", "type": "rate"},
        {"detail": "slow down", "status": 429},
        [{"error": {"code": 429, "message": "slow down", "status": "RESOURCE_EXHAUSTED"}}],
        {"error": {"code": 429, "message": "slow down"}, "choices": [{"message": {"content": "four"}}]},
        {"choices": [{"error": {"code": 429, "message": "slow down"}, "finish_reason": "error", "message": {}}]},
        {**completion("four"), "error": {"code": 429, "message": "slow down"}},
        {"error": {"code": 429, "message": "Provider", "metadata": {"raw": "slow down"}}},
        {**completion("four"), "code": 429, "message": "slow down"},
        {**completion("four"), "object": "error", "code": 429, "message": "slow down"},
        {**completion("four"), "status": 429, "message": "slow down"},
        {**completion("four"), "status_code": "429", "error_msg": "slow down"},
        {**completion("four"), "base_resp": {"status_code": 1002, "status_msg": "slow down"}},
        {"base_resp": {"status_code": 1039, "status_msg": "slow down"}, "choices": None},
        chat_with(error={"code": 429, "message": "slow down"}), chat_with(statusCode=429, msg="slow down"),
        {"error": 429, "message": "slow down"}, {"error": [429, "slow down"]}, {"code": 429, "message": "slow down"},
        {"statusCode": 429, "message": "slow down"}, {"http_status": 429, "title": "slow down"},
        {"error": {"http_status": 429, "message": "slow down"}}, {"Error": {"code": 429, "message": "slow down"}},
        {"error": {"code": "429 Too Many Requests", "message": "slow down"}},
        {"error": '{"error": {"code": 429, "message": "slow down"}}'},
        {"error": {"message": '{"code": 429, "message": "slow down"}'}},
        {"error": {"message": "Error code: 429 - slow down"}}, {"message": "429 Too Many Requests: slow down"},
        {"error": "HTTP/1.1 429 - slow down"}, {"detail": "status code 429, slow down"},
    ],
)
def test_an_error_inside_is_what_its_code_says(body: Any) -> None:
    text, seen = asked(answers(body), says("four"))
    assert text.text == "four" and len(seen) == 2
    message, requests = failed(answers(body), retries=1)
    assert requests == 2 and "HTTP 429: " in message and "slow down" in message


def test_and_its_wait_is_kept() -> None:
    message, requests = failed(replies({"error": {"code": 429, "message": "slow"}}, Retry_After="3600"))
    assert requests == 1 and "it asks to wait 3600 s" in message


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"error": {"code": 401, "message": "who are you"}}, "HTTP 401: who are you.*check API_KEY"),
        ({"error": {"code": 400, "message": "bad"}}, "HTTP 400: bad"),
        ({"error": "model not found"}, "model not found"),
        ({"error": {"message": {"detail": [{"loc": ["body", "x"], "msg": "odd", "type": "t"}]}}}, "body.x: odd"),
        ({"detail": [{"loc": ["body", "x"], "msg": "odd", "type": "t"}]}, "body.x: odd"),
        ({"code": "InvalidParameter", "message": "bad"}, "bad .*InvalidParameter"),
        ({"success": False, "errors": [{"code": 7003, "message": "no route"}]}, "no route"),
        ({"success": False, "message": "no route"}, "HTTP 200: no route"),
        ({"success": "false", "message": "no route"}, "HTTP 200: no route"),
        ({"success": False, "msg": "no route", "data": None}, "HTTP 200: no route"),
        ({"success": False, "message": "no route", "choices": []}, "HTTP 200: no route"),
        ({"ok": False, "error": "no route"}, "HTTP 200: no route"),
        ({"ok": False, "message": "no route"}, "HTTP 200: no route"),
        ({"ok": "False", "error": None, "message": "no route"}, "HTTP 200: no route"),
        ({"ok": False}, "error without a message"),
        ({"status": "error", "message": "no route"}, "HTTP 200: no route"),
        ({"status": "failed", "message": "no route", "choices": None}, "HTTP 200: no route"),
        ({"status": "FAILED", "error_message": "no route"}, "HTTP 200: no route"),
        ({"code": 400, "msg": "no route"}, "HTTP 400: no route"),
        ({"error": True, "message": "no route"}, "HTTP 200: no route"),
        ({**completion("four"), "success": False, "message": "no route"}, "HTTP 200: no route"),
        ({**completion("four"), "status": "failed", "message": "no route"}, "HTTP 200: no route"),
        ({"base_resp": {"status_code": 1008, "status_msg": "no money"}, "choices": None}, "HTTP 402: no money"),
        ({**completion("four"), "base_resp": {"status_code": 2013, "status_msg": "odd"}}, "HTTP 200: odd"),
        ({**completion("four"), "is_error": True, "message": "no route"}, "HTTP 200: no route"),
        ({**completion("four"), "failed": True}, "error without a message"),
        ({**completion("four"), "error_code": 17, "error_msg": "no route"}, "HTTP 200: no route"),
        ({**completion("four"), "code": "ContentFailed", "message": "no route"}, "HTTP 200: no route"),
        ({**completion("four"), "status": "incomplete"}, "did not end by itself .status 'incomplete'"),
        (chat_with(status="incomplete"), "did not end by itself .status 'incomplete'"),
        (chat_with(failed=True), "error without a message"),
        ({"message": "no route"}, "without choices.*no route"),
        ({"error": {"code": 402, "message": "429 tokens"}}, "HTTP 402: 429 tokens"),
        ({"error": {"message": "500 tokens are too many"}}, "HTTP 200: 500 tokens"),
        ({"error": "400 Bad Request: Too many requests in a batch"}, "HTTP 400"),
        ({"error": True}, "error without a message"),
        ({"choices": [{"error": {"message": "broke"}, "finish_reason": "stop", "message": {"content": "x"}}]}, "broke"),
        ({"error": {"code": 429, "type": "insufficient_quota", "message": "pay"}}, "HTTP 429: pay"),
    ],
)
def test_other_errors_inside_are_final(body: Any, said: str) -> None:
    message, requests = failed(answers(body))
    assert requests == 1 and re.search(said, message), message


#: Names of gRPC for what passes.
GRPC = ("RESOURCE_EXHAUSTED", "UNAVAILABLE", "DEADLINE_EXCEEDED", "INTERNAL", "ABORTED")


@pytest.mark.parametrize(
    "body",
    [
        {"error": "upstream timed out"}, {"error": "x", "error_type": "overloaded"},
        {"code": "Throttling", "message": "x"}, {"error": {"code": "rate_limit_exceeded", "message": "x"}},
        {"error": {"code": 502, "message": "x"}},
        {"choices": [{"error": {"message": "broke"}, "finish_reason": "error", "message": {"content": ""}}]},
        {"error": {"code": 429.0, "message": "x"}}, {"status": 503, "message": "x"},
        {"error": 429}, {"code": 429}, {"status": 429}, {"message": "Too many requests"}, {"error": "429"},
        {"title": "Too Many Requests", "status": 429}, {"error_code": 18, "error_msg": "Open api qps limit reached"},
        {"fault": {"faultstring": "Rate limit quota violation"}}, {"base_resp": {"status_code": 1002}},
        *({"error": {"status": name, "code": 8, "message": "x"}} for name in GRPC),
        {**completion("four"), "status": "UNAVAILABLE", "message": "x"},
        completion("", reason="network_error"), completion("", reason="overloaded"),
    ],
)  # fmt: skip
def test_words_for_what_passes_are_heeded(body: Any) -> None:
    assert asked(answers(body), says("four"))[0].text == "four"


def test_no_error_is_no_error() -> None:
    good = {"success": True, "ok": "true", "status": "completed", "error": False, "message": "done"}
    assert asked(answers({**completion("four"), **good}))[0].text == "four"
    assert asked(answers({**completion("four"), "error": None, "detail": "x", "code": None}))[0].text == "four"


@pytest.mark.parametrize(
    "beside",
    [
        {"code": 200}, {"code": 0, "message": "success"}, {"code": ""}, {"code": "ok"}, {"code": "200", "msg": "ok"},
        {"code": 20000, "message": "ok"}, {"status": "success"}, {"status": 200}, {"status": "finished"},
        {"statusCode": 201}, {"error_code": 0, "error_msg": ""}, {"error_code": None}, {"errno": "0"},
        {"is_error": False}, {"failed": 0}, {"has_error": "false"}, {"type": "chat"}, {"status": "no_error"},
        {"base_resp": {"status_code": 0, "status_msg": ""}}, {"base_resp": {"status_code": 0, "status_msg": "success"}},
        {"base_resp": None}, {"detail": "Too many requests"}, {"message": "429"}, {"errors": []}, {"fault": None},
    ],
)  # fmt: skip
def test_nor_are_the_signs_of_success(beside: dict[str, Any]) -> None:
    assert asked(answers({**completion("four"), **beside}))[0].text == "four"
    assert "base_resp" in beside or asked(answers(chat_with(**beside)))[0].text == "four"


@pytest.mark.parametrize(
    "beside",
    [
        {"finish_details": {"type": "max_tokens"}}, {"native_finish_reason": "MAX_TOKENS"}, {"stop_reason": "length"},
        {"incomplete_details": {"reason": "max_output_tokens"}, "status": "incomplete"},
    ],
)  # fmt: skip
def test_a_text_that_is_cut_off_by_any_word_is_told_as_cut(beside: dict[str, Any]) -> None:
    body = completion("four")
    body["choices"][0] |= beside
    assert asked(answers(body))[0].finish_reason == "length"
    cut = completion("four", reason="length")
    assert asked(answers({**cut, "status": "incomplete"}))[0].finish_reason == "length"
    good = {"finish_details": {"type": "stop"}, "native_finish_reason": "STOP", "stop_reason": 2}
    body["choices"][0] |= {**dict.fromkeys(beside), **good}
    assert asked(answers(body))[0].finish_reason == "stop"


def test_a_bill_is_not_paid_by_waiting() -> None:
    quota = {"error": {"message": "You exceeded your quota", "code": "insufficient_quota"}}
    assert failed(replies(quota, 429))[1] == 1


# -- and what is counted --------------------------------------------------------------------------


FAILURES = (
    chooses("error", ""), chooses("content_filter", ""), chooses(None, "sum 5"), chooses("stop", None),
    answers({"error": {"code": 429, "message": "slow down"}}), chooses("tool_calls", None),
)  # fmt: skip


def test_failures_are_in_no_row_and_what_is_cut_off_is_told(tiny_llm: LocalLLM, tiny_tokenizer: Any) -> None:
    """One question for each way to fail, one that is cut off, and one that is answered."""
    ways = [*FAILURES, chooses("length", "")]

    def behave(handler: Any, body: dict[str, Any]) -> None:
        number = next(i for i, question in enumerate(QUESTIONS) if question in body["messages"][1]["content"])
        (ways[number] if number < len(ways) else says("sum 5"))(handler, body)

    with serving(behave) as server:
        api = ApiLLM(ApiSettings("toy", server.base_url, retries=1, timeout=10))
        made = toy_built(tiny_llm, tiny_tokenizer, api=api, generation_mode="hybrid", topology="star")
        found = evaluate(made.graph, ToyTask(), ToyTask().test(), progress=False, on_error="skip")
    rest = len(QUESTIONS) - len(FAILURES)
    assert rest >= 2 and (found.n, found.failed, found.cut) == (rest, len(FAILURES), 1)
    assert [row.outcome for row in found.rows if not row.cut] == ["right"] * (rest - 1)
