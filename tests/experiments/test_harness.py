"""The scripts in experiments/: the names that their users know, and one run through a server."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest
from chat_server import says, serving
from harness import Experiment, known_names

from gcache.errors import ConfigError

GSM8K = Experiment("gsm8k", "about")


def parsed(*words: str, experiment: Experiment = GSM8K) -> argparse.Namespace:
    args = experiment.parser().parse_args(list(words))
    known_names(args)
    return args


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], ("smollm2", "local", "cache", None)),
        (["--llm_name", "hybrid_cache", "--use_cache"], ("smollm2", "hybrid", "cache", None)),
        (["--llm_name", "local_cache", "--use_cache"], ("smollm2", "local", "cache", None)),
        (["--llm_name", "qwen-flash", "--use_cache"], ("smollm2", "api_hint", "cache", "qwen-flash")),
        (["--llm_name", "qwen-flash", "--use_cache", "false"], ("smollm2", "api", "text", "qwen-flash")),
        (["--llm_name", "gpt-4o-mini", "--generation_mode", "hybrid"], ("smollm2", "hybrid", "cache", "gpt-4o-mini")),
        (["--use_cache", "false"], ("smollm2", "local", "text", None)),
        (["--llm_name", "Qwen/Qwen2.5-0.5B-Instruct"], ("Qwen/Qwen2.5-0.5B-Instruct", "local", "cache", None)),
        (["--llm_name", "no-such.gguf"], ("no-such.gguf", "local", "cache", None)),
    ],
)
def test_model_names_that_early_users_know(words: list[str], expected: tuple[str | None, ...]) -> None:
    args = parsed(*words)
    assert (args.llm_name, args.generation_mode, args.hands, args.api_model) == expected


def test_a_folder_is_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path)
    assert parsed("--llm_name", "mine").generation_mode == "local"


def test_api_scripts_draft_locally_unless_told_otherwise() -> None:
    api = Experiment("gsm8k", "about", generation_mode="hybrid")
    assert parsed(experiment=api).generation_mode == "hybrid"
    assert parsed("--llm_name", "qwen-flash", experiment=api).generation_mode == "hybrid"
    assert parsed("--generation_mode", "api_hint", experiment=api).generation_mode == "api_hint"


def test_two_names_of_one_model_are_refused() -> None:
    with pytest.raises(ConfigError, match="name two API models; pass one"):
        parsed("--llm_name", "qwen-flash", "--api_model", "qwen-plus")


@pytest.mark.parametrize(("hint", "said"), [("meta", "cache slots"), ("draft", "noted")])
def test_an_early_users_command_runs(
    model_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    hint: str,
    said: str,
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "API_MODEL", "BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("harness.EMBEDDED", str(model_folder))
    data = tmp_path / "train.jsonl"
    rows = [{"question": f"what is {n} + 2 ?", "answer": f"#### {n + 2}"} for n in range(20)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with serving(says("#### 4")) as server:
        command = [
            "--llm_name", "qwen-flash", "--use_cache", "--hint", hint, "--data", str(data), "--num_iterations", "1",
            "--batch_size", "2", "--agent_nums", "2",
        ]  # fmt: skip
        made = [*command, "--max_new_tokens", "4", "--base_url", server.base_url, "--out", str(tmp_path / "out")]
        assert GSM8K.main(made) == 0
        printed = capsys.readouterr().out
        assert len(server.seen) == 4 and said in server.seen[0]["messages"][1]["content"]
    assert "not trained: the fuser (in the mode api_hint" in printed and "API:        4 requests" in printed
