"""Quantizations beside each other: each loaded when its turn comes, and never two at once."""

from __future__ import annotations

import gc
import json
import weakref
from pathlib import Path
from typing import Any

import pytest

from gcache import build
from gcache.commands.main import main
from gcache.evaluation.quantized import SingleEntryCache
from gcache.llm.load import device


def test_only_the_last_one_is_held() -> None:
    class Thing:
        pass

    alive: list[weakref.ref[Thing]] = []

    def load(name: str) -> Thing:
        gc.collect()
        assert not any(ref() for ref in alive)
        made = Thing()
        alive.append(weakref.ref(made))
        return made

    held = SingleEntryCache(load, lambda _: 7)
    for name in ("a", "a", "b", "a"):
        held.get(name)
    assert len(alive) == 3
    assert held.nbytes == {"a": 7, "b": 7}


@pytest.fixture
def command(tmp_path: Path, model_folder: Path) -> list[str]:
    data = tmp_path / "test.jsonl"
    rows = [{"question": f"what is {n} + 2 ?", "answer": f"#### {n + 2}"} for n in range(4)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [
        "compare", "--task", "gsm8k", "--data", str(data), "--llm_name", str(model_folder), "--latent_steps", "1",
        "--max_new_tokens", "3", "--methods", "single,gcache", "--json", str(tmp_path / "out.json"),
    ]  # fmt: skip


def test_every_method_in_every_quantization(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """bitsandbytes aside, which is not for this machine: its place is taken by other dtypes."""
    loaded: list[str] = []
    real = build.load_model

    def load(name: str, dtype: str, device: str, device_map: Any, quantization: str) -> Any:
        loaded.append(quantization)
        return real(name, {"none": "float32", "8bit": "bfloat16"}[quantization], device, device_map)

    monkeypatch.setattr(build, "load_model", load)
    monkeypatch.setattr(device, "quantization_config", lambda *_: None)
    assert main([*command, "--compare_quantizations", "none", "8bit"]) == 0
    assert loaded == ["none", "8bit"]
    found = json.loads((tmp_path / "out.json").read_text())
    names = ["single, none", "gcache, none", "single, 8bit", "gcache, 8bit"]
    assert [row["name"] for row in found["rows"]] == names
    whole, half = (found["weights_bytes"][name] for name in ("none", "8bit"))
    assert whole == pytest.approx(2 * half, rel=0.01) and half > 0  # rotations stay in float32
    printed = capsys.readouterr().out
    assert [line.split(" | ")[0].removeprefix("| ") for line in printed.splitlines()[3:7]] == names
    assert "weights, none: " in printed and "weights, 8bit: " in printed


@pytest.mark.parametrize(
    ("flags", "error"),
    [
        (["none", "3bit"], "quantization '3bit' is not allowed; choose one of: none, 8bit, 4bit"),
        (["none", "none"], "must each be named once, got none, none"),
        (["none", "--checkpoint", "x", "--llm_name", "smollm2"], "a checkpoint has a model of its own quantization"),
    ],
)
def test_what_cannot_be_compared_is_refused_at_once(
    flags: list[str], error: str, command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(build, "load_model", lambda *_: pytest.fail("a model was loaded"))
    assert main([*command, "--compare_quantizations", *flags]) == 2
    assert error in capsys.readouterr().err


def test_what_is_not_installed_is_named_at_once(
    command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    import importlib.util

    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n, *a: None if n == "bitsandbytes" else real(n, *a))
    monkeypatch.setattr(build, "load_model", lambda *_: pytest.fail("a model was loaded"))
    assert main([*command, "--compare_quantizations", "none", "4bit"]) == 2
    assert "needs bitsandbytes; pip install 'gcache-mas[quantization]'" in capsys.readouterr().err
