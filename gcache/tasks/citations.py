"""Which documents name which others by their titles: links that need no markup."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from gcache.tasks.example import Note

_WORDS, _ASIDE = re.compile(r"\w+"), re.compile(r"\([^()]*\)")


def with_citations(notes: Sequence[Note]) -> tuple[Note, ...]:
    """The notes, each with the roles of the others that its text names."""
    names = {note.role: plain_name(note.role) for note in notes}
    return tuple(replace(note, cites=_cited(note, names)) for note in notes)


def _cited(note: Note, names: Mapping[str, str]) -> tuple[str, ...]:
    text = _plain(note.text)
    return tuple(role for role, name in names.items() if role != note.role and _named(text, name))


def plain_name(title: str) -> str:
    """A title as a text would name it: in lower case, without punctuation, and without what stands in brackets, such as
    "(film)"; "" where nothing is left."""
    return _plain(_ASIDE.sub(" ", title)).strip()


def says(text: str, name: str) -> bool:
    """Whether a text names what is called so; see `plain_name`."""
    return _named(_plain(text), name)


def _named(plain: str, name: str) -> bool:
    """The same of a text that is plain. A name of fewer than three characters is none: it could be any word."""
    return len(name) > 2 and f" {name} " in plain


def _plain(text: str) -> str:
    return f" {' '.join(_WORDS.findall(text.casefold()))} "
