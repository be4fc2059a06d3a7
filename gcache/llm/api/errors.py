"""What a server says went wrong, in whatever form it says so.

    {"error": {"message", "type", "param", "code"}}    OpenAI, Azure, vLLM, llama.cpp, DeepSeek, OpenRouter, DashScope
    [{"error": {"code", "message", "status"}}]         Gemini
    {"error": "..."}                                   Ollama; TGI, with "error_type" beside it
    {"detail": "..."}, {"detail": [{"loc", "msg"}]}    FastAPI, Mistral
    {"object": "error", "message", "code"}             older vLLM, Mistral
    {"code": "Throttling", "message": "..."}           DashScope
    {"success": false, "message": "..."}               gateways; also "ok": false, "status": "failed", "is_error": true
    {"base_resp": {"status_code": 1002, "status_msg"}} MiniMax, beside a choice

Any of them may stand in a text of another, as JSON. A body may hold a choice as well: what says that it failed did.
"""

from __future__ import annotations

import email.utils
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from gcache.llm.api.codes import PASSING, PASSING_WORDS, UNPAID, base_response, says_failed, status_in, statuses
from gcache.llm.api.outcome import Failure

#: Names of what is said to people, beside what an error may be, or in it.
_MESSAGES = ("message", "msg", "error_message", "error_msg", "status_msg", "title")
#: What holds an error, in any case, and what an error may be wrapped in.
_HOLDERS = ("error", "errors", "fault", "exception")
_WRAPS = (*_HOLDERS, *_MESSAGES, "detail", "metadata", "raw", "innererror")
#: How deep a message may be wrapped.
_DEPTH = 6
#: Characters of a text that is looked at for JSON.
_MOST = 20_000


@dataclass(frozen=True)
class Fault:
    """An error that a body tells of.

    Attributes:
        message: for people.
        words: for programs: its code, type or status, where these are words.
        status: its code, where that is a number of HTTP.
    """

    message: str
    words: str = ""
    status: int | None = None


def fault(body: Any, beside: bool = False) -> Fault | None:
    """The error in a parsed body, in a choice or in its message; None where there is none.

    Args:
        beside: whether there is a text, beside which words alone are no error; so there is in a body with choices.
    """
    if isinstance(body, list):
        return next((found for found in map(fault, filter(_is_map, body)) if found is not None), None)
    if not _is_map(body):
        return None
    told = next((value for name, value in body.items() if value and name.lower() in _HOLDERS), None)
    told = told or base_response(body)
    failed = any(says_failed(name, value) for name, value in body.items())
    worded = next((body[name] for name in _MESSAGES if body.get(name)), None)
    if failed or not (told or beside or body.get("choices")):
        told = (told is not True and told) or body.get("detail") or worded
        coded = any(name in body for name in ("code", "type", "status", "success"))
        if not (failed or body.get("detail") or (worded and coded) or _is_passing(worded)):
            return None
    elif not told:
        return None
    told = None if told is True else told
    places = [*_places(told), body]
    words = [place.get(name) for place in places for name in ("code", "type", "status", "error_type")]
    said = "an error without a message" if told is None else _message(worded if worded and _is_number(told) else told)
    status = next((found for place in places for found in statuses(place)), None)
    return Fault(said, " ".join(word for word in words if isinstance(word, str))[:200], status or status_in(said))


def failure(status: int, body: Any, text: str, headers: Mapping[str, str]) -> Failure:
    """Of an answer whose status is an error."""
    found = fault(body) or Fault(text)
    passing = (status in PASSING or 500 <= status < 600) and not UNPAID.search(found.words)
    return Failure(f"HTTP {status}: {found.message}", passing, retry_after(headers), status, body)


def failure_inside(found: Fault, body: Any, headers: Mapping[str, str]) -> Failure:
    """Of an error in a body that came as a success: it is what its code says."""
    if found.status is not None:
        told = failure(found.status, None, found.message, headers)
        passing = told.passing and not UNPAID.search(found.words)
        return Failure(f"{told.text} (in a body of HTTP 200)", passing, told.retry_after, found.status, body)
    passing = bool(PASSING_WORDS.search(f"{found.words} {found.message[:500]}"))
    text = f"an error in a body of HTTP 200: {found.message}" + (f" ({found.words})" if found.words else "")
    return Failure(text, passing and not UNPAID.search(found.words), retry_after(headers), None, body)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that a server asks to wait, by a number or a date; None where it says nothing that can be read."""
    for name, per_second in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        said = headers.get(name)
        if said is None:
            continue
        try:
            seconds = float(said) / per_second
        except ValueError:
            try:
                seconds = email.utils.parsedate_to_datetime(said).timestamp() - time.time()
            except (TypeError, ValueError, OverflowError, OSError, IndexError):
                continue
        if seconds == seconds:
            return max(0.0, seconds)
    return None


def _is_map(value: Any) -> bool:
    return isinstance(value, dict)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_passing(worded: Any) -> bool:
    return isinstance(worded, str) and bool(status_in(worded) or PASSING_WORDS.search(worded[:500]))


def _places(told: Any, depth: int = 0) -> Iterator[dict[str, Any]]:
    """The parts of an error that may hold its code, the outer ones first."""
    if isinstance(told, str):
        told = _unpacked(told)
    elif depth == 0 and _is_number(told):
        told = {"code": told}
    if depth > _DEPTH:
        return
    if isinstance(told, list):
        for part in told[:5]:
            yield from _places({"code": part} if _is_number(part) else part, depth + 1)
    if isinstance(told, dict):
        yield told
        for name in _WRAPS:
            yield from _places(told.get(name), depth + 1)


def _unpacked(text: str) -> Any:
    """The JSON that a text is; the text itself where it is none."""
    if not text.lstrip().startswith(("{", "[")):
        return text
    try:
        return json.loads(text[:_MOST])
    except (ValueError, RecursionError):
        return text


def _message(told: Any, depth: int = 0) -> str:
    """The words of an error, unwrapped."""
    if isinstance(told, str):
        return told
    if depth < _DEPTH and isinstance(told, list):
        return "; ".join(_message(part, depth + 1) for part in told[:5])
    if depth < _DEPTH and isinstance(told, dict):
        if isinstance(told.get("loc"), list):  # of pydantic
            return f"{'.'.join(map(str, told['loc'][:5]))}: {told.get('msg')} ({told.get('type')})"
        raw = told["metadata"].get("raw") if isinstance(told.get("metadata"), dict) else None
        words = [told.get(name) for name in (*_MESSAGES, "detail", "error", "faultstring")]
        found = [_message(word, depth + 1) for word in (*words, raw) if word]
        if found:
            return ": ".join(found)
    try:
        return json.dumps(told)[:500]
    except RecursionError:
        return "an error that is nested too deep to show"
