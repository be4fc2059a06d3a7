"""What bounds a service: places, a deadline, a key, bytes; and who is heard when they go away."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest
from toy import QUESTIONS

from gcache.build import Built
from gcache.errors import ApiError
from gcache.serve.app import create_app
from gcache.serve.model import ServedModel
from gcache.serve.service import Service
from gcache.serve.settings import ServeSettings

ASKED = {"messages": [{"role": "user", "content": QUESTIONS[0]}]}
CHAT = "/v1/chat/completions"


def raw(url: str, body: bytes = b"", *headers: str, method: str = "POST", path: str = CHAT) -> socket.socket:
    """A request on a socket of its own."""
    place = urlsplit(url)
    connection = socket.create_connection((place.hostname or "", place.port or 0), timeout=20)
    lines = [f"{method} {path} HTTP/1.1", "Host: here", "Content-Type: application/json", *headers]
    connection.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
    return connection


def asking(url: str, **more: Any) -> socket.socket:
    body = json.dumps({**ASKED, **more}).encode()
    return raw(url, body, f"Content-Length: {len(body)}")


# -- places ---------------------------------------------------------------------------------------


def test_past_the_queue_clients_are_told_when_to_come_back(start: Any, held: Any, until: Any) -> None:
    served = start(held.served, max_running=1, max_waiting=1)
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(served.post, **ASKED)
        held.came()
        second = threads.submit(served.post, **ASKED)
        until(lambda: served.service.places.waiting == 1)
        refused = served.post(**ASKED)
        assert refused.status_code == 429 and int(refused.headers["retry-after"]) >= 1
        assert refused.json()["error"]["type"] == "rate_limit_error"
        metrics = httpx2.get(f"{served.url}/metrics").text
        assert "gcache_running 1.0" in metrics and "gcache_waiting 1.0" in metrics
        assert "gcache_refused_total 1.0" in metrics
        assert f'gcache_requests_total{{route="{CHAT}",status="429"}} 1.0' in metrics
        held.let_go()
        assert [first.result().status_code, second.result().status_code] == [200, 200]
    until(lambda: served.service.places.running == 0)


def test_a_stream_is_refused_with_a_status_as_well(start: Any, held: Any) -> None:
    served = start(held.served, max_running=1, max_waiting=0)
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(served.post, **ASKED)
        held.came()
        assert served.post(**ASKED, stream=True).status_code == 429
        held.let_go()
        assert first.result().status_code == 200


# -- who goes away --------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_goes_away_ends_its_run(start: Any, held: Any, until: Any, stream: bool) -> None:
    served = start(held.served, max_running=1)
    with asking(served.url, stream=stream):
        held.came()
        assert served.service.engine.running == 1
    assert held.given_up.wait(20)
    until(lambda: served.service.places.running == 0)
    assert served.service.engine.running == 0
    held.let_go()
    assert served.post(**ASKED).status_code == 200


def test_a_client_that_goes_away_while_it_waits_leaves_the_queue(start: Any, held: Any, until: Any) -> None:
    served = start(held.served, max_running=1)
    with asking(served.url):
        held.came()
        with asking(served.url):
            until(lambda: served.service.places.waiting == 1)
        until(lambda: served.service.places.waiting == 0)
        assert served.service.places.running == 1


def test_a_text_in_the_making_ends_with_its_client(start: Any, until: Any, toy: Callable[..., Built]) -> None:
    served = start()
    expected = toy().graph.run(QUESTIONS[1]).answer
    body = {**ASKED, "max_tokens": 440, "temperature": 2, "stream": True}
    with httpx2.stream("POST", served.url + CHAT, json=body, timeout=20) as answer:
        lines = (line for line in answer.iter_lines() if line)
        while not json.loads(next(lines).removeprefix("data: "))["choices"][0]["delta"].get("content"):
            pass
    until(lambda: served.service.places.running == 0)
    assert served.ask(QUESTIONS[1])["choices"][0]["message"]["content"] == expected
    assert served.service.engine.running == 0


# -- the deadline ---------------------------------------------------------------------------------


def test_no_answer_within_the_deadline_is_504(start: Any, held: Any, until: Any) -> None:
    served = start(held.served, deadline=0.2)
    answer = served.post(**ASKED)
    assert answer.status_code == 504 and answer.json()["error"]["type"] == "timeout_error"
    assert held.given_up.wait(20)
    until(lambda: served.service.places.running == 0)


def test_a_stream_that_takes_too_long_ends_with_an_error(start: Any, held: Any) -> None:
    served = start(held.served, deadline=1.0)
    answer = served.post(**ASKED, stream=True)
    assert answer.status_code == 200
    last = [line for line in answer.text.splitlines() if line][-1]
    error = json.loads(last.removeprefix("data: "))["error"]
    assert error["code"] == "deadline" and "1 seconds" in error["message"]
    assert held.given_up.wait(20)


def test_waiting_counts_towards_the_deadline(start: Any, held: Any) -> None:
    served = start(held.served, max_running=1, deadline=0.5)
    with asking(served.url):
        held.came()
        assert served.post(**ASKED).status_code == 504


def test_a_body_that_never_ends_is_cut_off(start: Any, held: Any) -> None:
    served = start(held.served, deadline=0.2)
    with raw(served.url, b'{"messages"', "Content-Length: 100") as connection:
        assert b" 504 " in connection.recv(1000)


async def test_a_client_that_reads_nothing_holds_no_place_past_the_deadline(toy: Callable[..., Built]) -> None:
    service = Service("toy", ServeSettings(deadline=0.5))
    service.engine.start()
    await service.load(lambda: ServedModel.of(toy(), "toy"))
    body = json.dumps({**ASKED, "stream": True}).encode()
    came = iter([{"type": "http.request", "body": body, "more_body": False}])
    sent: list[str] = []

    async def receive() -> Any:
        try:
            return next(came)
        except StopIteration:
            return await asyncio.Event().wait()

    async def send(message: Any) -> None:
        sent.append(message["type"])
        if message["type"] == "http.response.body":  # its buffers are full, and it reads none of it
            await asyncio.Event().wait()

    scope: Any = {
        "type": "http", "method": "POST", "path": CHAT, "raw_path": CHAT.encode(), "query_string": b"",
        "headers": [(b"content-type", b"application/json")], "http_version": "1.1", "scheme": "http",
        "server": ("here", 80), "client": ("there", 1), "root_path": "",
    }  # fmt: skip
    await asyncio.wait_for(create_app(service)(scope, receive, send), 20)
    assert sent[0] == "http.response.start" and "http.response.body" in sent
    while service.places.running:
        await asyncio.sleep(0.01)
    assert service.engine.running == 0
    await asyncio.to_thread(service.engine.stop)


# -- the key --------------------------------------------------------------------------------------


def test_the_key_is_asked_for_where_it_should_be(start: Any, held: Any) -> None:
    held.let_go()
    served = start(held.served, key="s3cret-ü")
    right = {"Authorization": "Bearer s3cret-ü".encode()}
    for method, path in (("GET", "/v1/models"), ("GET", "/metrics"), ("POST", CHAT), ("GET", "/v1/none")):
        for headers in (
            {}, {"Authorization": "Bearer wrong"}, {"Authorization": "s3cret-ü".encode()},
            {"Authorization": "Basic s3cret-ü".encode()}, {"Authorization": "Bearer"},
        ):  # fmt: skip
            answer = httpx2.request(method, served.url + path, headers=headers)
            assert answer.status_code == 401 and answer.headers["www-authenticate"] == "Bearer"
            assert "s3cret" not in answer.text
        assert httpx2.request(method, served.url + path, headers=right, json=ASKED).status_code in (200, 404)
    for path in ("/health", "/ready", "/", "/openapi.json"):
        assert httpx2.get(served.url + path).status_code == 200
    assert httpx2.get(served.url + "/openapi.json").json()["components"]["securitySchemes"]


def test_other_origins_are_let_in_only_where_they_are_named(start: Any, held: Any, server: Any) -> None:
    asks = {"Origin": "https://a.example", "Access-Control-Request-Method": "POST"}
    served = start(held.served, cors=("https://a.example",), key="k")
    assert httpx2.options(served.url + CHAT, headers=asks).headers["access-control-allow-origin"] == "https://a.example"
    refused = httpx2.post(served.url + CHAT, headers={"Origin": "https://a.example"})
    assert refused.status_code == 401 and refused.headers["access-control-allow-origin"] == "https://a.example"
    other = httpx2.options(served.url + CHAT, headers={**asks, "Origin": "https://b.example"})
    assert "access-control-allow-origin" not in other.headers
    assert "access-control-allow-origin" not in httpx2.options(server.url + CHAT, headers=asks).headers


# -- bytes ----------------------------------------------------------------------------------------


def test_large_bodies_are_refused_by_what_they_announce(start: Any, held: Any) -> None:
    served = start(held.served, max_body=1000)
    with raw(served.url, b"", "Content-Length: 1001") as connection:  # none of them sent
        assert b" 413 " in connection.recv(1000)


def test_large_bodies_are_refused_while_they_are_read(start: Any, held: Any) -> None:
    held.let_go()
    served = start(held.served, max_body=1000)
    chunk = b"190\r\n" + b" " * 400 + b"\r\n"
    with raw(served.url, chunk * 3, "Transfer-Encoding: chunked") as connection:  # and no end of it
        assert b" 413 " in connection.recv(1000)
    body = json.dumps(ASKED).encode()
    small = f"{len(body):x}\r\n".encode() + body + b"\r\n0\r\n\r\n"
    with raw(served.url, small, "Transfer-Encoding: chunked") as connection:
        assert b" 200 " in connection.recv(1000)


def test_embeddings_may_fill_more_bytes_than_texts(server: Any, start: Any) -> None:
    body = {"prompt_embeds": "A" * (5 * 2**20)}
    refused = server.post("/v1/completions", **body)
    assert refused.status_code == 400 and "torch.save" in refused.json()["error"]["message"]
    assert start().post("/v1/completions", **body).status_code == 413


# -- failures -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [(ApiError("the API failed"), 502, "the API failed"), (RuntimeError("secret of ours"), 500, "RuntimeError")],
)
def test_a_failure_is_told_in_one_sentence(
    start: Any, held: Any, error: Exception, status: int, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    held.error = error
    held.let_go()
    served = start(held.served)
    answer = served.post(**ASKED)
    assert answer.status_code == status and said in answer.json()["error"]["message"]
    assert "secret of ours" not in answer.text
    streamed = served.post(**ASKED, stream=True)
    last = [line for line in streamed.text.splitlines() if line][-1]
    assert streamed.status_code == 200 and json.loads(last.removeprefix("data: "))["error"]["code"] == status
    assert (str(error) in caplog.text) or status == 502
    held.error = None
    assert served.post(**ASKED).status_code == 200


def test_a_stop_word_ends_an_apis_text_as_well(start: Any, held: Any) -> None:
    held.let_go()
    served = start(held.served)
    body = served.ask("when ?", stop=" last")
    assert body["choices"][0]["message"]["content"] == "at" and body["choices"][0]["finish_reason"] == "stop"
    assert body["usage"] == {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}


# -- beginning and end ----------------------------------------------------------------------------


async def test_it_is_ready_when_the_model_is_there(toy: Callable[..., Built]) -> None:
    service = Service("toy", ServeSettings())
    service.engine.start()
    goes_on = threading.Event()

    def slow() -> ServedModel:
        goes_on.wait(20)
        return ServedModel.of(toy(), "toy")

    transport = httpx2.ASGITransport(create_app(service))
    async with httpx2.AsyncClient(transport=transport, base_url="http://here") as client:
        loading = asyncio.create_task(service.load(slow))
        await asyncio.sleep(0)
        assert (await client.get("/health")).status_code == 200
        assert (await client.get("/ready")).json() == {"status": "loading"}
        early = await client.post(CHAT, json=ASKED)
        assert early.status_code == 503 and early.headers["retry-after"]
        goes_on.set()
        await loading
        assert (await client.get("/ready")).json() == {"status": "ready"}
        assert (await client.post(CHAT, json=ASKED)).status_code == 200
        service.draining = True
        ready = await client.get("/ready")
        assert (ready.status_code, ready.json()) == (503, {"status": "draining"})
    await asyncio.to_thread(service.engine.stop)


def test_what_is_being_answered_is_answered_before_the_end(start: Any, held: Any, until: Any) -> None:
    served = start(held.served)
    with ThreadPoolExecutor(1) as threads:
        answer = threads.submit(served.post, **ASKED)
        held.came()
        served.stop()
        until(lambda: served.service.draining and not _listens(served.url))
        held.let_go()
        assert answer.result().status_code == 200


def _listens(url: str) -> bool:
    place = urlsplit(url)
    try:
        with socket.create_connection((place.hostname or "", place.port or 0), timeout=1):
            return True
    except OSError:
        return False
