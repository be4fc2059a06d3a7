"""A key is sent or refused, and shown in no form."""

from __future__ import annotations

import base64
import codecs
import html
import json
import logging
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from asking import KEY, asked, by_flags, chat, failed
from chat_server import fails, replies, says, serving

from gcache.errors import ApiError, ConfigError, GcacheError
from gcache.llm.api.client import ApiLLM, ApiSettings, Budget
from gcache.llm.api.secrets import one_line

#: With all that escaping and encoding changes.
AWKWARD = "sk/a+b=c\"d\\e&f<g>h i'j%k"


def sent(key: str) -> str:
    """The authorization that a server gets for a key of the command line."""
    with serving(says("four")) as server:
        chat(by_flags(server.base_url, "--api_key", key))
        return server.headers[0]["authorization"]


# -- what can be sent -----------------------------------------------------------------------------


@pytest.mark.parametrize("around", ["{}\r", "{}\r\n", " {} ", "\t{}\n", "\ufeff{}", "{}\x0b\x0c"])
def test_white_space_around_a_key_is_no_part_of_it(around: str) -> None:
    assert sent(around.format(KEY)) == f"Bearer {KEY}"


ODD = ["\r", "\n", "\r\n", "\0", "\x1b", "\x7f", "ä", "\u2026", "\udcff", "\u200b"]
WAYS = ["flag", "environment", "file", "settings"]
NOT_HELD = [("\0", "environment"), ("\udcff", "file")]  # by a variable, and by a file of UTF-8


@pytest.mark.parametrize(("inside", "way"), [(i, w) for i in ODD for w in WAYS if (i, w) not in NOT_HELD])
def test_a_key_that_no_header_carries_is_refused_unseen(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, inside: str, way: str
) -> None:
    key = f"sk-very{inside}secret-0123"
    name = {"flag": "--api_key", "settings": "the API key"}.get(way, "OPENAI_API_KEY")
    with serving(says("four")) as server:
        if way == "environment":
            monkeypatch.setenv("OPENAI_API_KEY", key)
        if way == "file":
            Path(".env").write_text(f'OPENAI_API_KEY="{key}"\n', encoding="utf-8", newline="")
        with pytest.raises(ConfigError, match=f"^{name} has a .* at place 8 of .* cannot be sent") as caught:
            if way == "settings":
                ApiSettings("toy", server.base_url, key)
            by_flags(server.base_url, *(["--api_key", key] if way == "flag" else []))
        assert not server.seen
    for piece in ("sk-very", "secret-0123"):
        assert piece not in str(caught.value) and piece not in caplog.text


@pytest.mark.parametrize(
    "written",
    [
        f"API_KEY={KEY}\r\n", f"export API_KEY={KEY}\n", f"\ufeffAPI_KEY={KEY}\n", f"API_KEY='{KEY}'\r\nX=1\r\n",
        f'\ufeffexport API_KEY = "{KEY} "\r\n', f"API_KEY={KEY} # mine\n", f"X=1\r\nAPI_KEY={KEY}",
    ],
)  # fmt: skip
def test_a_file_is_read_as_any_editor_writes_it(written: str) -> None:
    Path(".env").write_bytes(written.encode())
    assert ApiSettings.found("m", "http://h/v1").key == KEY


@pytest.mark.parametrize("raw", [f"API_KEY={KEY}".encode("utf-16"), b"API_KEY=\xff" + KEY.encode()])
def test_a_file_that_is_no_text(raw: bytes) -> None:
    Path(".env").write_bytes(raw)
    with pytest.raises(ConfigError, match="is not written in UTF-8") as caught:
        ApiSettings.found("m", "http://h/v1")
    assert KEY not in str(caught.value)


def test_a_server_without_a_key_gets_none() -> None:
    with serving(says("four")) as server:
        chat(ApiLLM(ApiSettings("toy", server.base_url, " ")))
        assert "authorization" not in server.headers[0]


# -- what is never shown --------------------------------------------------------------------------


