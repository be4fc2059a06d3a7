from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from scripts import experiment


def comparison(root: Path, name: str, methods: dict[str, str], **changed: Any) -> Path:
    """A file of four questions; of each method, r for right and w for wrong."""
    model = root / "model.gguf"
    model.touch()
    rows = [
        {
            "name": method, "accuracy": said.count("r") / 4, "low": 0.1, "high": 0.9, "unparsed": 0,
            "answers": [[f"q{i}", {"r": "right", "w": "wrong"}[c], "4", "It is 4."] for i, c in enumerate(said)],
            "cut": 1, "texts": 8, "generated": 12.0, "prefilled": 34.0, "seconds": 5.0,
        }
        for method, said in methods.items()
    ]  # fmt: skip
    found = {
        "task": {"name": "gsm8k", "data": str(model)}, "limit": 4, "seed": 0, "model": "model", "dtype": "bfloat16",
        "model_fingerprint": "f", "graph": {"llm_name": str(model)}, "checkpoint": str(root / "runs" / name),
        "questions": [{"problem": "How many?"}] * 4, "rows": rows, **changed,
    }  # fmt: skip
    path = root / f"{name}.json"
    path.write_text(json.dumps(found))
    return path


def test_rows_of_all_files_are_paired_with_the_first_of_the_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [
        comparison(tmp_path, "seed0", {"single": "rrww", "gcache": "rrww"}),
        comparison(tmp_path, "seed1", {"gcache": "wrrr"}),
    ]
    out = tmp_path / "out"
    assert experiment("join_comparisons").main([*map(str, files), "--out", str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| single, seed0", "| gcache, seed0", "| gcache, seed1"]
    # one lost and two gained of four; half a question in each cell: (1 -+ 1.96 sqrt(4 - 1 / 6)) / 6
    assert lines[4] == (
        "| gcache, seed1 | 4 | 0.750 (0.100 to 0.900) | +0.250 (-0.473 to +0.806) | 1 / 2 | 0 |  | 0.125 | 12 | 34 | 5 "
        "|"
    )
    assert lines[0].endswith("| unparsed | unstated | cut | generated | prefilled | seconds |")
    kept = (out / "seed1.json").read_text()
    assert json.loads(kept)["rows"][0]["answers"][0] == ["q0", "wrong", "4"]
    assert str(tmp_path) not in kept and "It is 4." not in kept and "How many?" not in kept


def test_rows_are_paired_with_a_named_one_and_seeds_with_their_mean(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [
        comparison(tmp_path, "alone", {"single": "wwww", "voting": "rrww"}),
        comparison(tmp_path, "seed0", {"single": "wwww", "gcache": "rrrw"}),
        comparison(tmp_path, "seed1", {"gcache": "rrrr"}),
    ]
    named = [*map(str, files), "--to", "voting", "--pool", *map(str, files[1:]), "--out", str(tmp_path / "out")]
    assert experiment("join_comparisons").main(named) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "difference to voting" in lines[0] and "| -0.500 (" in lines[2]
    # per question 0, 0, 1, 1/2 more than voting
    assert lines[7].startswith("| gcache, mean of 2 seeds | 4 | 0.875 (0.625 to 1.000) | +0.375 (")
    assert lines[7].endswith(" |  | 0.0 | 0.0 | 0.125 | 12 | 34 | 5 |")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--to", "none"], r"has no row 'none'; it has single, gcache"),
        (["--pool", "other.json"], r"names other\.json, which is not among the files"),
        (["--pool", "other.json", "other.json"], r"--pool has other\.json twice"),
    ],
)
def test_what_is_not_there_to_pair_or_pool_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], said: str
) -> None:
    file = comparison(tmp_path, "seed0", {"single": "rrww", "gcache": "rrww"})
    assert experiment("join_comparisons").main([str(file), "--out", str(tmp_path / "out"), *flags]) == 2
    assert re.search(said, capsys.readouterr().err) and not (tmp_path / "out").exists()


