"""What a server's answer is: a text, or a failure. HTTP 200 alone makes no text.

    whole     finish_reason "stop", and a text; an empty one where the server sends "" and no reasoning
    cut off   finish_reason "length", whatever there is of a text
    failure   anything else: an error in the body, another finish_reason or none, a refusal, a call of a tool,
              reasoning without a text, a text that is all thinking, no text
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from gcache.llm.api import errors
from gcache.llm.api.message import all_thinking, calls_a_tool, has_thoughts, refusal, text_of
from gcache.llm.api.outcome import ApiText, Failure
from gcache.runtime.numbers import is_whole

#: What servers call the end of a whole text, and of one that a limit cut off.
ENDS = {
    "stop": ("stop", "eos", "eos_token", "stop_sequence", "end_turn"),  # TGI, Together, Anthropic
    "length": ("length", "max_tokens", "model_length", "max_output_tokens"),  # Gemini, Mistral, OpenAI
}
#: Reasons that may be otherwise a little later; "" and "null" say that the text is not ended.
PASSING_REASONS = frozenset({
    "error", "abort", "aborted", "insufficient_system_resource", "network_error", "timeout", "overloaded",
    "server_error", "", "null",
})  # fmt: skip
#: A count of tokens beyond this is none.
MOST_TOKENS = 2**53


@dataclass(frozen=True)
class Reply:
    """A server's answer as it came; `headers` by names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def read(reply: Reply, attempts: int = 1) -> ApiText | Failure:
    """What a reply is; the words in a failure are still the server's own."""
    parsed, wrong = _parsed(reply.body)
    if not 200 <= reply.status < 300:
        return errors.failure(reply.status, parsed, reply.body[:4096].decode("utf-8", "replace"), reply.headers)
    if wrong:
        return Failure(_unreadable(reply, wrong), passing=False)
    outcome = _read(parsed, reply)
    prompt, written = _counts(parsed)
    if isinstance(outcome, Failure):
        return replace(outcome, prompt_tokens=prompt, completion_tokens=written)
    text, reason = outcome
    return ApiText(_clean(text), prompt, written, reason, attempts)


def _parsed(body: bytes) -> tuple[Any, str]:
    """The JSON of a body, and why it is none."""
    try:
        return json.loads(body), ""
    except RecursionError:
        return None, "nested too deep"
    except UnicodeDecodeError:
        return None, "not UTF-8"
    except ValueError as error:
        return None, "it is empty" if not body.strip() else str(error)


def _unreadable(reply: Reply, wrong: str) -> str:
    kind = reply.headers.get("content-type", "application/json")
    if "json" in kind.lower():
        return f"an answer that cannot be read ({wrong}); {_beginning(reply)}"
    return f"an answer without choices: it is no JSON, but {kind}; check --base_url; {_beginning(reply)}"


def _beginning(reply: Reply) -> str:
    """More of it than is shown: a key is hidden first, and what is cut in two would not be known."""
    return f"it begins {reply.body[:4096].decode('utf-8', 'replace')!r}"


def _read(parsed: Any, reply: Reply) -> tuple[str, str] | Failure:
    """A text and how it ended."""
    headers = reply.headers
    if found := errors.fault(parsed):
        return errors.failure_inside(found, parsed, headers)
    choices = parsed.get("choices") if isinstance(parsed, dict) else None
    if not isinstance(choices, list) or not choices:
        return Failure(f"an answer without choices; {_beginning(reply)}", passing=False)
    choice = choices[0] if isinstance(choices[0], dict) else {}
    said = choice.get("message")
    message: dict[str, Any] = said if isinstance(said, dict) else {}
    if found := errors.fault(choice, beside=True) or errors.fault(message, beside=True):
        inside = errors.failure_inside(found, parsed, headers)
        unclear = inside.status is None and _word(choice.get("finish_reason")) in PASSING_REASONS
        return replace(inside, passing=inside.passing or unclear)
    text = text_of(choice, message)
    if not choice or (text is None and not message):
        return Failure("a choice without text", passing=False)
    return _ended(choice, message, text, _end(choice, (parsed, choice, message)))


def _ended(
    choice: dict[str, Any], message: dict[str, Any], text: str | None, word: str
) -> tuple[str, str] | Failure:
    """The text by the reason it ended for."""
    reason = next((end for end, words in ENDS.items() if word in words), None)
    if refused := refusal(message):
        return Failure(f"the model refused: {refused}", passing=False)
    if reason is None:
        return _not_ended(word)
    if calls_a_tool(message):
        return Failure("a call of a tool instead of a text, though no tool was offered", passing=False)
    if reason == "length":
        return text or "", reason
    if all_thinking(text or "") or (has_thoughts(message) and not (text or "").strip()):
        return Failure(
            "reasoning and no text; turn thinking off (--api_option enable_thinking=false, for some), or the server's "
            "reasoning parser",
            passing=False,
        )
    return Failure("a choice without text", passing=False) if text is None else (text, reason)


def _not_ended(word: str) -> Failure:
    passing = word in PASSING_REASONS
    if word in ("", "null"):
        return Failure("a text without a finish_reason, so it may not be whole", passing)
    if word == "content_filter":
        return Failure("the server's filter withheld the text (finish_reason 'content_filter')", passing)
    said = "status" if word == "incomplete" else "finish_reason"
    return Failure(f"the text did not end by itself ({said} {word!r})", passing)


def _end(choice: dict[str, Any], parts: Iterable[dict[str, Any]]) -> str:
    """Why a text ended; of several words for it, the one that makes it less than whole."""
    word = _word(choice.get("finish_reason"))
    if word not in ENDS["stop"]:
        return word
    beside = [choice.get("native_finish_reason"), choice.get("stop_reason"), *(part.get("status") for part in parts)]
    details = [part.get(name) for part in parts for name in ("finish_details", "incomplete_details")]
    beside += [detail.get(name) for detail in details if isinstance(detail, dict) for name in ("type", "reason")]
    words = [_word(said) for said in beside if isinstance(said, str)]
    return next((said for said in words if said in ENDS["length"]), "incomplete" if "incomplete" in words else word)


def _word(reason: Any) -> str:
    return "" if reason is None else str(reason).strip().lower()[:60]


def _clean(text: str) -> str:
    """Halves of surrogate pairs, which JSON can hold and no file, become the mark of what is not known."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _counts(parsed: Any) -> tuple[int | None, int | None]:
    usage = parsed.get("usage") if isinstance(parsed, dict) else None
    if not isinstance(usage, dict):
        return None, None
    return _count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens"))


def _count(value: Any) -> int | None:
    return value if is_whole(value) and 0 <= value <= MOST_TOKENS else None
