from __future__ import annotations

import contextlib
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from threads import at_once

from gcache.llm import one_at_a_time
from gcache.llm.one_at_a_time import OneAtATime

#: Steps of Python code that are interrupted, counted from a thread's first one; more than taking a turn has.
STEPS = range(40)


def test_threads_get_their_turn_in_the_order_in_which_they_came() -> None:
    turn, order = OneAtATime(), []

    def wait(number: int) -> None:
        with turn, turn:  # twice: a thread that has it may take it again
            order.append(number)

    with turn:
        threads = [started(lambda number=number: wait(number)) for number in range(5)]
        assert order == []
    for thread in threads:
        thread.join(10)
    assert order == list(range(5))
    assert at_once([lambda: turn.__enter__() and turn.__exit__(None, None, None)]) == [None]


def test_whoever_comes_back_at_once_stands_behind_those_who_wait() -> None:
    turn, turns = OneAtATime(), dict.fromkeys(range(3), 0)
    over = threading.Event()

    def take(number: int) -> None:
        while not over.is_set():
            with turn:
                turns[number] += 1
                sum(range(2000))

    threads = [threading.Thread(target=take, args=(number,), daemon=True) for number in turns]
    for thread in threads:
        thread.start()
    time.sleep(0.5)
    over.set()
    for thread in threads:
        thread.join(10)
    assert min(turns.values()) > 0.5 * max(turns.values()), turns


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("waits", [False, True])
def test_an_interrupt_at_any_line_loses_no_turn(waits: bool, nested: bool) -> None:
    reached = 0
    for step in STEPS:
        turn = OneAtATime()

        def take(turn: OneAtATime = turn) -> None:
            with turn:
                if nested:
                    with turn:
                        pass

        if waits:  # the interrupt comes before, while, or after it waits for another thread
            with turn:
                thread = started(lambda step=step, take=take: interrupted(take, step))
            thread.join(10)
            assert not thread.is_alive()
        else:
            reached += at_once([lambda step=step, take=take: interrupted(take, step)]) == ["interrupted"]
        assert is_free(turn), f"nobody can take the turn after an interrupt at line {step}"
    assert waits or reached >= 3, "the interrupts must reach what they are to test"


def test_an_interrupt_on_the_way_out_loses_no_turn() -> None:
    for step in range(10):
        turn = OneAtATime()

        def leave(turn: OneAtATime = turn) -> None:
            turn.__enter__()
            leaving = turn.__exit__
            sys.settrace(raising_after(step))  # noqa: B023
            try:
                leaving(None, None, None)
            finally:
                sys.settrace(None)

        at_once([lambda leave=leave: quietly(leave)])
        assert is_free(turn)


def test_signals_in_the_main_thread_lose_no_turn() -> None:
    """As Ctrl-C does, at moments that nobody chose."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        for number in range(100):
            turn = OneAtATime()
            try:
                signal.setitimer(signal.ITIMER_REAL, 0.0005 + number * 1e-5)
                while True:
                    with turn, turn:
                        sum(range(100))
            except KeyboardInterrupt:
                pass
            assert is_free(turn), f"number {number}"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_who_stands_behind_a_thread_that_gave_up_keeps_its_place() -> None:
    """0 has the turn; 1, the main thread and 2 wait, and the main thread is interrupted."""
    turn, order, release = OneAtATime(), [], threading.Event()

    def take(number: int) -> None:
        with turn:
            order.append(number)
            if number == 0:
                release.wait(10)
            time.sleep(0.05)  # were 2 let in now, it would be so before 1 is done

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    threads = [started(lambda: take(0)), started(lambda: take(1))]
    later = threading.Timer(0.3, lambda: threads.append(started(lambda: take(2))))
    later.start()
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 1.0)
        with pytest.raises(KeyboardInterrupt), turn:
            order.append(-1)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    time.sleep(0.1)
    assert order == [0], "somebody went in although the turn was taken"
    release.set()
    for thread in threads:
        thread.join(10)
    assert order == [0, 1, 2]


# -- helpers ---------------------------------------------------------------------------------


def started(work: Callable[[], object]) -> threading.Thread:
    """A thread that has begun and, if it must wait, waits."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    time.sleep(0.05)
    return thread


def is_free(turn: OneAtATime) -> bool:
    """Whether another thread can take the turn."""

    def take() -> None:
        with turn:
            pass

    thread = threading.Thread(target=take, daemon=True)
    thread.start()
    thread.join(5)
    return not thread.is_alive()


def raising_after(step: int) -> Callable[[FrameType, str, Any], Any]:
    """A trace function that raises KeyboardInterrupt at a line of the lock's own code, counted from 0."""
    left = [step]
    own = str(Path(one_at_a_time.__file__))

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        if frame.f_code.co_filename != own:
            return trace
        if event == "line":
            if not left[0]:
                sys.settrace(None)
                raise KeyboardInterrupt
            left[0] -= 1
        return trace

    return trace


def interrupted(work: Callable[[], object], step: int) -> str:
    sys.settrace(raising_after(step))
    try:
        work()
        return "done"
    except KeyboardInterrupt:
        return "interrupted"
    finally:
        sys.settrace(None)


def quietly(work: Callable[[], object]) -> None:
    with contextlib.suppress(KeyboardInterrupt):
        work()
