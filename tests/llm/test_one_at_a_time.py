from __future__ import annotations

import threading

import pytest
from threads import at_once

from gcache.llm.one_at_a_time import OneAtATime


def test_threads_get_their_turn_in_the_order_in_which_they_came() -> None:
    turn, order, asked = OneAtATime(), [], []

    def wait(number: int) -> None:
        asked.append(number)
        with turn, turn:  # twice: a thread that has it may take it again
            order.append(number)

    with turn:
        threads = [threading.Thread(target=wait, args=(number,), daemon=True) for number in range(5)]
        for number, thread in enumerate(threads):
            thread.start()
            while len(turn._waiting) <= number:  # it stands in the line
                threading.Event().wait(0.001)
        assert order == []
    for thread in threads:
        thread.join(10)
    assert order == asked == list(range(5))
    assert at_once([lambda: turn.__enter__() or turn.__exit__(None, None, None)]) == [None]


def test_whoever_gives_up_its_turn_does_not_keep_the_others_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    turn, done = OneAtATime(), threading.Event()
    real = threading.Lock

    class Interrupted:
        """A gate before which an interrupt arrives; it may have been opened already."""

        def __init__(self) -> None:
            self.taken = False

        def acquire(self) -> None:
            if self.taken:
                raise KeyboardInterrupt
            self.taken = True

        def release(self) -> None: ...

    def interrupted() -> str:
        monkeypatch.setattr(threading, "Lock", Interrupted)
        try:
            with turn:
                return "it had its turn"
        except KeyboardInterrupt:
            return "interrupted"
        finally:
            monkeypatch.setattr(threading, "Lock", real)

    with turn:
        assert at_once([interrupted]) == ["interrupted"]

    def go() -> None:
        with turn:
            done.set()

    assert at_once([go]) == [None] and done.is_set()
