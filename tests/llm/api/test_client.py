"""Text over real HTTP, from a server that behaves and from one that does not."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from collections.abc import Callable
from email.utils import formatdate
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from chat_server import Behaviour, answers, completion, cuts, fails, hangs, says, sends, serving
from threads import at_once

from gcache.environment import API_KEYS, api_variables
from gcache.errors import ApiError, BudgetSpent, ConfigError
from gcache.llm.api.client import DASHSCOPE, OPENAI, ApiLLM, ApiSettings, ApiText, Budget
from gcache.llm.api.limits import ApiLimits
from gcache.llm.api.outcome import Failure

KEY = "sk-very-secret-0123"


@pytest.fixture(autouse=True)
def no_surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No key, address or model of whoever runs the tests, and short waits."""
    for name in (*API_KEYS, "BASE_URL", "API_MODEL", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("gcache.llm.api.client.FIRST_WAIT", 0.05)


def ask(*script: Behaviour, budget: Budget | None = None, **settings: Any) -> tuple[ApiText, list[dict[str, Any]]]:
    """One question to a server that does what the script says; its answer and what the server saw."""
    with serving(*script) as server:
        llm = ApiLLM(ApiSettings("toy", server.base_url, KEY, **{"timeout": 5.0, **settings}), budget)

        async def one() -> ApiText:
            try:
                return await llm.chat([("system", "be brief"), ("user", "2 + 2?")], max_new_tokens=9)
            finally:
                await llm.aclose()

        return asyncio.run(one()), server.seen


def failing(*script: Behaviour, **settings: Any) -> tuple[str, int]:
    """The message of a call that fails for good, and how many requests the server saw."""
    with serving(*script) as server:
        llm = ApiLLM(ApiSettings("toy", server.base_url, KEY, **{"timeout": 5.0, **settings}))
        with pytest.raises(ApiError) as caught:
            asyncio.run(llm.chat([("user", "2 + 2?")]))
        return str(caught.value), len(server.seen)


# -- a server that behaves ------------------------------------------------------------------------


def test_what_is_asked_and_what_comes_back() -> None:
    text, seen = ask(says("four", prompt=11, written=1))
    assert text == ApiText("four", 11, 1, "stop", 1)
    assert seen == [
        {
            "model": "toy", "max_tokens": 9, "temperature": 0.0,
            "messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "2 + 2?"}],
        }
    ]  # fmt: skip


def test_a_drawn_text_names_its_seed_and_further_fields_are_passed_on() -> None:
    with serving(says("four")) as server:
        llm = ApiLLM(ApiSettings("toy", server.base_url, extra={"enable_thinking": False}))
        asyncio.run(llm.chat([("user", "2 + 2?")], temperature=0.7, seed=5))
        assert server.seen[0]["seed"] == 5 and server.seen[0]["enable_thinking"] is False
        assert "seed" not in ask(says("four"))[1][0]


@pytest.mark.parametrize("seed", [0, 7, -3, 2**53, 2**53 + 1, 2**63, 2**64 - 1, -(2**70)])
def test_a_seed_is_sent_as_servers_take_it(seed: int) -> None:
    """vLLM answers 400 to one of more than 63 bits and a sign."""
    with serving(says("four")) as server:
        llm = ApiLLM(ApiSettings("toy", server.base_url, KEY, retries=0))
        asyncio.run(llm.chat([("user", "2 + 2?")], temperature=0.7, seed=seed))
    (body,) = server.seen
    assert abs(body["seed"]) <= 2**53 and (body["seed"] == seed or abs(seed) > 2**53)


def test_embeddings_are_sent_beside_no_prompt() -> None:
    """vLLM takes a text, even an empty one, for a further prompt, and an empty prompt gets 400."""
    choice = {"index": 0, "finish_reason": "stop", "text": "four"}
    with serving(answers({**completion("four"), "object": "text_completion", "choices": [choice]})) as server:
        llm = ApiLLM(ApiSettings("toy", server.base_url, KEY, retries=0, extra={"top_k": 1}))
        assert asyncio.run(llm.complete("AAAA", 9)).text == "four"
    assert server.seen == [
        {
            "model": "toy", "max_tokens": 9, "temperature": 0.0, "prompt": None, "prompt_embeds": "AAAA", "top_k": 1,
        }
    ]  # fmt: skip


def test_the_key_goes_to_the_server_and_nowhere_else() -> None:
    settings = ApiSettings("toy", "http://localhost:1/v1", KEY)
    assert KEY not in repr(settings) and KEY not in json.dumps(settings.public())
    with serving(says("four")) as server:
        asyncio.run(ApiLLM(ApiSettings("toy", server.base_url, KEY)).chat([("user", "hello")]))
        assert server.headers[0]["authorization"] == f"Bearer {KEY}"


def test_one_model_serves_one_event_loop_after_another() -> None:
    with serving(says("four")) as server:
        llm = ApiLLM(ApiSettings("toy", server.base_url, concurrency=1))

        async def both() -> list[ApiText]:
            return list(await asyncio.gather(llm.chat([("user", "a")]), llm.chat([("user", "b")])))

        assert [text.text for _ in range(3) for text in asyncio.run(both())] == ["four"] * 6


def test_no_more_at_once_than_allowed() -> None:
    with serving(slowly) as server:
        llm = ApiLLM(ApiSettings("toy", server.base_url, concurrency=3))

        async def many() -> None:
            await asyncio.gather(*(llm.chat([("user", str(n))]) for n in range(12)))

        asyncio.run(many())
        assert len(server.seen) == 12 and server.most_at_once == 3


def slowly(handler: Any, body: dict[str, Any]) -> None:
    time.sleep(0.05)
    says("four")(handler, body)


def test_limits_hold_for_all_threads_together() -> None:
    with serving(slowly) as server:
        llm = ApiLLM(ApiSettings("toy", server.base_url, concurrency=2))

        async def some() -> list[str]:
            texts = await asyncio.gather(*(llm.chat([("user", str(n))]) for n in range(5)))
            return [text.text for text in texts]

        assert at_once([lambda: asyncio.run(some())] * 4) == [["four"] * 5] * 4
        assert len(server.seen) == 20 and server.most_at_once == 2
        assert len(llm._lines) == 0, "loops that have ended are kept"


def test_attempts_of_all_threads_are_spaced_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that goes on only as somebody sleeps."""
    limits, now, lock = ApiLimits(64, 10.0), [0.0], threading.Lock()
    starts: list[float] = []
    pause = limits._pause

    async def sleep(seconds: float) -> None:
        with lock:
            now[0] += max(seconds / 2, 1e-10)  # halves alone would stop short of the time for ever

    def noted() -> float:
        with lock:
            seconds = pause()
            starts.extend([now[0]] if not seconds else [])
            return seconds

    monkeypatch.setattr("gcache.llm.api.limits.time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr("gcache.llm.api.limits.asyncio", SimpleNamespace(sleep=sleep))
    monkeypatch.setattr(limits, "_pause", noted)

    async def attempts() -> None:
        for _ in range(20):
            await limits.attempt()

    assert at_once([lambda: asyncio.run(attempts())] * 3) == [None] * 3
    assert len(starts) == 60 and all(b - a >= 0.1 - 1e-9 for a, b in pairwise(starts))


def test_a_loop_that_stands_still_keeps_no_other_waiting() -> None:
    limits = ApiLimits(1)
    still, goes = asyncio.new_event_loop(), asyncio.new_event_loop()
    taken: list[str] = []

    async def take(name: str) -> None:
        async with limits.place():
            taken.append(name)

    async def begin() -> asyncio.Task[None]:
        async with limits.place():
            task = asyncio.ensure_future(take("still"))
            await asyncio.sleep(0)
        return task

    try:
        waiting = still.run_until_complete(begin())
        goes.run_until_complete(asyncio.wait_for(take("goes"), 10))
        still.run_until_complete(asyncio.wait_for(waiting, 10))
    finally:
        still.close()
        goes.close()
    assert taken == ["goes", "still"]


def test_a_budget_is_kept_by_all_threads_together() -> None:
    budget = Budget(1000)

    def spend() -> int:
        spent = 0
        try:
            while True:
                budget.attempt()
                spent += 1
        except BudgetSpent:
            return spent

    assert sum(at_once([spend] * 4)) == budget.requests == 1000  # type: ignore[arg-type]


@pytest.mark.slow
def test_200_requests_at_20_a_second_take_their_time_and_none_is_lost() -> None:
    with serving(lambda handler, body: says(body["messages"][0]["content"])(handler, body)) as server:
        llm = ApiLLM(ApiSettings("toy", server.base_url, requests_per_second=20, concurrency=64))

        async def many() -> list[ApiText]:
            return list(await asyncio.gather(*(llm.chat([("user", str(n))]) for n in range(200))))

        began = time.monotonic()
        texts = asyncio.run(many())
        took = time.monotonic() - began
        assert [text.text for text in texts] == [str(n) for n in range(200)]
        assert took >= 9.5
        starts = sorted(server.times)
        assert all(after - before >= 0.9 for before, after in zip(starts, starts[20:], strict=False))


# -- and one that does not ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "trouble",
    [
        [fails(429)],
        [fails(500), fails(500)],
        [fails(503)],
        [cuts],
        [cuts, fails(502), fails(429)],
    ],
)
def test_what_passes_is_tried_again(trouble: list[Behaviour]) -> None:
    text, seen = ask(*trouble, says("four"))
    assert text.text == "four" and text.attempts == len(seen) == len(trouble) + 1


@pytest.mark.parametrize("header", [lambda: "0.6", lambda: formatdate(time.time() + 2, usegmt=True)])
def test_the_server_says_when(header: Callable[[], str]) -> None:
    with serving(fails(429, Retry_After=header()), says("four")) as server:
        asyncio.run(ApiLLM(ApiSettings("toy", server.base_url)).chat([("user", "hello")]))
        assert server.times[1] - server.times[0] >= 0.55


def test_a_server_that_asks_to_wait_for_an_hour_is_not_waited_for() -> None:
    message, requests = failing(fails(429, Retry_After="3600"), says("four"))
    assert requests == 1 and "it asks to wait 3600 s" in message


def test_waits_grow_and_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gcache.llm.api.client.FIRST_WAIT", 0.5)
    llm = ApiLLM(ApiSettings("toy", "http://localhost:1/v1"))
    for attempt, (low, high) in enumerate([(0.25, 0.5), (0.5, 1.0), (1.0, 2.0)], start=1):
        waits = {llm._wait(Failure("HTTP 500", True), attempt) for _ in range(50)}
        assert len(waits) > 10 and all(low <= wait <= high for wait in waits)
    assert llm._wait(Failure("HTTP 500", True), 40) <= 30


def test_a_hang_ends_at_the_time_limit_and_is_tried_again() -> None:
    text, seen = ask(hangs(1.5), says("four"), timeout=0.3)
    assert text.text == "four" and len(seen) == 2


def test_a_body_that_trickles_ends_at_the_time_limit() -> None:
    def trickles(handler: Any, _: dict[str, Any]) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        for _ in range(20):
            handler.wfile.write(b" ")
            handler.wfile.flush()
            time.sleep(0.1)

    began = time.monotonic()
    message, requests = failing(trickles, timeout=0.4, retries=1)
    assert requests == 2 and "nothing for 0.4 s" in message and time.monotonic() - began < 1.9


def test_patience_ends() -> None:
    message, requests = failing(fails(500, "on fire"), retries=2)
    assert requests == 3
    assert message.endswith("failed after 3 attempts for the model 'toy': HTTP 500: on fire") or "on fire" in message
    assert "after 3 attempts" in message and "HTTP 500" in message


@pytest.mark.parametrize(
    ("behaviour", "said"),
    [
        (fails(400, "max_tokens is too large"), "max_tokens is too large"),
        (fails(401, "who are you"), "(check API_KEY)"),
        (fails(404, "no such model"), "no such model"),
        (sends(b'{"choices": [{"mess'), "cannot be read"),
        (sends(b"<html>not an API</html>", "text/html"), "without choices"),
        (answers({"id": "x", "object": "chat.completion", "choices": []}), "without choices"),
        (answers({**completion("x"), "choices": None}), "without choices"),
        (answers([]), "without choices"),
        (answers({**completion("x"), "choices": [{"index": 0, "finish_reason": "stop"}]}), "without text"),
        (answers({**completion("x"), "choices": ["x"]}), "without text"),
    ],
)
def test_what_does_not_pass_is_not_tried_again(behaviour: Behaviour, said: str) -> None:
    message, requests = failing(behaviour)
    assert requests == 1 and said in message and "after 1 attempt " in message and "\n" not in message


def test_nobody_there() -> None:
    llm = ApiLLM(ApiSettings("toy", "http://127.0.0.1:9/v1", retries=1))
    with pytest.raises(ApiError, match="no connection"):
        asyncio.run(llm.chat([("user", "hello")]))


def test_a_key_that_the_server_repeats_is_not_shown(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="gcache")
    message, _ = failing(fails(500, f"bad key {KEY}"), fails(401, f"bad key {KEY}"))
    assert KEY not in message and "bad key ***" in message
    assert KEY not in caplog.text and "bad key ***" in caplog.text


# -- budgets --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "most", "unit"),
    [("500requests", 500, "requests"), ("2e6tokens", 2_000_000, "tokens"), ("20 tokens", 20, "tokens")],
)
def test_budgets_are_read(text: str, most: int, unit: str) -> None:
    budget = Budget.parse(text)
    assert (budget.most, budget.unit) == (most, unit)


@pytest.mark.parametrize("text", ["", "500", "tokens", "0requests", "-3tokens", "1.5tokens", "infrequests", "5 euros"])
def test_budgets_that_are_none(text: str) -> None:
    with pytest.raises(ConfigError, match="api_budget"):
        Budget.parse(text)


def test_a_budget_of_requests_counts_attempts() -> None:
    budget = Budget(2)
    with serving(fails(500), says("four")) as server:
        llm = ApiLLM(ApiSettings("toy", server.base_url), budget)

        async def twice() -> None:
            assert (await llm.chat([("user", "a")])).text == "four"
            with pytest.raises(BudgetSpent, match="2 requests is spent; raise --api_budget"):
                await llm.chat([("user", "b")])

        asyncio.run(twice())
        assert len(server.seen) == 2


def test_a_budget_of_tokens_counts_the_servers_tokens() -> None:
    budget = Budget(25, "tokens")
    with serving(says("four", prompt=10, written=3)) as server:
        llm = ApiLLM(ApiSettings("toy", server.base_url), budget)

        async def until_spent() -> int:
            for number in range(9):
                try:
                    await llm.chat([("user", "a")])
                except BudgetSpent:
                    return number
            return 9

        assert asyncio.run(until_spent()) == 2 and budget.tokens == 26 and len(server.seen) == 2


def test_a_budget_of_tokens_needs_a_server_that_counts() -> None:
    uncounted = {**completion("four"), "usage": None}
    assert ask(answers(uncounted))[0] == ApiText("four", None, None, "stop", 1)
    with pytest.raises(ApiError, match="counts no tokens"):
        ask(answers(uncounted), budget=Budget(25, "tokens"))


# -- settings -------------------------------------------------------------------------------------


def test_flags_then_the_environment_then_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    Path(".env").write_text("API_KEY=of-the-file\nBASE_URL=http://file/v1\nAPI_MODEL=file\n", encoding="utf-8")
    found = ApiSettings.found()
    assert (found.key, found.base_url, found.model) == ("of-the-file", "http://file/v1", "file")
    monkeypatch.setenv("OPENAI_API_KEY", "of-the-environment")
    monkeypatch.setenv("BASE_URL", "http://environment/v1")
    monkeypatch.setenv("API_MODEL", "  ")  # empty counts as unset
    found = ApiSettings.found()
    assert (found.key, found.base_url, found.model) == ("of-the-environment", "http://environment/v1", "file")
    found = ApiSettings.found("flag", "http://flag/v1", "of-the-flag", timeout=3.0)
    assert (found.key, found.base_url, found.model, found.timeout) == ("of-the-flag", "http://flag/v1", "flag", 3.0)


@pytest.mark.parametrize(("name", "address"), [("DASHSCOPE_API_KEY", DASHSCOPE), ("OPENAI_API_KEY", OPENAI)])
def test_a_key_knows_its_address(monkeypatch: pytest.MonkeyPatch, name: str, address: str) -> None:
    monkeypatch.setenv(name, "k")
    assert ApiSettings.found("m").base_url == address
    assert api_variables() == {name: "k"}


def test_a_server_of_ones_own_needs_no_key_and_a_public_one_does() -> None:
    assert ApiSettings.found("m", "http://localhost:8000/v1").key == "none"
    with pytest.raises(ConfigError, match=r"no API key .* API_KEY, DASHSCOPE_API_KEY, OPENAI_API_KEY .* --base_url"):
        ApiSettings.found("m")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"model": ""}, "no API model is named; pass --api_model"),
        ({"base_url": "localhost:8000"}, "base_url must begin with http"),
        ({"base_url": "http://me:secret@localhost/v1"}, "must not hold a user name or a password"),
        ({"requests_per_second": 0.0}, "requests_per_second must be a finite number above 0, got 0"),
        ({"requests_per_second": float("nan")}, "requests_per_second must be a finite number above 0, got nan"),
        ({"timeout": 0.0}, "api_timeout must be a finite number of seconds above 0, got 0"),
        ({"concurrency": 0}, "api_concurrency must be 1 or more, got 0"),
        ({"retries": -1}, "api_retries must be 0 or more, got -1"),
    ],
)
def test_settings_that_are_not_allowed(values: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        ApiSettings(**{"model": "m", "base_url": "http://localhost/v1", **values})
