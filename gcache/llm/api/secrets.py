"""Words of others, without a key in them.

Servers, proxies and libraries repeat what they were sent, and rarely as it was: escaped, encoded, spaced out, cut off,
as a part of a header. A message is read in every way that its escapes allow (`gcache.llm.api.views`), with and without
what stands between letters and digits, and searched for the key, for its encodings, and for every piece of these that
is long enough to tell it.

What a model writes is no message: a text that repeats the key stays as the server sent it.
"""

from __future__ import annotations

import base64
import codecs
import re
import string
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping

from gcache.llm.api.views import View, folded, views

HIDDEN = "***"
#: Of a key this long, pieces and encodings are looked for, too; those of a shorter one stand in any text.
LONG = 8
#: Characters of a message that are looked at.
MOST = 4096
#: What a match is widened over: a piece of a longer text of base64 tells its neighbours.
_WORD = frozenset(string.ascii_letters + string.digits + "+/_-")
#: Of a longer key, pieces that stand for so many of its characters are looked for: shorter ones stand in other words.
PIECE = 10
#: How a byte is written as a number.
_NUMBERS = (
    "{:02x}", "0x{:02x}", "{:04x}", "{:d}", "{:03d}", "{:o}", "{:03o}", "0o{:o}", "{:b}", "{:08b}", "0b{:b}",
)  # fmt: skip
#: Encodings of bits as letters: the encoder, bytes that are encoded together, and bits of a letter.
_LETTERS: tuple[tuple[Callable[[bytes], bytes], int, int], ...] = (
    (base64.b64encode, 3, 6), (base64.b32encode, 5, 5),
)  # fmt: skip
#: What keys of well-known services look like.
_LIKE_A_KEY = re.compile(
    r"(?<![A-Za-z0-9])(?:(?:sk|pk|rk|gsk|csk|hf|xai|nvapi|pplx|ghp)[-_][\w-]{12,}|AIza[\w-]{20,}|eyJ[\w-]{10,}\.[\w.-]+)",
    re.ASCII,
)
#: Names of fields whose values are no one's business.
SECRET_NAME = re.compile(r"key|token$|secret|passw|authorization|credential", re.IGNORECASE)


def hidden(text: str, secrets: Iterable[str]) -> str:
    """The text with `***` where a secret stood, in whatever form."""
    for secret in secrets:
        spans = _joined(_spans(text, secret))
        if len(secret) >= LONG:
            spans = _joined(_widened(text, start, end) for start, end in spans)
        for start, end in reversed(spans):
            text = text[:start] + HIDDEN + text[end:]
    return text


def masked(text: str) -> str:
    """What a user typed, without what looks like a key or a password in it."""
    return _LIKE_A_KEY.sub(HIDDEN, re.sub(r"[^/@\s]+@", HIDDEN + "@", text))


def one_line(text: str, secrets: Iterable[str] = (), most: int = 200) -> str:
    """Others' words on one line that any terminal can show, without the secrets; hidden first, cut afterwards."""
    secrets = tuple(secrets)
    shown = hidden(text[:MOST], secrets)
    shown = " ".join("".join(c if c.isprintable() else " " for c in shown).split())
    return hidden(shown, secrets)[:most] or "no message"


def holds(text: str, secret: str) -> bool:
    """Whether a text holds a secret as a whole, in any case and escapes; a short one stands in any text."""
    return len(secret) >= LONG and any(folded(secret) in view.text for view in views(text))


def _spans(text: str, secret: str) -> Iterator[tuple[int, int]]:
    if not secret:
        return
    if len(secret) < LONG:
        for view in views(text):
            yield from _found(view, {folded(secret): {folded(secret)}})
        return
    whole, squeezed = _pieces([secret], len(secret)), _pieces(_squeezed(secret), len(secret))
    for view in views(text):
        yield from _found(view, whole)
        yield from _found(view.squeezed(), squeezed)


def _found(view: View, pieces: Mapping[str, set[str]]) -> Iterator[tuple[int, int]]:
    """Where pieces, by how they begin, stand in the text as it came."""
    width = len(next(iter(pieces), ""))
    for at in range(len(view.text) - width + 1):
        for piece in pieces.get(view.text[at : at + width], ()):
            if view.text.startswith(piece, at):
                yield view.places[at][0], view.places[at + len(piece) - 1][1]


def _widened(text: str, start: int, end: int) -> tuple[int, int]:
    while start > 0 and text[start - 1] in _WORD:
        start -= 1
    while end < len(text) and text[end] in _WORD:
        end += 1
    return start, end


def _joined(spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    joined: list[tuple[int, int]] = []
    for start, end in sorted(set(spans)):
        if joined and start <= joined[-1][1]:
            joined[-1] = joined[-1][0], max(end, joined[-1][1])
        else:
            joined.append((start, end))
    return joined


def _pieces(forms: Iterable[str], length: int) -> dict[str, set[str]]:
    """All pieces of what may stand for a secret that are long enough to tell it, by how they begin.

    Args:
        length: of the secret, which its forms are longer than.
    """
    pieces: defaultdict[str, set[str]] = defaultdict(set)
    for form in map(folded, forms):
        size = max(LONG, min(len(form) // 2, PIECE * len(form) // length))
        for at in range(len(form) - size + 1):
            pieces[form[at : at + LONG]].add(form[at : at + size])
    return pieces


def _squeezed(secret: str) -> Iterator[str]:
    """Letters and digits of a secret, from either end, and of its encodings."""
    raw = secret.encode()
    plain = _alone(secret)
    yield from (plain, plain[::-1], codecs.encode(plain, "rot13"))
    yield from ("".join(map(number.format, raw)) for number in _NUMBERS)
    for encode, block, bits in _LETTERS:
        for source in (raw, raw[::-1], base64.b64encode(raw)):
            for before in range(block):  # as it stands in a longer text, such as "user:key"
                letters = encode(b"\0" * before + source).decode().rstrip("=")
                form = _alone(letters[-(-8 * before // bits) : -1])  # the ends depend on the neighbours
                yield from (form, form[::-1])


def _alone(text: str) -> str:
    return "".join(character for character in text if character.isascii() and character.isalnum())
