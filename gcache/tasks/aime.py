"""AIME: competition problems whose answer is a whole number from 0 to 999.

The problems are the Mathematical Association of America's, of 2024 and 2025.
"""

from __future__ import annotations

from pathlib import Path

from gcache.errors import DataError
from gcache.tasks.data_set import DataSet, Row, words
from gcache.tasks.example import Example
from gcache.tasks.grading import NumberTask, accepts


class Aime(NumberTask, DataSet):
    """A row has `problem` and `answer`, with a small or a capital first letter.

    Args:
        data, whole_file: see `DataSet`.
        accept_last_number: see `NumberTask`.
    """

    domain = "maths"
    max_new_tokens = 2048
    form = "AIME in JSONL form, with the fields problem and answer"

    def __init__(
        self, data: str | Path | None = None, whole_file: bool = False, accept_last_number: bool = False
    ) -> None:
        super().__init__(data, whole_file)
        self.accept_last_number = accepts(accept_last_number)

    def example(self, row: Row, number: int) -> Example:
        answer = next((row[name] for name in ("answer", "Answer") if name in row), None)
        text = str(answer).strip() if isinstance(answer, (str, int)) and not isinstance(answer, bool) else ""
        if not (text.isascii() and text.isdigit() and int(text) <= 999):
            raise DataError(f"the field 'answer' must be a whole number from 0 to 999, got {answer!r:.40}")
        return Example(f"{self.name}-{number}", words(row, "problem", "Problem"), str(int(text)))


class Aime24(Aime):
    name = "aime24"
    hub = ("Maxwell-Jia/AIME_2024", None, {"train": "train", "test": "train"})


class Aime25(Aime):
    name = "aime25"
    hub = ("math-ai/aime25", None, {"train": "test", "test": "test"})
