"""Programs that attack their grader, graded as any other: each fails, or is in docs/sandbox.md as not contained."""

from __future__ import annotations

import ctypes
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from needs import LINUX, skip_without, skips_if

from gcache.errors import GcacheError
from gcache.tasks import sandbox
from gcache.tasks.sandbox import Ran, SandboxLimits, run_program
from gcache.tasks.undumpable import undumpable

pytestmark = skips_if(not sys.platform.startswith("linux"), "the layers are those of Linux", LINUX)

HARNESS = Path(__file__).with_name("attack_harness.py")
ROOT = Path(__file__).parents[2]
NOBODY = 65534
ROW = {"task_id": 1, "prompt": "Attack.", "test_list": ["assert attack() == 'done'"]}
LIBC = "import ctypes as c\nlibc = c.CDLL(None, use_errno=True)\n"
#: Bodies of `attack()`; it is right, and so done, if it comes to its end. FILE is a file of the grader's user,
#: GRADER its process, ADDRESS that of a secret in its memory; MARKER stands in its environment, OTHER in
#: that of another process of its user.
ATTACKS = {
    "environment of the grader": "assert b'MARKER=' in open('/proc/GRADER/environ', 'rb').read()",
    "environment of the parent": "import os\nassert b'MARKER=' in open(f'/proc/{os.getppid()}/environ', 'rb').read()",
    "memory of the grader": """with open('/proc/GRADER/mem', 'rb', 0) as f:
    f.seek(ADDRESS)
    assert f.read(6) == b'in the'""",
    "memory, by process_vm_readv": LIBC
    + """b = c.create_string_buffer(6)
class V(c.Structure):
    _fields_ = [('p', c.c_void_p), ('n', c.c_size_t)]
here, there = V(c.addressof(b), 6), V(ADDRESS, 6)
assert libc.process_vm_readv(GRADER, c.byref(here), 1, c.byref(there), 1, 0) == 6""",
    "memory, by ptrace": LIBC + "assert libc.ptrace(0x4206, GRADER, None, None) == 0",
    "environment of any process": """import glob
for path in glob.glob('/proc/[0-9]*/environ'):
    try:
        if b'OTHER=' in open(path, 'rb').read():
            return 'done'
    except OSError:
        pass
assert False""",
    "a signal to the grader": "import os\nos.kill(GRADER, 0)",  # allowed or not is all that is asked
    "a signal to the parent": "import os\nassert os.getppid() > 1\nos.kill(os.getppid(), 0)",
    "a signal to all": "import os\nos.kill(-1, 0)",
    "a signal to a group": "import os\nos.killpg(os.getpgid(GRADER), 0)",
    "a signal by a file": "import fcntl, os\nfcntl.fcntl(os.pipe()[0], fcntl.F_SETOWN, GRADER)",
    "a limit of the grader": "import resource\nresource.prlimit(GRADER, resource.RLIMIT_CORE, (0, 0))",
    "priority of the grader": "import os\nos.setpriority(os.PRIO_PROCESS, GRADER, 1)",
    "reading a file": "assert open('FILE').read()",
    "writing to a file": "open('FILE', 'a').write('x')",
    "removing a file": "import os\nos.rename('FILE', 'FILE.x')\nos.rename('FILE.x', 'FILE')",
    "leaving a file": "import os\nopen('FILE.new', 'w').close()\nos.remove('FILE.new')",
    "mode of a file": "import os\nos.chmod('FILE', 0o640)",
    "leaving a file in /tmp": "open('/tmp/MARK', 'w').close()",
    "writing to the library": "import os\nopen(os.__file__, 'a').close()",
    "processes": "import os\nif os.fork() == 0:\n    os._exit(0)",
    "threads": "import threading\nthreading.Thread(target=int).start()",
    "another program": "import os\nos.execv('/bin/sh', ['sh', '-c', 'exit 0'])",
    "network": "import socket\nsocket.socket()",
    "shared memory": LIBC + "assert libc.shmget(0, 4096, 0o1600) >= 0",
    "a namespace": LIBC + "assert libc.unshare(0x10000000) == 0",
    "an open file of the grader": """import os
for number in range(3, 64):
    try:
        return os.listdir(number) and 'done'
    except OSError:
        pass
assert False""",
    "disk": "for i in range(100):\n    open(f'f{i}', 'wb').write(b'0' * 2**20)",
    "a large file": "open('f', 'wb').write(b'0' * 2**23)",
    "memory": "x = bytearray(3 * 2**30)",
    "another user": "import os\nos.setuid(1234)",
}
FILES = {"reading a file", "writing to a file", "removing a file", "leaving a file", "leaving a file in /tmp"}
#: What may come to its end where layers are missing. docs/sandbox.md says the same.
OPEN: dict[tuple[str, ...], set[str]] = {
    (): set(),
    ("namespaces",): {"disk"},
    ("landlock", "namespaces"): {"disk", *FILES, "writing to the library", "environment of any process"},
}
#: What stays closed by the mark of the grader alone.
CLOSED = {name for name in ATTACKS if name.startswith(("environment of the", "memory"))}


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Path]:
    """A file in a folder of the user's own, which everybody can reach the way to."""
    folder = Path("/var/tmp", f"gcache-attacks-{os.getpid()}-{tmp_path.name}")
    folder.mkdir(mode=0o755)
    file = folder / "file"
    file.write_text("mine", encoding="utf-8")
    yield file
    shutil.rmtree(folder)


