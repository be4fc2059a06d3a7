"""One line a check, ok or failed, for scripts that run in the environments of other people's clients."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Any

#: What every client asks. The texts are compared with those that the service gives over plain HTTP.
QUESTION = "Ann has 3 boxes of 12 eggs and breaks 5 eggs. How many are whole?"
OTHER = "Tom reads 4 pages a day. How many pages does he read in 7 days?"
PROMPT, PROMPTS = "Once upon a time", ["Once upon a time", "The capital of France is"]
MOST = 12
KEY = "key-of-the-test"


def arguments() -> tuple[str, str]:
    """The address, up to and with /v1, and the model's name."""
    return sys.argv[1], sys.argv[2]


def expect(true: object, otherwise: str) -> None:
    if not true:
        raise AssertionError(otherwise)


def equal(found: Any, wanted: Any) -> None:
    expect(found == wanted, f"{found!r} is not {wanted!r}")


def run(checks: dict[str, Callable[[], Any]]) -> int:
    """Run all of them; what a check returns is printed. The exit code is 1 where one failed."""
    failed = 0
    for name, check in checks.items():
        try:
            said = check()
            outcome, told = "ok", asyncio.run(said) if asyncio.iscoroutine(said) else said
        except Exception as error:  # whatever it is, it is a line, and the next check is run
            failed += 1
            outcome, told = "failed", f"{type(error).__name__}: {error}"
        print(f"{outcome:6}  {name}: {' '.join(str(told).split())[:200]}", flush=True)
    return 1 if failed else 0


def plain(url: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """The service's answer over plain HTTP, by the standard library alone."""
    import json
    import urllib.request

    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {KEY}"}
    request = urllib.request.Request(f"{url}{path}", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=300) as answer:
        found: dict[str, Any] = json.load(answer)
    return found


def chat(url: str, question: str = QUESTION, **more: Any) -> str:
    """The text of a chat, greedy."""
    body = {"messages": [{"role": "user", "content": question}], "max_tokens": MOST, **more}
    text: str = plain(url, "/chat/completions", body)["choices"][0]["message"]["content"]
    return text


def completed(url: str, prompt: str = PROMPT, **more: Any) -> str:
    """The text of a completion, greedy."""
    text: str = plain(url, "/completions", {"prompt": prompt, "max_tokens": MOST, **more})["choices"][0]["text"]
    return text
