"""Sections one after another: each in its own share of the time, and none stops the others.

A section is a generator of checks and figures; what it has given is in the record, and on the disk, at once. One that
runs out of time is cut off in the middle, one that fails is recorded with its error, and for one that comes when the
time is over there is only its name.
"""

from __future__ import annotations

import gc
import logging
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import torch

from benchmarks.gpu_check.checks import Check
from gcache.errors import GcacheError

logger = logging.getLogger("benchmarks.gpu_check")

#: What became of a section.
PASSED, FAILED, CUT, SKIPPED = "passed", "failed", "cut off", "skipped"
#: Seconds without which no section is begun.
LEAST = 2.0
#: What a section gives: a check, or figures under their names.
Part = Check | Mapping[str, Any]


class OutOfTime(KeyboardInterrupt):
    """A section's time is over. Whatever goes on after an error of one question stops at this, as at Ctrl-C."""


@dataclass(frozen=True)
class Section:
    """One section, of one shape where it is about models.

    Attributes:
        share: of the time; what earlier ones leave over is shared among those still to come.
        run: gives the parts.
    """

    name: str
    shape: str | None
    share: float
    run: Callable[[], Iterator[Part]]

    @property
    def label(self) -> str:
        return self.name if self.shape is None else f"{self.name} {self.shape}"


@dataclass
class Outcome:
    """What is known of a section.

    Attributes:
        status: one of `PASSED` and the others.
        allowed, seconds: that it had, and that it took.
        error: in one line, "" for none.
    """

    section: str
    shape: str | None
    status: str = SKIPPED
    allowed: float = 0.0
    seconds: float = 0.0
    error: str = ""
    checks: list[Check] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)

    def add(self, part: Part) -> None:
        if isinstance(part, Check):
            self.checks.append(part)
            if not part.passed:
                logger.error("failed: %d, %s", part.number, part)
        else:
            self.figures.update(part)

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "checks": [check.to_json() for check in self.checks]}


def run_all(
    sections: Sequence[Section], budget: float, device: torch.device, tell: Callable[[list[Outcome]], None]
) -> list[Outcome]:
    """Run sections for at most so many seconds; `tell` is called with the outcomes whenever there is something new."""
    ends = time.monotonic() + budget
    outcomes = [Outcome(section.name, section.shape) for section in sections]
    tell(outcomes)
    for number, (section, outcome) in enumerate(zip(sections, outcomes, strict=True)):
        left = ends - time.monotonic()
        outcome.allowed = left * section.share / sum(later.share for later in sections[number:])
        if left < LEAST:
            logger.warning("skipped for want of time: %s", section.label)
            continue
        _run(section, outcome, lambda: tell(outcomes))
        _let_go(device)
        tell(outcomes)
    return outcomes


def _run(section: Section, outcome: Outcome, tell: Callable[[], None]) -> None:
    logger.info("%s, at most %.0f s", section.label, outcome.allowed)
    began = time.monotonic()
    outcome.status = CUT  # until it is known what becomes of it
    try:
        with time_limit(outcome.allowed):
            for part in section.run():
                outcome.add(part)
                tell()
        outcome.status = PASSED if all(check.passed for check in outcome.checks) else FAILED
        failed = [str(check) for check in outcome.checks if not check.passed]
        outcome.error = "; ".join(failed)
    except OutOfTime:
        outcome.status, outcome.error = CUT, f"cut off after {outcome.allowed:.0f} s"
        if not all(check.passed for check in outcome.checks):
            outcome.status = FAILED
    except Exception as error:
        outcome.status, outcome.error = FAILED, _one_line(error)
        if not isinstance(error, GcacheError):
            logger.info("%s", "".join(traceback.format_exception(error)))
    outcome.seconds = time.monotonic() - began
    why = f" ({outcome.error})" if outcome.error else ""
    logger.info("%s: %s in %.1f s%s", section.label, outcome.status, outcome.seconds, why)


def _one_line(error: Exception) -> str:
    where = traceback.extract_tb(error.__traceback__)[-1:]
    place = f" at {where[0].name}:{where[0].lineno}" if where and not isinstance(error, GcacheError) else ""
    return " ".join(f"{type(error).__name__}: {error}".split())[:300] + place


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise OutOfTime within, in whatever Python code is running then; in other threads than the main one never."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield
        return

    def over(number: int, frame: FrameType | None) -> None:
        raise OutOfTime

    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-3))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _let_go(device: torch.device) -> None:
    """What a section left in memory is not the next one's."""
    gc.collect()
    if device.type == "cuda":
        try:
            torch.cuda.empty_cache()
        except RuntimeError as error:  # of a GPU that answers nothing any more: the next section will say so, too
            logger.error("%s", _one_line(error))
