"""Servers that do not take a field: mended once, said once, kept to."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from asking import KEY, alone, asked, by_flags, chat, failed
from chat_server import Behaviour, fails, replies, says, serving, without

from gcache.errors import ApiError, BudgetSpent, ConfigError
from gcache.llm.api.client import ApiLLM, ApiSettings, Budget
from gcache.llm.api.outcome import Failure
from gcache.llm.api.refusals import refusal

WANTS_NEWER = {
    "error": {
        "message": "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' "
        "instead.", "type": "invalid_request_error", "param": "max_tokens", "code": "unsupported_parameter",
    }
}  # fmt: skip
OWN_TEMPERATURE = {
    "error": {
        "message": "Unsupported value: 'temperature' does not support 0 with this model. Only the default (1) value is "
        "supported.", "type": "invalid_request_error", "param": "temperature", "code": "unsupported_value",
    }
}  # fmt: skip


def extra(name: str) -> dict[str, Any]:
    return {"type": "extra_forbidden", "loc": ["body", name], "msg": "Extra inputs are not permitted", "input": 5}


def says_so(message: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": None}}


@pytest.fixture(autouse=True)
def no_surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Any, caplog: pytest.LogCaptureFixture) -> None:
    alone(monkeypatch)
    monkeypatch.chdir(tmp_path)
    caplog.set_level(logging.INFO, logger="gcache")


# -- by hand --------------------------------------------------------------------------------------


def test_an_option_leaves_out_renames_and_adds() -> None:
    with serving(says("four")) as server:
        words = ["--api_option", "temperature=", "max_tokens->max_completion_tokens", "--api_option", "top_k=1"]
        chat(by_flags(server.base_url, *words))
        chat(by_flags(server.base_url, "--api_option", "seed=", "seed=", "temperature=0.5"), temperature=0.7)
    talk = {"model": "toy", "messages": [{"role": "user", "content": "2 + 2?"}]}
    assert server.seen == [
        {**talk, "max_completion_tokens": 9, "top_k": 1}, {**talk, "max_tokens": 9, "temperature": 0.5},
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["temperature"], "NAME=VALUE, NAME= or 'NAME->OTHER', got 'temperature'"),
        (["="], "NAME=VALUE"), ([""], "NAME=VALUE"), (["x->"], "NAME=VALUE"),
        (["a->b=c"], "NAME=VALUE"), (["messages="], "cannot take away 'messages'"), (["prompt->x"], "cannot take away"),
        (["temperature=", "temperature=1"], "leaves out 'temperature' and also gives it"),
        (["seed=", "seed->random_seed"], "leaves out 'seed' and also gives it"),
        (["max_token->x"], "renames 'max_token', but a request has model, max_tokens"),
        (["max_tokens->seed"], "has already"), (["max_tokens->x", "seed->x"], "has already"),
        (["stream=true"], "stream is not allowed"),
        (["top_p=nan"], "'top_p' must be a value that JSON can hold, got nan"),
    ],
)  # fmt: skip
def test_options_that_are_none(words: list[str], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        by_flags("http://h/v1", "--api_option", *words)
    assert said in str(caught.value)


# -- by itself ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "refusal", "status"),
    [
        ("max_tokens", WANTS_NEWER, 400),
        ("max_tokens", {"error": {"message": WANTS_NEWER["error"]["message"], "code": "invalid_request_body"}}, 400),
        ("max_tokens", {"error": WANTS_NEWER["error"]["message"]}, 400),
        ("max_tokens", {"detail": [extra("max_tokens")]}, 422),
        ("max_tokens", says_so("max_tokens is deprecated; use max_completion_tokens instead"), 400),
        ("temperature", OWN_TEMPERATURE, 400),
        ("temperature", says_so("`temperature` is deprecated for this model."), 400),
        ("temperature", says_so("deepseek-reasoner does not support temperature"), 400),
        ("temperature", says_so("`temperature` may only be set to 1 when thinking is enabled"), 400),
        ("temperature", says_so("UnsupportedParamsError: these models don't support temperature=0.0."), 400),
        ("temperature", {"error": "temperature is not supported"}, 200),
        ("seed", says_so("Extra inputs are not permitted, field: 'seed', value: 5"), 400),
        ("seed", {"message": "body.seed: property 'body.seed' is unsupported", "type": "x", "param": "y"}, 422),
        ("temperature", says_so("invalid temperature: only 1 is allowed for this model"), 400),
        ("temperature", {"error": "Input validation error: `temperature` must be strictly positive"}, 422),
        ("temperature", says_so("<400> InternalError.Algo.InvalidParameter: Temperature should be in (0.0, 2.0)"), 400),
        ("temperature", {"status": 422, "message": "Invalid params: temperature must be in range (0, +inf)"}, 422),
        ("temperature", {"detail": [{"type": "greater_than", "loc": ["body", "temperature"],
                                     "msg": "Input should be greater than 0", "input": 0.0}]}, 422),
        ("seed", says_so("Unrecognized request argument supplied: seed"), 400),
        ("seed", {"detail": [extra("seed")]}, 422),
        ("seed", {"object": "error", "message": {"detail": [extra("seed")]}, "type": "invalid_request_error"}, 422),
        ("seed", {"object": "Error", "detail": [extra("seed")], "message": [extra("seed")], "code": 3001}, 422),
        ("seed", {"object": "error", "code": 400, "type": "BadRequestError", "message":
                  "[{'type': 'extra_forbidden', 'loc': ('body', 'seed'), 'msg': 'Extra inputs are not permitted'}]"},
         400),
        ("seed", [{"error": {"code": 400, "status": "INVALID_ARGUMENT", "message":
                             'Invalid JSON payload received. Unknown name "seed": Cannot find field.'}}], 400),
        ("seed", says_so("Argument not supported on this model: seed"), 400),
        ("seed", says_so("property 'seed' is unsupported"), 400),
        ("seed", {"message": "unknown field: parameter 'seed' is not a valid field", "type": "x"}, 422),
        ("seed", {"error": {"message": "Provider returned error", "code": 400,
                            "metadata": {"raw": '{"error":{"message":"seed is not supported here"}}'}}}, 400),
        ("temperature", {"error": {"code": 400, "message": "'temperature' is not supported"}}, 200),
    ],
)  # fmt: skip
def test_a_refusal_is_understood_said_once_and_kept_to(
    caplog: pytest.LogCaptureFixture, name: str, refusal: Any, status: int
) -> None:
    budget = Budget(4)
    with serving(without({name: refusal}, status=status)) as server:
        llm = ApiLLM(ApiSettings("toy", server.base_url, KEY, retries=0), budget)
        drawn = {"temperature": 0.7, "seed": 5} if name == "seed" else {}
        assert [chat(llm, **drawn).attempts for _ in range(3)] == [2, 1, 1]
        with pytest.raises(BudgetSpent):
            chat(llm)
    assert len(server.seen) == budget.requests == 4
    told = [record for record in caplog.records if "does not take" in record.getMessage()]
    assert len(told) == 1 and name in told[0].getMessage()
    assert told[0].levelno == (logging.INFO if name == "max_tokens" else logging.WARNING)
    first, *rest = server.seen
    assert all(body == rest[0] for body in rest)
    if name == "max_tokens":
        assert rest[0] == {**{k: v for k, v in first.items() if k != name}, "max_completion_tokens": 9}
    else:
        assert rest[0] == {k: v for k, v in first.items() if k != name}


@pytest.mark.parametrize(
    ("message", "name"),
    [
        ("max_tokens is not supported; please set max_new_tokens", "max_new_tokens"),
        ("Unsupported parameter: 'max_tokens'", "max_completion_tokens"),
        ("max_tokens is deprecated, use 'messages' instead", "max_completion_tokens"),
    ],
)
def test_a_limit_is_sent_by_the_name_that_the_server_gives(message: str, name: str) -> None:
    text, seen = asked(without({"max_tokens": says_so(message)}))
    assert text.attempts == 2 and seen[1] == {**{k: v for k, v in seen[0].items() if k != "max_tokens"}, name: 9}


MANY_WORDS = [
    ("max_tokens", "Please use max_completion_tokens rather than max_tokens"),
    ("max_tokens", "Use 'max_completion_tokens' instead of 'max_tokens'"),
    ("max_tokens", "This model requires max_completion_tokens"),
    ("max_tokens", "Missing required parameter: 'max_completion_tokens'"),
    ("max_tokens", "max_tokens has been replaced by max_completion_tokens"),
    ("max_tokens", "max_completion_tokens must be used instead of max_tokens"),
    ("max_tokens", "max_tokens is no longer supported"),
    ("max_tokens", "this model does not support max_tokens please use max_completion_tokens"),
    ("temperature", "temperature must be 1"), ("temperature", "temperature must be 1 for this model"),
    ("temperature", "this model only supports temperature=1"), ("temperature", "Only temperature 1 is allowed"),
    ("temperature", "invalid temperature: only 0.6 is allowed for this model"),
    ("temperature", "temperature must be set to 1.0, got 0.0"), ("temperature", "temperature should be 1"),
    ("temperature", "temperature can only be 1"), ("temperature", "temperature only supports 1"),
    ("temperature", "This model supports only temperature 1"), ("temperature", "Temperature of 0 is not supported"),
    ("temperature", "Please set temperature to 1 for this model"), ("temperature", "temperature must be the default"),
    ("temperature", "Only the default temperature is supported"), ("temperature", "temperature isn't supported"),
    ("temperature", "This model has beta-limitations: temperature, top_p and n are fixed at 1"),
    ("temperature", "temperature: Extra inputs are not permitted"), ("temperature", "该模型不支持temperature参数"),
    ("temperature", "#: extraneous key [temperature] is not permitted, please reformat your input and try again."),
    ("temperature", "temperature cannot be modified for this model"), ("temperature", "requires temperature=1"),
    ("temperature", "temperature参数非法。请检查文档。"), ("temperature", "temperature must not be 0"),
    ("temperature", "openai does not support parameters: {'temperature': 0.0}, for model=o1"),
    ("temperature", "o3 does not support top_p, temperature"), ("temperature", "temperature must be 1 or omitted"),
    ("max_tokens", "You can't use max_tokens with o1"), ("max_tokens", "Do not send max_tokens to this model"),
    ("max_tokens", "Please set max_completion_tokens rather than max_tokens."),
    ("max_tokens", "Give max_completion_tokens in place of max_tokens"),
    ("max_tokens", "Parameter 'max_tokens' is obsolete; see max_completion_tokens"),
    ("max_tokens", "field max_tokens is forbidden"), ("max_tokens", "The parameter max_tokens has been removed."),
    ("temperature", "temperature is not configurable"), ("temperature", "The temperature is immutable"),
    ("temperature", "temperature is not an adjustable parameter"), ("temperature", "temperature is disabled here"),
    ("temperature", "The model's temperature setting can't be changed"),
    ("temperature", "The model\u2019s temperature can\u2019t be changed"),
    ("temperature", "temperature must be at least 0.01"), ("temperature", "temperature must not be less than 0.1"),
    ("temperature", "temperature: value 0 out of range (0.01..2)"), ("temperature", "temperature must be >= 0.01"),
    ("temperature", "Parameter temperature: 0 is invalid, minimum 0.1"), ("temperature", "temperature: [0.1, 1.0]"),
    ("temperature", "temperature must be between .01 and 2"), ("temperature", "temperature must be 0.1 or higher"),
    ("temperature", "Range of input: temperature 0.1 - 2"), ("temperature", "temperature should be above 0.05"),
    ("seed", "The seed parameter is no longer supported"), ("seed", "unexpected keyword argument 'seed'"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "message"), MANY_WORDS)
def test_a_refusal_is_understood_in_other_words(name: str, message: str) -> None:
    body = {"max_tokens": 9, "temperature": 0.0, "seed": 5}
    for said in (says_so(message), {"detail": message}, {"error": message}):
        found = refusal(Failure(f"HTTP 400: {message}", passing=False, status=400, said=said), body)
        assert found is not None and found.name == name
        assert name != "max_tokens" or found.instead in (None, "max_completion_tokens")


def test_two_refusals_one_after_the_other() -> None:
    with serving(without({"max_tokens": WANTS_NEWER, "temperature": OWN_TEMPERATURE})) as server:
        llm = ApiLLM(ApiSettings("toy", server.base_url, KEY, retries=0))
        assert [chat(llm).attempts for _ in range(2)] == [3, 1]
        assert server.seen[-1].keys() == {"model", "messages", "max_completion_tokens"}
        assert chat(ApiLLM(llm.settings)).attempts == 3, "another client has to learn it itself"


def test_sixteen_at_once_are_told_once(caplog: pytest.LogCaptureFixture) -> None:
    with serving(without({"max_tokens": WANTS_NEWER, "temperature": OWN_TEMPERATURE})) as server:
        llm = ApiLLM(ApiSettings("toy", server.base_url, KEY, retries=0))

        async def many() -> list[str]:
            return [text.text for text in await asyncio.gather(*(llm.chat([("user", str(n))]) for n in range(16)))]

        assert asyncio.run(many()) == ["four"] * 16 and len(server.seen) <= 48
    assert caplog.text.count("does not take") == 2


@pytest.mark.parametrize(
    "behaviour",
    [
        replies(WANTS_NEWER, 400), replies(OWN_TEMPERATURE, 400),
        without({"max_tokens": WANTS_NEWER, "max_completion_tokens":
                 says_so("Unsupported parameter: 'max_completion_tokens'. Use 'max_tokens' instead.")}),
        replies(says_so("temperature, max_tokens, seed are not supported"), 400),
    ],
)  # fmt: skip
def test_no_server_is_asked_for_ever(behaviour: Behaviour) -> None:
    message, requests = failed(behaviour)
    assert 2 <= requests <= 4 and "HTTP 400" in message


@pytest.mark.parametrize(
    "behaviour",
    [
        fails(400, "max_tokens is too large: 9. This model supports at most 5 completion tokens"),
        fails(400, "Invalid max_tokens value, the valid range of max_tokens is [1, 8192]"),
        fails(400, "Range of max_tokens should be [1, 8192]"),
        fails(400, "temperature must be in [0, 2], got 3"),
        fails(400, "This model's maximum context length is 4096 tokens; you asked for 9 in max_tokens"),
        fails(400, "messages[0].role does not support 'system' with this model"),
        fails(404, "model is not supported"), fails(400, "the model `toy` is not supported"),
        fails(401, "max_tokens is not supported for this key"), fails(400, "no"),
        replies({"error": {"message": "bad", "param": "temperature", "code": "invalid_value"}}, 400),
    ],
)  # fmt: skip
def test_what_is_no_such_refusal_stays_one_request(behaviour: Behaviour) -> None:
    assert failed(behaviour)[1] == 1


@pytest.mark.parametrize(
    "message",
    [
        "temperature must be 1 or less", "temperature must be 0 - 2", "temperature should be between 0 and 2",
        "please use a temperature of 1 or lower", "temperature must be 1 at most", "temperature must be at least 0",
        "temperature must be 0 <= t", "temperature: value -1 out of range (0..2)", "temperature must be >= 0.0",
        "temperature: [0, 1]", "temperature must be 0.0 or higher", "temperature (since 2024-02-01) must be a number",
        "temperature must be less than or equal to 2", "temperature must be at most 1, at least 0",
        "temperature must be less than 2", "max_tokens must be less than max_output_tokens 8192",
        "max_tokens must be 1 for this model", "use max_tokens or max_completion_tokens",
    ],
)  # fmt: skip
def test_a_range_is_no_refusal(message: str) -> None:
    said = Failure(f"HTTP 400: {message}", passing=False, status=400, said=says_so(message))
    assert refusal(said, {"max_tokens": 9, "temperature": 0.0, "seed": 5}) is None


@pytest.mark.parametrize(
    "error",
    [
        {"message": "Your prompt about how to seed a lawn is not allowed by our content policy"},
        {"message": "content about temperature in reactors is not permitted"},
        {"message": "Questions about temperature are not allowed"},
        {"message": "Asking how to seed clouds is not allowed"},
        {"message": "Requests to seed a lawn are not permitted"},
        {"message": "You can't use seed oils"}, {"message": "Do not change the temperature of a reactor"},
        {"message": "Seed banks are forbidden"},
        {"message": "We do not allow seed oils"}, {"message": "Raising the temperature of a lab is not allowed"},
        {"message": "'temperature' is not allowed", "code": "content_filter"},
        {"message": "'seed' is not permitted", "code": "content_policy_violation"},
        {"message": "seed is not allowed", "param": "prompt"},
        {"message": "seed is not allowed", "param": "messages[0]"},
        {"message": "seed is not allowed", "innererror": {"code": "ResponsibleAIPolicyViolation"}},
        {"message": "The response was filtered due to the prompt triggering our policy: 'temperature' is not allowed"},
        {"message": "seed is not allowed", "code": "DataInspectionFailed"},
    ],
)  # fmt: skip
def test_what_is_said_of_the_question_touches_no_field(error: dict[str, Any]) -> None:
    message, requests = failed(replies({"error": error}, 400), retries=0)
    assert requests == 1 and "HTTP 400" in message
    said = Failure(f"HTTP 400: {error['message']}", passing=False, status=400, said={"error": error})
    assert refusal(said, {"max_tokens": 9, "temperature": 0.7, "seed": 5}) is None


def test_an_option_given_by_hand_is_not_dropped_unless_it_changes_no_text() -> None:
    both = {
        "top_p": says_so("Unsupported parameter: 'top_p'"), "stream_options": says_so("Unknown name: stream_options"),
    }  # fmt: skip
    with serving(without(both)) as server:
        with pytest.raises(ApiError, match=r"after 1 attempt .*--api_option top_p= leaves it out"):
            chat(by_flags(server.base_url, "--api_option", "top_p=0.5"))
        assert chat(by_flags(server.base_url, "--api_option", "stream_options=none")).attempts == 2
    message, requests = failed(replies(OWN_TEMPERATURE, 400), extra={"temperature": 0.3})
    assert requests == 1 and "--api_option temperature= leaves it out" in message


def test_what_is_mended_says_what_it_means(caplog: pytest.LogCaptureFixture) -> None:
    asked(without({"temperature": OWN_TEMPERATURE}))
    assert "temperature 0.0; it is left out from now on: texts are now drawn at the server's own" in caplog.text
