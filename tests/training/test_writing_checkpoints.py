"""A checkpoint is there whole, or the one before it is: whatever fails, and whenever the process is killed."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from gcache.build import Built
from gcache.errors import CheckpointError
from gcache.training import checkpoint as checkpoints
from gcache.training import step_folders
from gcache.training.checkpoint import State

#: What a write asks of the file system.
CALLS = ("mkdir", "open", "replace", "rename", "fsync", "chmod", "rmdir", "unlink")


def state(built: Built, step: int, mark: float | None = None) -> State:
    """A step's, whose weights all say which it is, or another mark."""
    found = checkpoints.take(step, built, None, {"name": "toy"}, {}, running=float(step if mark is None else mark))
    weights = {name: torch.full_like(t, found.record["running_utility"]) for name, t in found.weights.items()}
    return State(step, found.record, weights, found.optimizer)


def mark(out: Path) -> float:
    """Of the checkpoint that is read, which is whole."""
    found = checkpoints.read(out)
    assert all(bool((tensor == found.running).all()) for tensor in found.weights.values())
    return found.running


def counted(monkeypatch: pytest.MonkeyPatch, at: int, then: Callable[[], None]) -> list[str]:
    """Do something in place of the call of this number; the calls so far."""
    seen: list[str] = []

    def wrapped(name: str) -> Callable[..., Any]:
        real = getattr(os, name)

        def call(*args: Any, **options: Any) -> Any:
            seen.append(name)
            if len(seen) == at:
                then()
            return real(*args, **options)

        return call

    for name in CALLS:
        monkeypatch.setattr(os, name, wrapped(name))
    return seen


def out_of_room() -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def names(out: Path) -> list[str]:
    return sorted(path.name for path in (out / "checkpoints").iterdir())


# -- whatever fails -------------------------------------------------------------------------


