"""Whether a text that grows has just opened a quotation, or a block of code.

Each character is looked at once, however often is asked.
"""

from __future__ import annotations

import re
from collections import Counter

from gcache.tasks.fences import OpenBlock

#: What a tag that is only spoken of stands behind: marks that open and close alike, and some that only open.
_MARKS, _OPENING = "`'\"", "\u2018\u201c\u00ab"
_MARK = re.compile(f"[{_MARKS}]")


class Quotation:
    """What stands before the place that is asked about."""

    def __init__(self) -> None:
        self._fresh: list[str] = []  # what was not looked at yet
        self._marks: Counter[str] = Counter()  # in the last line, but for its end and within words
        self._last = ""  # the last two characters of the last line
        self._block = OpenBlock()

    def add(self, text: str) -> None:
        """The text goes on."""
        self._fresh.append(text)

    @property
    def is_open(self) -> bool:
        """Whether the text ends with a mark that opens a quotation: one that stands behind no word, and has no other of
        its kind to close."""
        self._look()
        mark = self._last[-1:]
        if not mark or mark in _OPENING:
            return bool(mark)
        return mark in _MARKS and not self._last[-2:-1].isalnum() and self._marks[mark] % 2 == 0

    def in_block(self, blanks: str) -> bool:
        """Whether what comes next, after some blanks, stands in a fenced block."""
        self._look()
        return self._block.is_open(blanks)

    def _look(self) -> None:
        text = "".join(self._fresh)
        self._fresh.clear()
        self._block.add(text)
        _, ended, line = text.rpartition("\n")
        if ended:
            self._marks.clear()
            self._last = ""
        line = self._last + line
        for found in _MARK.finditer(line, max(len(self._last) - 1, 0), max(len(line) - 1, 0)):
            at = found.start()
            if not (at and _is_of_word(line[at - 1]) and _is_of_word(line[at + 1])):  # one within a word quotes nothing
                self._marks[found.group()] += 1
        self._last = line[-2:]


def _is_of_word(character: str) -> bool:
    return character.isalnum() or character == "_"
