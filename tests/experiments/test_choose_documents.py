"""Whom a policy comes to hear, with a made-up reward."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from scripts import experiment


def questions(path: Path, count: int) -> Path:
    """Of four documents, the two that are needed: one that the question names, and one that this one names."""
    rows = []
    for n in range(count):
        context = [
            [f"Tower {n}", [f"Tower {n} was built by Mason {n}."]],
            ["Weather", ["It rains in spring."]],
            [f"Mason {n}", [f"Mason {n} was born in Bergen."]],
            ["Ships", ["Ships sail far."]],
        ]
        rows.append({
            "_id": f"q{n}", "question": f"Where was the builder of Tower {n} born?", "answer": "Bergen",
            "supporting_facts": [[f"Tower {n}", 0], [f"Mason {n}", 0]], "context": context, "type": "bridge",
        })  # fmt: skip
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_with_cues_it_learns_whom_two_hops_need(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = experiment("choose_documents")
    data = str(questions(tmp_path / "train.jsonl", 24))
    settings = ["--limit", "24", "--train", "16", "--steps", "20", "--seeds", "1", "--heard", "2", "--lr", "0.02"]
    assert script.main(["--data", data, *settings, "--cues", "overlap", "named", "cited", "citing"]) == 0
    table = [line.split(" | ") for line in capsys.readouterr().out.splitlines()[2:]]
    assert [row[0] for row in table] == ["| bm25:2", "| policy, seed 0"]
    assert all(row[1] == "8" for row in table)
    assert float(table[1][2].split()[0]) > 0.9 and table[1][3] == "2.00 |"


def test_nothing_left_to_try_on_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = str(questions(tmp_path / "train.jsonl", 4))
    assert experiment("choose_documents").main(["--data", data]) == 2
    assert "4 questions and --train 128 leave none to try on; lower --train" in capsys.readouterr().err
