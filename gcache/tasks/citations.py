"""Which documents name which others by their titles: links that need no markup."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

from gcache.tasks.example import Note

_WORDS, _ASIDE = re.compile(r"\w+"), re.compile(r"\([^()]*\)")
#: A title that is shorter could be any word.
SHORTEST = 3

#: The words of a title.
Name = tuple[str, ...]


def with_citations(notes: Sequence[Note]) -> tuple[Note, ...]:
    """The notes, each with the roles of the others that its text names, behind its own title.

    It takes time in proportion to all words. Where words are not parted by spaces, none is found.
    """
    names = {note.role: name_of(note.role) for note in notes}
    by_first: dict[str, list[tuple[Name, str]]] = defaultdict(list)
    for role, name in names.items():
        if _is_name(name):
            by_first[name[0]].append((name, role))
    return tuple(replace(note, cites=_cited(note, names[note.role], by_first)) for note in notes)


def _cited(note: Note, own: Name, by_first: Mapping[str, Sequence[tuple[Name, str]]]) -> tuple[str, ...]:
    text = _words(note.text.removeprefix(f"{note.role}:"))
    found = {
        role: None
        for place, word in enumerate(text)
        for name, role in by_first.get(word, ())
        if name != own and text[place : place + len(name)] == list(name)
    }
    return tuple(found)


def name_of(title: str) -> Name:
    """A title as a text would name it: its words in lower case, without what stands in brackets, such as "(film)"."""
    return tuple(_words(_ASIDE.sub(" ", title)))


def says(text: str, name: Name) -> bool:
    """Whether a text names what is called so."""
    words = _words(text)
    return _is_name(name) and any(
        tuple(words[place : place + len(name)]) == name for place in range(len(words) - len(name) + 1)
    )


def _is_name(name: Name) -> bool:
    return len(" ".join(name)) >= SHORTEST


def _words(text: str) -> list[str]:
    return _WORDS.findall(unicodedata.normalize("NFC", text).casefold())
