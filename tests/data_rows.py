"""Data files of a few rows, for tests of what reads them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gcache.errors import DataError
from gcache.tasks import make_task
from gcache.tasks.example import Example


def examples_of(tmp_path: Path, task: str, *rows: Any, name: str = "rows.jsonl") -> list[Example]:
    """The examples of a file of these rows, which are objects or lines."""
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path = tmp_path / name
    path.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="")
    return list(make_task(task, path, whole_file=True).test())


def refusal(tmp_path: Path, task: str, *rows: Any, name: str = "rows.jsonl") -> str:
    """The one line that refuses a file of these rows."""
    try:
        found = examples_of(tmp_path, task, *rows, name=name)
    except DataError as error:
        message = str(error)
        assert message.isprintable(), repr(message)
        return message
    raise AssertionError(f"nothing was refused; the answers are {[example.answer for example in found]}")


def right_words(example: Example) -> str:
    """The words of the choice whose letter is the answer."""
    lines = dict(line.split(") ", 1) for line in example.question.split("\n") if line[1:3] == ") ")
    return lines[example.answer]