def test_a_file_of_the_first_questions_alone_is_paired_over_these(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [comparison(tmp_path, "long", {"single": "rrww"}), comparison(tmp_path, "short", {"gcache": "wr"})]
    assert experiment("join_comparisons").main([*map(str, files), "--out", str(tmp_path / "out")]) == 0
    cells = capsys.readouterr().out.splitlines()[3].split(" | ")
    assert cells[:2] == ["| gcache, short", "2"] and cells[4] == "1 / 0"
    other = json.loads(files[1].read_text())
    other["rows"][0]["answers"][0][0] = "q9"
    files[1].write_text(json.dumps(other))
    assert experiment("join_comparisons").main([*map(str, files), "--out", str(tmp_path / "out")]) == 2
    assert "the questions differ" in capsys.readouterr().err


def test_files_that_cannot_be_paired_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = comparison(tmp_path, "seed0", {"single": "rrww"})
    other = comparison(tmp_path, "seed1", {"gcache": "rrww"}, seed=1)
    assert experiment("join_comparisons").main([str(first), str(other), "--out", str(tmp_path / "out")]) == 2
    assert "seed1.json cannot be paired with" in (error := capsys.readouterr().err) and "seed differ" in error
    assert not (tmp_path / "out").exists()
    first.write_text("{}")
    assert experiment("join_comparisons").main([str(first), "--out", str(tmp_path / "out")]) == 2
    assert "no comparison in" in capsys.readouterr().err


@pytest.mark.parametrize(
    "spoil",
    [
        lambda rows: rows[0].pop("accuracy"), lambda rows: rows[0].pop("unparsed"), lambda rows: rows[0].pop("name"),
        lambda rows: rows[0].update(low="x"), lambda rows: rows[0]["answers"].append([]),
        lambda rows: rows[0].update(answers=3), lambda rows: rows[0]["answers"].append(3),
        lambda rows: rows.append({**rows[0], "answers": rows[0]["answers"][:2]}), lambda rows: rows.append(3),
    ],
)  # fmt: skip
def test_a_broken_comparison_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], spoil: Any) -> None:
    file = comparison(tmp_path, "seed0", {"single": "rrww"})
    found = json.loads(file.read_text())
    spoil(found["rows"])
    file.write_text(json.dumps(found))
    assert experiment("join_comparisons").main([str(file), "--out", str(tmp_path / "out")]) == 2
    assert "no comparison in" in (error := capsys.readouterr().err) and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_files_of_one_name_and_pools_of_several_methods_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "more").mkdir()
    first = comparison(tmp_path, "seed0", {"single": "rrww", "gcache": "rrww"})
    alike = comparison(tmp_path / "more", "seed0", {"gcache": "rrww"})
    other = comparison(tmp_path, "seed1", {"voting": "rrww"})
    out = tmp_path / "out"
    assert experiment("join_comparisons").main([str(first), str(alike), "--out", str(out)]) == 2
    assert "files has seed0.json twice" in capsys.readouterr().err and not out.exists()
    pool = ["--pool", str(first), str(other)]
    assert experiment("join_comparisons").main([str(first), str(other), "--out", str(out), *pool]) == 2
    assert "last rows are gcache, voting; pass those of one method" in capsys.readouterr().err


def test_scores_of_each_question_have_columns_where_all_rows_have_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [comparison(tmp_path, name, {name: "rwww"}) for name in ("text", "caches")]
    for path, f1s in zip(files, ([0.25, 0.5, 0.0, 0.25], [0.75, 1.0, 0.5, 0.75]), strict=True):
        found = json.loads(path.read_text())
        found["rows"][0] |= {"f1s": f1s, "documents": [[0]] * 4}
        path.write_text(json.dumps(found))
    words = [*map(str, files), "--out", str(tmp_path / "out")]
    assert experiment("join_comparisons").main(words) == 0
    head, _, first, second = capsys.readouterr().out.splitlines()
    assert head.endswith("| F1 | difference in F1 |") and "F1 of documents" not in head
    assert "| 0.250 (" in first and first.endswith("| +0.000 (+0.000 to +0.000) |")
    assert "| 0.750 (" in second and second.endswith("| +0.500 (+0.500 to +0.500) |")
    assert json.loads((tmp_path / "out" / "caches.json").read_text())["rows"][0]["documents"] == [[0]] * 4


def test_the_scores_of_several_seeds_are_joined_question_by_question(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    f1s = {"text": [0.25, 0.5, 0.0, 0.25], "seed0": [0.5, 1.0, 0.0, 0.5], "seed1": [1.0, 1.0, 0.5, 0.5]}
    files = [comparison(tmp_path, name, {"single" if name == "text" else "gcache": "rwww"}) for name in f1s]
    for path, scores in zip(files, f1s.values(), strict=True):
        found = json.loads(path.read_text())
        found["rows"][0]["f1s"] = scores
        path.write_text(json.dumps(found))
    words = [*map(str, files), "--pool", *map(str, files[1:]), "--out", str(tmp_path / "out")]
    assert experiment("join_comparisons").main(words) == 0
    joined = capsys.readouterr().out.splitlines()[-1]
    assert joined.startswith("| gcache, mean of 2 seeds | 4 |")
    # 0.75, 1, 0.25, 0.5 less 0.25, 0.5, 0, 0.25
    assert "| 0.625 (" in joined and "| +0.375 (+0.250 to +0.500) |" in joined
