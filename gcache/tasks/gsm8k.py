"""GSM8K: grade-school word problems whose answer is one number.

Cobbe et al., "Training Verifiers to Solve Math Word Problems", 2021 (arXiv:2110.14168).
"""

from __future__ import annotations

from typing import Any

from gcache.errors import DataError
from gcache.tasks.bare_numbers import has_two_boxes, marked, number_alone, without_last_box
from gcache.tasks.data_fields import find, number_text
from gcache.tasks.data_set import Row, words
from gcache.tasks.example import Example
from gcache.tasks.grading import extract_number, grade_number, last_box, numbers_equal
from gcache.tasks.number_data_set import NumberDataSet

#: Fields that hold the answer; where there is none, the worked solution may be in `solution`.
_ANSWERS = ("answer", "final_answer", "expected_answer", "target")


class Gsm8k(NumberDataSet):
    """Grade-school word problems whose answer is one number.

    A row has the strings `question` and `answer`, the latter ending in `#### N`; mirrors name them otherwise, or have
    the number alone (docs/tasks.md).

    Args:
        data, whole_file: see `DataSet`.
        accept_last_number: see `NumberTask`.
    """

    name = "gsm8k"
    domain = "maths"
    form = "GSM8K in JSONL form, one JSON object a line"
    hub = ("openai/gsm8k", "main", {"train": "train", "test": "test"})

    def example(self, row: Row, number: int) -> Example:
        question, answer = problem(row)
        return Example(id=f"gsm8k-{number}", question=question, answer=answer)


def problem(row: Row) -> tuple[str, str]:
    """The question of a row, and its answer as a plain number.

    Raises:
        DataError: a field is missing, the solution states no number, or two fields state different ones.
    """
    question = words(row, "question", "problem", "prompt", "input")
    found = [held for field in _ANSWERS if (held := find(row, field)) is not None]
    if not found:
        held = find(row, "solution")
        found = [held] if held is not None else [("answer", words(row, "answer"))]
    read = {field: _number(field, value) for field, value in found}
    numbers = list(read.values())
    if not all(numbers_equal(number, numbers[0]) for number in numbers):
        raise DataError(f"the fields {' and '.join(map(repr, read))} have different numbers; leave the right one")
    return question, numbers[0]


def _number(field: str, value: Any) -> str:
    """The number that a field holds: alone, behind `####` and to the end, or in a box.

    Raises:
        DataError: it holds none, several, more than a number, or one that could not be compared with what a text
            states.
    """
    text = number_text(value) if not isinstance(value, str) else value.strip()
    if text is None:
        raise DataError(f"the field {field!r} must end in '#### N', got {value!r:.40}")
    _, marker, end = text.rpartition("####")
    box = last_box(text)
    gold = number_alone(without_last_box(end.strip()) if marker else text)
    if gold is None and not marker and box is not None and not has_two_boxes(text):
        gold = number_alone(box)
    answer = None if gold is None else extract_number(f"#### {gold}")
    if answer is None or grade_number(f"#### {answer}", answer).outcome != "right":
        raise DataError(f"the field {field!r} must end in '#### N', or be a number, got {text[-40:]!r}")
    others = {number for part in (*marked(text), box or "") if (number := number_alone(part)) is not None}
    if not all(grade_number(f"#### {number}", answer).outcome == "right" for number in others - {gold}):
        raise DataError(f"the field {field!r} states different numbers, got {text[-40:]!r}; leave the right one")
    return answer
