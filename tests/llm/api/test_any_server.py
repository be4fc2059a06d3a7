"""Whatever comes, from a server or a user: a text, settings, or one line, and the key in none of it."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from asking import AROUND, KEY, by_flags
from chat_server import ChatServer, replies, serving
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gcache.environment import api_variables
from gcache.errors import ApiError, GcacheError
from gcache.llm.api.client import ApiLLM, ApiSettings, ApiText

SEVERAL = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
MANY = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
SPOILT = [
    KEY, KEY.upper(), base64.b64encode(f"u:{KEY}".encode()).decode(), base64.b32encode(KEY.encode()).decode(),
    KEY.encode().hex(), KEY.encode().hex(":"), KEY[:15], " ".join(KEY), "".join(f"&#{ord(c)};" for c in KEY),
]  # fmt: skip
WORDS = ["", *SPOILT, "429", "stop", "length", "error", "null", "max_tokens"]
TEXTS = st.one_of(st.text(max_size=12), st.sampled_from(WORDS))
LEAVES = st.one_of(st.none(), st.booleans(), st.integers(), st.integers(395, 605), st.floats(), TEXTS)
NAMES = st.one_of(
    st.sampled_from(
        ["error", "errors", "detail", "message", "code", "type", "param", "status", "choices", "finish_reason",
         "content", "text", "refusal", "tool_calls", "reasoning_content", "usage", "prompt_tokens", "completion_tokens",
         "object", "loc", "msg", "metadata", "raw"]
    ),
    TEXTS,
)  # fmt: skip
ANY = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=5), max_leaves=20
)
MESSAGES = st.fixed_dictionaries({}, optional={
    "content": ANY, "refusal": ANY, "tool_calls": ANY, "function_call": ANY, "reasoning_content": ANY, "reasoning": ANY,
})  # fmt: skip
CHOICES = st.fixed_dictionaries({}, optional={
    "finish_reason": ANY | st.just("stop"), "message": MESSAGES | ANY, "error": ANY, "text": ANY,
})  # fmt: skip
BODIES = ANY | st.fixed_dictionaries({}, optional={
    "choices": st.lists(CHOICES, max_size=2) | ANY, "usage": ANY, "error": ANY, "detail": ANY, "code": ANY,
    "message": ANY,
})  # fmt: skip
#: Bodies that are nearly answers.
NEARLY = st.fixed_dictionaries({"choices": st.lists(
    st.fixed_dictionaries(
        {"message": st.fixed_dictionaries({"content": TEXTS | ANY}, optional={"refusal": ANY, "tool_calls": ANY})},
        optional={"finish_reason": TEXTS | ANY, "error": ANY},
    ), min_size=1, max_size=2,
)}, optional={"error": ANY, "usage": ANY})  # fmt: skip
HEADERS = st.dictionaries(
    st.sampled_from(["Retry_After", "Retry_After_Ms", "Content_Type", "Content_Encoding", "Location", "Set_Cookie"]),
    st.one_of(
        st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=10),
        st.sampled_from(["gzip", "br", "zstd", "deflate, gzip", "0", "nan", "application/json", "/v1", "//h", KEY]),
    ),
    max_size=3,
)  # fmt: skip


@pytest.fixture(scope="module")
def server() -> Iterator[ChatServer]:
    with serving(replies(b"")) as running:
        yield running


def answered(server: ChatServer, body: bytes, status: int, headers: dict[str, str]) -> ApiText | str:
    """What a client makes of an answer: a text, or its one line."""
    server.script[:] = [replies(body, status, **headers)]
    llm = ApiLLM(ApiSettings("toy", server.base_url, KEY, retries=0, timeout=20.0))
    try:
        return asyncio.run(llm.chat([("user", "2 + 2?")], temperature=0.5))
    except ApiError as error:
        return str(error)


def proper(found: ApiText | str) -> None:
    if isinstance(found, ApiText):
        assert found.finish_reason in ("stop", "length")
        found.text.encode()
        return
    assert found.isprintable() and len(found) < 600
    for form in SPOILT:
        assert form.lower() not in found.lower()


@SEVERAL
@given(
    BODIES | NEARLY,
    st.sampled_from([200, 200, 200, 201, 204, 302, 308, 400, 401, 422, 429, 500, 503, 600, 999]),
    HEADERS,
)
def test_any_json(server: ChatServer, body: Any, status: int, headers: dict[str, str]) -> None:
    proper(answered(server, json.dumps(body).encode(), status, headers))


@SEVERAL
@given(st.binary(max_size=60), st.booleans(), st.integers(200, 999), HEADERS)
def test_any_bytes(server: ChatServer, body: bytes, packed: bool, status: int, headers: dict[str, str]) -> None:
    proper(answered(server, gzip.compress(body) if packed else body, status, headers))


ODD_TEXTS = st.text(st.characters(codec=None), max_size=30) | st.sampled_from([KEY, "http://", "[", "@", "%", "\ud800"])


@MANY
@given(ODD_TEXTS, st.sampled_from(["", "http://", "https://", "http://h", "http://h:"]), ODD_TEXTS)
def test_any_key_and_address(key: str, scheme: str, rest: str) -> None:
    try:
        found = ApiSettings("toy", scheme + rest, key)
    except GcacheError as error:
        message = str(error)
        assert message.isprintable() and (len(key.strip()) < 8 or key.strip() not in message)
    else:
        assert found.key.isascii() and found.key.isprintable() and (KEY in rest or KEY not in repr(found))


@MANY
@given(st.binary(max_size=80) | st.text(max_size=40).map(lambda text: f"API_KEY={text}\nBASE_URL={text}".encode()))
def test_any_file(raw: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, ".env")
        file.write_bytes(raw)
        try:
            assert all(isinstance(value, str) for value in api_variables(file).values())
        except GcacheError as error:
            assert str(error).isprintable()


@MANY
@given(
    st.sampled_from([name for name in AROUND if name.lower().endswith("proxy") or name.startswith("SSL")]),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=25),
    st.sampled_from(["", "http://", "socks5://", "http://h:", "[", "10.0.0.0/"]), st.booleans(),
)  # fmt: skip
def test_any_variable(name: str, value: str, before: str, https: bool) -> None:
    with mock.patch.dict(os.environ, {name: before + value, "http_proxy": "http://p:1"}):
        try:
            by_flags("https://h/v1" if https else "http://h/v1")
        except GcacheError as error:
            assert str(error).isprintable() and name in str(error)


@MANY
@given(st.lists(ODD_TEXTS | st.tuples(NAMES, st.sampled_from(["=", "->"]), NAMES).map("".join), max_size=4))
def test_any_options(words: list[str]) -> None:
    words = [word for word in words if not word.startswith("-")]  # which would be another flag
    try:
        found = by_flags("http://h/v1", *(["--api_option", *words] if words else []))
    except GcacheError as error:
        assert "\n" not in str(error)
    else:
        json.dumps(found.settings.public(), allow_nan=False)
