"""Classification, dealt out: one agent has the text, the decision maker only knows which labels there are.

A hand-over that loses the wording may still keep what a text is about, so this is where learned bridges between
models are known to work. With no edge the decision maker can only guess; with the text in its own prompt it is an
ordinary classifier.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from gcache.errors import DataError
from gcache.runtime.numbers import require_whole
from gcache.tasks.data_fields import find, number_text
from gcache.tasks.data_file import shown
from gcache.tasks.data_set import DataSet, Row, words
from gcache.tasks.example import Example, Grade, Note
from gcache.tasks.splits import Split
from gcache.tasks.stance import Sentence, plain, sentence_at
from gcache.tasks.statements import MOST, Mention, stated_value


class Classification(DataSet):
    """A data set of labelled texts.

    Args:
        data, whole_file: see `DataSet`.
        classes: only the texts of the first so many labels, by name; None for all of them.

    Attributes:
        names: of the labels where rows give numbers.
        asked: what the labels are of, in words.
    """

    domain = "classification"
    max_new_tokens: int = 12
    names: ClassVar[tuple[str, ...]] = ()
    asked: ClassVar[str] = "Which of these labels fits the message"

    def __init__(self, data: str | Path | None = None, whole_file: bool = False, classes: int | None = None) -> None:
        if classes is not None:
            require_whole("classes", classes, 2, note=", or left out for all")
        self.classes = classes
        super().__init__(data, whole_file)

    def label(self, row: Row) -> str:
        """A row's label in words.

        Raises:
            DataError: it has none, or one that is not known.
        """
        raise NotImplementedError

    def text(self, row: Row) -> str:
        """A row's text."""
        return words(row, "text", "sentence", "query")

    def example(self, row: Row, number: int) -> Example:
        text = self.text(row)
        note = Note("reader", "The reader, who alone has the message.", f'The message is: "{text}"', "reader")
        return Example(f"{self.name}-{number}", "", self.label(row), (note,))

    def identity(self, example: Example) -> str:
        return example.notes[0].text

    def labels(self, split: Split = "train") -> list[str]:
        """Those there are, by name."""
        return sorted({example.answer for example in self._split(split)})

    def question(self, labels: Sequence[str]) -> str:
        """What is asked, where these are the labels; all texts of a task are asked the same."""
        return f"{self.asked}? {'; '.join(labels)}."

    def grade(self, text: str, example: Example) -> Grade:
        """Right if the one label that the text states is the right one; none, or several, is no answer."""
        found = named(text, example.meta["labels"].split("; "))
        return Grade("unparsed") if found is None else Grade("right" if found == example.answer else "wrong", found)

    def _examples(self, rows: Iterable[tuple[str, int, Row]]) -> list[Example]:
        """In an order by content: files are often sorted by label, and a limit takes the first ones."""
        found = super()._examples(rows)
        labels = sorted({example.answer for example in found})
        if self.classes is not None and self.classes > len(labels):
            raise DataError(f"there are {len(labels)} labels, but classes={self.classes}; ask for fewer")
        labels = labels[: self.classes]
        question, listed = self.question(labels), "; ".join(labels)
        kept = [
            replace(example, question=question, meta={"labels": listed})
            for example in found if example.answer in labels
        ]  # fmt: skip
        self._check_labels(labels, kept)
        return sorted(kept, key=lambda e: hashlib.sha256(self.identity(e).encode("utf-8", "surrogatepass")).digest())

    def _check_labels(self, labels: Sequence[str], examples: Sequence[Example]) -> None:
        """Refuse a label that an answer cannot name: one that is stated plainly must be right."""
        first = {example.answer: example for example in reversed(examples)}
        for label in labels:
            if ";" in label or self.grade(label, first[label]).outcome != "right":
                raise DataError(
                    f"{shown(self._path or self.hub[0])}: the label {label!r:.60} cannot be read in an answer; give it "
                    "words of its own, without a semicolon"
                )

    def _named(self, row: Row, names: Mapping[str, Sequence[str]]) -> Row:
        told = {f: n[row[f]] for f, n in names.items() if type(row.get(f)) is int and 0 <= row[f] < len(n)}
        return {**row, **told}


class Banking77(Classification):
    """What a customer of a bank writes about, of 77 subjects. A row has `text`, and `category` (or `label`), in
    words."""

    name = "banking77"
    form = "banking77 in CSV or JSONL form, with the fields text and category"
    hub: tuple[str, str | None, Mapping[Split, str]] = ("PolyAI/banking77", None, {"train": "train", "test": "test"})
    asked = "What is the customer's message about"

    def label(self, row: Row) -> str:
        fields = ("category", "label_text", "intent", "label")
        read: dict[str, str] = {}
        for field, value in filter(None, (find(row, field) for field in fields)):
            is_number = number_text(value) is not None or (isinstance(value, str) and value.strip().isdigit())
            if field.lower() != "label" or not (is_number and read):  # a number beside the words adds nothing
                read[field] = "" if is_number else self._tidy(words(row, field))
        for field, name in read.items():
            if not name:
                raise DataError(
                    f"the field {field!r} must name the label in words, got {row[field]!r:.40}; pass a file with them, "
                    "in a field 'category'"
                )
        if len(set(read.values())) > 1:
            raise DataError(f"the fields {' and '.join(map(repr, read))} name different labels; leave one of them")
        return next(iter(read.values())) if read else words(row, *fields)

    def _tidy(self, name: str) -> str:
        return " ".join(name.replace("_", " ").split()).lower().rstrip("? ")


def named(text: str, labels: Sequence[str], said: Callable[[Sentence], bool] = lambda at: True) -> str | None:
    """The one label that a text states, in whole words and any case; None where it states none, or several.

    A label inside a longer one that the text names ("card payment" in "card payment fee") is not named by that, and
    one that is denied, asked or offered beside another is not stated; see `gcache.tasks.statements`.

    Args:
        said: whether the sentence around a label says it of what is asked.
    """
    text = plain(text)
    left, mentions = text, []
    for label in sorted(labels, key=len, reverse=True):
        words = r"[_\s]+".join(map(re.escape, label.split()))
        for found in re.finditer(rf"(?i)(?<![a-z0-9]){words}(?![a-z0-9])", left):
            mentions.append(Mention(*found.span(), label))
            left = left[: found.start()] + "\0" * len(found.group()) + left[found.end() :]
    mentions.sort(key=lambda mention: mention.start)
    looked_at = [replace(one, said=said(sentence_at(text, one.start, one.end))) for one in mentions[:MOST]]
    return stated_value(text, [*looked_at, *mentions[MOST:]])
