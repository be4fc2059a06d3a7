"""Words of others, without a key in them.

Servers, proxies and libraries repeat what they were sent, and rarely as it was: escaped, encoded, cut off, as a part
of a header. A message is searched for every form of the key, and for every long piece of it.
"""

from __future__ import annotations

import base64
import html
import json
import re
import string
from collections.abc import Iterable, Iterator
from urllib.parse import quote, quote_plus

HIDDEN = "***"
#: Of a key this long, pieces and encodings are looked for, too; those of a shorter one stand in any text.
LONG = 8
#: Characters of a message that are looked at.
MOST = 4096
#: What a match is widened over: a piece of a longer text of base64 tells its neighbours.
_WORD = frozenset(string.ascii_letters + string.digits + "+/_-")
_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)  # keeps every place, as str.lower does not
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
        spans = sorted(_spans(text.translate(_LOWER), secret))
        for start, end in reversed(_joined(spans)):
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
    for form in {form.translate(_LOWER) for form in _forms(secret)}:
        at = text.find(form)
        while at >= 0:
            start, end = at, at + len(form)
            if len(secret) >= LONG:
                start, end = _widened(text, start, end)
            yield start, end
            at = text.find(form, end)


def _widened(text: str, start: int, end: int) -> tuple[int, int]:
    while start > 0 and text[start - 1] in _WORD:
        start -= 1
    while end < len(text) and text[end] in _WORD:
        end += 1
    return start, end


def _joined(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    joined: list[tuple[int, int]] = []
    for start, end in spans:
        if joined and start <= joined[-1][1]:
            joined[-1] = joined[-1][0], max(end, joined[-1][1])
        else:
            joined.append((start, end))
    return joined


def _forms(secret: str) -> Iterator[str]:
    """All that may stand for a secret, and of a long one its pieces; what is looked for heeds no case."""
    whole = set(_whole(secret)) - {""}
    yield from whole
    if len(secret) >= LONG:
        for form in whole:
            size = max(LONG, len(form) // 2)
            yield from (form[at : at + size] for at in range(len(form) - size + 1))


def _whole(secret: str) -> Iterator[str]:
    escaped = json.dumps(secret)[1:-1]
    yield from (secret, escaped, json.dumps(escaped)[1:-1], repr(secret)[1:-1], repr(secret.encode())[2:-1])
    yield from (secret.replace("/", "\\/"), html.escape(secret), quote(secret), quote(secret, safe=""))
    yield from (quote_plus(secret), quote(quote(secret, safe=""), safe=""))
    if len(secret) < LONG:
        return
    yield secret.encode().hex()
    for before in range(3):  # as it stands in a longer text, such as "user:key"
        core = base64.b64encode(b"\0" * before + secret.encode()).decode().rstrip("=")
        core = core[before and before + 1 : -1]  # the ends depend on the neighbours
        yield from (core, core.replace("+", "-").replace("/", "_"), quote(core, safe=""))
