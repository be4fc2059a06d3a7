"""Fields of a row, by the names that mirrors of a data set give them.

Case, blanks, hyphens and underscores do not count: `Correct Answer`, `correct_answer` and `correctAnswer` are one name.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Set
from decimal import Decimal
from functools import lru_cache
from typing import Any

from gcache.errors import DataError
from gcache.runtime.numbers import is_whole

Row = Mapping[str, Any]

_SHOWN_NAMES = 20


@lru_cache(maxsize=4096)
def same_name(name: str) -> str:
    """A form that is equal for all ways to write a name."""
    return re.sub(r"[\s_\-\ufeff]+", "", name).casefold()


#: What a row's question may be called, in any data set.
QUESTIONS = frozenset(("question", "problem", "prompt", "text", "sentence", "input", "sent1", "stem", "query"))
#: What the list of its choices may be called.
CHOICES = frozenset(("options", "choices", "answerchoices", "endings"))


def is_missing(value: Any) -> bool:
    """Whether a field holds nothing: null, the NaN of pandas, or blank text."""
    if isinstance(value, str):
        return not _stripped(value)
    return value is None or (isinstance(value, float) and math.isnan(value))


def _stripped(text: str) -> str:
    """A text without blanks of any kind around it, and without marks (BOM)."""
    while text != (text := text.strip().strip("\ufeff")):
        pass
    return text


def find(row: Row, *names: str) -> tuple[str, Any] | None:
    """The first of these fields that a row has and that holds something: its name there, and its value. None where
    there is none.

    Raises:
        DataError: the row writes the name in two ways, with different values.
    """
    for name in names:
        wanted = same_name(name)
        held = [(key, row[key]) for key in row if isinstance(key, str) and same_name(key) == wanted]
        held = [(key, value) for key, value in held if not is_missing(value)]
        if len(held) > 1 and any(value != held[0][1] for _, value in held):
            raise DataError(f"the fields {held[0][0]!r} and {held[1][0]!r} say different things; leave one of them")
        if held:
            return held[0]
    return None


def opened(row: Row, *names: str) -> Row:
    """A row with the fields of the objects under these names among its own; and of those in them.

    Raises:
        DataError: a name is there twice, with different values, or there are two questions or two lists of choices
            under different names: either may be meant.
    """
    return _opened(row, set(map(same_name, names)), "")


def _opened(row: Row, names: Set[str], at: str) -> Row:
    inner = [name for name in row if isinstance(row[name], Mapping) and same_name(str(name)) in names]
    found = {name: value for name, value in row.items() if name not in inner}
    places = {name: f"{at}{name}" for name in found}
    for name in inner:
        beside = dict(found)  # two names of one object are left to whoever reads it
        for key, value in _opened(row[name], names, f"{at}{name}.").items():
            place = f"{at}{name}.{key}"
            for other, held in beside.items():
                if _are_one(other, key) and not is_missing(held) and not is_missing(value) and held != value:
                    raise DataError(
                        f"the fields {places[other]!r:.60} and {place!r:.60} say different things; leave one of them"
                    )
            if key not in found or is_missing(found[key]):
                found[key], places[key] = value, place
    return found


def _are_one(name: Any, other: Any) -> bool:
    """Whether two fields are for the same thing."""
    one, two = same_name(str(name)), same_name(str(other))
    return one == two or any(one in group and two in group for group in (QUESTIONS, CHOICES))


def words(row: Row, *names: str) -> str:
    """The first of these fields that a row has, as stripped text.

    Raises:
        DataError: it has none of them, or it is no text, or blank.
    """
    found = find(row, *names)
    if found is None:
        wanted = set(map(same_name, names))
        blank = next((key for key in row if isinstance(key, str) and same_name(key) in wanted), None)
        if blank is None:
            raise DataError(f"the field {names[0]!r} is missing; a row has {_names(row)}")
        found = blank, row[blank]
    name, value = found
    if not isinstance(value, str) or is_missing(value):
        raise DataError(f"the field {name!r} must be a non-empty string, got {value!r:.40}")
    return _stripped(value)


def label_words(row: Row, *names: str) -> str:
    """The first of these fields in one line of text, or as nothing; for what only describes a row."""
    found = find(row, *names)
    return "" if found is None or isinstance(found[1], (dict, list)) else " ".join(str(found[1]).split())


def id_of(task: str, row: Row, number: int) -> str:
    """A question's id: the row's own, or its number."""
    return f"{task}-{label_words(row, 'id') or number}"


def number_text(value: Any) -> str | None:
    """A JSON number in plain digits: 70.0 as "70", 1e22 as its 23 digits. None where it is no finite number."""
    if isinstance(value, float) and math.isfinite(value):
        return str(int(value)) if value.is_integer() else format(Decimal(repr(value)), "f")
    return str(value) if is_whole(value) else None


def _names(row: Row) -> str:
    names = [repr(name)[:60] for name in row]
    more = f" and {len(names) - _SHOWN_NAMES} more" if len(names) > _SHOWN_NAMES else ""
    return (", ".join(names[:_SHOWN_NAMES]) or "no field") + more
