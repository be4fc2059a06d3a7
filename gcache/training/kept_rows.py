"""Rows of a report, kept as they are measured: a run that is killed and started again asks no question twice.

A row is measured in parts of `PART` questions, whether it is interrupted or not, since what is computed together may
round differently than what is computed apart. A part is a line of report_rows.jsonl:

    {"key": what it was measured with, "row": ..., "first": ..., "found": an `Evaluation`, "sha256": the line's seal}

The key is a hash of everything that a text depends on: task, graph, models, links, version, the learned parts as they
were, the questions. A line with another key is left alone. Grades are given again when a line is taken up, and where
one differs (by another grader) the part is measured again.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from gcache.errors import CheckpointError
from gcache.evaluation.evaluate import Evaluation, Row
from gcache.evaluation.intervals import wilson
from gcache.files import append_line, whole_lines
from gcache.tasks.example import Example, Task, grade_text
from gcache.training.sealed import sealed, unsealed

logger = logging.getLogger(__name__)

#: Questions that are measured together and kept together.
PART = 32

Measure = Callable[[Sequence[Example]], Evaluation]


class KeptRows:
    """The parts of a run's report.

    Args:
        path: of the file; None to keep nothing.
        settings: everything that texts depend on and that stays the same throughout the report; JSON.

    Raises:
        CheckpointError: the file cannot be read, or a line of it is not what was written.
    """

    def __init__(self, path: Path | None, settings: Mapping[str, Any]) -> None:
        self.path, self.settings = path, dict(settings)
        self._found = {} if path is None else _read(path)

    def part(
        self, task: Task, label: str, first: int, examples: Sequence[Example], state: str, measure: Measure
    ) -> Evaluation:
        """A part of a row: the one that was kept, or one that is measured, and kept, now.

        Args:
            first: the number of its first question.
            state: what stands for everything learned so far.
        """
        key = _hash([self.settings, label, first, [_asked(example) for example in examples], state])
        kept = self._found.get(key)
        if kept is not None and _is_graded_alike(kept, task, examples):
            logger.debug("%s, questions %d to %d: kept of an earlier run", label, first + 1, first + len(examples))
            return kept
        found = measure(examples)
        if self.path is not None and not found.stopped:
            line = {"key": key, "row": label, "first": first, "found": found.to_json()}
            append_line(self.path, json.dumps(sealed(json.loads(json.dumps(line)))), durable=True)
        return found


def _read(path: Path) -> dict[str, Evaluation]:
    """Key -> part; a last line that a kill cut short is no line."""
    try:
        lines = whole_lines(path)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror}); move it away to measure its rows") from error
    found: dict[str, Evaluation] = {}
    for number, line in enumerate(lines, start=1):
        what = f"{path}, line {number}"
        try:
            record = unsealed(json.loads(line.decode("utf-8")), what)
            found[str(record["key"])] = _evaluation(record["found"])
        except CheckpointError:
            raise
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise CheckpointError(
                f"{what}: not a part of a report ({type(error).__name__}: {error}); remove the file, and its rows are "
                "measured again"
            ) from error
    return found


def _evaluation(values: Mapping[str, Any]) -> Evaluation:
    rows = tuple(Row(**{**row, "edges": tuple(map(tuple, row["edges"]))}) for row in values["rows"])
    return Evaluation(**{**values, "rows": rows})


def _is_graded_alike(kept: Evaluation, task: Task, examples: Sequence[Example]) -> bool:
    if [row.id for row in kept.rows] != [example.id for example in examples]:
        return False
    both = zip(kept.rows, examples, strict=True)
    grades = [grade_text(task, row.text, example, row.cut) for row, example in both]
    return all((g.outcome, g.answer) == (row.outcome, row.answer) for g, row in zip(grades, kept.rows, strict=True))


def joined(name: str, parts: Sequence[Evaluation]) -> Evaluation:
    """One evaluation of the questions of all parts: counts and seconds are summed, other numbers are means over
    questions."""
    rows = tuple(row for part in parts for row in part.rows)
    n = sum(part.n for part in parts)
    right = sum(row.outcome == "right" for row in rows)
    low, high = wilson(right, n)

    def over_questions(values: Sequence[Any]) -> Any:
        if isinstance(values[0], dict):
            return {key: over_questions([value[key] for value in values]) for key in values[0]}
        if isinstance(values[0], float):
            return sum(value * part.n for value, part in zip(values, parts, strict=True)) / n
        return sum(values) if isinstance(values[0], int) else values[-1]

    values = {
        field.name: over_questions([getattr(part, field.name) for part in parts]) for field in fields(Evaluation)
    }
    own = {"name": name, "accuracy": right / n, "low": low, "high": high, "rows": rows}
    return Evaluation(**{**values, **own, "seconds": sum(part.seconds for part in parts)})


def _asked(example: Example) -> dict[str, Any]:
    notes = [asdict(note) for note in example.notes]
    return {
        "id": example.id, "question": example.question, "answer": example.answer, "notes": notes,
        "meta": dict(example.meta),
    }  # fmt: skip


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
