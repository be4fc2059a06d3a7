"""A training run that is killed anywhere, in a process of its own, and started again ends as one that was not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


def start(
    model: Path, out: Path, point: str = "never", count: int = 0, by: str = "SIGKILL", *more: str
) -> subprocess.CompletedProcess[str]:
    flags = [
        "train", "--task", "split_facts", "--llm_name", str(model), "--dtype", "float32", "--encoder", "hash",
        "--iterations", "4", "--batch_size", "2", "--rollouts", "2", "--latent_steps", "0", "--limit", "6",
        "--report", "5", "--max_new_tokens", "3", "--out", str(out), *(more or ("--checkpoint_every", "2")),
    ]  # fmt: skip
    return subprocess.run(
        [sys.executable, str(Path(__file__).with_name("killed.py")), point, str(count), by, *flags], cwd=out.parent,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=280,
    )  # fmt: skip


def without_seconds(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_seconds(each) for key, each in value.items() if not key.startswith("seconds")}
    return [without_seconds(each) for each in value] if isinstance(value, list) else value


def outcome(out: Path) -> dict[str, Any]:
    """Everything that a run leaves, but for seconds and the names of the folders in between."""
    last = out / "checkpoints" / (out / "checkpoints" / "latest").read_text().strip()
    record = json.loads((last / "checkpoint.json").read_text())
    table = (out / "report.md").read_text()
    rows = [line.rsplit("|", 2)[0] if line.count("|") == 9 else line for line in table.splitlines()]
    return {
        "metrics": [without_seconds(json.loads(line)) for line in (out / "metrics.jsonl").read_text().splitlines()],
        "weights": (last / "weights.safetensors").read_bytes(),
        "moments": (last / "optimizer.safetensors").read_bytes(),
        "record": {name: record[name] for name in record if name not in ("sha256", "training")},
        "report": without_seconds(json.loads((out / "report.json").read_text())),
        "table": rows,
    }


@pytest.fixture(scope="module")
def whole(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Of a run that nothing stopped."""
    out = tmp_path_factory.mktemp("whole") / "out"
    done = start(model_folder, out)
    assert done.returncode == 0, done.stderr
    found = outcome(out)
    assert len(found["metrics"]) == 4 and len(found["report"]["rows"]) == 5
    assert "seconds" in (out / "report.md").read_text() and "| trained policy |" in (out / "report.md").read_text()
    return found


def parts(out: Path) -> int:
    kept = out / "report_rows.jsonl"
    return len(kept.read_text().splitlines()) if kept.exists() else 0


@pytest.mark.parametrize(
    ("point", "count", "kept", "checkpoint"),
    [
        ("part", 0, 0, None),  # within the baseline report
        ("part", 7, 7, None),
        ("step", 0, 12, None),  # within the first step, before any checkpoint
        ("step", 2, 12, 2),
        ("save", 1, 12, 2),  # all steps are done, and the last checkpoint is not written
        ("part", 13, 13, 4),  # within the report after training
    ],
)
def test_killed_and_started_again(
    model_folder: Path, tmp_path: Path, whole: dict[str, Any], point: str, count: int, kept: int, checkpoint: int | None
) -> None:
    out = tmp_path / "out"
    assert start(model_folder, out, point, count).returncode == -signal.SIGKILL
    assert parts(out) == kept and not (out / "report.json").exists()
    latest = out / "checkpoints" / "latest"
    assert (int(latest.read_text()[5:]) if latest.exists() else None) == checkpoint
    before = (out / "report_rows.jsonl").read_bytes() if kept else b""
    again = start(model_folder, out)
    assert again.returncode == 0, again.stderr
    assert outcome(out) == whole
    after = (out / "report_rows.jsonl").read_bytes()
    assert after.startswith(before) and parts(out) == 15, "something was measured twice"


def test_killed_every_time_it_gets_a_little_further(
    model_folder: Path, tmp_path: Path, whole: dict[str, Any]
) -> None:
    """Where every start is killed soon, it ends all the same."""
    out = tmp_path / "out"
    for point, count in (("part", 5), ("part", 6), ("step", 0), ("step", 2), ("step", 1), ("part", 1)):
        assert start(model_folder, out, point, count).returncode == -signal.SIGKILL
    assert start(model_folder, out).returncode == 0
    assert outcome(out) == whole


@pytest.mark.parametrize(("by", "code"), [("SIGTERM", 143), ("SIGHUP", 129), ("SIGINT", 130)])
def test_a_run_that_is_asked_to_stop_keeps_its_last_whole_step(
    model_folder: Path, tmp_path: Path, whole: dict[str, Any], by: str, code: int
) -> None:
    """Also of the half minute since the last checkpoint."""
    out = tmp_path / "out"
    stopped = start(model_folder, out, "step", 3, by, "--tensorboard")
    assert stopped.returncode == code, stopped.stderr
    assert "Traceback" not in stopped.stderr
    assert (out / "checkpoints" / "latest").read_text() == "step-000003\n"
    assert [path.name for path in (out / "checkpoints").glob("step-*")] == ["step-000003"]
    assert start(model_folder, out).returncode == 0
    assert outcome(out) == whole


def test_rows_of_other_settings_are_measured_anew(model_folder: Path, tmp_path: Path, whole: dict[str, Any]) -> None:
    out = tmp_path / "out"
    assert start(model_folder, out, "part", 4, "SIGKILL", "--decision_probability", "0.9").returncode < 0
    assert parts(out) == 4
    assert start(model_folder, out).returncode == 0
    assert outcome(out) == whole and parts(out) == 4 + 15


def test_a_run_of_other_settings_is_refused_before_its_report_is_measured(
    model_folder: Path, tmp_path: Path, whole: dict[str, Any]
) -> None:
    out = tmp_path / "out"
    assert start(model_folder, out, "part", 13).returncode < 0
    files = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    refused = start(model_folder, out, "part", 0, "SIGKILL", "--lr", "0.5")
    assert refused.returncode == 2 and "lr=" in refused.stderr
    assert files == {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
