"""Responses that say no, and the one that carries an answer: whole, or as it is written."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, TypeAlias

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gcache.serve.deltas import Answer, Delta, Work
from gcache.serve.engine import post
from gcache.serve.refusals import Refused, refused
from gcache.serve.service import Service
from gcache.serve.wire import Form, as_bytes, sse

JSON = "application/json"


def json_response(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(as_bytes(body), status, headers, JSON)


def error_response(error: Refused) -> Response:
    return json_response(error.body(), error.status, error.headers)


def stream_error(error: Refused) -> bytes:
    """The last event of a stream that cannot go on."""
    return sse(error.body(number=True))


class _Ended:
    """Nothing more comes: the work is over, or the client is gone."""


_OVER, _GONE = _Ended(), _Ended()
_Coming: TypeAlias = "asyncio.Queue[Delta | _Ended]"


@dataclass(frozen=True)
class _Stream:
    """Sends a stream."""

    send: Send

    async def begin(self) -> None:
        headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-store")]
        await self.send({"type": "http.response.start", "status": 200, "headers": headers})

    async def more(self, body: bytes) -> None:
        await self.send({"type": "http.response.body", "body": body, "more_body": True})

    async def end(self, body: bytes = b"") -> None:
        await self.send({"type": "http.response.body", "body": body, "more_body": False})


class Answering(Response):
    """Works on a request while its client is there, and sends what comes of it.

    Whatever ends this call (the client going away, a deadline) ends the work.
    """

    def __init__(self, service: Service, work: Work, form: Form, stream: bool) -> None:
        self.service, self.work, self.form, self.stream = service, work, form, stream
        self.background = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        here = asyncio.get_running_loop()
        coming: _Coming = asyncio.Queue()
        work = here.create_task(self.service.answer(self.work, lambda told: post(here, coming.put_nowait, told)))
        gone = here.create_task(_until_gone(receive))
        work.add_done_callback(lambda task: coming.put_nowait(_OVER) if _known(task) else None)
        gone.add_done_callback(lambda _: coming.put_nowait(_GONE))
        try:
            if self.stream:
                await self._in_pieces(coming, work, _Stream(send))
            else:
                response = await self._whole(coming, work)
                if response is not None:
                    await response(scope, receive, send)
        finally:
            work.cancel()
            gone.cancel()

    async def _whole(self, coming: _Coming, work: asyncio.Task[Answer]) -> Response | None:
        """None where the client is gone."""
        events: list[dict[str, Any]] = []
        while isinstance(told := await coming.get(), Delta):
            if told.event is not None:
                events.append(told.event)
        return json_response(self.form.whole(work.result(), events)) if told is _OVER else None

    async def _in_pieces(self, coming: _Coming, work: asyncio.Task[Answer], stream: _Stream) -> None:
        """The status is sent once the work has begun, so that what is refused before has a status of its own."""
        told = await coming.get()
        if told is _OVER:
            work.result()  # raises what is wrong
        if told is _GONE:
            return
        await stream.begin()
        await stream.more(b"".join(self.form.opening()))
        while not isinstance(told, _Ended):
            if told.text or told.scored or told.reasoning:
                await stream.more(self.form.text(told.text, told.choice, told.scored, told.reasoning))
            if told.event is not None:
                await stream.more(self.form.event(told.event))
            told = await coming.get()
        if told is _GONE:
            return
        try:
            answer = work.result()
        except Exception as error:
            await stream.end(stream_error(refused(error)))
            return
        await stream.more(b"".join(self.form.closing(answer)))
        await stream.end()


def _known(task: asyncio.Task[Answer]) -> bool:
    """Always; but an error that nobody is left to hear of is not complained about."""
    return task.cancelled() or task.exception() is not None or True


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
