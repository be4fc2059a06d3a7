"""The processors of this machine: how many this process may use, and whether its threads get them."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

PROC = Path("/proc")
#: Seconds of computing, below which threads' waiting says nothing.
LEAST_COMPUTED = 0.1

#: Of each thread: nanoseconds that it ran, and that it was ready to run and did not.
Times = dict[str, tuple[int, int]]


def usable_cores(quota: bool = True, root: Path = Path("/")) -> int:
    """How many processors this process may use: those it may run on and, with `quota`, what its cgroups allow.

    Args:
        root: where /proc and /sys are.
    """
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        cores = os.cpu_count() or 1
    return max(1, min(cores, int(_quota(root)))) if quota else cores


def _quota(root: Path) -> float:
    """Processors' worth of time that the cgroups of this process allow; a large number where they do not say."""
    return min((_quota_of(folder) for folder in cgroups("cpu", root)), default=float(sys.maxsize))


def cgroups(controller: str, root: Path = Path("/")) -> Iterator[Path]:
    """The folders of the cgroups that this process is in, of version 2 or 1; each one's limits hold for it.

    Args:
        controller: "cpu" or "memory".
    """
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        top = root / "sys/fs/cgroup" / (controller if controllers else "")
        own = top / path.lstrip("/")
        # what a group may is limited by those it is in; in a container the path may be one of outside
        for folder in (own, *own.parents):
            yield folder
            if folder == top:
                break


def _quota_of(folder: Path) -> float:
    """Of one cgroup, of version 2 or 1."""
    try:
        if (folder / "cpu.max").is_file():
            most, period = (folder / "cpu.max").read_text(encoding="ascii").split()
        else:
            most, period = ((folder / f"cpu.cfs_{name}_us").read_text(encoding="ascii") for name in ("quota", "period"))
        return float(most) / float(period) if most != "max" and float(most) > 0 else float(sys.maxsize)
    except (OSError, ValueError, ZeroDivisionError):
        return float(sys.maxsize)


def thread_times(proc: Path = PROC) -> Times:
    """Of the threads of this process; empty where the system does not count."""
    found: Times = {}
    for task in _tasks(proc):
        try:
            ran, waited, _ = (task / "schedstat").read_text(encoding="ascii").split()
        except (OSError, ValueError):  # the thread has ended, or nothing is counted
            continue
        found[task.name] = (int(ran), int(waited))
    return found


def waited_share(before: Times, after: Times) -> float | None:
    """The share of their time that threads waited for a processor; None where they hardly computed."""
    both = after.keys() & before.keys()
    ran = sum(after[name][0] - before[name][0] for name in both)
    waited = sum(after[name][1] - before[name][1] for name in both)
    return waited / (ran + waited) if ran >= LEAST_COMPUTED * 1e9 else None


def others_running(proc: Path = PROC) -> int:
    """How many threads of other processes run or are ready to, on the whole machine; 0 where that is not told."""
    try:
        lines = (proc / "stat").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    everybody = next((int(line.split()[1]) for line in lines if line.startswith("procs_running ")), 0)
    return max(0, everybody - sum(_runs(task) for task in _tasks(proc)))


def _tasks(proc: Path) -> list[Path]:
    try:
        return list((proc / "self" / "task").iterdir())
    except OSError:
        return []


def _runs(task: Path) -> bool:
    try:
        text = (task / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return text.rpartition(")")[2].split()[:1] == ["R"]  # behind the name, which may hold anything
