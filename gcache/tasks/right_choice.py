"""Which choice a row says is the right one.

Rows name it by its label ("B", or the key of an option), by its place from 0, or by its words. The same two characters
may be all of that: "B" is the second choice, and may be the words of the third. So a value is read as what its field is
for; only where that is not known, as all that it can be, and then the readings must agree. Fields that contradict each
other are refused: a wrong right answer is worse than none.
"""

from __future__ import annotations

import re
from typing import Any

from gcache.errors import DataError
from gcache.tasks.choice_set import BLANK, Choices
from gcache.tasks.data_fields import Row, find, number_text
from gcache.tasks.data_file import shown

#: Fields that hold a label; a label or a place; or anything.
LABELS = ("answerKey", "correct_option", "answer_letter", "answer_label")
INDICES = ("answer_idx", "answer_index", "correct_index", "label")
ANSWERS = ("answer", "target", "correct_answer", "answer_text", "gold", "correct_choice", "answer_choice")


def right_choice(row: Row, choices: Choices, answer_is_words: bool = False) -> int:
    """The place of the right choice, by all fields of the row that name it, among all fields that hold the choices.

    Args:
        answer_is_words: whether the field `answer` of this data set holds words, as that of MedQA does; else it holds
            a label or a place.

    Raises:
        DataError: no field names it, one names none of the choices or may mean several, or two contradict each other.
    """
    place = _right(row, choices, answer_is_words)
    for other in choices.others:
        if _right(row, other, answer_is_words) != place:
            raise DataError(
                f"the right one is choice {place + 1} by one list of the choices, and another by another list; leave "
                "one of these lists"
            )
    return place


def _right(row: Row, choices: Choices, answer_is_words: bool) -> int:
    named: list[tuple[str, Any, int]] = []
    for group in (LABELS, INDICES):
        for field in group:
            if (found := find(row, field)) is not None and not isinstance(found[1], (list, dict)):
                read = _label if group is LABELS else _index
                named.append((*found, read(found[0], found[1], choices)))
    for field in ANSWERS:
        if (found := find(row, field)) is not None:
            named.append((*found, _answer(*found, choices, answer_is_words, named[0][2] if named else None)))
    for field, value, place in named:
        if (rival := choices.by_rival(value)) not in (None, place):
            raise DataError(
                f"the field {field!r} must be one of the {len(choices.texts)} choices, got {value!r:.60}, which may be "
                f"choice {place + 1} by its place or {(rival or 0) + 1} by what stands in front of its words; name it "
                "by its words"
            )
    if choices.flagged is not None:
        named.append(("correct", True, choices.flagged))
    if not named:
        raise DataError(f"the field {'answer_idx' if answer_is_words else 'answer'!r} is missing, or holds nothing")
    first = named[0]
    for other in named[1:]:
        if other[2] != first[2]:
            raise DataError(
                f"the fields {first[0]!r} and {other[0]!r} name different choices: {first[1]!r:.40} and "
                f"{other[1]!r:.40}; leave the right one of them"
            )
    return first[2]


def _label(field: str, value: Any, choices: Choices) -> int:
    text = number_text(value) or (value.strip() if isinstance(value, str) else None)
    place = None if text is None else choices.by_label(text)
    if place is None:
        labels = ", ".join(map(shown, choices.labels))
        raise DataError(f"the field {field!r} must be one of {labels}, got {value!r:.40}")
    return place


def _index(field: str, value: Any, choices: Choices) -> int:
    readings = _digits(value, choices) if (digits := _number(value)) is not None else set()
    if digits is None and isinstance(value, str) and (place := choices.by_label(value.strip())) is not None:
        readings = {place}
    return _only(field, value, readings, choices)


def _answer(field: str, value: Any, choices: Choices, is_words: bool, known: int | None) -> int:
    """The choice that a field names that may hold a label, a place or words.

    Args:
        known: what a field says that can hold nothing but a label or a place.
    """
    if not isinstance(value, str) or (_number(value) is not None and not is_words):
        number = value.strip() if isinstance(value, str) else number_text(value) if choices.are_numbers else None
        by_words = set() if number is None else choices.by_words(number)
        return _only(field, value, _digits(value, choices) | by_words, choices)
    text = value.strip()
    label, by_words = choices.by_label(text), choices.by_words(text)
    if is_words and known is not None and by_words:
        return known if known in by_words else _only(field, value, by_words | {known}, choices)
    if label is None:
        return known if known is not None and known in by_words else _only(field, value, by_words, choices)
    if label in by_words or (not is_words and text in choices.labels):
        return label  # the form says that it is a label, or it is both
    return _only(field, value, by_words | {label}, choices)


def _number(value: Any) -> int | None:
    """A whole number, also in digits."""
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,4}", value.strip()):
        return int(value)
    text = number_text(value)
    return int(text) if text is not None and re.fullmatch(r"-?[0-9]+", text) else None


def _digits(value: Any, choices: Choices) -> set[int]:
    """What a whole number may name: a place, and, where labels are numbers, a label."""
    number = _number(value)
    if number is None:
        return set()
    label = choices.by_label(str(number)) if choices.have_digits else None
    return choices.by_place(number) | (set() if label is None else {label})


def _only(field: str, value: Any, readings: set[int], choices: Choices) -> int:
    if len(readings) == 1 and BLANK not in readings:
        return next(iter(readings))
    wrong = f"the field {field!r} must be one of the {len(choices.texts)} choices, got {value!r:.60}"
    if not readings:
        raise DataError(wrong)
    if choices.at:
        raise DataError(
            f"{wrong}; there are gaps between the choices, so its place tells nothing: name it by its label"
        )
    places = " or ".join(str(place + 1) for place in sorted(readings))
    way_out = "by its words" if choices.rivals else "by its letter, in a field 'answer_idx'"
    raise DataError(f"{wrong}, which may be choice {places}; name it {way_out}")
