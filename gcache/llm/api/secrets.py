"""Words of others, without a key in them.

Servers, proxies and libraries repeat what they were sent, and rarely as it was: escaped, encoded, spaced out, cut off,
as a part of a header. A message is read in every way that its escapes allow (`gcache.llm.api.views`), with and without
what stands between letters and digits, and searched for the key, for its encodings, and for every long piece of these.
"""

from __future__ import annotations

import base64
import re
import string
from collections.abc import Callable, Iterable, Iterator

from gcache.llm.api.views import LOWER, View, views

HIDDEN = "***"
#: Of a key this long, pieces and encodings are looked for, too; those of a shorter one stand in any text.
LONG = 8
#: Characters of a message that are looked at.
MOST = 4096
#: What a match is widened over: a piece of a longer text of base64 tells its neighbours.
_WORD = frozenset(string.ascii_letters + string.digits + "+/_-")
#: How a byte is written as a number.
_NUMBERS = ("{:02x}", "0x{:02x}", "{:04x}", "{:d}")
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


def _spans(text: str, secret: str) -> Iterator[tuple[int, int]]:
    if len(secret) < LONG:
        for view in views(text) if secret else ():
            yield from _found(view, {secret.translate(LOWER)})
        return
    whole, squeezed = _pieces([secret]), _pieces(_squeezed(secret))
    for view in views(text):
        yield from _found(view, whole)
        yield from _found(view.squeezed(), squeezed)


def _found(view: View, pieces: set[str]) -> Iterator[tuple[int, int]]:
    """Where pieces stand in the text as it came."""
    for piece in pieces:
        at = view.text.find(piece)
        while at >= 0:
            yield view.places[at][0], view.places[at + len(piece) - 1][1]
            at = view.text.find(piece, at + 1)


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


def _pieces(forms: Iterable[str]) -> set[str]:
    """All long pieces of what may stand for a secret; what is looked for heeds no case."""
    pieces: set[str] = set()
    for form in forms:
        size = max(LONG, len(form) // 2)
        pieces.update(form.translate(LOWER)[at : at + size] for at in range(len(form) - size + 1))
    return pieces


def _squeezed(secret: str) -> Iterator[str]:
    """Letters and digits of a secret, from either end, and of its encodings."""
    raw = secret.encode()
    plain = _alone(secret)
    yield from (plain, plain[::-1])
    yield from ("".join(map(number.format, raw)) for number in _NUMBERS)
    for encode, block, bits in _LETTERS:
        for before in range(block):  # as it stands in a longer text, such as "user:key"
            letters = encode(b"\0" * before + raw).decode().rstrip("=")
            yield _alone(letters[-(-8 * before // bits) : -1])  # the ends depend on the neighbours


def _alone(text: str) -> str:
    return "".join(character for character in text if character.isascii() and character.isalnum())
