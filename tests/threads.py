"""Threads that ask at the same time, and a bound on how long they may take."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")
#: Seconds after which whoever has not answered never will.
PATIENCE = 90.0


def at_once(calls: Sequence[Callable[[], T]]) -> list[T | BaseException]:
    """What each call returns or raises, each in a thread of its own, all begun at the same moment."""
    outcomes: dict[int, T | BaseException] = {}
    start = threading.Barrier(len(calls))

    def one(number: int) -> None:
        start.wait(PATIENCE)
        try:
            outcomes[number] = calls[number]()
        except BaseException as error:
            outcomes[number] = error

    threads = [threading.Thread(target=one, args=(number,), daemon=True) for number in range(len(calls))]
    for thread in threads:
        thread.start()
    end = time.monotonic() + PATIENCE
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    waiting = sum(thread.is_alive() for thread in threads)
    assert not waiting, f"{waiting} of {len(calls)} threads wait for ever"
    return [outcomes[number] for number in range(len(calls))]
