"""A bounded queue: so many questions are worked on, so many wait, and the rest are told to come back."""

from __future__ import annotations

import asyncio
import math
from collections import deque

from gcache.serve.refusals import Refused

#: How much the latest run counts in the mean of their seconds.
LATEST = 0.2
#: The longest time, in seconds, that a client is told to stay away.
LONGEST_WAIT = 60


class AdmissionQueue:
    """Places in the engine; for one event loop.

    Args:
        running: how many there are.
        waiting: how many may wait for one.
    """

    def __init__(self, running: int, waiting: int) -> None:
        self.most_running, self.most_waiting = running, waiting
        self.running = 0
        self.refused = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._seconds = 1.0  # of a run, on the mean

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def retry_after(self) -> int:
        """Seconds after which a place may be free."""
        rounds = (self.waiting + 1) / self.most_running
        return max(1, min(LONGEST_WAIT, math.ceil(self._seconds * rounds)))

    async def take(self) -> None:
        """A place, as soon as one is free; first come, first served.

        Raises:
            Refused: too many wait already.
        """
        if self.running < self.most_running and not self._waiting:
            self.running += 1
            return
        if len(self._waiting) >= self.most_waiting:
            self.refused += 1
            raise Refused(
                429,
                f"{self.running} questions are being answered and {self.waiting} wait, which is the limit; "
                f"ask again in {self.retry_after} seconds",
                code="queue_full", headers={"Retry-After": str(self.retry_after)},
            )  # fmt: skip
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # the place came as its taker went
                self._pass_on()
            else:
                self._waiting.remove(turn)
            raise

    def give_back(self, seconds: float | None = None) -> None:
        """A place is free again; `seconds`: how long it was taken, where that says something."""
        if seconds is not None:
            self._seconds += LATEST * (seconds - self._seconds)
        self._pass_on()

    def _pass_on(self) -> None:
        """To whoever waits longest, else to nobody."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self.running -= 1
