"""GSM8K: reading files, naming broken lines, and splits that share nothing."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import needs
import pytest

from gcache.errors import ConfigError, DataError
from gcache.tasks import Gsm8k, Task

GOOD = {"question": "What is 30 + 42?", "answer": "30 + 42 = <<30+42=72>>72\n#### 72"}


def write(path: Path, rows: int = 60) -> Path:
    lines = [{"question": f"What is {i} + 1,000?", "answer": f"Add.\n#### {i + 1000:,}"} for i in range(rows)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def test_is_a_task(tmp_path: Path) -> None:
    task = Gsm8k(write(tmp_path / "a.jsonl"))
    assert isinstance(task, Task)
    assert (task.name, task.domain, task.max_new_tokens) == ("gsm8k", "maths", 768)


def test_reads_questions_answers_and_line_numbers(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(GOOD).encode() + b"\r\n\n" + json.dumps(GOOD).encode())
    first, second = Gsm8k(path, whole_file=True).train()
    assert (first.id, second.id) == ("gsm8k-1", "gsm8k-3")
    assert (first.question, first.answer) == ("What is 30 + 42?", "72")


def test_answers_lose_their_commas_and_grade(tmp_path: Path) -> None:
    task = Gsm8k(write(tmp_path / "a.jsonl"), whole_file=True)
    example = task.test()[5]
    assert example.answer == "1005"
    assert task.grade("The answer is $1,005.", example).outcome == "right"
    assert task.grade("The answer is 1,006.", example).outcome == "wrong"
    assert task.grade("I cannot say.", example).outcome == "unparsed"


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("{broken", "not valid JSON"),
        ('["a list"]', "expected a JSON object, got list"),
        ('{"answer": "#### 1"}', "'question' is missing"),
        ('{"question": "?"}', "'answer' is missing"),
        ('{"question": 7, "answer": "#### 1"}', "'question' must be a non-empty string"),
        ('{"question": " ", "answer": "#### 1"}', "'question' must be a non-empty string"),
        ('{"question": "?", "answer": "it is 1"}', "must end in '#### N'"),
        ('{"question": "?", "answer": "it is 1 #### one"}', "must end in '#### N'"),
        ("\udcff", "not valid JSON"),
    ],
)
def test_a_broken_line_is_named_by_number(tmp_path: Path, line: str, complaint: str) -> None:
    path = tmp_path / "broken.jsonl"
    text = json.dumps(GOOD) + "\n" + line + "\n" + json.dumps(GOOD) + "\n"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(DataError) as caught:
        Gsm8k(path)
    message = str(caught.value)
    assert "broken.jsonl, line 2: " in message
    assert complaint in message
    assert "\n" not in message


def test_missing_and_empty_files_name_a_way_out(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.jsonl: no such file; pass --data FILE"):
        Gsm8k(tmp_path / "none.jsonl")
    with pytest.raises(DataError, match="cannot be read"):
        Gsm8k(tmp_path)
    (tmp_path / "empty.jsonl").write_text("\n\n")
    with pytest.raises(DataError, match="the file is empty"):
        Gsm8k(tmp_path / "empty.jsonl")


def test_splits_are_disjoint_and_cover_the_file(tmp_path: Path) -> None:
    task = Gsm8k(write(tmp_path / "a.jsonl", rows=500))
    train, test = ({example.question for example in split} for split in (task.train(), task.test()))
    assert not train & test
    assert len(train | test) == 500
    assert 70 < len(test) < 130  # a fifth, within three and a half standard deviations


def test_the_split_of_a_question_does_not_depend_on_the_rest_of_the_file(tmp_path: Path) -> None:
    short = {e.question for e in Gsm8k(write(tmp_path / "a.jsonl", rows=60)).test()}
    long = {e.question for e in Gsm8k(write(tmp_path / "b.jsonl", rows=500)).test()}
    assert short < long


def test_limit_and_seed(tmp_path: Path) -> None:
    task = Gsm8k(write(tmp_path / "a.jsonl"))
    everything = [example.id for example in task.train()]
    assert everything == sorted(everything, key=lambda name: int(name.split("-")[1]))
    assert [example.id for example in task.train(limit=3)] == everything[:3]
    shuffled = [example.id for example in task.train(seed=1)]
    assert shuffled != everything
    assert sorted(shuffled) == sorted(everything)
    again = Gsm8k(tmp_path / "a.jsonl")
    assert [example.id for example in again.train(limit=5, seed=1)] == shuffled[:5]


def test_whole_file_serves_either_split(tmp_path: Path) -> None:
    task = Gsm8k(write(tmp_path / "a.jsonl"), whole_file=True)
    assert list(task.train()) == list(task.test())
    assert len(task.test()) == 60


def test_refuses_what_it_cannot_do(tmp_path: Path) -> None:
    task = Gsm8k(write(tmp_path / "a.jsonl", rows=1), whole_file=True)
    with pytest.raises(ConfigError, match="limit must be 1 or more"):
        task.train(limit=0)
    with pytest.raises(ConfigError, match="seed must be 0 or more"):
        task.train(seed=-1)
    with pytest.raises(ConfigError, match="whole_file needs a data file"):
        Gsm8k(whole_file=True)
    halves = Gsm8k(tmp_path / "a.jsonl")
    with pytest.raises(DataError, match="none of its 1 questions falls into the"):
        _ = [halves.train(), halves.test()]


def test_without_the_datasets_package_the_way_out_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r"gcache-mas\[data\].*--data FILE"):
        Gsm8k().train()


def test_from_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def load_dataset(name: str, config: str, split: str) -> list[dict[str, str]]:
        calls.append((name, config, split))
        if split == "test":
            raise ConnectionError("no route\nto the hub")
        return [GOOD]

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    task = Gsm8k()
    assert calls == []
    assert [example.answer for example in task.train()] == ["72"]
    task.train()
    assert calls == [("openai/gsm8k", "main", "train")]
    with pytest.raises(DataError) as caught:
        task.test()
    assert "no route" in str(caught.value)
    assert "--data FILE" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["train.jsonl", "test.jsonl"])
def test_official_files_load(name: str) -> None:
    task = Gsm8k(needs.data_file("gsm8k", name))
    train, test = task.train(), task.test()
    assert not {e.question for e in train} & {e.question for e in test}
    assert 0.17 < len(test) / (len(train) + len(test)) < 0.23
