"""How hard a server may be asked, by all event loops and threads together."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

#: Seconds after which whoever waits for another event loop looks again. Loops cannot wake one another safely: one may
#: be closed before it hears of its turn, which nobody would have then.
LOOK_AGAIN = 0.01


class ApiLimits:
    """So many requests at once, and so many attempts a second, evenly spaced.

    Args:
        concurrency: requests at once.
        requests_per_second: attempts; None for no limit.
    """

    def __init__(self, concurrency: int, requests_per_second: float | None = None) -> None:
        self._free = concurrency
        self._spacing = 0.0 if requests_per_second is None else 1 / requests_per_second
        self._next = 0.0  # when the next attempt may be made
        self._waiting: deque[_Ticket] = deque()
        self._lock = threading.Lock()

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """One of the places, first come, first served.

        A loop that does not run, and so cannot take its turn, keeps nobody waiting.
        """
        await self._take()
        try:
            yield
        finally:
            with self._lock:
                self._free += 1

    async def _take(self) -> None:
        ticket = _Ticket(asyncio.get_running_loop())
        with self._lock:
            self._waiting.append(ticket)
        try:
            while not self._taken(ticket):
                await asyncio.sleep(LOOK_AGAIN)
        finally:
            with self._lock:
                self._waiting.remove(ticket)

    def _taken(self, ticket: _Ticket) -> bool:
        with self._lock:
            first = next(waiting for waiting in self._waiting if waiting.loop.is_running())
            if first is not ticket or not self._free:
                return False
            self._free -= 1
            return True

    async def attempt(self) -> None:
        """Wait until another attempt may be made."""
        while (pause := self._pause()) > 0:
            await asyncio.sleep(pause)

    def _pause(self) -> float:
        """Seconds until an attempt may be made; 0 where it is made now."""
        if not self._spacing:
            return 0.0
        with self._lock:
            now = time.monotonic()
            if now < self._next:
                return self._next - now
            self._next = now + self._spacing
            return 0.0


class _Ticket:
    """Somebody who waits in an event loop; equal to itself alone."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
