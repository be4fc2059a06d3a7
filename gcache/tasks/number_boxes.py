r"""The number in a `\boxed{...}`: all of what is inside must be read, a name and "=" before it and a unit behind it."""

from __future__ import annotations

import re
from collections.abc import Sequence

from gcache.tasks.number_reading import CLAUSE, EQUALS, is_expression, named_number
from gcache.tasks.number_sentences import sentence_number
from gcache.tasks.number_value import LONGEST_EXPRESSION, worth

#: Several numbers with commas between them, which is a value of its own: it equals no number.
_LIST = re.compile(r"\(?-?\$?[0-9][0-9./]*(?:\s*,\s*-?\$?[0-9][0-9./]*)+\)?")
_LABEL = re.compile(
    r"(?i)\s*(?:(?:the|final|grand|correct) )*(?:answer|total|result|sum)(?: (?:is|of|cost|price|number))*\s*:?\s*"
)
_PLAIN_WORDS = re.compile(r"(?:[\w\s.,:;$%'/*-]|\\[$%])*")


def boxes(text: str, most: int = 20) -> list[tuple[int, int, str]]:
    """(start, end, what is inside) of the last few boxes that are closed and hold something, but no other box."""
    found = []
    for box in list(re.finditer(r"\\(?:boxed|fbox) ?\{", text))[-most:]:
        rest, depth = text[box.end() : box.end() + 1000], 1
        for brace in re.finditer(r"(?<!\\)[{}]", rest):
            depth += 1 if brace.group() == "{" else -1
            if depth == 0:
                break
        inside = rest[: brace.start()].strip() if depth == 0 else ""
        if inside and "\\boxed" not in inside and "\\fbox" not in inside:
            found.append((box.start(), box.end() + brace.end(), inside))
    return found


def value_in_a_box(inside: str, units: Sequence[str] = ()) -> str | None:
    """The one number in a box, made `tidy`; an expression that is no number comes back as it is, and equals none.

    None where the box holds several numbers, a bound, or anything else that is not wholly one value.
    """
    inside = inside.replace("~", " ").strip()
    label = _LABEL.match(inside)
    inside = inside[label.end() :] if label else inside
    found = named_number(inside, units=units)
    if found and found.whole(inside) and "?" not in inside:
        factorial = "!" in inside
        return found.value if not factorial else (inside if worth(inside) is not None else None)
    if _LIST.fullmatch(inside):
        return inside
    right = EQUALS.split(inside)[-1].strip()
    if is_expression(right) and len(right) <= LONGEST_EXPRESSION and not CLAUSE.search(inside.replace("|", "")):
        return right
    if _PLAIN_WORDS.fullmatch(inside):
        said = sentence_number(inside, units=units)
        return said.value if said and said.rest.kind == "end" and not re.search(r"[0-9]", inside[said.end :]) else None
    return None
