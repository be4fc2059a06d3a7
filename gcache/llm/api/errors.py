"""What a server says went wrong, in whatever form it says so.

    {"error": {"message", "type", "param", "code"}}    OpenAI, Azure, vLLM, llama.cpp, DeepSeek, OpenRouter, DashScope
    [{"error": {"code", "message", "status"}}]         Gemini
    {"error": "..."}                                   Ollama; TGI, with "error_type" beside it
    {"detail": "..."}, {"detail": [{"loc", "msg"}]}    FastAPI, Mistral
    {"object": "error", "message", "code"}             older vLLM, Mistral
    {"code": "Throttling", "message": "..."}           DashScope
    {"success": false, "message": "..."}               gateways; also "ok": false, "status": "failed"
"""

from __future__ import annotations

import email.utils
import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gcache.llm.api.outcome import Failure

#: HTTP statuses below 500 that may be otherwise a little later.
PASSING = frozenset({408, 409, 425, 429})
#: Words for what passes, of bodies that give no number.
_PASSING_WORDS = re.compile(
    r"rate.?limit|throttl|too.many.requests|overload|unavailable|time.?out|timed out|internal|server_error|capacity|"
    r"busy",
    re.IGNORECASE,
)
#: Said with 429, and true until somebody pays.
_UNPAID = re.compile(r"insufficient_quota|billing_hard_limit|arrearage", re.IGNORECASE)
#: Names of what is said to people, beside what an error may be.
_MESSAGES = ("message", "msg", "error_message", "error_msg")
#: How a body says that it is none of success, whatever else is in it.
_FAILED = {
    "success": ("false", "0"), "ok": ("false", "0"), "error": ("true",),
    "status": ("error", "failed", "failure", "fail"),
}  # fmt: skip
#: How deep a message may be wrapped.
_DEPTH = 6


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


def fault(body: Any) -> Fault | None:
    """The error in a parsed body; None where there is none."""
    if isinstance(body, list):
        return next((found for found in map(fault, filter(_is_map, body)) if found is not None), None)
    if not _is_map(body):
        return None
    told = body.get("error") or body.get("errors")
    failed = _says_failed(body)
    if failed or not (told or body.get("choices")):
        named = any(name in body for name in ("code", "type", "status", "success"))
        worded = any(name in body for name in _MESSAGES)
        bare = failed or body.get("object") == "error" or (worded and named)
        message = next(filter(None, map(body.get, _MESSAGES)), True)
        told = (told is not True and told) or body.get("detail") or (bare and message)
    if not told or told is True:
        return Fault("an error without a message") if told else None
    first = told[0] if isinstance(told, list) and told and _is_map(told[0]) else told
    places = [place for place in (first, body) if _is_map(place)]
    numbers = (place.get(name) for place in places for name in ("code", "status", "status_code", "http_code"))
    status = next(filter(None, map(_status, numbers)), None)
    words = [place.get(name) for place in places for name in ("code", "type", "status", "error_type")]
    return Fault(_message(told), " ".join(word for word in words if isinstance(word, str))[:200], status)


def failure(status: int, body: Any, text: str, headers: Mapping[str, str]) -> Failure:
    """Of an answer whose status is an error."""
    found = fault(body) or Fault(text)
    passing = (status in PASSING or 500 <= status < 600) and not _UNPAID.search(found.words)
    return Failure(f"HTTP {status}: {found.message}", passing, retry_after(headers), status, body)


def failure_inside(found: Fault, body: Any, headers: Mapping[str, str]) -> Failure:
    """Of an error in a body that came as a success: it is what its code says."""
    if found.status is not None:
        told = failure(found.status, None, found.message, headers)
        passing = told.passing and not _UNPAID.search(found.words)
        return Failure(f"{told.text} (in a body of HTTP 200)", passing, told.retry_after, found.status, body)
    passing = bool(_PASSING_WORDS.search(f"{found.words} {found.message[:500]}"))
    text = f"an error in a body of HTTP 200: {found.message}" + (f" ({found.words})" if found.words else "")
    return Failure(text, passing and not _UNPAID.search(found.words), retry_after(headers), None, body)


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


def _says_failed(body: Mapping[str, Any]) -> bool:
    said = {name: body.get(name) for name in _FAILED}
    plain = {name: str(value).strip().lower() for name, value in said.items() if isinstance(value, (str, int))}
    return any(value in _FAILED[name] for name, value in plain.items())


def _status(code: Any) -> int | None:
    """A code, 429 or "429", as a status of an error."""
    if isinstance(code, str) and len(code) == 3 and code.isascii() and code.isdigit():
        code = int(code)
    if isinstance(code, float) and code.is_integer():
        code = int(code)
    return code if isinstance(code, int) and not isinstance(code, bool) and 400 <= code < 600 else None


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
        words = [told.get(name) for name in ("message", "msg", "detail", "error")]
        found = [_message(word, depth + 1) for word in (*words, raw) if word]
        if found:
            return ": ".join(found)
    try:
        return json.dumps(told)[:500]
    except RecursionError:
        return "an error that is nested too deep to show"
