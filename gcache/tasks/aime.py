"""AIME: competition problems whose answer is a whole number from 0 to 999.

The problems are the Mathematical Association of America's, of 2024 and 2025.
"""

from __future__ import annotations

import re
from typing import Any

from gcache.errors import DataError
from gcache.tasks.bare_numbers import bare, has_two_boxes, marked
from gcache.tasks.data_fields import find, number_text
from gcache.tasks.data_set import Row, words
from gcache.tasks.example import Example
from gcache.tasks.grading import last_box
from gcache.tasks.number_data_set import NumberDataSet

#: Fields that hold the answer; where there is none, the worked solution may be in `solution`.
_ANSWERS = ("answer", "final_answer", "expected_answer", "target")
_WHOLE = re.compile(r"\+?(0*[0-9]{1,3})(?:\.0*)?")


class Aime(NumberDataSet):
    """Competition problems whose answer is a whole number from 0 to 999.

    A row has `problem` and `answer`, in the names and forms of the mirrors (docs/tasks.md).

    Args:
        data, whole_file: see `DataSet`.
        accept_last_number: see `NumberTask`.
    """

    domain = "maths"
    max_new_tokens = 2048
    form = "AIME in JSONL form, with the fields problem and answer"

    def example(self, row: Row, number: int) -> Example:
        return Example(f"{self.name}-{number}", words(row, "problem", "question", "prompt", "input"), _right(row))


class Aime24(Aime):
    """Competition problems of 2024, whose answer is a whole number from 0 to 999."""

    name = "aime24"
    hub = ("Maxwell-Jia/AIME_2024", None, {"train": "train", "test": "train"})


class Aime25(Aime):
    """Competition problems of 2025, whose answer is a whole number from 0 to 999."""

    name = "aime25"
    hub = ("math-ai/aime25", None, {"train": "test", "test": "test"})


def whole_number(value: Any) -> str | None:
    r"""A whole number from 0 to 999 in plain digits, from how mirrors write it: 70, 70.0, "070", "$70$", `\boxed{70}`,
    or a list of it alone. None where it is anything else."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    text = number_text(value) if not isinstance(value, str) else value
    if text is None or len(text) > 1000:
        return None
    found = _WHOLE.fullmatch(bare(text))
    return str(int(found[1])) if found else None


def stated_number(value: Any) -> str | None:
    """The whole number that a field holds: alone, or in a worked solution behind `####` at its end or in its last box.
    None where there is none, where any line of `####` and the box differ, or where two boxes are offered."""
    number = whole_number(value)
    if number is not None or not isinstance(value, str):
        return number
    _, mark, end = value.strip().rpartition("####")
    box = last_box(value)
    end = end.strip()
    is_end = mark and end and "\n" not in end and "\\boxed" not in end  # else a heading, or the mark of a box
    numbers = {whole_number(part) for part in (end if is_end else None, box) if part is not None}
    numbers |= {number for line in marked(value) if (number := whole_number(line)) is not None} if numbers else set()
    return numbers.pop() if len(numbers) == 1 and not has_two_boxes(value) else None


def _right(row: Row) -> str:
    """The answer of a row, by all fields that have it.

    Raises:
        DataError: none has a whole number, or two have different ones.
    """
    read = {}
    for field in _ANSWERS:
        if (found := find(row, field)) is not None:
            read[found[0]] = stated_number(found[1]), found[1]
    if not read and (found := find(row, "solution")) is not None:
        read[found[0]] = stated_number(found[1]), found[1]
    for field, (number, value) in read.items():
        if number is None:
            raise DataError(f"the field {field!r} must be a whole number from 0 to 999, got {value!r:.40}")
    numbers = {number for number, _ in read.values() if number is not None}
    if len(numbers) > 1:
        raise DataError(f"the fields {' and '.join(map(repr, read))} have different numbers; leave the right one")
    if not numbers:
        raise DataError("the field 'answer' must be a whole number from 0 to 999, got None")
    return numbers.pop()
