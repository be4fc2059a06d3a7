"""Programming tasks: finding the program in a text, and running it against its tests."""

from __future__ import annotations

import json
from pathlib import Path

import needs
import pytest

from gcache.errors import DataError
from gcache.tasks import make_task
from gcache.tasks.code import extract_code
from gcache.tasks.example import Example, Task

ROW = {
    "task_id": "HumanEval/0",
    "prompt": 'from typing import List\n\n\ndef most(xs: List[int]) -> int:\n    """The greatest."""\n',
    "entry_point": "most",
    "test": "def check(candidate):\n    assert candidate([1, 3, 2]) == 3\n    assert candidate([-1]) == -1\n",
}
PLUS = {
    "task_id": 3,
    "prompt": "Write a function to double a number.",
    "test_list": ["assert double(2) == 4"],
    "test_imports": [],
    "test": "for x in range(50):\n    assert double(x) == x + x\n",
}


def of(tmp_path: Path, name: str, row: dict[str, object]) -> tuple[Task, Example]:
    path = tmp_path / "data.jsonl"
    path.write_text(json.dumps(row) + "\n", encoding="utf-8")
    task = make_task(name, path, whole_file=True)
    return task, task.test()[0]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("```python\nx = 1\n```", "x = 1\n"),
        ("Here:\n```py\nx = 1\n```\nand then\n```\nx = 2\n```\nDone.", "x = 2\n"),
        ("```python\nx = 1\n```\nRun it:\n```\n$ python x.py\n```", "x = 1\n"),
        ("```python\nx = 1\n", "x = 1\n"),  # cut off by the limit of tokens
        ("def f():\n    return 1\n", "def f():\n    return 1\n"),
        ("```python\n    return max(xs)\n```", "    return max(xs)\n"),
        ("I do not know.", None),
        ("42", None),
        ("", None),
        ("``` ```", None),
    ],
)
def test_the_program_of_a_text(text: str, code: str | None) -> None:
    assert extract_code(text) == code


@pytest.mark.parametrize("name", ["humaneval", "humanevalplus"])
@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        ("```python\ndef most(xs: List[int]) -> int:\n    return max(xs)\n```", "right"),
        ("```python\n    return max(xs)\n```", "right"),  # the body alone
        ("```python\nimport math\ndef most(xs):\n    return sorted(xs)[-1]\n```", "right"),
        ("```python\ndef most(xs):\n    return 3\n```", "wrong"),
        ("```python\ndef most(xs):\n    return max(xs\n```", "wrong"),
        ("```python\ndef least(xs):\n    return min(xs)\n```", "wrong"),
        ("```python\ndef most(xs):\n    while True: pass\n```", "wrong"),
        ("```python\nimport sys\ndef most(xs):\n    sys.exit(0)\n```", "wrong"),
        ("The greatest one.", "unparsed"),
        ("", "unparsed"),
    ],
)
def test_humaneval(tmp_path: Path, name: str, text: str, outcome: str) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text(json.dumps(ROW) + "\n", encoding="utf-8")
    task = make_task(name, path, whole_file=True, seconds=2.0)
    (example,) = task.test()
    assert example.id == "HumanEval/0" and "def most" in example.question and "assert" not in example.question
    assert task.grade(text, example).outcome == outcome


def test_mbppplus(tmp_path: Path) -> None:
    task, example = of(tmp_path, "mbppplus", PLUS)
    assert example.question.startswith("Write a function to double") and "assert double(2) == 4" in example.question
    assert task.grade("```python\ndef double(x):\n    return 2 * x\n```", example).outcome == "right"
    assert task.grade("```python\ndef double(x):\n    return x * x\n```", example).outcome == "wrong"
    without, example = of(tmp_path, "mbppplus", {k: v for k, v in PLUS.items() if k != "test"})
    assert example.meta["test"] == "assert double(2) == 4"
    assert without.grade("```python\ndef double(x):\n    return x * x\n```", example).outcome == "right"  # 2 only


def test_what_tests_import_is_not_asked_of_the_program(tmp_path: Path) -> None:
    row = {
        "task_id": 4,
        "prompt": "Write a function for the root.",
        "test_imports": ["import math"],
        "test_list": ["assert math.isclose(root(4), 2)"],
        "test": "import math\nassert math.isclose(root(9), 3)\n",
    }
    task, example = of(tmp_path, "mbppplus", row)
    text = "```python\ndef root(x):\n    return x ** 0.5\n```\n```python\nimport math\nmath = math.e\n```"
    assert task.grade(text, example).outcome == "right"


def test_a_row_without_tests_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.jsonl, line 1: the field 'test' is missing"):
        of(tmp_path, "humaneval", {k: v for k, v in ROW.items() if k != "test"})
    with pytest.raises(DataError, match=r"line 1: the field 'test' is missing"):
        of(tmp_path, "mbppplus", {"prompt": "Write."})


@pytest.mark.slow
def test_the_authors_own_solutions_pass() -> None:
    import gzip

    file = needs.data_file("humaneval", "HumanEval.jsonl.gz")
    rows = [json.loads(line) for line in gzip.decompress(file.read_bytes()).splitlines()]
    task = make_task("humaneval", file, whole_file=True)
    examples = task.test()
    assert len(examples) == 164
    wrong = []
    for row, example in list(zip(rows, examples, strict=True))[::4]:
        whole = f"```python\n{row['prompt']}{row['canonical_solution']}\n```"
        body = f"```python\n{row['canonical_solution']}\n```"
        wrong += [example.id for text in (whole, body) if task.grade(text, example).outcome != "right"]
    assert wrong == []
