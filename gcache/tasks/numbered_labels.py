"""Classification data sets of few labels, whose rows give them in words or as numbers.

What a number means is a matter of the field that it stands in, for mirrors and versions count in different ways; a
number in a field of which that is not known is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from gcache.errors import DataError
from gcache.tasks.classification import Classification
from gcache.tasks.data_fields import find, is_missing, number_text
from gcache.tasks.data_set import Row, words


class _Numbered(Classification):
    """Labels that rows may give in words, or as numbers of them.

    Attributes:
        fields: that hold a label -> the words of its numbers; none where they mean different things in different files.
        also: what else some mirrors call a label.
    """

    fields: ClassVar[Mapping[str, Sequence[str]]]
    also: ClassVar[Mapping[str, str]] = {}

    def label(self, row: Row) -> str:
        read = {}
        for field, order in self.fields.items():
            held = [name for name in row if isinstance(name, str) and name.lower() == field.lower()]
            for name in (name for name in held if not is_missing(row[name])):
                read[name] = self._in_words(name, row[name], order)
        if not read:
            field = next(iter(self.fields))
            raise DataError(f"the field {field!r} must be {self._allowed(self.names)}, got None")
        if len(set(read.values())) > 1:
            raise DataError(f"the fields {' and '.join(map(repr, read))} name different labels; leave one of them")
        return next(iter(read.values()))

    def _in_words(self, field: str, value: Any, order: Sequence[str]) -> str:
        text = number_text(value) or (" ".join(value.split()).lower() if isinstance(value, str) else "")
        text = self.also.get(text, text)
        if re.fullmatch("[0-9]{1,3}", text):
            text = order[int(text)] if int(text) < len(order) else ""
        if text not in self.names:
            raise DataError(f"the field {field!r} must be {self._allowed(order)}, got {value!r:.40}")
        return text

    def _allowed(self, order: Sequence[str]) -> str:
        numbers = [number for number, name in enumerate(order) if name]
        or_number = f", or a number from {numbers[0]} to {numbers[-1]}" if numbers else ", in words"
        return f"one of {', '.join(self.names)}{or_number}"


class Sst2(_Numbered):
    """Whether a sentence of a film review is for or against it."""

    name = "sst2"
    form = "SST-2 in CSV or JSONL form, with the fields sentence and label"
    hub = ("stanfordnlp/sst2", None, {"train": "train", "test": "validation"})  # its test split has no labels
    names = ("negative", "positive")
    fields: ClassVar[Mapping[str, Sequence[str]]] = {"label": names, "label_text": (), "sentiment": ()}
    also: ClassVar[Mapping[str, str]] = {"neg": "negative", "pos": "positive"}
    asked = "Which of these fits the sentence of a film review"


class AgNews(_Numbered):
    """What a news story is about."""

    name = "ag_news"
    form = "AG News in CSV or JSONL form, with the fields text and label"
    hub = ("fancyzhx/ag_news", None, {"train": "train", "test": "test"})
    names = ("world", "sports", "business", "science")
    fields: ClassVar[Mapping[str, Sequence[str]]] = {
        "label": names, "label_text": (), "category": (), "Class Index": ("", *names)  # the authors count from 1
    }  # fmt: skip
    also: ClassVar[Mapping[str, str]] = {"sci/tech": "science", "sport": "sports"}
    asked = "What is the news story about"

    def text(self, row: Row) -> str:
        title = find(row, "Title")
        if title is None or find(row, "text") is not None:
            return super().text(row)
        return f"{words(row, title[0])} {words(row, 'Description')}"


class Trec(_Numbered):
    """What kind of answer a question asks for."""

    name = "trec"
    form = "TREC in CSV or JSONL form, with the fields text and coarse_label"
    hub = ("CogComp/trec", None, {"train": "train", "test": "test"})
    names = ("abbreviation", "entity", "description", "human", "location", "number")
    fields: ClassVar[Mapping[str, Sequence[str]]] = {
        "coarse_label": names,
        # the first version counts otherwise
        "label-coarse": ("description", "entity", "abbreviation", "human", "number", "location"),
        "coarse_label_text": (), "label_coarse": (), "label_coarse_text": (), "label_coarse_original": (),
    }  # fmt: skip
    also: ClassVar[Mapping[str, str]] = {
        "abbr": "abbreviation", "enty": "entity", "desc": "description", "hum": "human", "loc": "location",
        "num": "number", "human being": "human", "numeric value": "number", "numeric": "number",
        "description and abstract concept": "description", "description and abstract concepts": "description",
    }  # fmt: skip
    asked = "What does the question ask for"

    def text(self, row: Row) -> str:
        return words(row, "text", "sentence", "question")

    def label(self, row: Row) -> str:
        """Its numbers mean one thing in each version; in a field that is called just `label`, any of them."""
        if any(isinstance(name, str) and name.lower() in map(str.lower, self.fields) for name in row):
            return super().label(row)
        found = find(row, "label_text", "label")
        if found is None:
            return super().label(row)
        return self._in_words(*found, ())
