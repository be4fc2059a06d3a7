from __future__ import annotations

import json
from pathlib import Path

import pytest
from scripts import experiment

TEXTS = [
    ("right", "The answer is 5 eggs."), ("right", "She had 3 and has 5"), ("right", "The answer isn't 5"),
    ("wrong", "6"),
]  # fmt: skip


def comparison(root: Path, texts: list[tuple[str, str]]) -> tuple[Path, Path]:
    data, file = root / "test.jsonl", root / "compare.json"
    rows = [{"question": f"How many are {i}?", "answer": "#### 5"} for i in range(len(texts))]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    answers = [[f"gsm8k-{i + 1}", outcome, "5", text] for i, (outcome, text) in enumerate(texts)]
    task = {"name": "gsm8k", "data": "test.jsonl", "options": {"whole_file": True}}
    found = {"task": task, "limit": 4, "seed": 0, "settings": {"max_new_tokens": 4}}
    file.write_text(json.dumps({**found, "rows": [{"name": "single", "answers": answers}]}))
    return file, data


def test_published_texts_are_graded_again(
    tmp_path: Path, model_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, data = comparison(tmp_path, TEXTS)
    flags = ["--data", str(data), "--tokenizer", str(model_folder)]
    assert experiment("regrade_comparison").main([str(file), *flags]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "| method | graded | right | wrong | unparsed | unstated | accuracy | cut |"
    assert lines[2].startswith("| single | then | 3 | 1 | 0 | 0 | 0.750 (")
    # the second text breaks off in its number, so 3 stands last
    assert lines[3].startswith("| single | now | 1 | 1 | 1 | 1 | 0.250 (") and lines[3].endswith("| 3 |")


def test_what_has_no_texts_or_other_questions_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, data = comparison(tmp_path, TEXTS)
    data.write_text(data.read_text().splitlines()[0] + "\n")
    assert experiment("regrade_comparison").main([str(file), "--data", str(data)]) == 2
    assert "has questions that the task has not (gsm8k-2" in capsys.readouterr().err
    file.write_text('{"rows": [{"answers": [["q", "right", "5"]]}]}')
    assert experiment("regrade_comparison").main([str(file)]) == 2
    assert "no comparison with texts in" in capsys.readouterr().err
