"""Running programs that a model wrote.

A program runs in a process of its own, in an empty folder that is thrown away, with an empty environment
and no input, for so many seconds (of the clock and of the processor), with so much memory and files of so
many bytes. What else it is kept from depends on what the system grants; `LAYERS` names it, docs/sandbox.md
has the table of what is contained where, and what is missing is logged once.

A program that sets out to deceive can find the word by which it reports that it ran to its end. Run what
you do not trust at all in a container.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import marshal
import os
import secrets
import selectors
import signal
import site
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from gcache.errors import ConfigError, GradingError
from gcache.runtime.numbers import require_whole
from gcache.tasks.undumpable import undumpable

logger = logging.getLogger(__name__)

#: Layer -> what a program can do without it. Linux has them; `namespaces` includes `landlock` and `user`.
LAYERS = {
    "namespaces": "see which processes run, and fill the disk with many small files",
    "landlock": "read, change and delete the files of this user, and read the environment of this user's other "
    "processes",
    "seccomp": "use the network, signal this user's processes, and, as root, start processes that stay",
}
#: A start is a failure of the sandbox after so many seconds. It takes a fraction of one on an idle machine.
STARTED_WITHIN = 60.0
TRIES = 3

_STARTER = """
import sys, types
package = types.ModuleType("sandbox")
package.__path__ = [sys.argv[1]]
sys.modules["sandbox"] = package
from sandbox.sandbox_child import main
main(sys.argv[2])
"""
#: Where the libraries of a system lie, as a program sees them.
_SYSTEM = (
    "/usr", "/lib", "/lib32", "/lib64", "/nix/store", "/gnu/store", "/home/linuxbrew/.linuxbrew",
    "/etc/ld.so.cache", "/etc/localtime", "/etc/alternatives",
)  # fmt: skip

#: Layers that this system was found not to grant.
_refused: set[str] = set()
_warned: set[frozenset[str]] = set()


@dataclass(frozen=True)
class SandboxLimits:
    """What a program may take.

    Attributes:
        seconds: of the clock, and of the processor.
        memory_mb: of addresses, in MiB.
        file_mb: of each file it writes, in MiB.
        disk_mb: of all its files together, in MiB, where namespaces are granted.
        processes: beside itself.
    """

    seconds: float = 10.0
    memory_mb: int = 2048
    file_mb: int = 4
    disk_mb: int = 64
    processes: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.seconds < float("inf"):
            raise ConfigError(f"the seconds of a sandbox must be above 0, got {self.seconds}")
        for name in ("memory_mb", "file_mb", "disk_mb"):
            require_whole(f"{name} of a sandbox", getattr(self, name), 1)
        require_whole("processes of a sandbox", self.processes, 0)

    def of_the_system(self) -> dict[str, int]:
        """As setrlimit(2) knows them."""
        mb = 2**20
        return {
            "RLIMIT_CPU": int(self.seconds) + 1, "RLIMIT_AS": self.memory_mb * mb, "RLIMIT_FSIZE": self.file_mb * mb,
            "RLIMIT_NPROC": self.processes, "RLIMIT_NOFILE": 64, "RLIMIT_CORE": 0,
        }  # fmt: skip


@dataclass(frozen=True)
class Ran:
    """How a program ended.

    Attributes:
        ended: it ran to its end: no exception, no exit on the way, no limit.
        error: else the last line it left on stderr, or "out of time".
        layers: of `LAYERS`, those that the system granted.
    """

    ended: bool
    error: str = ""
    layers: frozenset[str] = field(default=frozenset(), compare=False)


class _Failed(Exception):
    """The sandbox failed before the program began."""


class _Refused(Exception):
    """The system does not grant a layer (its name, and why)."""


def _is_final(why: str) -> bool:
    """Whether a system that refuses a layer so will always do: it is not allowed, or not known. A limit on how many
    there may be at once, for one, is met for a moment."""
    return any(f"[Errno {code}]" in why for code in (errno.EPERM, errno.EACCES, errno.ENOSYS, errno.EINVAL))


def run_program(source: str, limits: SandboxLimits | None = None) -> Ran:
    """Run a Python program; see the module for what it cannot do and what it can.

    Raises:
        GradingError: the sandbox itself fails, several times in a row, which says nothing of the program.
    """
    ran = _settled(source, limits or SandboxLimits())
    _warn(ran.layers)
    return ran


def gaps() -> list[str]:
    """What programs of models can do on this system that they could not with all `LAYERS`; an empty one is run for it.

    Raises:
        GradingError: the sandbox itself fails.
    """
    return _opened(_settled("", SandboxLimits()).layers)


def _settled(source: str, limits: SandboxLimits) -> Ran:
    """How a program ended, once it is known what the system grants."""
    failures = 0
    refusals: dict[str, int] = {}
    while True:
        try:
            return _tried(source, limits)
        except _Refused as refused:
            layer, why = refused.args
            refusals[layer] = refusals.get(layer, 0) + 1
            if not _is_final(why) and refusals[layer] < TRIES:
                time.sleep(0.2 * refusals[layer])
                continue
            logger.info("this system does not grant %s to the programs of models (%s)", layer, why)
            _refused.add(layer)
        except (_Failed, OSError) as error:
            failures += 1
            passes = isinstance(error, _Failed) or error.errno in (errno.EAGAIN, errno.ENOMEM)
            if failures == TRIES or not passes:
                raise GradingError(f"no process can be started to run a program in ({error})") from error
            time.sleep(0.2 * failures)


def _tried(source: str, limits: SandboxLimits) -> Ran:
    word = secrets.token_hex(16)
    with tempfile.TemporaryDirectory(prefix="gcache-sandbox-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o711)  # where the program runs as another user, its own folder is below
        for below in ("room", "root"):
            (folder / below).mkdir()
        order = {
            "source": source, "parent": os.getpid(), "limits": limits.of_the_system(), "disk": limits.disk_mb * 2**20,
            "without": sorted(_refused), "readable": _readable(), "packages": site.getsitepackages(),
        }  # fmt: skip
        (folder / "order").write_bytes(marshal.dumps(order))
        with open(folder / "stderr", "w+b") as stderr, undumpable():
            said, out_of_time = _run(folder, word, stderr, limits.seconds)
            stderr.seek(max(0, stderr.seek(0, os.SEEK_END) - 2000))
            lines = stderr.read().decode("utf-8", "replace").strip().splitlines()
    first, _, rest = said.partition("\n")
    last = (lines or ["it stopped before its end"])[-1][:300]
    if first.startswith("refused "):
        raise _Refused(*first.split(" ", 2)[1:])
    if not first.startswith("ready "):
        raise _Failed(f"it did not begin within {STARTED_WITHIN:.0f} s" if out_of_time else last)
    layers = frozenset(first.split()[1:])
    if rest.strip() == word and not out_of_time:
        return Ran(True, layers=layers)
    return Ran(False, "out of time" if out_of_time else last, layers)


def _readable() -> list[str]:
    """The folders of Python and of the system, of which none lies in another."""
    own = [os.path.dirname(os.__file__), *site.getsitepackages()]
    own += [os.path.join(p, lib) for p in {sys.prefix, sys.base_prefix} for lib in ("lib", "lib64")]
    kept: list[str] = []
    for path in sorted({*_SYSTEM, *map(os.path.abspath, own)}):
        if os.path.exists(path) and not any(os.path.commonpath([path, above]) == above for above in kept):
            kept.append(path)
    return kept


def _opened(layers: frozenset[str]) -> list[str]:
    held = layers | ({"landlock"} if "namespaces" in layers else set())
    return [what for layer, what in LAYERS.items() if layer not in held]


def _warn(layers: frozenset[str]) -> None:
    if layers in _warned:
        return
    _warned.add(layers)
    missing = _opened(layers)
    if missing:
        logger.warning(
            "this system keeps the programs of models in a sandbox with gaps: they can %s; see docs/sandbox.md",
            "; ".join(missing),
        )


def _run(folder: Path, word: str, stderr: object, seconds: float) -> tuple[str, bool]:
    """What the process said on stdout, and whether its time ran out."""
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", "-X", "utf8", "-c", _STARTER, str(Path(__file__).parent), str(folder)],
        cwd=folder, env={}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr,  # type: ignore[call-overload]
        start_new_session=True, bufsize=0,  # nothing is left to be flushed where the pipe breaks
    )  # fmt: skip
    try:
        return _watched(process, word, seconds)
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)  # whatever it started is in its session
        process.kill()
        process.wait()


def _watched(process: subprocess.Popen[bytes], word: str, seconds: float) -> tuple[str, bool]:
    """Read until the end of the process; its time runs from its first line on."""
    assert process.stdin is not None and process.stdout is not None
    with process.stdin, process.stdout, selectors.DefaultSelector() as selector:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write((word + "\n").encode())
        selector.register(process.stdout, selectors.EVENT_READ)
        said, until = b"", time.monotonic() + STARTED_WITHIN
        while (left := until - time.monotonic()) > 0:
            ended = process.poll() is not None  # before the look, so that nothing it said is missed
            if selector.select(0.0 if ended else min(left, 0.1)):
                read = os.read(process.stdout.fileno(), 1000)
                if b"\n" in read and b"\n" not in said:
                    until = time.monotonic() + seconds
                said = (said + read)[:1000]
                if not read:
                    return said.decode("utf-8", "replace"), False
            elif ended:
                return said.decode("utf-8", "replace"), False
        return said.decode("utf-8", "replace"), True
