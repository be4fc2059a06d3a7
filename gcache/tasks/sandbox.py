"""Running programs that a model wrote.

Contained: a program runs in a process of its own, in an empty folder that is thrown away, with an
empty environment and no input, for so many seconds (of the clock and of the processor), with so
much memory and files of so many bytes. On Linux on x86-64 and 64-bit ARM the kernel refuses it
any socket and any process or thread beside it (seccomp). When it is over, or its time is, whatever
it started is killed.

Not contained: it runs as the same user, so it can read, change and delete that user's files.
Elsewhere than on those systems it can use the network; it is then kept from starting processes by a
limit alone, which does not hold for root, and what leaves its session is not killed. macOS has no
limit of memory. A program that sets out to deceive can find the word by which it reports that it
ran to its end. Run what you do not trust at all in a container.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from gcache.errors import ConfigError, GcacheError

CHILD = Path(__file__).with_name("sandbox_child.py")


@dataclass(frozen=True)
class SandboxLimits:
    """What a program may take.

    Attributes:
        seconds: of the clock, and of the processor.
        memory_mb: of addresses, in MiB.
        file_mb: of each file it writes, in MiB.
        processes: beside itself.
    """

    seconds: float = 10.0
    memory_mb: int = 2048
    file_mb: int = 4
    processes: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.seconds < float("inf"):
            raise ConfigError(f"the seconds of a sandbox must be above 0, got {self.seconds}")
        for name in ("memory_mb", "file_mb"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} of a sandbox must be 1 or more, got {getattr(self, name)}")
        if self.processes < 0:
            raise ConfigError(f"processes of a sandbox must be 0 or more, got {self.processes}")


@dataclass(frozen=True)
class Ran:
    """How a program ended.

    Attributes:
        ended: it ran to its end: no exception, no exit on the way, no limit.
        error: else the last line it left on stderr, or "out of time".
    """

    ended: bool
    error: str = ""


def run_program(source: str, limits: SandboxLimits | None = None) -> Ran:
    """Run a Python program; see the module for what it cannot do and what it can.

    Raises:
        GcacheError: no process can be started here, which says nothing of the program.
    """
    limits = limits or SandboxLimits()
    word = secrets.token_hex(16)
    with tempfile.TemporaryDirectory(prefix="gcache-sandbox-", ignore_cleanup_errors=True) as folder:
        program, room = Path(folder, "program.py"), Path(folder, "room")
        program.write_text(source, encoding="utf-8", errors="surrogateescape")
        room.mkdir()
        with open(Path(folder, "stderr"), "w+b") as stderr:
            said, out_of_time = _run(_command(program, limits), room, word, stderr, limits.seconds)
            stderr.seek(max(0, stderr.seek(0, os.SEEK_END) - 2000))
            lines = stderr.read().decode("utf-8", "replace").strip().splitlines()
    if said.strip() == word and not out_of_time:
        return Ran(True)
    return Ran(False, "out of time" if out_of_time else (lines or ["it stopped before its end"])[-1][:300])


def _command(program: Path, limits: SandboxLimits) -> list[str]:
    mb = 2**20
    numbers = (int(limits.seconds) + 1, limits.memory_mb * mb, limits.file_mb * mb, limits.processes)
    return [sys.executable, "-I", "-X", "utf8", str(CHILD), str(program), *map(str, numbers)]


def _run(command: list[str], room: Path, word: str, stderr: object, seconds: float) -> tuple[str, bool]:
    """What the process said on stdout, and whether its time ran out."""
    try:
        process = subprocess.Popen(
            command, cwd=room, env={}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr,  # type: ignore[call-overload]
            start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        raise GcacheError(f"no process can be started to run a program in ({error})") from error
    try:
        return _watched(process, word, seconds)
    finally:
        process.kill()
        process.wait()


def _watched(process: subprocess.Popen[bytes], word: str, seconds: float) -> tuple[str, bool]:
    assert process.stdin is not None and process.stdout is not None
    with process.stdin, process.stdout:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write((word + "\n").encode())
            process.stdin.flush()
        try:
            process.wait(seconds)
            out_of_time = False
        except subprocess.TimeoutExpired:
            out_of_time = True
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)  # whatever it started is in its session
        # nobody is left to write, so this ends
        return process.stdout.read(1000).decode("utf-8", "replace"), out_of_time
