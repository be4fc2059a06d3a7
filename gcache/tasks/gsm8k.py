"""GSM8K: grade-school word problems whose answer is one number.

Cobbe et al., "Training Verifiers to Solve Math Word Problems", 2021 (arXiv:2110.14168).
"""

from __future__ import annotations

from pathlib import Path

from gcache.errors import DataError
from gcache.tasks.data_set import DataSet, Row, words
from gcache.tasks.example import Example
from gcache.tasks.grading import NumberTask, accepts, extract_number


class Gsm8k(NumberTask, DataSet):
    """The task. A row has the strings `question` and `answer`, the latter ending in `#### N`.

    Args:
        data, whole_file: see `DataSet`.
        accept_last_number: see `NumberTask`.
    """

    name = "gsm8k"
    domain = "maths"
    form = "GSM8K in JSONL form, one JSON object a line"
    hub = ("openai/gsm8k", "main", {"train": "train", "test": "test"})

    def __init__(
        self, data: str | Path | None = None, whole_file: bool = False, accept_last_number: bool = False
    ) -> None:
        super().__init__(data, whole_file)
        self.accept_last_number = accepts(accept_last_number)

    def example(self, row: Row, number: int) -> Example:
        question, answer = problem(row)
        return Example(id=f"gsm8k-{number}", question=question, answer=answer)


def problem(row: Row) -> tuple[str, str]:
    """The question of a row, and its answer as a plain number.

    Raises:
        DataError: a field is missing, or the solution states no number.
    """
    question, solution = words(row, "question"), words(row, "answer")
    _, marker, gold = solution.rpartition("####")
    answer = extract_number(f"#### {gold}") if marker else None
    if answer is None:
        raise DataError(f"the field 'answer' must end in '#### N', got {solution[-40:]!r}")
    return question, answer