def forms(key: str) -> list[str]:
    """How a key may come back."""
    raw = key.encode()
    return [
        key, key.upper(), json.dumps(key), json.dumps(json.dumps(key)), repr(key), repr(raw), key.replace("/", "\\/"),
        quote(key, safe=""), quote(key, safe="").lower(), quote_plus(key), html.escape(key), raw.hex(),
        raw.hex().upper(),
        base64.b64encode(raw).decode(), base64.b64encode(b"me:" + raw).decode(), base64.b64encode(b":" + raw).decode(),
        base64.b64encode(raw + b":").decode(), base64.urlsafe_b64encode(b"someone:" + raw + b":x").decode(),
        f"Bearer {key}", f"{{'authorization': 'Bearer {key}'}}", f"http://h/?key={quote(key)}&x=1",
        key[: len(key) - 4], key[3:], f"x{key}x",
    ]  # fmt: skip


@pytest.mark.parametrize("key", [KEY, AWKWARD, "0123456789abcdef" * 4, "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.x_-y"])
def test_no_form_of_a_key_is_shown(caplog: pytest.LogCaptureFixture, key: str) -> None:
    caplog.set_level(logging.DEBUG)
    script = [answer for form in forms(key) for answer in (fails(500, f"bad {form} ok"), fails(401, f"bad {form} ok"))]
    script += [replies(f"bad {form} ok".encode(), 401, Content_Type="text/plain") for form in forms(key)]
    with serving(*script) as server:
        llm = ApiLLM(ApiSettings("toy", server.base_url, key))
        messages = []
        for _ in range(2 * len(forms(key))):
            with pytest.raises(ApiError) as caught:
                chat(llm)
            messages.append(str(caught.value))
    shown = "\n".join([*messages, caplog.text]).lower()
    pieces = [form.strip("\"'").lower() for form in forms(key)]
    for piece in pieces:
        assert piece not in shown
    for at in range(len(key) - len(key) // 2):
        assert key[at : at + len(key) // 2 + 1].lower() not in shown
    assert all("bad" in message and "***" in message for message in messages)


def written_out(key: str) -> list[str]:
    """A key in letters, numbers and escapes of other kinds."""
    raw = key.encode()

    def each(form: str, between: str = "") -> str:
        return between.join(form.format(byte) for byte in raw)

    return [
        base64.b32encode(raw).decode(), base64.b32encode(raw).decode().lower(), base64.b32encode(b"me:" + raw).decode(),
        raw.hex(":"), raw.hex(" ").upper(), raw.hex("-"), each("0x{:02x}", ", "), each("\\x{:02x}"), each("={:02X}"),
        each("&#{};"), each("&#x{:x};"), each("&#x{:X};"), each("&amp;#{};"), quote(each("&#{};")), each("%{:02x}"),
        each("%25{:02X}"), each("\\u{:04x}"), each("\\\\u{:04x}"), each("\\u{{{:x}}}"), each("\\U{:08x}"),
        each("\\{:03o}"), each("U+{:04X}", " "), each("{:04x}", " "), str(list(raw)), str(list(key)), " ".join(key),
        "-".join(key), "\u200b".join(key), "\n".join(key), key[::-1], html.escape(json.dumps(key)),
        quote(html.escape(key)), f"{base64.b64encode(raw).decode()[:10]}\n{base64.b64encode(raw).decode()[10:]}",
    ]  # fmt: skip


@pytest.mark.parametrize("key", [KEY, AWKWARD])
@pytest.mark.parametrize("kept", [1.0, 0.8])
def test_a_key_that_is_written_out_is_hidden(key: str, kept: float) -> None:
    """The most of it that may be left of a key cut off is what stands for no letter or digit."""
    for form in written_out(key):
        shown = one_line(f"bad {form[: int(len(form) * kept)]} of yours", [key])
        assert re.fullmatch(r"""bad (?:[\['"\\=]|&quot;)*\*\*\*.{0,12} of yours""", shown), (form, shown)


#: As long as keys of projects are.
LONG_KEY = "sk-proj-" + "Ab3dEf7hIj_lMn0pQr5tUv-xYz2" * 3 + "9ZyXwVu8sRqPo6mLk"


@pytest.mark.parametrize("size", [12, 19, 35, 50, 80, len(LONG_KEY)])
@pytest.mark.parametrize(
    "form",
    [
        "{}".format, str.upper, quote, html.escape, json.dumps, lambda part: " ".join(part), lambda part: part[::-1],
        lambda part: part.encode().hex(), lambda part: base64.b64encode(part.encode()).decode(),
        lambda part: " ".join(str(ord(c)) for c in part),
    ],
)  # fmt: skip
def test_a_key_in_parts_is_hidden_in_each(form: Callable[[str], str], size: int) -> None:
    parts = [LONG_KEY[at : at + size] for at in range(0, len(LONG_KEY) - size + 1, size)]
    for part in parts:
        shown = one_line(f"bad {form(part)} of yours", [LONG_KEY])
        assert "***" in shown and len(shown) <= len("bad '***: _' of yours"), shown
    together = one_line(" / and then ".join(map(form, parts)), [LONG_KEY], 4096)
    assert together.count("***") == len(parts) and len(together) <= len("***: _ / and then ") * len(parts), together


def otherwise(key: str) -> list[str]:
    """A key in other letters, in numbers of other bases, and encoded twice."""
    raw = key.encode()
    return [
        "".join(chr(ord(c) + 0xFEE0) for c in key),
        "".join(chr(0x1D41A + ord(c) - ord("a")) if c.islower() else c for c in key),
        "".join(f"{byte:03d}" for byte in raw), " ".join(f"{byte:o}" for byte in raw),
        "".join(f"{byte:03o}" for byte in raw), " ".join(map(oct, raw)), " ".join(f"{byte:08b}" for byte in raw),
        " ".join(map(bin, raw)), codecs.encode(key, "rot13"), base64.b64encode(base64.b64encode(raw)).decode(),
        base64.b64encode(raw[::-1]).decode(), base64.b64encode(raw).decode()[::-1],
    ]  # fmt: skip


@pytest.mark.parametrize("key", [KEY, LONG_KEY])
def test_a_key_in_other_letters_is_hidden(key: str) -> None:
    for form in otherwise(key):
        shown = one_line(f"bad {form} of yours", [key])
        assert re.fullmatch(r"bad \W{0,2}\*\*\*\W{0,2} of yours", shown), (form, shown)


@pytest.mark.parametrize(
    "written", ["{}", quote(KEY).replace("-", "%2D"), KEY.upper(), f"x{KEY}x", quote(KEY).replace("-", "%252d")]
)
def test_nor_is_one_taken_for_an_address_or_a_model(written: str) -> None:
    written = written.format(KEY)
    places = {"base_url": f"http://h/{written}/v1"}, {"base_url": f"http://{written}.h/v1"}, {"model": written}
    for settings in places:
        with pytest.raises(ConfigError, match=r"must not (?:hold the key|be named like the key)") as caught:
            ApiSettings(**{"model": "toy", "base_url": "http://h/v1", "key": KEY, **settings})
        assert "very" not in str(caught.value).lower()
    assert ApiSettings("toy", "http://h/v1", "toy").public()["model"] == "toy", "a short key is a word"


@pytest.mark.parametrize(
    "option",
    [{"user": KEY}, {"user": f"me {KEY.upper()}"}, {"tags": ["a", KEY]}, {"metadata": {"api_key": "hush-hush-0123"}},
     {"metadata": {"a": {"user": KEY}}}],
)  # fmt: skip
def test_nor_is_one_recorded_as_an_option(option: dict[str, Any]) -> None:
    settings = ApiSettings("toy", "http://h/v1", KEY, extra={**option, "top_p": 0.5})
    recorded = json.dumps(settings.public())
    assert "***" in recorded and '"top_p": 0.5' in recorded and not re.search("(?i)hush|very", recorded)
    assert "metadata" not in option or "a" in option["metadata"] or "hush-hush-0123" in settings.secrets


def test_a_text_that_repeats_the_key_is_the_servers_own() -> None:
    assert asked(says(f"your key is {KEY}"))[0].text == f"your key is {KEY}"


@pytest.mark.parametrize("key", ["a b&c", "a+b/c"])
def test_a_short_key_is_hidden_in_any_escapes(key: str) -> None:
    for form in (key, quote(key, safe=""), quote_plus(key), html.escape(key), json.dumps(key).replace("/", "\\/")):
        assert one_line(f"bad {form} of yours", [key]).replace('"', "") == "bad *** of yours"


def test_words_around_a_key_are_kept() -> None:
    text = "100% of A&B + C\\D: the temperature &c. is 0x1f; a very odd secret, and 0123"
    assert one_line(f"{text} {KEY} {text}", [KEY]) == f"{text} *** {text}"


def test_long_words_are_looked_through_at_once() -> None:
    began = time.process_time()
    for text, key in (
        ("a" * 4096, "a" * 900),
        ("%2526%25 &amp;#92;u0041\\%26 + \\u0025" * 99, "k" * 900),
        ("%2526%25 &amp;#92;u0041\\%26 + \uff41" * 99, LONG_KEY * 9),
    ):
        one_line(text, [key])
    assert time.process_time() - began < 20  # a second or so; looking at every piece of every word takes minutes


@pytest.mark.parametrize("before", range(0, 90, 5))
@pytest.mark.parametrize("kind", ["application/json", "text/html"])
def test_nor_the_beginning_of_a_body_that_ends_in_it(before: int, kind: str) -> None:
    message, _ = failed(replies(b"x" * before + b" " + KEY.encode(), 200, Content_Type=kind))
    assert KEY[:4] not in message and "***" in message


@pytest.mark.parametrize("before", range(150, 215, 4))
def test_nor_the_part_of_it_before_a_cut(before: int) -> None:
    message, _ = failed(fails(401, "x" * before + " " + KEY))
    assert KEY[:6] not in message


def test_a_truncated_key_of_the_servers_own_is_left_as_it_is() -> None:
    assert "sk-ve***23" in failed(fails(401, "Incorrect API key provided: sk-ve***23."))[0]


def test_a_key_in_an_option_is_neither_recorded_nor_shown() -> None:
    with serving(fails(400, "odd: hush-hush-0123")) as server:
        llm = by_flags(server.base_url, "--api_option", "user_token=hush-hush-0123", "top_p=1")
        assert "hush" not in json.dumps(llm.settings.public()) and "hush" not in repr(llm.settings)
        with pytest.raises(ApiError) as caught:
            chat(llm)
        assert "hush" not in str(caught.value) and server.seen[0]["user_token"] == "hush-hush-0123"


@pytest.mark.parametrize("word", ["sk-hush0123456789abcdef", "=sk-hush0123456789abcdef", "api_key=sk-hush\udcff"])
def test_nor_one_in_a_word_that_is_no_option(word: str) -> None:
    with pytest.raises(ConfigError, match="--api_option") as caught:
        by_flags("http://h/v1", "--api_option", word)
    assert "hush" not in str(caught.value)


# -- faults that are not the network's ------------------------------------------------------------


def test_half_of_a_character_is_told_and_costs_nothing() -> None:
    budget = Budget(5)
    with serving(says("four")) as server:
        llm = ApiLLM(ApiSettings("toy", server.base_url, KEY), budget)
        for words in ("a\ud800b", "\udcff"):
            with pytest.raises(ApiError, match="nothing was sent: 'messages' has a character that no text can hold"):
                chat(llm, words)
        assert not server.seen and budget.requests == 0
        assert chat(llm, "a\U0001f600b").text == "four" and server.seen[0]["messages"][0]["content"] == "a\U0001f600b"


@pytest.mark.parametrize(
    "settings",
    [{"model": "a\udcffb"}, {"model": "a\nb"}, {"extra": {"x": float("nan")}}, {"extra": {"x": "\ud800"}},
     {"extra": {"\udcff": 1}}, {"extra": {"x": object()}}, {"extra": {"stream": True}}],
)  # fmt: skip
def test_settings_that_cannot_be_sent(settings: dict[str, Any]) -> None:
    with pytest.raises(GcacheError) as caught:
        ApiSettings(**{"model": "m", "base_url": "http://h/v1", **settings})
    assert str(caught.value).isprintable()
