"""Labels of choices: those that stand in front of their words, and the places that labels speak of.

"C. elegans" begins as "C. zinc" does. So what stands in front of the words is a label only where all labels are there,
in order from the first. Elsewhere it belongs to the words, and where it might be a label all the same, it is kept as a
rival, which must not say something else than the place does.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from gcache.errors import DataError
from gcache.tasks.choices import LETTERS
from gcache.tasks.data_fields import number_text

_BRACKETED = re.compile(r"[(\[]?\s*([A-Za-z]|[0-9]{1,2})\s*[)\].:]*")


def label_texts(field: str, labels: Sequence[Any]) -> list[str]:
    """The labels that a row has, as texts. Raises DataError where one is no text and no number."""
    texts = [number_text(label) or (label.strip() if isinstance(label, str) else "") for label in labels]
    if not all(texts):
        raise DataError(f"the labels in the field {field!r} must be texts or numbers, got {list(labels)!r:.60}")
    bare = [_BRACKETED.fullmatch(text) for text in texts]
    return [found[1] for found in bare if found] if all(bare) else texts  # "(A)" is A, if all of them are so


def in_front(texts: Sequence[str]) -> list[str]:
    """What may be labels in front of the words of all choices, each another one; [] where there are none."""
    found = [re.match(r"[(\[]?([A-Z]|[a-z]|[0-9]{1,2})[.):\]]+\s+\S", text) for text in texts]
    labels = [label[1] for label in found if label]
    return labels if len(texts) > 1 and len(labels) == len(texts) == len(set(labels)) else []


def in_order(count: int) -> list[list[str]]:
    """Labels as they follow each other in print, in capitals."""
    return [list(LETTERS[:count]), [str(n) for n in range(count)], [str(n) for n in range(1, count + 1)]]


def are_printed(labels: Sequence[str]) -> bool:
    """Whether labels in front are all there, in order from the first, in one case."""
    return bool(labels) and list(labels) in [*in_order(len(labels)), list(LETTERS[: len(labels)].lower())]


def may_be_printed(labels: Sequence[str]) -> bool:
    """Whether what stands in front may be labels that are out of order or incomplete: they follow each other, or have
    the first one and none beyond the last that a question may have. The initials C, D, E and S do neither."""
    numbers = sorted(int(label) if label.isdecimal() else ord(label.upper()) - ord("A") + 1 for label in labels)
    follow = numbers == list(range(numbers[0], numbers[0] + len(numbers))) if numbers else False
    return follow or (bool(numbers) and numbers[0] <= 1 and numbers[-1] <= len(LETTERS))


def places_with_gaps(labels: Sequence[str]) -> tuple[int, ...]:
    """The places from 0 that labels have among all labels; () where these are just the first ones, or where they are
    no letters or numbers that stand for places."""
    upper = [label.upper() for label in labels]
    if all(label in LETTERS and len(label) == 1 for label in upper):
        places = [LETTERS.index(label) for label in upper]
    elif all(re.fullmatch(r"[0-9]{1,2}", label) and int(label) <= len(LETTERS) for label in upper):
        numbers = [int(label) for label in upper]
        places = [number - (0 if 0 in numbers else 1) for number in numbers]
    else:
        return ()
    return () if sorted(places) == list(range(len(places))) else tuple(places)


def without_letters(texts: Sequence[str], labels: Sequence[str]) -> list[str]:
    """ "B. Aspirin" as "Aspirin", if all choices have their own labels in front: "B. cereus" alone is a name."""
    pairs = list(zip(texts, labels, strict=True))
    cut = [re.fullmatch(rf"[(\[]?{re.escape(label)}[.):\]]+\s*(.*\S)", text, re.DOTALL) for text, label in pairs]
    return [found[1] for found in cut if found] if all(cut) else list(texts)
