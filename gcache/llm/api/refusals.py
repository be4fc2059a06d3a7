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
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from gcache.llm.api.fields import NEEDED, changed
from gcache.llm.api.outcome import Failure
from gcache.llm.api.wordings import other_limit, refused_field

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
#: What an error is about that is none of a field's, by its code or its parameter.
_OF_CONTENT = re.compile(r"content|prompt|polic|moderat|safety|inspect|sensitive|responsible", re.IGNORECASE)
_CONTENT_PARAMS = ("prompt", "messages", "input", "content")
#: How deep a body is looked into.
_DEPTH = 6


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
    parts = list(_parts(failed.said))
    name = next(_structured(parts, names), None)
    text = failed.text[:2000]
    if name is None and not any(map(_of_content, parts)):
        name = refused_field(text, names, greedy=sent.get("temperature") == 0, limit=LIMIT, newer=NEWER_LIMIT)
    return None if name is None else Refusal(name, other_limit(text, sent, NEWER_LIMIT))


def _parts(said: Any, depth: int = 0) -> Iterator[dict[str, Any]]:
    """The parts of a body that may tell of an error, the outer ones first."""
    if depth > _DEPTH:
        return
    if isinstance(said, list):
        for part in said[:20]:
            yield from _parts(part, depth + 1)
    if isinstance(said, dict):
        yield said
        for name in ("error", "detail", "message", "innererror"):
            yield from _parts(said.get(name), depth + 1)


def _structured(parts: Iterable[Mapping[str, Any]], names: Collection[str]) -> Iterator[str]:
    """Fields that parts of a body name beside a code for it."""
    for part in parts:
        place = part.get("loc")
        param = place[-1] if isinstance(place, list) and len(place) == 2 else part.get("param")
        if param in names and (part.get("code") in _CODES or part.get("type") in _CODES):
            yield str(param)


def _of_content(part: Mapping[str, Any]) -> bool:
    """Whether an error is about what was asked: then a field that its words name is the question's own."""
    words = [part.get(name) for name in ("code", "type", "status")]
    param = part.get("param")
    about = isinstance(param, str) and param.startswith(_CONTENT_PARAMS)
    return about or any(isinstance(word, str) and _OF_CONTENT.search(word) for word in words)


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
