from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gcache.commands.main import main
from gcache.errors import DataError
from gcache.inspect.curves import draw_curves, read_metrics, smoothed


def written(path: Path, steps: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(step) + "\n" for step in steps), encoding="utf-8")
    return path


def steps(count: int) -> list[dict[str, Any]]:
    return [{"step": i, "utility": i / count, "edges": 3.0, "gradient_norm_policy": 0.1 * i} for i in range(count)]


def test_smoothing_by_hand() -> None:
    assert smoothed([1.0, 2.0, 6.0], width=2) == [1.0, 1.5, 4.0]
    assert smoothed([3.0], width=5) == [3.0]
    assert smoothed([]) == []


def test_a_run_is_read_by_its_folder_or_its_file(tmp_path: Path) -> None:
    file = written(tmp_path / "run" / "metrics.jsonl", steps(3))
    assert read_metrics(file.parent) == read_metrics(file)
    assert [step["utility"] for step in read_metrics(file)] == [0.0, 1 / 3, 2 / 3]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no step was trained yet"),
        ("{}\n", "line 1: no step"),
        ('{"step": 0, "utility": 1}\nhm\n', "line 2: no step"),
        ("[" * 100_000 + "\n", "line 1: no step .*RecursionError"),
        ("3\n", "line 1: no step .*no object but int"),
        ('{"step": "0", "utility": 1}\n', "line 1: no step .*its step is '0'"),
        ('{"step": -1, "utility": 1}\n', "line 1: no step .*its step is -1"),
        ('{"step": 0}\n', "line 1: no step .*has no utility"),
        ('{"step": 0, "utility": "1"}\n', "line 1: no step .*its utility is '1'"),
        ('{"step": 0, "utility": NaN}\n', "line 1: no step .*its utility is 'nan'"),
        ('{"step": 0, "utility": 1, "edges": "x"}\n', "line 1: no step .*its edges is 'x'"),
        ('{"step": 0, "utility": 1, "gradient_norm_policy": []}\n', "line 1: no step .*its gradient_norm_policy"),
        ('{"step": 0, "utility": 1, "learned_edges": [["a", "b", 1]]}\n', "line 1: no step .*its learned_edges"),
        ('{"step": 0, "utility": 1, "learned_edges": 3}\n', "line 1: no step .*its learned_edges"),
    ],
)
def test_what_is_no_run_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "metrics.jsonl").write_text(text)
    with pytest.raises(DataError, match=message):
        read_metrics(tmp_path)


def test_a_line_that_is_being_written_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 0, "utility": 1}\n{"step": 1, "util')
    assert [step["step"] for step in read_metrics(tmp_path)] == [0]
    (tmp_path / "metrics.jsonl").write_text('{"step": 0, "utility": 1}\n{"step": 1, "utility": 0}')
    assert [step["step"] for step in read_metrics(tmp_path)] == [0, 1]


def test_the_command_draws_runs_of_one_name_and_refuses_missing_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in ("one", "two"):
        written(tmp_path / folder / "out" / "metrics.jsonl", steps(6))
    out = tmp_path / "pictures" / "curves.png"
    runs = [str(tmp_path / folder / "out") for folder in ("one", "two")]
    assert main(["curves", *runs, "--out", str(out), "--title", "two runs"]) == 0
    assert out.read_bytes().startswith(b"\x89PNG")
    out.unlink()
    assert main(["curves", *runs, str(tmp_path / "three"), "--out", str(out)]) == 2
    assert "name the --out folder of a training run" in capsys.readouterr().err
    assert not out.exists()


def test_runs_that_know_other_fields_share_a_picture(tmp_path: Path) -> None:
    newer = [{**step, "gradient_snr_policy": 0.5, "gradient_snr_fuser": 0.1} for step in steps(4)]
    draw_curves({"older": steps(8), "newer": newer}, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 10_000
