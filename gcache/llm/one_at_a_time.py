"""A lock that threads get in the order in which they came.

Every event loop has its own thread and batch, and passes of several loops go one after another. A plain lock goes
back to whoever gave it away a moment ago, so a thread that writes a long text would keep the others waiting until
its end.
"""

from __future__ import annotations

import threading
from collections import deque
from types import TracebackType


class OneAtATime:
    """One thread at a time, first come, first served; a thread that has it may take it again."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._owner: int | None = None
        self._depth = 0
        self._waiting: deque[tuple[int, threading.Lock]] = deque()

    def __enter__(self) -> None:
        me = threading.get_ident()
        with self._guard:
            if self._owner in (None, me):
                self._owner, self._depth = me, self._depth + 1
                return
            gate = threading.Lock()
            gate.acquire()
            mine = (me, gate)
            self._waiting.append(mine)
        try:
            gate.acquire()  # until whoever is before this thread opens it
        except BaseException:  # an interrupt: this thread goes without
            with self._guard:
                if mine in self._waiting:
                    self._waiting.remove(mine)
                else:
                    self._pass_on()
            raise

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with self._guard:
            self._depth -= 1
            if not self._depth:
                self._pass_on()

    def _pass_on(self) -> None:
        """To the next in the line, if there is one."""
        self._owner, self._depth = None, 0
        if self._waiting:
            self._owner, gate = self._waiting.popleft()
            self._depth = 1
            gate.release()
