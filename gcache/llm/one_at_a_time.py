"""A lock that threads get in the order in which they came.

Every event loop has its own thread and batch, and passes of several loops go one after another. A plain lock goes
back to whoever gave it away a moment ago, so a thread that writes a long text would keep the others waiting until
its end.

An interrupt (Ctrl-C) may come between any two steps of Python code, the first one of an `__exit__` included, so no
code of ours can promise to give a lock back. Therefore locks are taken and given back by C code alone:

- Whoever has the turn has a reentrant lock, and what `with` calls for this class are that lock's own two methods. They
  are found by properties, whose code runs before the lock is taken.
- That code waits in a line, which is there for its order alone: a place in it is a lock in a `with` statement, so it
  is left however the waiting ends, and whoever comes next then waits for those before it.

Such a `with` stands on one line with what it holds the lock for: a trace function, a debugger's or a test's, may raise
between any two lines, also before a `with` gives its lock back.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any


class OneAtATime:
    """One thread at a time, first come, first served; a thread that has it may take it again.

    It is used by `with`. Nothing is left of a thread that is interrupted, whether it waits, enters or leaves.
    """

    def __init__(self) -> None:
        self._turn: Any = threading.RLock()
        self._guard = threading.Lock()  # of the last place
        self._last = _Place()

    @property
    def __enter__(self) -> Callable[[], object]:
        """Wait in the line; what is returned takes the turn."""
        if not self._turn._is_owned():
            place = _Place()
            with place.taken: self._wait(place)  # noqa: E701
        enter: Callable[[], object] = self._turn.__enter__
        return enter

    @property
    def __exit__(self) -> Callable[..., None]:
        leave: Callable[..., None] = self._turn.__exit__
        return leave

    def _wait(self, place: _Place) -> None:
        """Until all who came before have had their turn or gave up."""
        with self._guard: place.behind, self._last = self._last, place  # noqa: E701
        while (before := place.behind) is not None:
            with before.taken: pass  # noqa: E701
            place.behind = before.behind  # it gave up where there is one: whom it waited for is waited for now
        with self._turn: pass  # noqa: E701


class _Place:
    """A place in the line.

    Attributes:
        taken: locked while its thread stands there.
        behind: whom that thread waits for.
    """

    def __init__(self) -> None:
        self.taken = threading.Lock()
        self.behind: _Place | None = None
