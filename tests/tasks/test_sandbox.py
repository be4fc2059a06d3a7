"""What a program in the sandbox can and cannot do."""

from __future__ import annotations

import socket
import sys
import time
from pathlib import Path

import needs
import pytest

from gcache.errors import ConfigError, GcacheError
from gcache.tasks.sandbox import Ran, SandboxLimits, run_program

linux = needs.skips_if(not sys.platform.startswith("linux"), "these limits are Linux's", needs.LINUX)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("x = 1\n", Ran(True)),
        ("print('a' * 10_000_000)\n", Ran(True)),  # nobody reads it
        ("if __name__ == '__main__':\n    assert 1 + 1 == 2\n", Ran(True)),
        ("assert 1 + 1 == 3, 'sums'\n", Ran(False, "AssertionError: sums")),
        ("1 / 0\n", Ran(False, "ZeroDivisionError: division by zero")),
        ("def f(:\n", Ran(False, "SyntaxError: invalid syntax")),
        ("import sys; sys.exit(0)\n", Ran(False, "it stopped before its end")),
        ("import os; os._exit(0)\n", Ran(False, "it stopped before its end")),
        ("print('word')\nraise SystemExit\n", Ran(False, "it stopped before its end")),
        ("x = '\udcff'\n", None),
        ("\0", None),
    ],
)
def test_how_programs_end(source: str, expected: Ran | None) -> None:
    ran = run_program(source)
    if expected is None:
        assert not ran.ended and ran.error
    else:
        assert ran == expected


def test_time() -> None:
    began = time.monotonic()
    assert run_program("while True: pass\n", SandboxLimits(seconds=0.5)) == Ran(False, "out of time")
    assert run_program("import time; time.sleep(60)\n", SandboxLimits(seconds=0.5)) == Ran(False, "out of time")
    assert time.monotonic() - began < 30


@linux
def test_memory_and_files() -> None:
    assert "MemoryError" in run_program("x = bytearray(3 * 2**30)\n").error
    assert run_program("x = bytearray(2**28)\n").ended
    ran = run_program("with open('f', 'wb') as file:\n    file.write(b'0' * 2**23)\n")
    assert not ran.ended
    assert run_program("with open('f', 'wb') as file:\n    file.write(b'0' * 2**20)\n").ended


def test_the_environment_is_empty_and_the_folder_is_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_KEY", "secret")
    assert run_program("import os\nassert 'API_KEY' not in os.environ and 'HOME' not in os.environ\n") == Ran(True)
    assert run_program("import os\nassert os.listdir('.') == []\n") == Ran(True)
    assert run_program("import sys\nassert sys.stdin.read() == '' and sys.argv == ['program']\n") == Ran(True)
    assert run_program("import sys\nassert not any(m.startswith('gcache') for m in sys.modules)\n") == Ran(True)


def test_nothing_stays_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    run_program("open('left', 'w').write('x')\n")
    run_program("while True: pass\n", SandboxLimits(seconds=0.3))
    assert list(tmp_path.iterdir()) == []


@linux
@pytest.mark.parametrize(
    "source",
    [
        "import os\nif os.fork() == 0:\n    os._exit(0)\n",
        "import subprocess\nsubprocess.run(['true'])\n",
        "import threading\nthreading.Thread(target=print).start()\n",
        "import socket\nsocket.socket()\n",
        "import socket\nsocket.socketpair()\n",
        "import os, socket\nos.setuid(0) if os.geteuid() == 0 else None\nsocket.socket()\n",
    ],
)
def test_no_process_no_thread_and_no_network(source: str) -> None:
    ran = run_program(source)
    assert not ran.ended
    assert "not permitted" in ran.error or "can't start new thread" in ran.error
    assert run_program("import os\nif os.fork() == 0:\n    os._exit(0)\n", SandboxLimits(processes=4096)).ended


@linux
def test_what_it_started_is_killed_with_it(tmp_path: Path) -> None:
    sign = tmp_path / "sign"
    source = f"import os, time\nif os.fork() == 0:\n    time.sleep(1)\n    open({str(sign)!r}, 'w').close()\n"
    run_program(source, SandboxLimits(processes=4096, seconds=5))
    time.sleep(1.5)
    assert not sign.exists()


@linux
def test_nobody_is_reached() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
        assert not run_program(f"import socket\nsocket.create_connection({address}, 2)\n").ended
        server.settimeout(0.2)
        with pytest.raises(TimeoutError):
            server.accept()


def test_a_system_that_starts_nothing_is_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gcache.tasks.sandbox.sys.executable", "/nowhere/python")
    with pytest.raises(GcacheError, match="no process can be started"):
        run_program("x = 1\n")


@pytest.mark.parametrize("values", [{"seconds": 0}, {"memory_mb": 0}, {"file_mb": 0}, {"processes": -1}])
def test_limits_that_are_none(values: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="of a sandbox must be"):
        SandboxLimits(**values)
