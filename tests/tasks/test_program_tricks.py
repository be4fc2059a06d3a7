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


LATE = {
    "behind an import": "import math\n" + FUTURE + HALF,
    "behind an import that is used": "import math\n" + FUTURE + HALF.replace("x / 2", "math.fabs(x) / 2"),
    "behind a second text": "'Halves.'\n'Again.'\n" + FUTURE + HALF,
    "behind a call": "print('Halves.')\n" + FUTURE + HALF,
    "behind one that is in place": FUTURE + "import math\n" + FUTURE.replace("annotations", "division") + HALF,
    "on one line": "import math; " + FUTURE + HALF,
    "behind the function": HALF + "\n" + FUTURE,
    "in a branch": "if True:\n    " + FUTURE + HALF,
    "in a function": "def other():\n    " + FUTURE + HALF,
    "behind an import, with a shell": "import math\n" + FUTURE + HALF + "\n$ python half.py",
    "indented": "    import math\n    " + FUTURE + "    " + HALF.replace("\n", "\n    "),
    "by a name": "import math\n" + FUTURE + "half = lambda x: x / 2",
}


@pytest.mark.parametrize("program", LATE.values(), ids=LATE.keys())
@pytest.mark.parametrize("future", ["", FUTURE], ids=["plain tests", "tests from the future"])
def test_an_import_from_the_future_that_its_author_put_elsewhere_is_no_python(
    tmp_path: Path, program: str, future: str
) -> None:
    """Ours alone are moved: a program that Python refuses is wrong, also where its other half would do."""
    plain = program.replace(": Unknown", "").replace(" -> Unknown", "")
    for task, row in (("humaneval", ROW), ("mbppplus", {**SHORT, "test": "assert half(3) == 1.5"})):
        row = {**row, "test": future + str(row["test"])}
        assert outcome(tmp_path, program, task, row) == "wrong"
        assert outcome(tmp_path, plain, task, row) == "wrong"


def test_without_a_fence_too(tmp_path: Path) -> None:
    (example,) = examples_of(tmp_path, "humaneval", ROW)
    task = make_task("humaneval", seconds=5.0)
    late, good = "import math\n" + FUTURE + HALF.replace(": Unknown", ""), FUTURE + HALF
    for bare in (late, f"Sure\n\n{late}", f"Here it is:\n\n{late}\n\nDone.", f"<pre>{late}\n</pre>"):
        assert task.grade(bare, example).outcome == "wrong", bare
    for bare in (good, f"Sure\n\n{good}", f"Here it is:\n\n{good}\n\nDone.", f"<pre>{good}\n</pre>"):
        assert task.grade(bare, example).outcome == "right", bare


def test_another_block_and_a_session_are_their_own_beginning(tmp_path: Path) -> None:
    broken = f"import math\n{FUTURE}def other(): pass\n```\nBetter:\n```python\n"
    assert outcome(tmp_path, broken + FUTURE + HALF) == "right"
    session = "import math\n" + FUTURE + HALF.replace(" / 2", " / 2\n")
    typed = "\n".join(("... " if line.startswith("    ") else ">>> ") + line for line in session.rstrip().split("\n"))
    assert outcome(tmp_path, typed) == "right"  # line by line, Python takes it


def test_a_program_that_is_no_python_fails_beside_tests_from_the_future(tmp_path: Path) -> None:
    row = {**ROW, "test": FUTURE + ROW["test"]}
    assert outcome(tmp_path, "def half(x:\n    return x / 2", "humaneval", row) == "wrong"
