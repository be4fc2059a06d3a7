"""What came of an attempt: a text, or a failure of one line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

#: A server that asks for a longer wait than this is not waited for.
LONGEST_RETRY_AFTER = 120.0


@dataclass(frozen=True)
class ApiText:
    """What the server wrote.

    Attributes:
        prompt_tokens, completion_tokens: by the server's count; None where it gives none.
        finish_reason: why the text ended: "stop" where it is whole, "length" where a limit cut it off.
        attempts: requests that were sent for it.
    """

    text: str
    prompt_tokens: int | None
    completion_tokens: int | None
    finish_reason: str
    attempts: int


@dataclass(frozen=True)
class Failure:
    """What went wrong with an attempt.

    Attributes:
        passing: whether another attempt may fare better.
        retry_after: seconds that the server asked for.
        status: the HTTP status, or the one that a body of HTTP 200 holds; None where there was no answer.
        said: the body, where it is JSON.
        prompt_tokens, completion_tokens: what it costs all the same.
    """

    text: str
    passing: bool
    retry_after: float | None = None
    status: int | None = None
    said: Any = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None

    def __post_init__(self) -> None:
        if self.retry_after is not None and self.retry_after > LONGEST_RETRY_AFTER:
            object.__setattr__(self, "text", f"{self.text}; it asks to wait {self.retry_after:.0f} s")
            object.__setattr__(self, "passing", False)
