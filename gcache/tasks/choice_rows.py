"""The question and the choices of a row, in the forms that data sets of questions with choices come in."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from gcache.errors import DataError
from gcache.tasks.choices import LETTERS
from gcache.tasks.data_fields import CHOICES, Row, find, is_missing, listed, number_text, same_name, words
from gcache.tasks.right_choice import Choices

#: Columns that hold a choice each: how they are named, and what a number in the row calls the first of them.
_COLUMNS = (("ending{}", 0), ("option_{}", 0), ("option_{}", 1), ("choice_{}", 0), ("choice_{}", 1))
_LISTS = ("options", "choices", "answer_choices", "endings")
_TEXTS = ("text", "value", "content")
_NAMES = ("label", "key", "id")
_BRACKETED = re.compile(r"[(\[]?\s*([A-Za-z]|[0-9]{1,2})\s*[)\].:]*")


def stem_of(row: Row) -> str:
    """The question, without its choices."""
    stem = words(row, "question", "sent1", "input", "stem", "problem", "query")
    more = find(row, "sent2")
    return f"{stem} {words(row, more[0])}" if more else stem


def choices_of(row: Row) -> Choices | None:
    """The choices of a row; None where it has no field with any.

    Raises:
        DataError: they are no texts, or not told apart.
    """
    found = find(row, *_LISTS)
    if found is not None:
        field, value = found[0], listed(found[1])
        labels, values = _labelled(field, value) if isinstance(value, Mapping) else _in_a_list(field, value)
    else:
        field = "choices"
        labels, values = _in_columns(row)
        if not values:
            return None
    if not 1 <= len(values) <= len(LETTERS):  # one alone is refused when it is asked
        raise DataError(f"a question has 2 to {len(LETTERS)} choices, got {len(values)}")
    texts = [_choice(value, field, values) for value in values]
    printed = _printed(texts)
    if printed and labels and sorted(printed) == sorted(labels) and printed != labels:
        raise DataError(
            f"the choices carry labels of their own ({', '.join(printed)}), which are not those of the row "
            f"({', '.join(labels)}); leave one of the two"
        )
    labels = labels or printed
    if labels and len(set(labels)) < len(labels):
        raise DataError(f"the labels of the choices must be different, got {', '.join(labels):.60}")
    count = len(texts)
    is_numbered = found is None and labels in _in_order(count)[1:]  # by its columns, which are no labels of the row
    is_numbered = is_numbered and [label.upper() for label in printed] in ([], labels, list(LETTERS[:count]))
    order = list(range(len(values)))
    if labels and sorted(map(str.upper, labels)) in _in_order(len(labels)):  # the words may speak of "A and B"
        order.sort(key=lambda place: labels[place].upper())
        labels, texts, values = ([part[place] for place in order] for part in (labels, texts, values))
    labels = labels or list(LETTERS[: len(texts)])
    given = tuple(order) if order != sorted(order) else ()
    are_numbers = all(number_text(value) is not None for value in values)
    shown = _without_letters(texts, printed if is_numbered and printed else labels)
    return Choices(tuple(shown), tuple(labels), tuple(texts), are_numbers, given, is_numbered)


def name_choices(names: Sequence[str]) -> bool:
    """Whether columns of these names hold choices: a list of them, or at least the first two."""
    held = set(map(same_name, names))
    firsts = [{"a", "b"}, {"optiona", "optionb"}]
    firsts += [{same_name(name.format(n)) for n in (first, first + 1)} for name, first in _COLUMNS]
    return bool(held & CHOICES) or any(pair <= held for pair in firsts)


def without_choices(stem: str, written: Sequence[str]) -> str:
    """A question without the choices that some files repeat at its end, one a line."""
    wanted = " ".join(written).split()
    while (found := stem.rfind(f"\n{written[0]}")) > 0 and stem[found:].split() == wanted:
        stem = stem[:found].strip()
    return stem


def _labelled(field: str, value: Mapping[Any, Any]) -> tuple[list[str], list[Any]]:
    """An object: lists of texts and of labels, or a text by each label, where null is no choice."""
    texts = next((value[name] for name in _TEXTS if name in value), None)
    labels = next((value[name] for name in _NAMES if name in value), None)
    if isinstance(texts, list) or isinstance(labels, list):
        if not isinstance(texts, list) or not isinstance(labels, list) or len(texts) != len(labels):
            raise DataError(f"the field {field!r} must have as many texts as labels, got {value!r:.60}")
        return _label_texts(field, labels), texts
    held = {label: text for label, text in value.items() if not is_missing(text)}
    return _label_texts(field, list(held)), list(held.values())


def _in_a_list(field: str, value: Any) -> tuple[list[str], list[Any]]:
    if isinstance(value, list) and value and all(isinstance(choice, Mapping) for choice in value):
        parts = [([choice.get(name) for choice in value], name) for name in (*_TEXTS, *_NAMES)]
        texts = next((part for part, name in parts if name in _TEXTS and not all(map(is_missing, part))), None)
        labels = next((part for part, name in parts if name in _NAMES and not all(map(is_missing, part))), None)
        if texts is not None:
            return ([] if labels is None else _label_texts(field, labels)), texts
    if not isinstance(value, list):
        raise DataError(f"the field {field!r} must be a list of texts, or an object of texts, got {value!r:.60}")
    return [], value


def _in_columns(row: Row) -> tuple[list[str], list[Any]]:
    """A choice a column: A to D, which must all be there, and further letters; or numbered ones."""
    if find(row, "A") is not None and find(row, "B") is not None:
        there = [letter for letter in LETTERS if find(row, letter) is not None]
        needed = [letter for letter in "ABCD" if letter in row]
        last = max([*there, *needed])
        letters = LETTERS[: LETTERS.index(last) + 1]
        return list(letters), [_held(row, letter) for letter in letters]
    for name, first in _COLUMNS:
        if all(find(row, name.format(first + step)) is not None for step in (0, 1)):
            numbers = [n for n in range(first, first + len(LETTERS)) if find(row, name.format(n)) is not None]
            return [str(n) for n in numbers], [_held(row, name.format(n)) for n in numbers]
    if find(row, "option_a") is not None and find(row, "option_b") is not None:
        letters = "".join(letter for letter in LETTERS if find(row, f"option_{letter}") is not None)
        return list(letters), [_held(row, f"option_{letter}") for letter in letters]
    return [], []


def _held(row: Row, name: str) -> Any:
    found = find(row, name)
    return words(row, name) if found is None else found[1]


def _label_texts(field: str, labels: Sequence[Any]) -> list[str]:
    texts = [number_text(label) or (label.strip() if isinstance(label, str) else "") for label in labels]
    if not all(texts):
        raise DataError(f"the labels in the field {field!r} must be texts or numbers, got {list(labels)!r:.60}")
    bare = [_BRACKETED.fullmatch(text) for text in texts]
    return [found[1] for found in bare if found] if all(bare) else texts  # "(A)" is A, if all of them are so


def _choice(value: Any, field: str, values: Sequence[Any]) -> str:
    text = number_text(value) or (value.strip().strip("\ufeff").strip() if isinstance(value, str) else "")
    if not text:
        raise DataError(
            f"the field {field!r} must be a list of texts, or an object of texts, got {list(values)!r:.60}, with "
            f"{value!r:.20} in it"
        )
    return text


def _printed(texts: Sequence[str]) -> list[str]:
    """Labels that stand in front of the words of all choices, each another one; [] where there are none."""
    found = [re.match(r"[(\[]?([A-Z]|[a-z]|[0-9]{1,2})[.):\]]+\s+\S", text) for text in texts]
    labels = [label[1] for label in found if label]
    return labels if len(texts) > 1 and len(labels) == len(texts) == len(set(labels)) else []


def _in_order(count: int) -> list[list[str]]:
    """Labels as they follow each other in print."""
    return [list(LETTERS[:count]), [str(n) for n in range(count)], [str(n) for n in range(1, count + 1)]]


def _without_letters(texts: Sequence[str], labels: Sequence[str]) -> list[str]:
    """ "B. Aspirin" as "Aspirin", if all choices have their own labels in front: "B. cereus" alone is a name."""
    pairs = list(zip(texts, labels, strict=True))
    cut = [re.fullmatch(rf"[(\[]?{re.escape(label)}[.):\]]+\s*(.*\S)", text, re.DOTALL) for text, label in pairs]
    return [found[1] for found in cut if found] if all(cut) else list(texts)
