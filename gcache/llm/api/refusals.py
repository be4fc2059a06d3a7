"""A field that a server does not take, and what a client then sends instead.

Newer models want `max_completion_tokens` for `max_tokens`, some take no temperature but their own, some no seed. What
a server says of it is understood, mended once, and kept to as long as the client lives. A limit of tokens is never
dropped, and a field that was asked for by hand is not touched, but for those that change no text.
"""

from __future__ import annotations

import json
import logging
import re
import threading
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from gcache.llm.api.fields import NEEDED, changed
from gcache.llm.api.outcome import Failure

logger = logging.getLogger(__name__)

LIMIT, NEWER_LIMIT = "max_tokens", "max_completion_tokens"
#: Fields that may be dropped, and what that means.
DROPPED = {
    "temperature": "texts are now drawn at the server's own temperature, and are not greedy",
    "seed": "texts that are drawn are now others each time",
}
#: Fields by which no text becomes another.
HARMLESS = ("stream_options", "stream", "store", "user", "metadata", "service_tier")
#: Statuses of a request that a server does not take as it is.
REFUSALS = (400, 422)
_CODES = (
    "unsupported_parameter", "unsupported_value", "unknown_parameter", "unrecognized_parameter", "extra_forbidden",
)  # fmt: skip
_BEFORE = (
    r"(?:unsupported|unrecogni[sz]ed|unknown|unexpected|not supported|(?:does|do) not (?:support|accept|allow)|"
    r"(?:doesn't|don't) support|not permitted|not allowed|invalid (?:parameter|argument|field))[^.;]{0,60}?"
)
_AFTER = (
    r"[^.;]{0,40}?(?:is not supported|are not supported|unsupported|not supported|deprecated|not permitted|"
    r"not allowed|does not support|extra inputs|extra_forbidden|not a valid (?:field|parameter)|not recogni[sz]ed|"
    r"unknown|"
    r"only the default|only [\d.]+ is allowed|may only be set|(?:is|are) fixed)"
)
#: Said of a temperature of 0 where only what is above it is taken.
_ABOVE_0 = (
    r"[^;]{0,60}?(?:strictly positive|(?:greater than|above|>) ?0(?!\.\d*[1-9])|[(]0(?:\.0+)?,|参数非法)"
)  # fmt: skip
_OTHER_LIMIT = re.compile(r"(?<!\w)max_\w{0,30}(?:tokens|length)(?!\w)", re.IGNORECASE)


@dataclass(frozen=True)
class Refusal:
    """A field that is refused, and the limit of tokens that is wanted instead, where the server names one."""

    name: str
    instead: str | None = None


def refusal(failed: Failure, sent: Mapping[str, Any]) -> Refusal | None:
    """The field that an answer refuses, of those that were sent; None where it is about something else."""
    if failed.status not in REFUSALS and (failed.status is not None or failed.said is None):
        return None
    names = [name for name in sent if name not in ("model", *NEEDED)]
    name = next(_structured(failed.said, names), None) or _named(failed.text[:2000], sent, names)
    if name is None:
        return None
    others = [other.lower() for other in _OTHER_LIMIT.findall(failed.text[:2000]) if other.lower() not in sent]
    return Refusal(name, NEWER_LIMIT if NEWER_LIMIT in others else next(iter(others), None))


def _structured(said: Any, names: Collection[str], depth: int = 0) -> Iterator[str]:
    """Fields that parts of a body name beside a code for it."""
    if depth > 6:
        return
    if isinstance(said, list):
        for part in said[:20]:
            yield from _structured(part, names, depth + 1)
    if not isinstance(said, dict):
        return
    place = said.get("loc")
    param = place[-1] if isinstance(place, list) and len(place) == 2 else said.get("param")
    if param in names and (said.get("code") in _CODES or said.get("type") in _CODES):
        yield str(param)
    for name in ("error", "detail", "message"):
        yield from _structured(said.get(name), names, depth + 1)


def _named(text: str, sent: Mapping[str, Any], names: Collection[str]) -> str | None:
    """The field that a message first names beside words of refusal."""
    found: list[tuple[int, str]] = []
    for name in names:
        word = rf"(?:(?<![\w.])|(?<=body\.))(?P<name>{re.escape(name)})(?!\w)"
        patterns = [_BEFORE + word, word + _AFTER]
        if name == "temperature" and sent[name] == 0:
            patterns.append(word + _ABOVE_0)
        matches = (re.search(pattern, text, re.IGNORECASE) for pattern in patterns)
        found += [(match.start("name"), name) for match in matches if match]
    return min(found)[1] if found else None


class Mends:
    """What one client sends otherwise than it would, because its server wants it so.

    Args:
        asked: fields that were given by hand.
    """

    def __init__(self, asked: Collection[str] = ()) -> None:
        self.asked = frozenset(asked)
        self._dropped: tuple[str, ...] = ()
        self._renamed: dict[str, str] = {}
        self._lock = threading.Lock()

    def applied(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """The body as the server takes it, as far as that is known."""
        with self._lock:
            return changed(body, self._dropped, self._renamed)

    def mend(self, failed: Failure, sent: Mapping[str, Any], body: Mapping[str, Any]) -> bool:
        """Whether the body is now another than the one that was sent and refused.

        Each field is mended once, so that no server, whatever it says, is asked for ever.
        """
        found = refusal(failed, sent)
        if found is None:
            return False
        with self._lock:
            self._learn(found, sent)
        return self.applied(body) != sent

    def _learn(self, found: Refusal, sent: Mapping[str, Any]) -> None:
        name = found.name
        if name in self._dropped or name in self._renamed or name in self._renamed.values():
            return
        if name == LIMIT:
            other = found.instead or NEWER_LIMIT
            if other not in sent:
                self._renamed[name] = other
                logger.info("the API does not take %s; it is sent as %s from now on", name, other)
        elif name in DROPPED and name not in self.asked:
            self._dropped = (*self._dropped, name)
            logger.warning("the API does not take %s %s; it is left out from now on: %s", name,
                           json.dumps(sent[name]), DROPPED[name])  # fmt: skip
        elif name in HARMLESS:
            self._dropped = (*self._dropped, name)
            logger.warning("the API does not take %s; it is left out from now on", name)
