"""AIME: competition problems whose answer is a whole number from 0 to 999.

The problems are the Mathematical Association of America's, of 2024 and 2025.
"""

from __future__ import annotations

from gcache.errors import DataError
from gcache.tasks.data_set import DataSet, Row, words
from gcache.tasks.example import Example, Grade
from gcache.tasks.grading import grade_number


class Aime(DataSet):
    """A row has `problem` and `answer`, with a small or a capital first letter."""

    domain = "maths"
    max_new_tokens = 2048
    form = "AIME in JSONL form, with the fields problem and answer"

    def example(self, row: Row, number: int) -> Example:
        answer = next((row[name] for name in ("answer", "Answer") if name in row), None)
        text = str(answer).strip() if isinstance(answer, (str, int)) and not isinstance(answer, bool) else ""
        if not (text.isascii() and text.isdigit() and int(text) <= 999):
            raise DataError(f"the field 'answer' must be a whole number from 0 to 999, got {answer!r:.40}")
        return Example(f"{self.name}-{number}", words(row, "problem", "Problem"), str(int(text)))

    def grade(self, text: str, example: Example) -> Grade:
        """Right if the number that the text states equals the example's."""
        return grade_number(text, example.answer)


class Aime24(Aime):
    name = "aime24"
    hub = ("Maxwell-Jia/AIME_2024", None, {"train": "train", "test": "train"})


class Aime25(Aime):
    name = "aime25"
    hub = ("math-ai/aime25", None, {"train": "test", "test": "test"})
