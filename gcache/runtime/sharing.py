"""How worker threads wait for each other where the processors are shared with other processes.

torch computes with OpenMP threads that spin while they wait for each other. Alone that is the fastest way; beside
another busy process it burns the time in which the thread that is waited for could run, and every pass takes several
times as long. GNU's libgomp, which torch brings along, hardly spins while a process has more OpenMP threads than
processors (its manual, GOMP_SPINCOUNT). So while others want the processors, idle teams of threads are held here, and
let go when they are gone. What is computed, and by how many threads, stays the same, and with it every result, to the
bit.

Whether others want the processors is read off our own threads: the time that they were ready to run and did not
(Linux, /proc/self/task/*/schedstat). Spinning threads that are alone hardly ever wait for a processor; beside a busy
process they wait for a third of their time. Sleeping ones wait a little in either case, so now and then the threads
spin for a moment, to see whether the others are gone.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any, Protocol

from gcache.environment import chosen_waiting
from gcache.runtime.processors import PROC, Times, others_running, thread_times, usable_cores, waited_share

logger = logging.getLogger(__name__)

#: Seconds between two looks, and of a look at threads that were let spin again.
LOOK, TRIAL = 0.5, 0.3
#: Looks before anything is computed, and seconds between them.
FIRST_LOOKS, FIRST_LOOK = 8, 0.05
#: Threads that had to wait for a processor for more than this share of their time, share it with others.
SHARED = 0.15
#: So many looks in a row have to say so.
AGREEING = 2
#: Seconds of sleeping waits before spinning is tried again; doubled each time that the others are still there.
FIRST_PAUSE, LONGEST_PAUSE = 4.0, 64.0
#: The most idle teams that are held.
MOST_TEAMS = 8


class Teams(Protocol):
    """What makes threads sleep while it is held."""

    held: bool

    def hold(self) -> bool:
        """Returns whether it has an effect."""

    def release(self) -> None: ...


class IdleTeams:
    """OpenMP threads that do nothing, so that there are more of them than processors."""

    def __init__(self) -> None:
        self.held = False
        self._let_go = threading.Event()
        self._holders: list[threading.Thread] = []

    def hold(self) -> bool:
        torch = _torch()
        if torch is None or self.held:
            return self.held
        size, processors = torch.get_num_threads(), usable_cores(quota=False)
        if size < 2 or (teams := (processors - 1) // (size - 1)) > MOST_TEAMS:
            return False  # a lone thread waits for nobody, and a few among many processors find a free one
        started = threading.Barrier(teams + 1)
        let_go = self._let_go = threading.Event()

        def idle() -> None:
            try:
                torch.ones(size * 2**16)  # large enough to be shared out: it makes the team
            finally:
                started.wait()
            let_go.wait()  # the team ends with this thread

        self._holders = [threading.Thread(target=idle, name="gcache-idle-team", daemon=True) for _ in range(teams)]
        for holder in self._holders:
            holder.start()
        started.wait()
        self.held = True
        return True

    def release(self) -> None:
        self._let_go.set()
        for holder in self._holders:
            holder.join()
        self._holders, self.held = [], False


class Watch:
    """Looks again and again whether others want the processors, and chooses how threads wait.

    Args:
        teams: held while they do.
        times: see `thread_times`.

    Attributes:
        interval: seconds until it wants to look again.
    """

    def __init__(self, teams: Teams, times: Callable[[], Times] = thread_times) -> None:
        self.teams, self.times = teams, times
        self.interval = LOOK
        self.pause = FIRST_PAUSE
        self._before = times()
        self._asleep = 0.0  # seconds
        self._in_a_row = 0
        self._trying = self._told = False

    def begin(self, others: float) -> None:
        """The first choice, by how many other threads run before anything is computed."""
        spare = (os.cpu_count() or 1) - usable_cores(quota=False)
        if others - spare >= 1:
            self._sleep(f"{others:.0f} other threads are running")

    def look(self) -> None:
        """One look, `interval` seconds after the last one."""
        before, self._before = self._before, self.times()
        if self.teams.held:
            self._asleep += self.interval
            if self._asleep >= self.pause:
                self.teams.release()
                self._trying, self.interval = True, TRIAL
            return
        share = waited_share(before, self._before)
        if share is None:
            return
        logger.debug("worker threads waited for a processor %.0f %% of their time", 100 * share)
        self._in_a_row = self._in_a_row + 1 if share > SHARED else 0
        trying, self._trying, self.interval = self._trying, False, LOOK
        if self._in_a_row >= (1 if trying else AGREEING):
            self.pause = min(2 * self.pause, LONGEST_PAUSE) if trying else FIRST_PAUSE
            self._sleep("" if trying else f"they waited for one {share:.0%} of the time")
        elif not self._in_a_row and (trying or not self._told):
            self._tell("spin while they wait for each other: no other program wants the processors", logging.DEBUG)

    def _sleep(self, why: str) -> None:
        self._asleep, self._in_a_row = 0.0, 0
        if self.teams.hold() and why:
            self._tell(
                f"sleep while they wait for each other, since other programs want the processors ({why}); until those "
                "end, this takes longer"
            )

    def _tell(self, what: str, level: int = logging.INFO) -> None:
        self._told = True
        torch = _torch()
        number = torch.get_num_threads() if torch else 0
        logger.log(level, "%d worker threads on %d processors %s", number, usable_cores(), what)


@contextmanager
def watched() -> Iterator[None]:
    """Within it worker threads spin while they are alone, and sleep while the processors are shared.

    Nothing is done where the user chose (OMP_WAIT_POLICY and its like), or where torch has another OpenMP than GNU's.
    """
    chosen = chosen_waiting()
    if chosen is not None:
        logger.debug("%s is set: how threads wait is left to it", chosen)
        yield
        return
    over = threading.Event()
    looking = threading.Thread(target=_looks, args=(over,), name="gcache-sharing", daemon=True)
    looking.start()
    try:
        yield
    finally:
        over.set()
        looking.join()


def _looks(over: threading.Event) -> None:
    others: list[int] = []
    while len(others) < FIRST_LOOKS and not over.wait(FIRST_LOOK):
        others.append(others_running())
    while _torch() is None and not over.wait(FIRST_LOOK):
        pass  # nothing is computed yet
    if over.is_set() or not _is_gnu():
        return
    teams = IdleTeams()
    watch = Watch(teams)
    watch.begin(median(others))
    while not over.wait(watch.interval):
        watch.look()
    teams.release()


def _torch() -> Any:
    """torch, once somebody else has imported it."""
    found = sys.modules.get("torch")
    return None if found is None or getattr(found.__spec__, "_initializing", False) else found


def _is_gnu() -> bool:
    """Whether the OpenMP that was loaded is GNU's."""
    try:
        return "libgomp" in (PROC / "self" / "maps").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
