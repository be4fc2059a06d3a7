from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gcache import environment as settings


def test_own_variable_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GCACHE_HOME", "/a/b")
    monkeypatch.setenv("XDG_CACHE_HOME", "/c")
    assert settings.cache_home() == Path("/a/b")


def test_shared_cache_folder_is_second(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GCACHE_HOME", "  ")  # empty counts as unset
    monkeypatch.setenv("XDG_CACHE_HOME", "/c")
    assert settings.cache_home() == Path("/c/gcache")


def test_home_is_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GCACHE_HOME", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", "/home/someone")
    assert settings.cache_home() == Path("/home/someone/.cache/gcache")


def test_tilde_is_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.setenv("GCACHE_HOME", "~/weights")
    assert settings.cache_home() == Path("/home/someone/weights")


@pytest.mark.parametrize(("value", "expected"), [("1", True), ("true", True), ("0", False), ("", False)])
def test_offline_flag(monkeypatch: pytest.MonkeyPatch, value: str, expected: bool) -> None:
    monkeypatch.delenv("TRANSFORMERS_OFFLINE", raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", value)
    assert settings.offline() is expected


def test_offline_asks_the_hub_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", lambda *_, **__: pytest.fail("asked the hub"))
    assert settings.hub_commit("someone/some-model") is None


def test_hub_that_does_not_answer_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise ConnectionError("no route")

    monkeypatch.setattr("gcache.environment.offline", lambda: False)
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", refuse)
    assert settings.hub_commit("someone/some-model") is None


def test_installed_file_finds_by_ending() -> None:
    found = settings.installed_file("pytest", "/METADATA")
    assert found is not None and found.is_file() and found.is_absolute()


def test_installed_file_without_the_package_or_the_file() -> None:
    assert settings.installed_file("no-such-distribution", ".gguf") is None
    assert settings.installed_file("pytest", ".gguf") is None


def test_quiet_restores_what_it_found() -> None:
    from transformers.utils import logging as chatter

    before = chatter.get_verbosity(), chatter.is_progress_bar_enabled()
    with pytest.raises(RuntimeError), settings.quiet_transformers():
        assert not chatter.is_progress_bar_enabled()
        raise RuntimeError
    assert (chatter.get_verbosity(), chatter.is_progress_bar_enabled()) == before


def test_import_reads_no_environment_and_nothing_heavy() -> None:
    code = (
        "import os, sys\n"
        "real = os.environ\n"
        "class Deaf(dict):\n"
        "    def get(self, *a): raise AssertionError('read the environment')\n"
        "    __getitem__ = get\n"
        "import gcache.errors, logging, threading, contextlib, pathlib, importlib.metadata\n"
        "os.environ = Deaf()\n"
        "import gcache.environment, gcache.llm.load.locate, gcache.llm.load.loading, gcache.gnn.features\n"
        "os.environ = real\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)\n"
    )
    root = Path(__file__).resolve().parents[1]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
