"""The question and the choices of a row, in the forms that data sets of questions with choices come in.

A row may hold its choices in several fields. All of them are read, and they must hold the same in the same order: a
letter or a place names another choice elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from gcache.errors import DataError
from gcache.tasks.choice_labels import are_printed, in_front, in_order, may_be_printed, without_letters
from gcache.tasks.choice_set import Choices, same_words
from gcache.tasks.choice_sources import Source, sources_of
from gcache.tasks.choices import LETTERS
from gcache.tasks.data_fields import Row, find, number_text, words


def stem_of(row: Row) -> str:
    """The question, without its choices."""
    stem = words(row, "question", "sent1", "input", "stem", "problem", "query")
    more = find(row, "sent2")
    return f"{stem} {words(row, more[0])}" if more else stem


def choices_of(row: Row) -> Choices | None:
    """The choices of a row; None where it has no field with any.

    Raises:
        DataError: they are no texts, or not told apart, or two fields hold different ones.
    """
    read = [(source.field, _read(source)) for source in sources_of(row)]
    if not read:
        return None
    (field, first), *others = read
    for other, choices in others:
        if same_words(choices.texts) != same_words(first.texts):
            raise DataError(
                f"the fields {field!r} and {other!r} hold different choices, or in another order; leave one of them"
            )
    return replace(first, others=tuple(choices for _, choices in others))


def without_choices(stem: str, written: Sequence[str]) -> str:
    """A question without the choices that some files repeat at its end, one a line."""
    wanted = " ".join(written).split()
    while (found := stem.rfind(f"\n{written[0]}")) > 0 and stem[found:].split() == wanted:
        stem = stem[:found].strip()
    return stem


def _read(source: Source) -> Choices:
    labels, values, at, flags = source.labels, source.values, source.at, source.flags
    count = len(values)
    if not 1 <= count <= len(LETTERS):  # one alone is refused when it is asked
        raise DataError(f"a question has 2 to {len(LETTERS)} choices, got {count}")
    texts = [_choice(value, source.field, values) for value in values]
    front = in_front(texts)
    if front and labels and sorted(front) == sorted(labels) and front != labels:
        raise DataError(
            f"the choices carry labels of their own ({', '.join(front)}), which are not those of the row "
            f"({', '.join(labels)}); leave one of the two"
        )
    printed = front if are_printed(front) else []
    is_numbered = source.are_columns and labels in in_order(count)[1:]  # no labels of the row, but its columns'
    is_numbered = is_numbered and [label.upper() for label in printed] in ([], labels, list(LETTERS[:count]))
    has_own = bool(labels) and not is_numbered
    rivals = front if front and not printed and not has_own and may_be_printed(front) else []
    labels = labels or printed
    if labels and len(set(labels)) < len(labels):
        raise DataError(f"the labels of the choices must be different, got {', '.join(labels):.60}")
    order = list(range(count))
    if labels and sorted(map(str.upper, labels)) in in_order(count):  # the words may speak of "A and B"
        order.sort(key=lambda place: labels[place].upper())
        labels, texts, values = ([part[place] for place in order] for part in (labels, texts, values))
        at = tuple(at[place] for place in order) if at else ()
        flags = tuple(flags[place] for place in order) if flags else ()
    labels = labels or list(LETTERS[:count])
    return Choices(
        texts=tuple(without_letters(texts, printed if is_numbered and printed else labels)),
        labels=tuple(labels),
        written=tuple(texts),
        are_numbers=all(number_text(value) is not None for value in values),
        given=tuple(order) if order != sorted(order) else (),
        numbered=is_numbered,
        at=at,
        rivals=tuple(rivals),
        flagged=flags.index(True) if flags else None,
    )


def _choice(value: Any, field: str, values: Sequence[Any]) -> str:
    text = number_text(value) or (value.strip().strip("\ufeff").strip() if isinstance(value, str) else "")
    if not text:
        raise DataError(
            f"the field {field!r} must be a list of texts, or an object of texts, got {list(values)!r:.60}, with "
            f"{value!r:.20} in it"
        )
    return text
