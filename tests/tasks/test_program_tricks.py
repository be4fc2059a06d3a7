"""What a program cannot trick its tests with, what it can (docs/sandbox.md says so), and imports from `__future__`,
which break wherever something is put in front of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from data_rows import examples_of

from gcache.tasks import make_task

ROW = {
    "task_id": "T/0",
    "prompt": 'import math\nfrom typing import List\n\ndef half(x: float) -> float:\n    """Half of x."""\n',
    "entry_point": "half",
    "test": "def check(candidate):\n    assert candidate(3) == 1.5\n    assert abs(candidate(5) - 2.5) < 1e-6\n",
}


def outcome(tmp_path: Path, program: str, task: str = "humaneval", row: dict[str, Any] | None = None) -> str:
    (example,) = examples_of(tmp_path, task, row or ROW)
    return make_task(task, seconds=5.0).grade(f"```python\n{program}\n```", example).outcome


CAUGHT = {
    "exit in the function": "import sys\ndef half(x):\n    sys.exit(0)",
    "exit at once": "import os\ndef half(x):\n    os._exit(0)",
    "exit at the top": "def half(x):\n    return 0\nraise SystemExit(0)",
    "exit when it ends": "import atexit, os\n\ndef half(x):\n    atexit.register(os._exit, 0)\n    return 0",
    "a signal": "import os\ndef half(x):\n    os.kill(os.getpid(), 9)",
    "a check of its own": "def half(x):\n    return 0\ndef check(candidate):\n    pass",
    "a check put in its place": "import sys\ndef half(x):\n"
    "    sys._getframe(1).f_globals['check'] = print\n    return 0",
    "asserts left out": "__debug__ = False\ndef half(x):\n    return 0",
    "another AssertionError": "AssertionError = ValueError\ndef half(x):\n    return 0",
    "errors not shown": "import sys\nsys.excepthook = print\ndef half(x):\n    return 0",
    "builtins at the top": "import builtins\nbuiltins.abs = lambda x: 0\ndef half(x):\n    return 1.5",
    "the source of its tests": "import inspect\ndef half(x):\n"
    "    return inspect.getsource(inspect.currentframe().f_back)",
}
PASSES = {
    "equal to everything": "class Any(float):\n    def __eq__(self, other): return True\n"
    "    def __sub__(self, other): return 0\n\ndef half(x):\n    return Any()",
    "builtins changed in a call": "import builtins\ndef half(x):\n    builtins.abs = lambda x: 0\n    return 1.5",
    "a builtin of its own that it uses": "def abs(x):\n    return 0\ndef half(x):\n    return abs(x) + 1.5",
    "the constants of its tests": "import sys\ndef half(x):\n"
    "    found = [c for c in sys._getframe(1).f_code.co_consts if isinstance(c, float)]\n    return found[x == 5]",
    "the word": "import os, sys\ndef half(x):\n    frame = sys._getframe()\n"
    "    while 'word' not in frame.f_locals:\n        frame = frame.f_back\n"
    "    os.write(frame.f_locals['said'], frame.f_locals['word'])\n    os._exit(0)",
}


@pytest.mark.parametrize("trick", CAUGHT)
def test_a_trick_that_does_not_work(tmp_path: Path, trick: str) -> None:
    assert outcome(tmp_path, CAUGHT[trick]) == "wrong"


@pytest.mark.parametrize("trick", PASSES)
def test_a_trick_that_works_is_written_down(tmp_path: Path, trick: str) -> None:
    """If one of these is caught one day, its line in docs/sandbox.md moves."""
    assert outcome(tmp_path, PASSES[trick]) == "right"


FUTURE = "from __future__ import annotations\n"
HALF = "def half(x: Unknown) -> Unknown:\n    return x / 2"
SHORT = {"prompt": "Halve it.", "test_list": ["assert half(3) == 1.5"]}


@pytest.mark.parametrize(
    ("task", "row", "program"),
    [
        ("humaneval", ROW, FUTURE + HALF),
        ("humaneval", ROW, '"""Halves."""\n' + FUTURE + "import math\n" + HALF),
        ("humaneval", ROW, "import math\n```\nand\n```python\n" + FUTURE + HALF),
        ("humaneval", {**ROW, "prompt": FUTURE + ROW["prompt"]}, HALF),
        ("humaneval", {**ROW, "prompt": FUTURE + ROW["prompt"]}, FUTURE + HALF),
        ("humaneval", {**ROW, "prompt": FUTURE + ROW["prompt"]}, "    return x / 2"),
        ("humaneval", {**ROW, "test": FUTURE + "import math\n" + ROW["test"]}, FUTURE + HALF),
        ("humaneval", {**ROW, "test": '"""Tests."""\n' + FUTURE + ROW["test"]}, HALF.replace(": Unknown", "")
         .replace(" -> Unknown", "")),
        ("mbppplus", {**SHORT, "test_imports": ["import math"]}, FUTURE + HALF),
        ("mbppplus", {**SHORT, "test_imports": ["import math", FUTURE.strip()]}, FUTURE + HALF),
        ("mbppplus", {**SHORT, "test_setup_code": FUTURE}, FUTURE + HALF),
        ("mbppplus", {**SHORT, "test": FUTURE + "assert half(3) == 1.5"}, HALF),
    ],
)  # fmt: skip
def test_imports_from_the_future_stand_first(tmp_path: Path, task: str, row: dict[str, Any], program: str) -> None:
    assert outcome(tmp_path, program, task, row) == "right"


def test_a_program_that_is_no_python_fails_beside_tests_from_the_future(tmp_path: Path) -> None:
    row = {**ROW, "test": FUTURE + ROW["test"]}
    assert outcome(tmp_path, "def half(x:\n    return x / 2", "humaneval", row) == "wrong"
