"""SQuAD, dealt out: one agent has the paragraph, the decision maker the question.

Rajpurkar et al., "SQuAD: 100,000+ Questions for Machine Comprehension of Text", 2016 (arXiv:1606.05250).
"""

from __future__ import annotations

from collections.abc import Mapping

from gcache.errors import DataError
from gcache.tasks.data_fields import id_of, label_words
from gcache.tasks.data_set import Row, words
from gcache.tasks.example import Example
from gcache.tasks.reading import Document, ReadingTask, asked_of
from gcache.tasks.text_lists import listed


class Squad(ReadingTask):
    """Questions that one paragraph answers.

    A row has `context`, `question`, `title` and `answers`: objects with `text`, or an object with a list of them under
    `text`. A question without an answer, as the second version of the data set has them, is left out.

    Args:
        data, whole_file, utility: see `ReadingTask`.
    """

    name = "squad"
    form = "SQuAD in JSONL form, one question a line"
    hub = ("rajpurkar/squad", None, {"train": "train", "test": "validation"})

    def example(self, row: Row, number: int) -> Example | None:
        answers = _texts(row)
        if not answers:
            return None
        title = label_words(row, "title").replace("_", " ") or "the paragraph"
        return asked_of(
            id_of(self.name, row, number), words(row, "question"), answers,
            [Document(title, words(row, "context"), True)],
        )  # fmt: skip

    def identity(self, example: Example) -> str:
        """Paragraph and question: the same may be asked of several."""
        return f"{example.notes[0].text}\n{example.question}"


def _texts(row: Row) -> list[str]:
    value = listed(row.get("answers"), "answers")
    if isinstance(value, Mapping):
        value = value.get("text")
    elif isinstance(value, list):
        value = [each.get("text") if isinstance(each, Mapping) else each for each in value]
    if not isinstance(value, list) or not all(isinstance(text, str) and text.strip() for text in value):
        raise DataError(f"the field 'answers' must hold a list of texts, got {row.get('answers')!r:.60}")
    return value
