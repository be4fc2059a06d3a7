"""Proxies, certificates and addresses that cannot be used, and bytes that cannot be read: one line each."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from typing import Any

import pytest
from asking import KEY, asked, by_flags, chat, failed
from chat_server import Behaviour, cuts, fails, replies, says, serving

from gcache.errors import ApiError, ConfigError
from gcache.llm.api.client import ApiLLM, ApiSettings

ANSWER = b'{"choices": [{"finish_reason": "stop", "message": {"content": "four"}}]}'


# -- variables ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ALL_PROXY", "socks5://127.0.0.1:9"), ("all_proxy", "socks5h://127.0.0.1:9"),
        ("HTTP_PROXY", "socks5://u:hush@127.0.0.1:9"), ("HTTP_PROXY", "http://[::1"), ("HTTP_PROXY", "http://h:99999"),
        ("HTTP_PROXY", "ftp://127.0.0.1"), ("http_proxy", "http://"), ("HTTPS_PROXY", "http://u:hush@h:x"),
        ("HTTPS_PROXY", "://"), ("ALL_PROXY", "http://a..b:80"), ("ALL_PROXY", "http://h\n:80"),
        ("SSL_CERT_FILE", "/nowhere/ca.pem"), ("SSL_CERT_FILE", "/"), ("SSL_CERT_DIR", "/nowhere"),
    ],
)  # fmt: skip
def test_a_variable_that_cannot_be_used_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    for call in (lambda: chat(ApiLLM(ApiSettings("toy", "http://127.0.0.1:9/v1"))), lambda: by_flags("http://h/v1")):
        with pytest.raises(ConfigError, match=rf"^{name} .*(unset {name}|pip install socksio)") as caught:
            call()
        assert "\n" not in str(caught.value) and "hush" not in str(caught.value)


def test_a_certificate_that_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("no certificate")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    with pytest.raises(ConfigError, match=r"SSL_CERT_FILE names .* but it holds no certificates"):
        by_flags("http://h/v1")


@pytest.mark.parametrize(
    "exempt",
    ["127.0.0.1", "*", "example.com, 127.0.0.0/8", "[::1,10.0.0.0/99,http://127.0.0.1", "localhost,,127.0.0.1 "],
)
def test_no_proxy_exempts_a_server(monkeypatch: pytest.MonkeyPatch, exempt: str) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", exempt)
    assert asked(says("four"))[0].text == "four"


@pytest.mark.parametrize("exempt", ["example.com", "127.0.0.1:1", "[bad", "10.0.0.0/99", "0.0.1", "::/0", "http://"])
def test_and_no_other(monkeypatch: pytest.MonkeyPatch, exempt: str) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", exempt)
    message, requests = failed(says("four"), retries=0)
    assert requests == 0 and "no connection through the proxy of http_proxy" in message


def test_a_proxy_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(says("four")) as server:
        monkeypatch.setenv("HTTP_PROXY", server.base_url.removesuffix("/v1"))
        assert chat(ApiLLM(ApiSettings("toy", "http://far.example/v1", KEY))).text == "four"
        assert server.headers[0]["host"] == "far.example"


def test_a_proxy_that_wants_a_password(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(fails(407, "who are you")) as server:
        monkeypatch.setenv("HTTP_PROXY", server.base_url.replace("://", "://me:hush@"))
        with pytest.raises(ApiError, match=r"after 1 attempt .*HTTP 407: the proxy of HTTP_PROXY wants") as caught:
            chat(ApiLLM(ApiSettings("toy", "http://far.example/v1", KEY)))
    assert "hush" not in str(caught.value) and "proxy-authorization" in server.headers[0]


# -- addresses ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address",
    [
        "http://h:99999/v1", "http://h:0/v1", "http://h:x/v1", "http://[::1/v1", "http://a..b/v1", "http:///v1",
        "http://h h/v1", "http://\u2603.x/v1", f"http://{'a' * 64}.b/v1", f"http://{'a.' * 130}b/v1", "http://-a/v1",
        "http://h\n.x/v1", "http://h\ud800/v1", "http://%zz/v1", "ftp://h/v1", "h:80/v1", "http://h/v1#x",
        "http://h/v1?api_key=hush", "http://me:hush@h/v1", "me:hush@h", "http://[fe80::1%25eth0/v1",
        "sk-hush0123456789abcdef", f"http://h/{KEY}/v1",
    ],
)  # fmt: skip
def test_an_address_that_is_none(address: str) -> None:
    with pytest.raises(ConfigError, match="base_url") as caught:
        ApiSettings("toy", address, KEY)
    message = str(caught.value)
    assert message.isprintable() and "hush" not in message and KEY not in message


@pytest.mark.parametrize(
    "address",
    [
        "http://bücher.example/v1",
        " http://h/v1\n",
        "HTTP://H/v1",
        "http://[::1]:8000/v1/",
        "https://h/openai?api-version=1",
    ],
)
def test_and_those_that_are(address: str) -> None:
    assert ApiSettings("toy", address, KEY).base_url == address.strip()


def test_a_version_stays_behind_the_path() -> None:
    paths: list[str] = []

    def behave(handler: Any, body: dict[str, Any]) -> None:
        paths.append(handler.path)
        says("four")(handler, body)

    with serving(behave) as server:
        chat(ApiLLM(ApiSettings("toy", f"{server.base_url}/?api-version=1", KEY)))
    assert paths == ["/v1/chat/completions?api-version=1"]


# -- bytes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("behaviour", "said"),
    [
        (replies(b"garbage", Content_Encoding="gzip"), "cannot be unpacked"),
        (replies(gzip.compress(ANSWER, mtime=0)[:-20], Content_Encoding="gzip"), "cannot be read"),
        (replies(b"garbage", Content_Encoding="deflate"), "cannot be unpacked"),
        (replies(b"garbage", Content_Encoding="zstd"), "packed as 'zstd'"),
        (replies(b"garbage", Content_Encoding="gzip, br"), "packed as 'br'"),
        (replies(gzip.compress(ANSWER, mtime=0), Content_Encoding="identity, gzip, x"), "packed as 'x'"),
        (replies(b"garbage", 400, Content_Encoding="gzip"), "cannot be unpacked"),
        (replies("{'é'}".encode("latin-1")), "not UTF-8"),
        (replies(b'{"choices": "\xff"}'), "not UTF-8"),
        (replies(b""), "it is empty"),
        (replies(b"", 204), "it is empty"),
        (replies(b"[" * 100_000), "nested too deep"),
        (replies(b"9" * 5000), "cannot be read"),
        (replies(b"null"), "without choices"),
        (replies(b"NaN"), "without choices"),
        (replies(b"\x1b[31mred\x07\n\x00", 418), "HTTP 418: "),
        (replies(b"\x1b[31mred\x07", 200, Content_Type="text/html"), "without choices"),
        (replies(b"{}", 999), "HTTP 999"),
        (replies({"a": [{"error": {"message": "x"}}]}, 400), "HTTP 400"),
        (replies(ANSWER, 404), "HTTP 404"),
    ],
)
def test_bytes_that_are_no_answer(behaviour: Behaviour, said: str) -> None:
    message, requests = failed(behaviour)
    assert requests == 1 and said in message, message


@pytest.mark.parametrize(
    ("packed", "name"), [(gzip.compress(ANSWER, mtime=0), "gzip"), (zlib.compress(ANSWER), "deflate")]
)
def test_what_is_packed_as_asked_is_read(packed: bytes, name: str) -> None:
    assert asked(replies(packed, Content_Encoding=name))[0].text == "four"


@pytest.mark.parametrize("trouble", [cuts, replies(b"garbage", 503, Content_Encoding="zstd"), fails(425)])
def test_what_may_pass_is_tried_again(trouble: Behaviour) -> None:
    assert asked(trouble, says("four"))[0].attempts == 2


def test_an_enormous_answer_is_not_read_to_its_end() -> None:
    """Neither is one that is small on the wire."""
    packed = gzip.compress(b'{"x": "' + b"a" * 80_000_000)
    message, requests = failed(replies(packed, Content_Encoding="gzip"), timeout=60.0)
    assert requests == 1 and "more than 64 MiB" in message
    message, requests = failed(replies(packed, 400, Content_Encoding="gzip"), timeout=60.0)
    assert requests == 1 and "HTTP 400" in message


def test_a_server_that_speaks_no_http() -> None:
    def rude(handler: Any, _: dict[str, Any]) -> None:
        handler.wfile.write(b"220 smtp ready\r\n")
        handler.close_connection = True

    message, requests = failed(rude, retries=1)
    assert requests == 2 and "no connection" in message


def test_tls_where_there_is_none() -> None:
    with serving(says("four")) as server:
        llm = ApiLLM(ApiSettings("toy", server.base_url.replace("http://", "https://"), KEY))
        with pytest.raises(ApiError, match=r"after 1 attempt .*no safe connection .*http://"):
            chat(llm)


@pytest.mark.parametrize("header", ["nan", "soon", "-5", "", "Wed, 99 Nov 99999 00:00:00 GMT", "1e-3", "0x10"])
def test_a_wait_that_cannot_be_read_is_none(header: str) -> None:
    assert asked(fails(429, Retry_After=header), says("four"))[0].attempts == 2


# -- redirections ---------------------------------------------------------------------------------


def test_a_redirection_elsewhere_carries_nothing() -> None:
    with serving(says("stolen")) as other:
        for status in (301, 302, 303, 307, 308):
            message, requests = failed(replies(b"", status, Location=f"{other.base_url}/chat/completions?k=hush"))
            assert requests == 1 and f"HTTP {status}" in message and other.base_url in message
            assert "hush" not in message and "--base_url" in message
        assert not other.seen


@pytest.mark.parametrize(
    "target", ["", "//", "http://[bad", "ftp://x", "http://u:hush@h/", "javascript:1", "\x80", "https:"]
)
def test_a_redirection_to_nowhere(target: str) -> None:
    message, requests = failed(replies(b"", 308, Location=target), retries=0)
    assert requests >= 1 and "hush" not in message


def test_a_redirection_on_the_same_server_is_followed_a_few_times() -> None:
    text, seen = asked(replies(b"", 307, Location="/v1/chat/completions/"), says("four"))
    assert (text.text, len(seen)) == ("four", 2) and seen[0] == seen[1]
    message, requests = failed(replies(b"", 308, Location="/v1/chat/completions/again"))
    assert requests == 4 and "more than 3 redirections" in message
