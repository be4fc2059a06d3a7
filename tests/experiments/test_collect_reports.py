from __future__ import annotations

import json
from pathlib import Path

import pytest
from scripts import experiment


def run_folder(root: Path, name: str, accuracy: float) -> Path:
    folder, model = root / name, root / "model.gguf"
    folder.mkdir()
    model.touch()
    answers = [{"id": "q0", "outcome": "right", "answer": "417", "text": "It is 417.", "edges": [[0, 1]]}]
    row = {"name": "trained policy", "accuracy": accuracy, "low": 0.1, "high": 0.9, "edges": 1.0, "rows": answers}
    report = {"graph": {"llm_name": str(model)}, "task": {"name": "split_facts", "data": None}, "rows": [row]}
    (folder / "report.json").write_text(json.dumps(report))
    (folder / "metrics.jsonl").write_text('{"step": 0}\n')
    return folder


def test_runs_become_one_table_and_small_files_without_texts_and_paths(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [run_folder(tmp_path, "seed0", 0.5), run_folder(tmp_path, "seed1", 0.75)]
    out = tmp_path / "out"
    assert experiment("collect_reports").main([*map(str, runs), "--out", str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "| condition | seed0 | seed1 |"
    assert lines[2] == "| trained policy | 0.500 (0.100 to 0.900), 1.00 edges | 0.750 (0.100 to 0.900), 1.00 edges |"
    kept = json.loads((out / "seed0.json").read_text())
    assert kept["rows"][0]["rows"] == [["q0", "right", "417", [[0, 1]]]]
    assert kept["graph"]["llm_name"] == "model.gguf"
    assert str(tmp_path) not in (out / "seed0.json").read_text()
    assert (out / "seed1-metrics.jsonl").read_text() == '{"step": 0}\n'


def test_a_folder_without_a_report_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert experiment("collect_reports").main([str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert "no report in" in error and "--report" in error


@pytest.mark.parametrize(
    "text",
    [
        b"\xff", b"[" * 100_000, b"[]", b"3", b"{}", b'{"rows": 3}', b'{"rows": [3]}', b'{"rows": [{"name": "a"}]}',
        b'{"rows": [{"name": "a", "accuracy": "x", "low": 0, "high": 1, "edges": 0, "rows": []}]}',
        b'{"rows": [{"name": "a", "accuracy": 1, "low": 0, "high": 1, "edges": 0, "rows": [1]}]}',
        b'{"graph": 3, "rows": [{"name": "a", "accuracy": 1, "low": 0, "high": 1, "edges": 0, "rows": []}]}',
    ],
)  # fmt: skip
def test_a_broken_report_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: bytes) -> None:
    run = run_folder(tmp_path, "seed0", 0.5)
    (run / "report.json").write_bytes(text)
    assert experiment("collect_reports").main([str(run), "--out", str(tmp_path / "out")]) == 2
    assert "no report in" in (error := capsys.readouterr().err) and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_report_without_its_metrics_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = run_folder(tmp_path, "seed0", 0.5)
    (run / "metrics.jsonl").unlink()
    assert experiment("collect_reports").main([str(run), "--out", str(tmp_path / "out")]) == 2
    assert "no metrics.jsonl beside" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
