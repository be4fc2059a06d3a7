"""A number that a field is meant to hold: what stands around it, and where a worked solution marks it."""

from __future__ import annotations

import re

#: Signs of mathematics (also with their backslashes escaped twice), bold type, brackets, the dot at its end, and the
#: mark of GSM8K in front.
_AROUND = re.compile(
    r"\$+(.+?)\$+|\\{1,2}\((.+?)\\{1,2}\)|\\{1,2}\[(.+?)\\{1,2}\]"
    r"|\\{1,2}(?:boxed|fbox|text|textbf|mathbf|mathrm)\s*\{(.+)\}|\*+(.+?)\*+|####(.+)|\{(.+)\}|\((.+)\)|(.+[^0-9])\.",
    re.DOTALL,
)
_LONGEST = 1000
#: A number and nothing else: sign, currency, digits with commas at thousands or none, a fraction, per cent.
_NUMBER = re.compile(
    r"[-+\u2212]?\s*[$\u20ac\u00a3]?\s*[-+\u2212]?(?:[0-9]{1,60}|[1-9][0-9]{0,2}(?:,[0-9]{3}){1,15}|(?=\.[0-9]))(?:\.[0-9]{0,60})?"
    r"(?:/[0-9]{1,30}| [0-9]{1,30}/[0-9]{1,30})?\s*%?"
)
_BOX_AT_END = re.compile(r"[\s$]*\\boxed\s*\{[^{}]*\}[\s$.]*$")
#: Boxes next to each other, which are two answers where they differ.
_TWO_BOXES = re.compile(
    r"\\boxed\s*\{([^{}]*)\}[\s$]*(?:[,;/]|\bor\b|\band\b)?[\s$]*\\boxed\s*\{([^{}]*)\}[\s$.]*$", re.IGNORECASE
)


def bare(text: str) -> str:
    r"""The text without what stands around it: `$70$`, `\boxed{70}`, "**70**" and "#### 70" as "70"."""
    text = text.strip()
    while len(text) <= _LONGEST and (around := _AROUND.fullmatch(text)) is not None:
        text = around[around.lastindex or 0].strip()
    return text


def number_alone(text: str) -> str | None:
    """The number that a text is, without what stands around it; None where it is more or less than that."""
    for form in (text.strip(), bare(text)):
        if _NUMBER.fullmatch(form):
            return form
    return None


def marked(text: str) -> list[str]:
    """What stands behind each `####` in its line, before a box in it."""
    lines = [part.strip().split("\n")[0] for part in text.split("####")[1:]]
    return [line.split("\\boxed")[0].strip() for line in lines]


def without_last_box(text: str) -> str:
    """A text without the box that it ends in, if there is something before it."""
    return _BOX_AT_END.sub("", text) or text


def has_two_boxes(text: str) -> bool:
    """Whether a text ends in two boxes that differ, next to each other: it offers both."""
    found = _TWO_BOXES.search(text[-_LONGEST:])
    return found is not None and bare(found[1]) != bare(found[2])
