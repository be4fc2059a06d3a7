r"""A text as it came, and as it reads once its escapes are undone; every character knows where it stood.

    sk%2Dab    &#115;k-ab    \u0073k-ab    sk%252Dab    all of them read sk-ab

Escapes are undone one kind after the other, in every order, as they may be nested in any: a link in JSON in HTML.
"""

from __future__ import annotations

import html
import re
import string
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass

#: Escapes inside of escapes that are undone.
DEPTH = 3
#: Keeps every place, as str.lower does not.
_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)
_BACKSLASH = re.compile(
    r"(?:\\u(?:0000)?|u\+)(?P<hex4>[0-9a-f]{4})|"
    r"\\(?:x(?P<hex2>[0-9a-f]{2})|u\{(?P<braced>[0-9a-f]{1,5})\}|(?P<octal>[0-7]{3})|(?P<itself>.))",
    re.DOTALL,
)


@dataclass(frozen=True)
class View:
    """A text, `folded`.

    Attributes:
        places: of each character, where it begins and ends in the text as it came.
    """

    text: str
    places: tuple[tuple[int, int], ...]

    def squeezed(self) -> View:
        """Letters and digits alone: whatever is put between them is gone."""
        kept = [at for at, character in enumerate(self.text) if character.isascii() and character.isalnum()]
        return View("".join(self.text[at] for at in kept), tuple(self.places[at] for at in kept))


def folded(text: str) -> str:
    """A text in lower case, letters of another width or style as plain ones (NFKC, character by character)."""
    if not text.isascii():
        text = "".join(unicodedata.normalize("NFKC", character) for character in text)
    return text.translate(_LOWER)


def views(text: str) -> list[View]:
    """The text itself, and every other way to read it."""
    characters = list(map(folded, text))
    places = tuple((at, at + 1) for at, character in enumerate(characters) for _ in character)
    plain = "".join(characters)
    found = {plain: View(plain, places)}
    latest = list(found.values())
    for _ in range(DEPTH):
        latest = [view for view in _undone(latest) if found.setdefault(view.text, view) is view]
    return list(found.values())


def _undone(latest: list[View]) -> Iterator[View]:
    for view in latest:
        for escape, meaning in _ESCAPES:
            if escape.search(view.text):
                yield _read(view, escape, meaning)


def _read(view: View, escape: re.Pattern[str], meaning: Callable[[re.Match[str]], str]) -> View:
    parts: list[str] = []
    places: list[tuple[int, int]] = []
    at = 0
    for match in escape.finditer(view.text):
        new = folded(meaning(match))
        parts += [view.text[at : match.start()], new]
        places += view.places[at : match.start()]
        places += [(view.places[match.start()][0], view.places[match.end() - 1][1])] * len(new)
        at = match.end()
    return View("".join([*parts, view.text[at:]]), (*places, *view.places[at:]))


def _after_backslash(match: re.Match[str]) -> str:
    number = match["hex4"] or match["hex2"] or match["braced"]
    if number:
        return chr(int(number, 16))
    return chr(int(match["octal"], 8)) if match["octal"] else match["itself"]


_ESCAPES: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], str]], ...] = (
    (re.compile(r"%([0-9a-f]{2})"), lambda match: chr(int(match[1], 16))),
    (re.compile(r"%([0-9a-f]{2})|\+"), lambda match: chr(int(match[1], 16)) if match[1] else " "),  # of a form
    (_BACKSLASH, _after_backslash),
    (re.compile(r"&(?:#[0-9]{1,7}|#x[0-9a-f]{1,6}|[a-z][a-z0-9]{1,30});?"), lambda match: html.unescape(match[0])),
)
