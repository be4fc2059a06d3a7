"""`gcache serve` from its flags to its end."""

from __future__ import annotations

import logging
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx2
import pytest

from gcache.commands.main import main
from gcache.errors import ConfigError
from gcache.serve import server
from gcache.serve.settings import ServeSettings


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ServeSettings]]:
    """What would have been served."""
    found: list[tuple[str, ServeSettings]] = []
    monkeypatch.setattr(server, "serve", lambda name, settings, load, announce: found.append((name, settings)))
    return found


def test_names_and_limits_come_from_the_flags(
    served: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GCACHE_SERVE_KEY", " from-the-environment ")
    assert main(["serve", "--topology", "star", "--llm_name", "models/tiny.gguf"]) == 0
    assert (
        main(["serve", str(tmp_path / "runs" / "split_facts"), "--max_running", "3", "--cors", "https://a.example"])
        == 0
    )
    assert main(["serve", "--name", "mine", "--api_key", "from-a-flag", "--deadline", "9.5"]) == 0
    assert [name for name, _ in served] == ["star-tiny", "split_facts", "mine"]
    assert [settings.key for _, settings in served] == ["from-the-environment"] * 2 + ["from-a-flag"]
    assert served[1][1].max_running == 3 and served[1][1].cors == ("https://a.example",)
    assert served[2][1].deadline == 9.5 and served[0][1].is_local
    assert "from-a-flag" not in repr(served[2][1])


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["run", "--topology", "star"], "--topology"), (["run", "--llm_name", "other"], "--llm_name"),
        (["run", "--latent_steps", "9"], "--latent_steps"), (["run", "--generation_mode", "api"], "--generation_mode"),
        (["--topology", "ring"], "unknown topology 'ring'"), (["--max_running", "0"], "max_running"),
        (["--max_waiting", "-1"], "max_waiting"), (["--deadline", "nan"], "deadline"),
        (["--port", "70000"], "port"),
        (["--cors", "example.org"], "--cors"), (["--max_body", "0"], "max_body"), (["--api_key", " "], "empty"),
        (["--max_batch_size", "0"], "max_batch_size"),
    ],
)  # fmt: skip
def test_what_is_not_allowed_is_one_line(
    served: list[Any], capsys: pytest.CaptureFixture[str], flags: list[str], said: str
) -> None:
    assert main(["serve", *flags]) == 2
    err = capsys.readouterr().err
    assert said in err and err.count("\n") == 1 and not served


def test_without_its_packages_it_names_the_extra(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "gcache.serve.server", None)
    assert main(["serve"]) == 2
    assert "pip install 'gcache-mas[serve]'" in capsys.readouterr().err


def test_a_port_that_is_taken_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert main(["serve", "--port", str(taken.getsockname()[1])]) == 2
    assert "cannot listen on 127.0.0.1" in capsys.readouterr().err


def test_a_model_that_cannot_be_had_ends_it(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["serve", str(tmp_path / "nothing"), "--port", "0"]) == 2
    assert "nothing" in capsys.readouterr().err


def test_others_are_not_let_in_without_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    def cannot() -> Any:
        raise ConfigError("no model")

    with caplog.at_level(logging.WARNING, "gcache"), pytest.raises(ConfigError):
        server.serve("toy", ServeSettings(host="0.0.0.0", port=0), cannot, print)
    assert "without a key" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING, "gcache"), pytest.raises(ConfigError):
        server.serve("toy", ServeSettings(host="0.0.0.0", port=0, key="k"), cannot, print)
    assert "without a key" not in caplog.text


@pytest.mark.slow
def test_sigterm_lets_it_finish_what_it_answers(model_folder: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "gcache.commands.main", "serve", "--port", "0", "--llm_name", str(model_folder)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "GCACHE_SERVE_KEY": ""},
    )  # fmt: skip
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        address = re.fullmatch(r"gcache serves on (http://127\.0\.0\.1:\d+)\n", line)
        assert address, line
        body = {
            "messages": [{"role": "user", "content": "is it ?"}],
            "max_tokens": 200,
            "temperature": 2,
            "stream": True,
        }
        with httpx2.stream("POST", f"{address[1]}/v1/chat/completions", json=body, timeout=60) as answer:
            assert answer.status_code == 200
            lines = answer.iter_lines()
            next(lines)  # it has begun
            process.send_signal(signal.SIGTERM)
            rest = [line for line in lines if line]
        assert rest[-1] == "data: [DONE]"
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.communicate()
