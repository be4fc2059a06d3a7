"""What the service counts, for Prometheus."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

#: Paths that are counted by name; any other is "other", or a stranger could make up names without end.
ROUTES = frozenset({
    "/", "/health", "/ready", "/metrics", "/openapi.json", "/v1/models", "/v1/chat/completions", "/v1/completions",
    "/v1/topology",
})  # fmt: skip
#: Likewise, with a name behind it.
OF_A_MODEL = "/v1/models/"
#: What a request is counted as whose client went away before an answer began.
GONE = 499
#: Bounds, in seconds, of the times that are counted.
SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 300)


class Metrics:
    """Counters of one service, in a registry of their own.

    Args:
        running, waiting, cache_bytes: looked up when somebody asks.
    """

    def __init__(self, running: Callable[[], int], waiting: Callable[[], int], cache_bytes: Callable[[], int]) -> None:
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

        self.registry = CollectorRegistry()
        own: dict[str, Any] = {"registry": self.registry}
        self._requests = Counter("gcache_requests", "Requests, by route and HTTP status", ["route", "status"], **own)
        self._refused = Counter("gcache_refused", "Requests that found the queue full", **own)
        self._seconds = Histogram(
            "gcache_request_seconds", "From a request's start to its answer's end", ["route"], buckets=SECONDS, **own
        )
        self._generated = Counter("gcache_tokens_generated", "Tokens that the local model wrote", **own)
        self._prefilled = Counter("gcache_tokens_prefilled", "Tokens that the local model read", **own)
        for name, text, value in (
            ("gcache_running", "Questions in the engine", running),
            ("gcache_waiting", "Questions that wait for a place", waiting),
            ("gcache_cache_bytes", "Bytes of the KV caches that are alive", cache_bytes),
        ):
            Gauge(name, text, **own).set_function(value)

    def refused(self) -> None:
        self._refused.inc()

    def tokens(self, prefilled: int, generated: int) -> None:
        self._prefilled.inc(prefilled)
        self._generated.inc(generated)

    def request(self, path: str, status: int, seconds: float) -> None:
        route = path if path in ROUTES else f"{OF_A_MODEL}NAME" if path.startswith(OF_A_MODEL) else "other"
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def text(self) -> bytes:
        """In Prometheus' text format."""
        from prometheus_client import generate_latest

        return generate_latest(self.registry)


class Counted:
    """Counts every request to an app."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status = time.monotonic(), GONE

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, noted)
        finally:
            self.metrics.request(scope["path"], status, time.monotonic() - began)
