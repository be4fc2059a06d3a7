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
    rows = [line.rsplit("|", 2)[0] if line.count("|") == 11 else line for line in table.splitlines()]
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
    assert sum(line.count("|") == 9 for line in found["table"]) >= 5  # rows without their seconds
    return found


def parts(out: Path) -> int:
    kept = out / "report_rows.jsonl"
    return len(kept.read_text().splitlines()) if kept.exists() else 0


#: Where each start is killed, the parts that are kept then, and the step of the latest checkpoint.
KILLS = (
    ("part", 4, 4, None),  # within the report before training
    ("step", 0, 12, None),  # within the first step, before any checkpoint
    ("step", 2, 12, 2),
    ("save", 0, 12, 2),  # all steps are done, and the last checkpoint is not written
    ("part", 1, 13, 4),  # within the report after training
)


def test_killed_and_started_again_and_again(model_folder: Path, tmp_path: Path, whole: dict[str, Any]) -> None:
    out = tmp_path / "out"
    before = b""
    for point, count, kept, checkpoint in KILLS:
        assert start(model_folder, out, point, count).returncode == -signal.SIGKILL
        latest, rows = out / "checkpoints" / "latest", out / "report_rows.jsonl"
        assert parts(out) == kept and rows.read_bytes().startswith(before), "something was measured again"
        assert (int(latest.read_text()[5:]) if latest.exists() else None) == checkpoint
        assert not (out / "report.json").exists()
        before = rows.read_bytes()
    last = start(model_folder, out)
    assert last.returncode == 0, last.stderr
    assert parts(out) == 15 and (out / "report_rows.jsonl").read_bytes().startswith(before)
    assert outcome(out) == whole


@pytest.mark.parametrize(("by", "code"), [("SIGTERM", 143), ("SIGINT", 130)])
def test_a_run_that_is_asked_to_stop_keeps_its_last_whole_step(
    model_folder: Path, tmp_path: Path, whole: dict[str, Any], by: str, code: int
) -> None:
    """Also of the half minute since the last checkpoint."""
    out = tmp_path / "out"
    stopped = start(model_folder, out, "step", 3, by, "--device", "cpu")
    assert stopped.returncode == code, stopped.stderr
    assert "Traceback" not in stopped.stderr
    assert [path.name for path in (out / "checkpoints").glob("step-*")] == ["step-000003"]
    assert start(model_folder, out).returncode == 0
    assert outcome(out) == whole
