"""The texts of a file of `gcache compare`, graded again by today's grader: how the counts change.

    python experiments/regrade_comparison.py docs/results/compare/medqa.json --data medqa.json --tokenizer MODEL_FOLDER

Nothing is answered anew. With a tokenizer, texts that have as many tokens as were allowed, read back, count as cut.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from gcache.commands.console import guarded
from gcache.errors import DataError
from gcache.evaluation.intervals import wilson
from gcache.evaluation.tables import markdown
from gcache.tasks.example import Example, Task, grade_text
from gcache.tasks.registry import make_task

_OUTCOMES = ("right", "wrong", "unparsed", "unstated")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="--json file of `gcache compare`, with the texts")
    parser.add_argument("--data", help="the task's data file, where it reads one")
    parser.add_argument("--tokenizer", help="folder or hub name of the model's tokenizer, to find texts that were cut")
    args = parser.parse_args(argv)
    return guarded(lambda: regrade(args.file, args.data, args.tokenizer))


def regrade(file: Path, data: str | None, tokenizer: str | None) -> int:
    found = _read(file)
    task = make_task(found["task"]["name"], data, **found["task"]["options"])
    examples = {example.id: example for example in task.test(found["limit"], found["seed"])}
    missing = {answer[0] for row in found["rows"] for answer in row["answers"]} - set(examples)
    if missing:
        raise DataError(f"{file} has questions that the task has not ({min(missing)}, ...); pass the same --data")
    limit = int(found["settings"]["max_new_tokens"])
    length = _length(tokenizer) if tokenizer else None
    is_cut = (lambda text: length(text) >= limit) if length else None
    lines = [line for row in found["rows"] for line in _lines(row, task, examples, is_cut)]
    print(markdown(["method", "graded", *_OUTCOMES, "accuracy", "cut"], lines), end="")
    return 0


def _lines(
    row: dict[str, Any], task: Task, examples: dict[str, Example], is_cut: Callable[[str], bool] | None
) -> Iterator[list[str]]:
    """A method's counts, as they were and as they are now."""
    answers = row["answers"]
    cut = [is_cut(answer[3]) for answer in answers] if is_cut else [False] * len(answers)
    grades = [grade_text(task, a[3], examples[a[0]], c).outcome for a, c in zip(answers, cut, strict=True)]
    for when, outcomes in (("then", [answer[1] for answer in answers]), ("now", grades)):
        counts = Counter(outcomes)
        low, high = wilson(counts["right"], len(answers))
        yield [
            row["name"], when, *(str(counts[outcome]) for outcome in _OUTCOMES),
            f"{counts['right'] / len(answers):.3f} ({low:.3f} to {high:.3f})", str(sum(cut)) if is_cut else "",
        ]  # fmt: skip


def _length(tokenizer: str) -> Callable[[str], int]:
    from transformers import AutoTokenizer

    read = AutoTokenizer.from_pretrained(tokenizer)
    return lambda text: len(read(text, add_special_tokens=False)["input_ids"])


def _read(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if any(len(answer) < 4 for row in found["rows"] for answer in row["answers"]):
            raise KeyError("text")
        return found
    except (OSError, ValueError, KeyError, TypeError) as error:
        said = f"no comparison with texts in {path} ({error}); pass a --json file of `gcache compare`"
        raise DataError(said) from error


if __name__ == "__main__":
    sys.exit(main())