def python_for(user: int) -> str:
    """A Python of this version that the user can start."""
    for path in (sys.executable, f"/usr/bin/python{sys.version_info.major}.{sys.version_info.minor}"):
        code = "import ctypes, sys; sys.exit(0)"
        try:
            if subprocess.run([path, "-c", code], user=user, group=user, env={}, cwd="/").returncode == 0:
                return path
        except OSError:
            continue
    skip_without("no Python here can be started by another user", "install one outside the home folder")


def attacked(target: Path, user: int, without: tuple[str, ...]) -> tuple[dict[str, list[str]], tuple[str, ...]]:
    """What the attacks came to with a grader of this user, and the layers that it had to do without."""
    mine = user == os.geteuid()
    who = {} if mine else {"user": user, "group": user, "extra_groups": []}
    if not mine:
        os.chown(target.parent, user, user)
        os.chown(target, user, user)
    python = sys.executable if mine else python_for(user)
    paths = os.pathsep.join([str(ROOT), *(path for path in sys.path if path.endswith("-packages"))])
    words = {"FILE": str(target), "/tmp/MARK": f"/tmp/{target.parent.name}"}
    attacks = dict(ATTACKS)
    for word, meant in words.items():
        attacks = {name: body.replace(word, meant) for name, body in attacks.items()}
    other = subprocess.Popen(["sleep", "600"], env={"OTHER": "secret", "PATH": os.environ["PATH"]}, **who)  # type: ignore[call-overload]
    try:
        ran = subprocess.run(
            [python, str(HARNESS)], input=json.dumps({"row": ROW, "attacks": attacks, "without": without}),
            env={"PYTHONPATH": paths, "MARKER": "secret", "PATH": os.environ["PATH"]}, cwd="/", text=True,
            capture_output=True, **who,
        )  # type: ignore[call-overload]  # fmt: skip
    finally:
        other.kill()
        other.wait()
    left = Path(words["/tmp/MARK"]).exists()
    Path(words["/tmp/MARK"]).unlink(missing_ok=True)
    assert ran.returncode == 0, ran.stderr[-2000:]
    found = json.loads(ran.stdout)
    if not left:  # it was a /tmp of its own
        found["outcomes"]["leaving a file in /tmp"][0] = "wrong"
    return found["outcomes"], tuple(found["refused"])


