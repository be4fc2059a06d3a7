"""The choices of a row, and what a label, a place or words name among them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gcache.tasks.choice_labels import are_printed
from gcache.tasks.choices import LETTERS
from gcache.tasks.data_fields import number_text

BLANK = -1  # what a place names that the row leaves blank
_BRACKETED = re.compile(r"[(\[]?\s*([A-Za-z0-9])\s*[)\].:]?")
_LETTER_AND_WORDS = re.compile(r"[(\[]?([A-Z])[)\].:]+\s+(.+)", re.DOTALL)


@dataclass(frozen=True)
class Choices:
    """The choices of a row, in their order.

    Attributes:
        texts: their words.
        labels: what the row calls them; A, B, C where it does not say.
        written: their words as they stand in the row, where letters may come first.
        are_numbers: whether the row has numbers for words.
        given: where each stands in the row, where that is another order.
        numbered: whether the labels are but the numbers of columns, so that a letter may name a choice, too.
        at: where each stands in the row, from 0, where others are left blank there.
        rivals: what stands in front of the words and may be labels, but is not read as such.
        flagged: the one that is marked as right beside its words.
        others: the same choices as other fields of the row have them, with labels of their own.
    """

    texts: tuple[str, ...]
    labels: tuple[str, ...]
    written: tuple[str, ...]
    are_numbers: bool = False
    given: tuple[int, ...] = ()
    numbered: bool = False
    at: tuple[int, ...] = ()
    rivals: tuple[str, ...] = ()
    flagged: int | None = None
    others: tuple[Choices, ...] = ()

    @property
    def have_digits(self) -> bool:
        """Whether a number may be a label."""
        return any(label.isdecimal() for label in self.labels)

    def by_label(self, value: str) -> int | None:
        """The choice of that label, in any case if only one has it, in brackets or not."""
        bare = _BRACKETED.fullmatch(value)
        for asked in (value, *([bare[1]] if bare else [])):
            for same in (str, str.casefold):
                found = [place for place, label in enumerate(self.labels) if same(label) == same(asked)]
                if len(found) == 1:
                    return found[0]
        if self.numbered and bare and bare[1].upper() in LETTERS[: len(self.texts)]:
            return LETTERS.index(bare[1].upper())
        return None

    def by_place(self, value: int) -> set[int]:
        """The choice at a place; several where labels are not in the order of the row; and none that can be told from
        the first gap on, where others are left blank."""
        found = {value} if 0 <= value < len(self.texts) else set()
        if found and self.given:
            found.add(self.given.index(value))
        in_order = sorted(self.rivals, key=lambda label: (len(label), label))
        if found and are_printed([label.upper() for label in in_order]):
            found.add(self.rivals.index(in_order[value]))  # all labels are there in front, in another order
        if 0 <= value <= max(self.at, default=-1) and sorted(self.at)[: value + 1] != list(range(value + 1)):
            found.add(BLANK)
        return found

    def by_rival(self, value: Any) -> int | None:
        """The choice that has a label or a number in front of its words, where that is not read as its label."""
        bare = _BRACKETED.fullmatch(number_text(value) or (value.strip() if isinstance(value, str) else ""))
        found = [place for place, label in enumerate(self.rivals) if bare and label.upper() == bare[1].upper()]
        return found[0] if len(found) == 1 else None

    def by_words(self, value: str) -> set[int]:
        wanted = " ".join(value.split())
        both = zip(self.texts, self.written, strict=True)
        tidy = [[" ".join(form.split()) for form in forms] for forms in both]
        found = {place for place, forms in enumerate(tidy) if wanted in forms}
        if not found and len(wanted) > 1:  # "no" for "No"; a single letter may be a label
            same = wanted.casefold()
            found = {place for place, forms in enumerate(tidy) if same in map(str.casefold, forms)}
        lettered = _LETTER_AND_WORDS.fullmatch(value.strip())
        if not found and lettered and (place := self.by_label(lettered[1])) is not None:
            found = {place} & self.by_words(lettered[2])
        return found


def same_words(texts: Sequence[str]) -> list[str]:
    """Texts in a form that is equal however they are broken into lines."""
    return [" ".join(text.split()) for text in texts]
