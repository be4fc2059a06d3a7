"""Whether a dataclass that was made from a file holds what its annotations say."""

from __future__ import annotations

import dataclasses
import math
import types
from typing import Any, Union, get_args, get_origin, get_type_hints

from gcache.errors import shown


def mistyped(record: Any) -> str:
    """The first field that holds something else than its annotation says, as words; "" where there is none.

    A bool is no number, a whole number is a float too, and a float is finite. Known are bool, int, float, str, None,
    unions, tuples of one kind, and dataclasses.
    """
    hints = get_type_hints(type(record))
    for field in dataclasses.fields(record):
        value = getattr(record, field.name)
        if not _fits(value, hints[field.name]):
            return f"{field.name} must be {field.type}, got {shown(value)}"
        within = mistyped(value) if dataclasses.is_dataclass(value) else ""
        if within:
            return f"{field.name}: {within}"
    return ""


def _fits(value: Any, hint: Any) -> bool:
    if get_origin(hint) in (Union, types.UnionType):
        return any(_fits(value, each) for each in get_args(hint))
    if get_origin(hint) is tuple:
        return isinstance(value, tuple) and all(_fits(each, get_args(hint)[0]) for each in value)
    if hint in (int, float) and isinstance(value, bool):
        return False
    if hint is float:
        return isinstance(value, int | float) and math.isfinite(value)
    return isinstance(value, hint)
