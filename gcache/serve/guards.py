"""What stands before the routes: a key, a limit of bytes, a deadline, headers for browsers.

They are plain ASGI layers, so they hold whatever the routes do: also while a body is being read, and while an
answer waits for a client that does not read it.
"""

from __future__ import annotations

import hmac
import logging

import anyio
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gcache.serve.refusals import Refused
from gcache.serve.responses import error_response, stream_error

logger = logging.getLogger(__name__)

#: Seconds in which a client may still be told that its time is over.
LAST_WORDS = 1.0
#: For every response.
HEADERS = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "X-Frame-Options": "DENY"}


def is_guarded(path: str) -> bool:
    """Whether a path needs the key."""
    return path == "/metrics" or path == "/v1" or path.startswith("/v1/")


class Headers:
    """Puts `HEADERS` on every response."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self.app(scope, receive, with_headers if scope["type"] == "http" else send)


class Deadline:
    """Ends a request after so many seconds, whatever it waits for: a place, the model, or its reader.

    A request that has no answer yet gets 504; a stream that has begun gets an error as its last event, if the
    client reads it.
    """

    def __init__(self, app: ASGIApp, seconds: float) -> None:
        self.app, self.seconds = app, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith("/v1/"):
            await self.app(scope, receive, send)
            return
        begun, streams, ended = False, False, False

        async def noted(message: Message) -> None:
            nonlocal begun, streams, ended
            await send(message)
            if message["type"] == "http.response.start":
                begun = True
                streams = (MutableHeaders(scope=message).get("content-type") or "").startswith("text/event-stream")
            elif message["type"] == "http.response.body":
                ended = not message.get("more_body", False)

        with anyio.move_on_after(self.seconds) as limit:
            await self.app(scope, receive, noted)
        if not limit.cancelled_caught or ended:
            return
        late = Refused(504, f"no answer within the deadline of {self.seconds:g} seconds", code="deadline")
        logger.info("%s: %s", scope["path"], late.message)
        if not begun:
            await error_response(late)(scope, receive, send)
        elif streams:
            with anyio.move_on_after(LAST_WORDS):
                await send({"type": "http.response.body", "body": stream_error(late), "more_body": False})


class Key:
    """Asks for the key, where there is one."""

    def __init__(self, app: ASGIApp, key: str | None) -> None:
        self.app = app
        self.key = None if key is None else key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or self.key is None or not is_guarded(scope["path"]) or self._is_right(scope):
            await self.app(scope, receive, send)
            return
        wrong = Refused(
            401, "the API key is missing or wrong; send it as the header Authorization: Bearer KEY",
            code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"},
        )  # fmt: skip
        await error_response(wrong)(scope, receive, send)

    def _is_right(self, scope: Scope) -> bool:
        assert self.key is not None
        sent = [value for name, value in scope["headers"] if name == b"authorization"]
        kind, _, token = (sent[0] if len(sent) == 1 else b"").partition(b" ")
        return hmac.compare_digest(token.strip(), self.key) and kind.lower() == b"bearer"


class BodyLimit:
    """Refuses bodies of too many bytes, by what is announced and by what is read."""

    def __init__(self, app: ASGIApp, most: int) -> None:
        self.app, self.most = app, most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        announced = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        if not announced.isdigit() or int(announced) > self.most:
            await error_response(self._too_large())(scope, receive, send)
            return
        read = 0

        async def counted() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > self.most:
                raise self._too_large()
            return message

        await self.app(scope, counted, send)

    def _too_large(self) -> Refused:
        return Refused(413, f"the body is larger than {self.most} bytes, which is the limit", code="body_too_large")
