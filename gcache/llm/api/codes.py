"""What one field of a body says of its outcome, by a number, by a word, or by yes and no.

Servers, and gateways before them, put it under names of their own: `code`, `statusCode`, `http_status`, `error_code`,
`is_error`. A name is known by its parts, in any case, and what it says by the value alone: `code: 200`, `code: ""` and
`status: "completed"` tell of success, and so does a number that no standard knows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Any

from gcache.runtime.numbers import is_whole

#: HTTP statuses below 500 that may be otherwise a little later.
PASSING = frozenset({408, 409, 425, 429})
#: Words for what passes, of bodies that give no number; the names of gRPC are among them.
PASSING_WORDS = re.compile(
    r"rate.?limit|throttl|too.?many.?requests|overload|unavailable|time.?out|timed out|internal|server_error|capacity|"
    r"busy|resource.?exhausted|deadline.?exceeded|aborted|slow.?down|\b(?:qps|rpm|tpm)\b",
    re.IGNORECASE,
)
#: Said with 429, and true until somebody pays.
UNPAID = re.compile(r"insufficient_quota|billing_hard_limit|arrearage", re.IGNORECASE)
#: Names, without "_", of fields that hold a code; those of an error hold 0, or nothing, where there is none.
_CODE = re.compile(r"(?P<error>err(?:or)?(?:code|status|no))|(?:http|status|response|ret)*(?:code|status)")
_YES_IF_FAILED = re.compile(r"(?:is|has)?(?:error|fail|failed|failure)")
_NO_IF_FAILED = re.compile(r"(?:is|was)?(?:success|successful|succeeded|ok)")
#: Words of a code or status that is none of success.
_FAILED = re.compile(
    rf"^(?!(?:no|without)[ _-]?(?:error|fail)).*(?:{PASSING_WORDS.pattern}|error|fail|cancel|abort|expired|reject|"
    r"denied|exhausted)",
    re.IGNORECASE | re.DOTALL,
)
_NOTHING = ("", "0", "0.0", "none", "null", "ok", "success", "200", "false")
#: A status that stands in words.
_SAID = re.compile(
    r"(?<![a-z])(?:(?:error|status|response)[\s_-]*code|http(?:/\d(?:\.\d)?)?|status|code)\W{1,4}([45]\d\d)(?![\w.%])",
    re.IGNORECASE,
)
_SAID_FIRST = re.compile(r"\W*([45]\d\d)(?:\W*$|\s*[\])>:,-]|\s+[A-Z])")
_BEGINS = re.compile(r"\s*(?:http\W*)?([45]\d\d)(?![\w.%])", re.IGNORECASE)
#: Part of an answer that tells of its outcome alone, and what its codes are in HTTP (MiniMax).
_BASE = re.compile(r"base_?resp(?:onse)?", re.IGNORECASE)
_OF_BASE = {
    1000: 500, 1001: 504, 1002: 429, 1004: 401, 1008: 402, 1013: 500, 1024: 500, 1033: 502, 1039: 429, 1041: 429,
    2045: 429, 2049: 401,
}  # fmt: skip


def says_failed(name: str, value: Any) -> bool:
    """Whether a field tells of a failure."""
    if not isinstance(value, (str, int, float)):
        return False
    name, word = _plain(name), str(value).strip().lower()[:100]
    if _YES_IF_FAILED.fullmatch(name):
        return word in ("true", "1")
    if _NO_IF_FAILED.fullmatch(name):
        return word in ("false", "0")
    if code := _CODE.fullmatch(name):
        return bool(status_of(value) or _FAILED.match(word) or (code["error"] and word not in _NOTHING))
    return name in ("object", "type") and word == "error"


def statuses(part: Mapping[str, Any]) -> Iterator[int]:
    """Statuses of errors among the codes of a part of a body."""
    codes = (value for name, value in part.items() if _CODE.fullmatch(_plain(name)))
    yield from filter(None, map(status_of, codes))


def status_of(code: Any) -> int | None:
    """A code, 429 or "429 Too Many Requests", as a status of an error."""
    if isinstance(code, str) and (begins := _BEGINS.match(code)):
        code = int(begins[1])
    if isinstance(code, float) and code.is_integer():
        code = int(code)
    return code if is_whole(code) and 400 <= code < 600 else None


def status_in(text: str) -> int | None:
    """The status of an error that words tell of: "Error code: 429 - slow down"."""
    found = _SAID_FIRST.match(text[:500]) or _SAID.search(text[:500])
    known = {int(status) for status in HTTPStatus}
    return int(found[1]) if found and int(found[1]) in known else None


def base_response(body: Mapping[str, Any]) -> dict[str, Any] | None:
    """The part of an answer that tells of a failure by any code but 0, its code as one of HTTP where that is known."""
    for name, part in body.items():
        if not (_BASE.fullmatch(name) and isinstance(part, dict)):
            continue
        for field, code in part.items():
            if _CODE.fullmatch(_plain(field)) and str(code).strip().lower() not in ("none", *_NOTHING):
                number = int(code) if re.fullmatch(r"\d{4}", str(code)) else code
                return {**part, "status_code": _OF_BASE.get(number, code) if isinstance(number, int) else code}
    return None


def _plain(name: str) -> str:
    return re.sub(r"[\W_]", "", name).lower()
