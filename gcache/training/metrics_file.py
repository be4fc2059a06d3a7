"""metrics.jsonl as a run that is resumed reads it: one line per step, in order."""

from __future__ import annotations

import json
from pathlib import Path

from gcache.errors import CheckpointError
from gcache.files import whole_lines

METRICS = "metrics.jsonl"


def step_lines(path: Path, steps: int) -> list[str]:
    """The lines of the first steps. Later ones will be written again; the last may have been cut short by a kill.

    Raises:
        CheckpointError: the file cannot be read, a line of it is not that step's, or there are too few.
    """
    try:
        whole = whole_lines(path)
    except NotADirectoryError:
        whole = []
    except OSError as error:
        raise CheckpointError(
            f"{path} cannot be read ({error.strerror}); move it away and put the run's own there, or pass another --out"
        ) from error
    lines = [_line(path, number, line) for number, line in enumerate(whole)]
    if len(lines) < steps:
        raise CheckpointError(
            f"{path} has the lines of {len(lines)} steps, but the checkpoint beside it is of step {steps}; put the "
            "run's own file there, or pass another --out"
        )
    return lines[:steps]


def _line(path: Path, number: int, line: bytes) -> str:
    try:
        text = line.decode("utf-8")
        step = json.loads(text)
        wrong = "" if isinstance(step, dict) else f"it is no object but {type(step).__name__}"
    except (ValueError, RecursionError) as error:
        wrong = f"{type(error).__name__}: {error}"
    if not wrong and (type(step.get("step")), step.get("step")) != (int, number):
        wrong = f"its step is {step.get('step')!r}"
    if wrong:
        raise CheckpointError(
            f"{path}, line {number + 1}: not the line of step {number} ({wrong}); put the run's own file there, or "
            "pass another --out"
        )
    return text