@pytest.mark.parametrize("step", [2, 1], ids=["a new step", "a step that is there"])
def test_where_any_call_fails_a_whole_checkpoint_is_left(
    built: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    failed = 0
    for at in range(1, 100):
        out = tmp_path / str(at)
        checkpoints.write(out, state(built, 1))
        later = state(built, step, mark=9.0)
        with monkeypatch.context() as patched:
            seen = counted(patched, at, out_of_room)
            try:
                checkpoints.write(out, later)
            except CheckpointError as error:
                failed += 1
                assert "No space left on device" in str(error) and str(out) in str(error) and "\n" not in str(error)
        assert mark(out) in (1.0, 9.0)
        checkpoints.write(out, later)  # once there is room, as if nothing had been
        assert mark(out) == 9.0
        assert names(out) == sorted({"latest", "step-000001", f"step-{step:06d}"})
        if len(seen) < at:
            break
    assert at > 12 and failed >= 8, f"{at} calls, {failed} failed"


def test_the_whole_write_fails_in_one_line_where_out_is_a_file(built: Built, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(CheckpointError, match=r"the checkpoint of step 1 cannot be written to .*Not a directory"):
        checkpoints.write(tmp_path / "out", state(built, 1))


# -- whenever it is killed ------------------------------------------------------------------


def in_child(work: Callable[[], None]) -> int:
    """Its exit status, as `os.waitpid` gives it."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    return os.waitpid(child, 0)[1]


@pytest.mark.parametrize("step", [2, 1], ids=["a new step", "a step that is there"])
def test_killed_at_any_call_a_whole_checkpoint_is_left(
    built: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    before, later, last = state(built, 1), state(built, step, mark=9.0), state(built, step + 1)
    marks, killed = [], 0
    for at in range(1, 100):
        out = tmp_path / str(at)
        checkpoints.write(out, before)

        def work(out: Path = out, at: int = at) -> None:
            counted(monkeypatch, at, lambda: os.kill(os.getpid(), signal.SIGKILL))
            checkpoints.write(out, later)

        status = in_child(work)
        marks.append(mark(out))
        checkpoints.write(out, last)
        assert mark(out) == step + 1
        assert not [name for name in names(out) if name.startswith(".")], "leftovers of the kill stay for good"
        if status == 0:
            break
        assert os.WTERMSIG(status) == signal.SIGKILL
        killed += 1
    assert killed > 12 and marks == sorted(marks) and marks[0] == 1.0 and marks[-1] == 9.0


def test_killed_at_the_first_write_there_is_none_or_one(
    built: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for at in range(1, 100):
        out = tmp_path / str(at)

        def work(out: Path = out, at: int = at) -> None:
            counted(monkeypatch, at, lambda: os.kill(os.getpid(), signal.SIGKILL))
            checkpoints.write(out, state(built, 1))

        status = in_child(work)
        found.append(checkpoints.has_checkpoint(out) and mark(out) == 1.0)
        if status == 0:
            break
    assert found == sorted(found) and not found[0] and found[-1]


def test_killed_at_any_time_a_whole_checkpoint_is_left(built: Built, tmp_path: Path) -> None:
    random.seed(0)
    states = [state(built, 1 + i // 2, mark=float(i)) for i in range(200)]  # each step is written twice
    seen = set()
    for round_ in range(25):
        out = tmp_path / str(round_)
        checkpoints.write(out, states[0])
        child = os.fork()
        if child == 0:
            for each in states[1:]:
                checkpoints.write(out, each)
            os._exit(0)
        time.sleep(random.uniform(0.0, 0.4))
        os.kill(child, signal.SIGKILL)
        assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
        seen.add(mark(out))
        checkpoints.write(out, states[-1])
        assert mark(out) == float(len(states) - 1)
    assert len(seen) > 3, "always killed at the same place"


# -- which are kept -------------------------------------------------------------------------


def test_the_last_two_are_kept_in_the_order_of_numbers(built: Built, tmp_path: Path) -> None:
    for step in (0, 1, 2, 999_999, 1_000_000):
        checkpoints.write(tmp_path, state(built, step))
    assert names(tmp_path) == ["latest", "step-1000000", "step-999999"]
    checkpoints.write(tmp_path, state(built, 1_000_001), keep=1)
    assert names(tmp_path) == ["latest", "step-1000001"]


def test_what_others_put_there_stays(built: Built, tmp_path: Path) -> None:
    for step in (1, 2):
        checkpoints.write(tmp_path, state(built, step))
    root = tmp_path / "checkpoints"
    shutil.copytree(root / "step-000001", root / "step-000001-best")
    for step in (3, 4):
        checkpoints.write(tmp_path, state(built, step))
    assert names(tmp_path) == ["latest", "step-000001-best", "step-000003", "step-000004"]


def test_going_back_to_an_earlier_one_loses_nothing_new(built: Built, tmp_path: Path) -> None:
    """The newest is not removed for being of a lower number than those that it was gone back from."""
    for step in (10, 20):
        checkpoints.write(tmp_path, state(built, step))
    checkpoints.write(tmp_path, state(built, 11))
    checkpoints.write(tmp_path, state(built, 12))
    assert mark(tmp_path) == 12.0
    assert names(tmp_path) == ["latest", "step-000011", "step-000012", "step-000020"]


def test_without_latest_the_newest_is_taken(
    built: Built, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for step in (1, 2):
        checkpoints.write(tmp_path, state(built, step))
    (tmp_path / "checkpoints" / "latest").unlink()
    assert checkpoints.has_checkpoint(tmp_path) and mark(tmp_path) == 2.0
    assert "latest is missing; taken for the latest checkpoint: step-000002" in caplog.text


def test_a_copy_is_not_changed_by_training_that_goes_on(built: Built) -> None:
    taken = checkpoints.take(1, built, None, {}, {})
    assert built.policy is not None
    before = taken.weights["policy.agreement"].clone()
    with torch.no_grad():
        built.policy.agreement.add_(1.0)
    assert torch.equal(taken.weights["policy.agreement"], before)


def test_names_of_steps() -> None:
    assert [step_folders.step_of(name) for name in ("step-000012", ".old-step-000012", "step-1234567")] == [
        12, 12, 1234567,
    ]  # fmt: skip
    other_digits = "step-" + "\u0661" * 6
    for name in ("step-12", "step-0000012", "step-000012-best", "step-", "latest", other_digits, "step-000001\n"):
        assert step_folders.step_of(name) is None


def test_weights_are_the_same_file_every_time(built: Built, tmp_path: Path) -> None:
    for name in ("once", "twice"):
        checkpoints.write(tmp_path / name, state(built, 1))
    files = [(tmp_path / name / "checkpoints" / "step-000001") for name in ("once", "twice")]
    for each in sorted(files[0].iterdir()):
        assert each.read_bytes() == (files[1] / each.name).read_bytes()
    assert json.loads((files[0] / "checkpoint.json").read_text())["format"] == 1
