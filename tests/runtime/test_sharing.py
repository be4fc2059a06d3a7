"""How worker threads wait: when they sleep, when they spin again, and that nothing else changes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import needs
import pytest

from gcache.commands import curves
from gcache.commands import main as cli
from gcache.environment import chosen_waiting, limit_threads
from gcache.runtime import sharing
from gcache.runtime.processors import Times, others_running, thread_times, usable_cores, waited_share
from gcache.runtime.sharing import AGREEING, FIRST_PAUSE, LONGEST_PAUSE, LOOK, TRIAL, Watch

SECOND = 10**9
QUOTA, PERIOD = "cpu.cfs_quota_us", "cpu.cfs_period_us"
linux = needs.skips_if(not sys.platform.startswith("linux"), "threads' times are Linux's to tell", needs.LINUX)
two_cores = needs.skips_if(usable_cores(quota=False) < 2, "one processor has nobody to wait for", "use two or more")


class Recorded:
    """Teams that only say whether they are held."""

    def __init__(self) -> None:
        self.held = False
        self.holds = 0

    def hold(self) -> bool:
        self.held = True
        self.holds += 1
        return True

    def release(self) -> None:
        self.held = False


class Threads:
    """Two threads whose times a test sets: in each look one of them waited for a share of its time."""

    def __init__(self) -> None:
        self.ran = self.waited = 0.0

    def go_on(self, share: float, computed: float = 1.0) -> None:
        self.ran += computed
        self.waited += computed * share / (1 - share)

    def __call__(self) -> Times:
        return {"1": (round(self.ran * SECOND), round(self.waited * SECOND)), "2": (5, 5)}


def watch() -> tuple[Watch, Recorded, Threads]:
    teams, threads = Recorded(), Threads()
    return Watch(teams, threads), teams, threads


def looks(watching: Watch, threads: Threads, shares: list[float]) -> None:
    for share in shares:
        threads.go_on(share)
        watching.look()


def test_threads_alone_spin() -> None:
    watching, teams, threads = watch()
    looks(watching, threads, [0.04] * 100)
    assert teams.holds == 0


def test_threads_sleep_while_others_want_the_processors_and_spin_again_when_they_are_gone() -> None:
    watching, teams, threads = watch()
    looks(watching, threads, [0.4] * (AGREEING - 1) + [0.04] + [0.4] * (AGREEING - 1))
    assert teams.holds == 0  # a moment is no reason
    looks(watching, threads, [0.4])
    assert teams.held
    looks(watching, threads, [0.1] * (round(FIRST_PAUSE / LOOK) - 1))
    assert teams.held
    looks(watching, threads, [0.1])
    assert not teams.held and watching.interval == TRIAL
    looks(watching, threads, [0.04])
    assert not teams.held and watching.interval == LOOK and teams.holds == 1


def test_spinning_is_tried_more_and_more_seldom_while_the_others_stay() -> None:
    watching, teams, threads = watch()
    looks(watching, threads, [0.4] * AGREEING)
    pauses = []
    for _ in range(6):
        waited = 0
        while teams.held:
            looks(watching, threads, [0.1])
            waited += 1
        pauses.append(waited * LOOK)
        looks(watching, threads, [0.4])  # one look is enough: they were there a moment ago
        assert teams.held
    assert pauses == [4.0, 8.0, 16.0, 32.0, 64.0, 64.0] and LONGEST_PAUSE == 64.0
    looks(watching, threads, [0.1] * round(LONGEST_PAUSE / LOOK) + [0.04] + [0.4] * AGREEING)
    assert teams.held and watching.pause == FIRST_PAUSE


def test_threads_that_hardly_compute_say_nothing() -> None:
    watching, teams, threads = watch()
    for _ in range(10):
        threads.go_on(0.9, computed=0.001)
        watching.look()
    assert teams.holds == 0
    assert waited_share({}, {"1": (SECOND, SECOND)}) is None  # a thread that was not there before
    assert waited_share({"1": (0, 0)}, {"1": (3 * SECOND, SECOND)}) == 0.25


def test_the_first_choice_is_by_what_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharing, "usable_cores", lambda quota=True: 2)
    for others, processors, sleeps in ((0, 2, False), (1, 2, True), (5, 8, False), (7, 8, True)):
        monkeypatch.setattr(os, "cpu_count", lambda count=processors: count)
        watching, teams, _ = watch()
        watching.begin(others)
        assert teams.held == sleeps, (others, processors)


# -- what is read ---------------------------------------------------------------------------------


def test_others_are_those_that_run_and_are_not_ours(tmp_path: Path) -> None:
    assert others_running(tmp_path) == 0 and thread_times(tmp_path) == {}
    for number, (state, times) in enumerate([("R", "7 5 1"), ("S", "3 2 9"), ("R", "1 1 1")]):
        task = tmp_path / "self" / "task" / str(number)
        task.mkdir(parents=True)
        (task / "stat").write_text(f"{number} (R S) R) {state} 1 1")
        (task / "schedstat").write_text(times)
    (tmp_path / "stat").write_text("cpu  1 2 3\nprocs_running 6\nprocs_blocked 0\n")
    assert others_running(tmp_path) == 4
    assert thread_times(tmp_path) == {"0": (7, 5), "1": (3, 2), "2": (1, 1)}


@linux
def test_our_own_threads_are_found() -> None:
    assert str(os.getpid()) in thread_times()


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        ("", {}, 8),
        ("0::/\n", {"cpu.max": "max 100000"}, 8),
        ("0::/\n", {"cpu.max": "250000 100000"}, 2),
        ("0::/\n", {"cpu.max": "50000 100000"}, 1),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000", "a/cpu.max": "300000 100000", "cpu.max": "max 100000"}, 3),
        ("0::/outside\n", {"cpu.max": "400000 100000"}, 4),  # a container sees its own group at the top
        ("3:cpuset:/x\n2:cpu,cpuacct:/x\n", {f"cpu/x/{QUOTA}": "200000", f"cpu/x/{PERIOD}": "100000"}, 2),
        ("2:cpu:/\n", {f"cpu/{QUOTA}": "-1", f"cpu/{PERIOD}": "100000"}, 8),
        ("0::/\n", {"cpu.max": "nonsense"}, 8),
    ],
)
def test_cores_are_those_that_the_cgroups_leave(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, groups: str, files: dict[str, str], expected: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    for name, text in {"proc/self/cgroup": groups, **{f"sys/fs/cgroup/{n}": t for n, t in files.items()}}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert usable_cores(root=tmp_path) == expected
    assert usable_cores(quota=False, root=tmp_path) == 8


def test_a_quota_limits_threads_unless_the_user_chose(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("gcache.environment.usable_cores", lambda quota=True: 3 if quota else 8)
    monkeypatch.setitem(sys.modules, "torch", sys)
    assert limit_threads() is None  # too late
    monkeypatch.delitem(sys.modules, "torch")
    assert limit_threads() == 3 and os.environ["OMP_NUM_THREADS"] == "3"
    assert limit_threads() is None
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr("gcache.environment.usable_cores", lambda quota=True: 8)
    assert limit_threads() is None and "OMP_NUM_THREADS" not in os.environ


@pytest.mark.parametrize("name", ["OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"])
def test_what_the_user_chose_is_left_alone(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    for other in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"):
        monkeypatch.delenv(other, raising=False)
    assert chosen_waiting() is None
    monkeypatch.setenv(name, "1")
    assert chosen_waiting() == name
    monkeypatch.setattr(sharing, "_looks", lambda over: pytest.fail("it looks all the same"))
    with sharing.watched():
        pass


def test_a_command_sets_threads_before_torch_and_runs_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []

    @contextmanager
    def watched() -> Iterator[None]:
        done.append("watched")
        yield
        done.append("over")

    monkeypatch.setattr(cli, "limit_threads", lambda: done.append("limited"))
    monkeypatch.setattr(cli, "watched", watched)
    monkeypatch.setattr(curves, "_curves", lambda args: done.append("command") or 0)
    assert cli.main(["curves", "run"]) == 0
    assert done == ["limited", "watched", "command", "over"]


# -- real threads ---------------------------------------------------------------------------------

#: Prints how often the worker thread went to sleep of its own will in 200 passes with a pause between them, before a
#: team is held, while it is and after; and whether all came to the same.
REAL = """
import os, time, torch
from pathlib import Path
from gcache.runtime.sharing import IdleTeams