@pytest.mark.parametrize("user", [os.geteuid(), *([NOBODY] if os.geteuid() == 0 else [])])
@pytest.mark.parametrize("without", OPEN, ids=lambda names: "without " + (" and ".join(names) or "nothing"))
def test_attacks(target: Path, user: int, without: tuple[str, ...]) -> None:
    outcomes, refused = attacked(target, user, without)
    assert set(outcomes) == set(ATTACKS)
    done = {name for name, (outcome, _) in outcomes.items() if outcome == "right"}
    allowed = OPEN.get(refused, FILES | set(ATTACKS) - CLOSED)
    assert done <= allowed, f"without {refused}: {sorted(done - allowed)}"
    assert all(outcome in ("right", "wrong") for outcome, _ in outcomes.values())  # each was tried
    assert target.read_text(encoding="utf-8").startswith("mine")
    # an attack fails for what it met, not for a mistake of its own
    assert not [answer for _, answer in outcomes.values() if "NameError" in answer or "SyntaxError" in answer]


@pytest.mark.parametrize("user", [os.geteuid(), *([NOBODY] if os.geteuid() == 0 else [])])
def test_the_grader_is_closed_without_any_layer(target: Path, user: int) -> None:
    outcomes, _ = attacked(target, user, ("landlock", "namespaces", "seccomp"))
    assert [name for name in CLOSED if outcomes[name][0] == "right"] == []
    assert outcomes["reading a file"][0] == "right"  # and the attacks can come to their end


