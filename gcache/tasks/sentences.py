"""Where the sentences of a text end."""

from __future__ import annotations

import re

_SENTENCE_END = re.compile(r"(?<=[.!?])[\"')\u2019\u201d]*\s+(?=[\"'(\u2018\u201c]?[A-Z0-9$])")
#: What ends in a full stop and ends no sentence.
_ABBREVIATION = re.compile(r"\b(?:Mr|Mrs|Ms|Dr|St|Jr|Sr|No|vs|a\.m|p\.m|[A-Z])\.$")


def sentences(text: str) -> list[str]:
    """A text's sentences, in order; joined by blanks they are the text, but for its white space."""
    found: list[str] = []
    for piece in _pieces(" ".join(text.split())):
        if found and _ABBREVIATION.search(found[-1]):
            found[-1] += f" {piece}"
        else:
            found.append(piece)
    return found


def _pieces(text: str) -> list[str]:
    start, found = 0, []
    for end in _SENTENCE_END.finditer(text):
        found.append(text[start : end.end()].strip())
        start = end.end()
    return [*found, text[start:]]