torch.set_num_threads(2)
states, weights = torch.randn(512, 512), torch.randn(512, 512)
states @ weights

def slept():
    tasks = [task for task in Path("/proc/self/task").iterdir() if task.name != str(os.getpid())]
    found = 0
    for task in tasks:
        try:
            found += int((task / "status").read_text().partition("\\nvoluntary_ctxt_switches:")[2].split()[0])
        except (FileNotFoundError, ProcessLookupError):  # it has just ended
            continue
    return found

def passes():
    before, product = slept(), states
    for _ in range(200):
        product = torch.tanh(product @ weights)
        end = time.perf_counter() + 2e-4
        while time.perf_counter() < end:
            pass
    return slept() - before, product

teams = IdleTeams()
(_, first), threads = passes(), len(os.listdir("/proc/self/task"))
assert teams.hold() and teams.hold() and teams.held
more = len(os.listdir("/proc/self/task"))
asleep, second = passes()
teams.release()
_, third = passes()
print(asleep, more - threads, len(os.listdir("/proc/self/task")) - threads, first.equal(second) and second.equal(third))
"""


@linux
@two_cores
def test_while_a_team_is_held_worker_threads_sleep_and_compute_the_same() -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    root = Path(sharing.__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", REAL], cwd=root, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    asleep, more, left, same = done.stdout.split()
    assert int(asleep) >= 200, "it spun through the pauses"  # once a pass or more
    assert int(more) >= 2 and int(left) <= 0 and same == "True"
