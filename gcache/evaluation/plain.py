"""Anybody's words (roles, questions, what a model wrote) as what files, pictures and terminals can hold."""

from __future__ import annotations

#: Stands where a character cannot.
INSTEAD = "\ufffd"


def printable(text: str) -> str:
    r"""Without half characters and without control characters, which XML has no form for and terminals obey.

    >>> printable("a\tb\r\nc\x1b")
    'a\tb\nc�'
    """
    lines = text.replace("\r\n", "\n").replace("\r", "\n")
    return "".join(c if c in "\t\n" or _in_xml(c) else INSTEAD for c in lines)


def _in_xml(c: str) -> bool:
    return (" " <= c <= "\ud7ff" and not "\x7f" <= c <= "\x9f") or "\ue000" <= c <= "\ufffd" or c > "\uffff"


def one_line(text: str) -> str:
    r"""As `printable`, with a space for all that moves on: a name's place is one line.

    >>> one_line("a\tb\r\nc\u2028")
    'a b c '
    """
    return "".join(" " if c in "\t\n\u2028\u2029" else c for c in printable(text))