def of(folder: Path) -> list[int]:
    """Processes that were started for a folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if str(folder).encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def gone(folder: Path) -> bool:
    until = time.monotonic() + 30
    while of(folder) and time.monotonic() < until:
        time.sleep(0.05)
    return not of(folder)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that other users reach, as programs may run as one of these; pytest's own is its user's alone."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


@pytest.mark.parametrize("without", OPEN, ids=lambda names: "without " + (" and ".join(names) or "nothing"))
def test_no_process_outlives_its_time(
    open_folder: Path, monkeypatch: pytest.MonkeyPatch, without: tuple[str, ...]
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(open_folder))
    monkeypatch.setattr(sandbox, "_refused", set(without))
    stubborn = (
        "import os, signal, time\nfor s in range(1, 65):\n    try: signal.signal(s, signal.SIG_IGN)\n"
        "    except (OSError, ValueError): pass\n"
    )
    several = stubborn + "for _ in range(3):\n    if os.fork() == 0: os.setsid()\nwhile True: time.sleep(1)\n"
    late = Ran(False, "out of time")
    assert run_program(stubborn + "while True: time.sleep(1)\n", SandboxLimits(seconds=0.5)) == late
    if not without:  # where nothing but namespaces holds what left its session
        assert run_program(several, SandboxLimits(seconds=0.5, processes=4096)) == late
    assert gone(open_folder)


@pytest.mark.parametrize("without", OPEN, ids=lambda names: "without " + (" and ".join(names) or "nothing"))
def test_no_process_outlives_a_grader_that_is_killed(open_folder: Path, without: tuple[str, ...]) -> None:
    code = (
        f"import sys, tempfile; tempfile.tempdir = {str(open_folder)!r}; from gcache.tasks import sandbox\n"
        f"sandbox._refused.update({list(without)!r})\n"
        "sandbox.run_program('import time; time.sleep(600)', sandbox.SandboxLimits(seconds=600))"
    )
    paths = os.pathsep.join([str(ROOT), *sys.path])
    grader = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": paths})
    until = time.monotonic() + 60
    while len(of(open_folder)) < (2 if without else 3) and time.monotonic() < until:  # the grader, and what it started
        time.sleep(0.05)
    assert len(of(open_folder)) > 1
    grader.send_signal(signal.SIGKILL)
    grader.wait()
    assert gone(open_folder)


def test_a_failure_of_the_sandbox_is_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "_STARTER", "raise MemoryError('none left')")
    with pytest.raises(GcacheError, match=r"no process can be started to run a program in \(MemoryError: none left\)"):
        run_program("x = 1\n")
    monkeypatch.setattr(sandbox, "_STARTER", "import time; time.sleep(60)")
    monkeypatch.setattr(sandbox, "STARTED_WITHIN", 0.2)
    with pytest.raises(GcacheError, match="did not begin within"):
        run_program("x = 1\n")


def test_a_failure_that_passes_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sign = tmp_path / "sign"
    once = f"import os\nif not os.path.exists({str(sign)!r}):\n    open({str(sign)!r}, 'w')\n    raise MemoryError\n"
    monkeypatch.setattr(sandbox, "_STARTER", once + sandbox._STARTER)
    assert run_program("x = 1\n") == Ran(True)


def test_its_time_begins_with_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "_STARTER", "import time; time.sleep(1.5)\n" + sandbox._STARTER)
    assert run_program("x = 1\n", SandboxLimits(seconds=1.0)) == Ran(True)


def refusing(number: str, monkeypatch: pytest.MonkeyPatch) -> None:
    no = f"import errno, sandbox.sandbox_child as c\ndef no(*_): raise OSError(errno.{number}, 'no')\nc.enter = no\n"
    monkeypatch.setattr(sandbox, "_STARTER", sandbox._STARTER.replace("main(sys", no + "main(sys"))
    monkeypatch.setattr(sandbox, "_refused", set())
    monkeypatch.setattr(sandbox, "_warned", set())


def test_what_a_system_does_not_grant_is_logged_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    refusing("EPERM", monkeypatch)
    with caplog.at_level(logging.WARNING):
        assert [run_program("x = 1\n") for _ in range(3)] == [Ran(True)] * 3
    assert "namespaces" in sandbox._refused
    (record,) = caplog.records
    assert "fill the disk" in record.message and "docs/sandbox.md" in record.message


def test_a_lack_of_memory_takes_no_layer_away(monkeypatch: pytest.MonkeyPatch) -> None:
    refusing("ENOMEM", monkeypatch)
    with pytest.raises(GcacheError, match="no process can be started"):
        run_program("x = 1\n")
    assert sandbox._refused == set()


def test_elsewhere_than_on_linux_limits_are_all_there_is(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sandbox, "_STARTER", "import sys; sys.platform = 'darwin'\n" + sandbox._STARTER)
    monkeypatch.setattr(sandbox, "_warned", set())
    with caplog.at_level(logging.WARNING):
        assert run_program("x = 1\n") == run_program("import os\nassert 'HOME' not in os.environ\n") == Ran(True)
    (record,) = caplog.records
    assert all(what in record.message for what in sandbox.LAYERS.values())


def test_programs_run_at_once() -> None:
    with ThreadPoolExecutor(4) as pool:
        ran = list(pool.map(run_program, [f"assert {n} % 2\n" for n in range(8)]))
    assert [each.ended for each in ran] == [bool(n % 2) for n in range(8)]


def test_the_grader_can_be_dumped_again() -> None:
    libc = ctypes.CDLL(None)
    before = libc.prctl(3, 0, 0, 0, 0)
    with undumpable():
        with undumpable():
            assert libc.prctl(3, 0, 0, 0, 0) == 0
        assert libc.prctl(3, 0, 0, 0, 0) == 0
    assert libc.prctl(3, 0, 0, 0, 0) == before


@pytest.mark.parametrize(
    "source",
    [
        "import numpy as np\nassert np.linalg.inv(np.eye(3)).shape == (3, 3)\n",
        "import hashlib, json, random, re\nhashlib.sha256(b'x').digest()\nrandom.SystemRandom().random()\n",
        "import tempfile\nwith tempfile.NamedTemporaryFile() as f:\n    f.write(b'x')\n",
        "import os\nopen('a', 'w').write('x')\nassert os.path.exists(os.path.abspath('a'))\nos.remove('a')\n",
        "import os\nos.kill(os.getpid(), 0)\nopen('/dev/null', 'w').write('x')\nopen('/dev/urandom', 'rb').read(1)\n",
        "from __future__ import annotations\nfrom dataclasses import dataclass\n@dataclass\nclass A:\n    x: int\n",
        "import pickle\nclass A: pass\npickle.loads(pickle.dumps(A()))\n",
    ],
)
@pytest.mark.parametrize("without", OPEN, ids=lambda names: "without " + (" and ".join(names) or "nothing"))
def test_what_programs_may_do(monkeypatch: pytest.MonkeyPatch, without: tuple[str, ...], source: str) -> None:
    monkeypatch.setattr(sandbox, "_refused", set(without))
    assert run_program(source) == Ran(True)
