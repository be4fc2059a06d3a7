"""How vocabularies spell the bytes of a token."""

from __future__ import annotations

import re

#: What stands for a space in tokens of SentencePiece.
SPACE = "\u2581"
_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def byte_letters() -> dict[str, int]:
    """Letter -> byte of byte-level tokens: a printable byte is its own letter, the others have letters from U+0100 on
    (Radford et al. 2019)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAC + 1), *range(0xAE, 0xFF + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(others)}


def named_byte(token: str) -> bytes | None:
    """The byte that a token of SentencePiece names; None where it names none.

    >>> named_byte("<0x0A>")
    b'\\n'
    """
    found = _BYTE.fullmatch(token)
    return None if found is None else bytes([int(found[1], 16)])


def with_spaces(token: str) -> bytes:
    """The bytes of a token of SentencePiece that names no byte: "\u2581the" is " the"."""
    return token.replace(SPACE, " ").encode("utf-8", "replace")
