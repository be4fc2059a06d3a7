"""Questions to a scripted server, and an API as the command line makes it."""

from __future__ import annotations

import argparse
import asyncio
from typing import Any

import pytest
from chat_server import Behaviour, serving

from gcache.commands.api_flags import add_api_flags, api
from gcache.environment import API_KEYS
from gcache.errors import ApiError
from gcache.llm.api.client import ApiLLM, ApiSettings, ApiText, Budget

KEY = "sk-very-secret-0123"
AROUND = (
    *API_KEYS, "BASE_URL", "API_MODEL", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy",
    "https_proxy", "all_proxy", "no_proxy", "SSL_CERT_FILE", "SSL_CERT_DIR",
)  # fmt: skip


def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No key, address, model or proxy of whoever runs the tests, and short waits."""
    for name in AROUND:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("gcache.llm.api.client.FIRST_WAIT", 0.01)


def chat(llm: ApiLLM, words: str = "2 + 2?", **options: Any) -> ApiText:
    """One question, in an event loop of its own."""
    return asyncio.run(llm.chat([("user", words)], 9, **options))


def asked(*script: Behaviour, budget: Budget | None = None, **settings: Any) -> tuple[ApiText, list[dict[str, Any]]]:
    """The answer to one question, and the bodies that the server saw."""
    with serving(*script) as server:
        llm = ApiLLM(ApiSettings("toy", server.base_url, KEY, **{"timeout": 5.0, **settings}), budget)
        return chat(llm), server.seen


def failed(*script: Behaviour, budget: Budget | None = None, **settings: Any) -> tuple[str, int]:
    """How one question fails for good, in one line without the key, and how many requests it took."""
    with serving(*script) as server:
        llm = ApiLLM(ApiSettings("toy", server.base_url, KEY, **{"timeout": 5.0, **settings}), budget)
        with pytest.raises(ApiError) as caught:
            chat(llm)
        message = str(caught.value)
        assert "\n" not in message and KEY not in message and message.isprintable()
        return message, len(server.seen)


def by_flags(base_url: str, *words: str) -> ApiLLM:
    """The API that a command line describes."""
    parser = argparse.ArgumentParser()
    add_api_flags(parser, modes=False)
    return api(parser.parse_args(["--api_model", "toy", "--base_url", base_url, *words]))
