"""Processes that only compute end with whoever started them, however that ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from benchmarks.shared_machine import beside

START = """
import time
from benchmarks.shared_machine import beside
with beside(2):
    print("started", flush=True)
    time.sleep(600)
"""


def children(parent: int) -> set[int]:
    command = ["ps", "-o", "pid=,comm=", "--ppid", str(parent)]
    lines = subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines()
    return {int(line.split()[0]) for line in lines if line.split()[1] != "ps"}


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{pid}/stat")
    return not state.exists() or state.read_text().rpartition(")")[2].split()[0] != "Z"


def test_they_end_when_their_parent_is_killed() -> None:
    parent = subprocess.Popen([sys.executable, "-c", START], stdout=subprocess.PIPE, text=True, cwd=Path.cwd())
    assert parent.stdout is not None and parent.stdout.readline() == "started\n"
    busy = children(parent.pid)
    assert len(busy) == 2
    try:
        parent.kill()
        parent.wait()
        end = time.monotonic() + 20
        while any(map(is_alive, busy)) and time.monotonic() < end:
            time.sleep(0.05)
        assert not any(map(is_alive, busy)), "a child goes on without its parent"
    finally:
        for pid in busy:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        parent.stdout.close()


def test_they_compute_until_they_are_no_longer_needed() -> None:
    with pytest.raises(ValueError), beside(1):
        (busy,) = children(os.getpid())
        time.sleep(0.5)
        assert is_alive(busy)
        raise ValueError
    assert not is_alive(busy)
