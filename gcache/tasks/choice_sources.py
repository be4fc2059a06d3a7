"""The fields that a row holds its choices in: lists, objects by label, and columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gcache.errors import DataError
from gcache.tasks.choice_labels import label_texts, places_with_gaps
from gcache.tasks.choices import LETTERS
from gcache.tasks.data_fields import CHOICES, Row, find, is_missing, number_text, same_name, words
from gcache.tasks.text_lists import listed

#: Columns that hold a choice each, numbered or lettered; the numbers begin at 0 or 1.
_NUMBERED = ("ending{}", "option_{}", "choice_{}", "answer_choice_{}")
_LETTERED = ("option_{}", "choice_{}", "answer_choice_{}")
_ZERO_ONLY = "ending{}"
_LISTS = ("options", "choices", "answer_choices", "endings")
_TEXTS = ("text", "value", "content")
_NAMES = ("label", "key", "id")
#: Marks of the right choice, beside its words.
_FLAGS = ("correct", "is_correct", "is_right", "is_answer")
_SAID = {"true": True, "false": False, "yes": True, "no": False, "1": True, "0": False}


@dataclass(frozen=True)
class Source:
    """The choices as one field, or as one kind of columns, has them.

    Attributes:
        labels: of the row's own; empty where there are none.
        at: the places of the values in the row, where others are left blank; empty where none is.
        flags: for each value whether it is marked as right; empty where nothing is marked.
    """

    field: str
    labels: list[str]
    values: list[Any]
    at: tuple[int, ...] = ()
    flags: tuple[bool, ...] = ()
    are_columns: bool = False


def name_choices(names: Sequence[str]) -> bool:
    """Whether columns of these names hold choices: a list of them, or at least the first two."""
    held = set(map(same_name, names))
    firsts = [{"a", "b"}, *({same_name(name.format(letter)) for letter in "ab"} for name in _LETTERED)]
    firsts += [
        {same_name(name.format(n)) for n in (first, first + 1)}
        for name in _NUMBERED
        for first in ((0,) if name == _ZERO_ONLY else (0, 1))
    ]
    return bool(held & CHOICES) or any(pair <= held for pair in firsts)


def sources_of(row: Row) -> Iterator[Source]:
    """All that a row holds choices in. A text that is no list is refused where it comes first, else not looked at."""
    is_first = True
    for name in _LISTS:
        if (found := find(row, name)) is None:
            continue
        field, value = found[0], listed(found[1], found[0])
        if isinstance(value, Mapping):
            yield _labelled(field, value)
        elif isinstance(value, list) or is_first:
            yield _in_a_list(field, value)
        is_first = False
    yield from _in_columns(row)


def _labelled(field: str, value: Mapping[Any, Any]) -> Source:
    """An object: lists of texts and of labels, or a text by each label, where null is no choice."""
    texts = next((value[name] for name in _TEXTS if name in value), None)
    labels = next((value[name] for name in _NAMES if name in value), None)
    if isinstance(texts, list) or isinstance(labels, list):
        if not isinstance(texts, list) or not isinstance(labels, list) or len(texts) != len(labels):
            raise DataError(f"the field {field!r} must have as many texts as labels, got {value!r:.60}")
        marked = find(value, *_FLAGS)
        marks = marked[1] if marked else []
        if not isinstance(marks, list) or len(marks) not in (0, len(texts)):
            raise DataError(f"the field {field!r} must have as many marks of the right one as texts, got {marks!r:.40}")
        named = label_texts(field, labels)
        return Source(field, named, texts, places_with_gaps(named), _flags(field, marks))
    held = [place for place, text in enumerate(value.values()) if not is_missing(text)]
    named = label_texts(field, [list(value)[place] for place in held])
    at = places_with_gaps(named) or (tuple(held) if held != list(range(len(held))) else ())
    return Source(field, named, [list(value.values())[place] for place in held], at)


def _in_a_list(field: str, value: Any) -> Source:
    if isinstance(value, list) and value and all(isinstance(choice, Mapping) for choice in value):
        parts = [([choice.get(name) for choice in value], name) for name in (*_TEXTS, *_NAMES)]
        texts = next((part for part, name in parts if name in _TEXTS and not all(map(is_missing, part))), None)
        labels = next((part for part, name in parts if name in _NAMES and not all(map(is_missing, part))), None)
        if texts is not None:
            named = [] if labels is None else label_texts(field, labels)
            marks = [marked[1] if (marked := find(choice, *_FLAGS)) else None for choice in value]
            return Source(field, named, texts, places_with_gaps(named), _flags(field, marks))
    if not isinstance(value, list):
        raise DataError(f"the field {field!r} must be a list of texts, or an object of texts, got {value!r:.60}")
    return Source(field, [], value)


def _in_columns(row: Row) -> Iterator[Source]:
    """A choice a column: A to D, which must all be there, and further letters; numbered; or lettered ones."""
    if find(row, "A") is not None and find(row, "B") is not None:
        there = [letter for letter in LETTERS if find(row, letter) is not None]
        needed = [letter for letter in "ABCD" if letter in row]
        letters = LETTERS[: LETTERS.index(max([*there, *needed])) + 1]
        yield Source("A", list(letters), [_held(row, letter) for letter in letters], are_columns=True)
    names = {same_name(name) for name in row if isinstance(name, str)}
    for name in _NUMBERED:
        first = 0 if name == _ZERO_ONLY or same_name(name.format(0)) in names else 1
        found = [n for n in range(first, first + len(LETTERS)) if find(row, name.format(n)) is not None]
        if found[:2] in ([0, 1], [1, 2]):
            at = () if found == list(range(first, first + len(found))) else tuple(n - first for n in found)
            values = [_held(row, name.format(n)) for n in found]
            yield Source(name.format(found[0]), [str(n) for n in found], values, at, are_columns=True)
    for name in _LETTERED:
        held = [letter for letter in LETTERS if find(row, name.format(letter)) is not None]
        if held[:2] == ["A", "B"]:
            values = [_held(row, name.format(letter)) for letter in held]
            yield Source(name.format("a"), held, values, places_with_gaps(held), are_columns=True)


def _held(row: Row, name: str) -> Any:
    found = find(row, name)
    return words(row, name) if found is None else found[1]


def _flags(field: str, marks: Sequence[Any]) -> tuple[bool, ...]:
    """Which choice is marked as right: one, if any is marked at all."""
    if all(map(is_missing, marks)):
        return ()
    flags = [False if is_missing(mark) else _SAID.get(str(number_text(mark) or mark).strip().lower()) for mark in marks]
    if None in flags or flags.count(True) != 1:
        raise DataError(f"the field {field!r} must mark one choice as the right one, got {list(marks)!r:.60}")
    return tuple(map(bool, flags))
