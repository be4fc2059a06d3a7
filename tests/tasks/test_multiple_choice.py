"""Multiple-choice tasks: reading their files, shuffling their choices, grading their letters."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path
from typing import Any

import needs
import pytest

from gcache.errors import ConfigError, DataError
from gcache.tasks import TASKS, make_task
from gcache.tasks.example import Task


def write_json_lines(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def gpqa_file(path: Path, rows: int = 40) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        wrong = [f"Incorrect Answer {n}" for n in (1, 2, 3)]
        writer.writerow(["Record ID", "Question", "Correct Answer", *wrong, "Subdomain"])
        for n in range(rows):
            writer.writerow([f"rec{n}", f"Which, of these,\nis {n}?", f"{n}", f"{n}.1", f"{n}.2", f"{n}.3", "Numbers"])
    return path


# -- GPQA -----------------------------------------------------------------------------------------


def test_gpqa_shuffles_by_its_seed_and_keeps_it(tmp_path: Path) -> None:
    path = gpqa_file(tmp_path / "gpqa.csv")
    task = make_task("gpqa", path, whole_file=True)
    assert isinstance(task, Task) and task.domain == "science"
    examples = task.test()
    assert [example.id for example in examples[:2]] == ["gpqa-rec0", "gpqa-rec1"]
    for n, example in enumerate(examples):
        stem, lines = example.question.rsplit("?\n", 1)
        assert stem == f"Which, of these,\nis {n}"
        assert f"{example.answer}) {n}" in lines.split("\n")
        assert example.meta["shuffle_seed"] == "0" and sorted(example.meta["order"].split()) == list("0123")
        assert example.meta["subject"] == "Numbers"
    assert set(Counter(example.answer for example in examples)) == set("ABCD")  # the right one is not always first
    again = make_task("gpqa", path, whole_file=True).test()
    assert again == examples
    other = make_task("gpqa", path, whole_file=True, shuffle_seed=1).test()
    assert [e.answer for e in other] != [e.answer for e in examples]
    assert task.grade(f"The answer is ({examples[0].answer}).", examples[0]).outcome == "right"


def test_a_question_is_shuffled_alike_wherever_it_stands(tmp_path: Path) -> None:
    long = make_task("gpqa", gpqa_file(tmp_path / "a.csv"), whole_file=True).test(seed=3)
    short = make_task("gpqa", gpqa_file(tmp_path / "b.csv", rows=5), whole_file=True).test()
    known = {example.id: example for example in long}
    assert all(known[example.id] == example for example in short)


def test_gpqa_splits_a_set_that_has_only_one_split(tmp_path: Path) -> None:
    task = make_task("gpqa", gpqa_file(tmp_path / "gpqa.csv"))
    train, test = ({example.id for example in split} for split in (task.train(), task.test()))
    assert not train & test and len(train | test) == 40


def test_gpqa_has_three_sizes() -> None:
    assert make_task("gpqa", subset="diamond").hub[1] == "gpqa_diamond"  # type: ignore[attr-defined]
    assert make_task("gpqa").hub[1] == "gpqa_main"  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match="unknown subset of gpqa 'gold'; choose one of: diamond, extended, main"):
        make_task("gpqa", subset="gold")
    with pytest.raises(ConfigError, match="shuffle_seed must be a whole number of 0 or more, got -1"):
        make_task("gpqa", shuffle_seed=-1)


def test_a_broken_row_of_a_csv_file_is_named(tmp_path: Path) -> None:
    path = gpqa_file(tmp_path / "gpqa.csv", rows=3)
    path.write_text(path.read_text(encoding="utf-8").replace("1.2", " "), encoding="utf-8")
    with pytest.raises(DataError, match=r"gpqa\.csv, line 5: the field 'Incorrect Answer 2' must be a non-empty"):
        make_task("gpqa", path)
    path.write_text("Question,Answer\nwhat?,that\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"line 2: the field 'Correct Answer' is missing; a row has 'Question', 'Ans"):
        make_task("gpqa", path)


# -- the others -----------------------------------------------------------------------------------


def test_medqa_in_both_forms(tmp_path: Path) -> None:
    listed = {"question": "Which?\nA. one\nB. two\n\nA. one\nB. two", "options": ["A. one", "B. two"], "answer": "two"}
    by_letter = {"question": "Which?", "options": {"A": "one", "B": "two"}, "answer": "two", "answer_idx": "B"}
    path = tmp_path / "medqa.json"
    path.write_text(json.dumps([listed, by_letter]), encoding="utf-8")
    first, second = make_task("medqa", path, whole_file=True).test()
    assert first.question == second.question == "Which?\nA) one\nB) two"
    assert first.answer == second.answer == "B" and first.meta["choices"] == "2"


def test_the_medqa_file_loads() -> None:
    examples = make_task("medqa", needs.data_file("medqa", "medqa.json"), whole_file=True).test()
    assert len(examples) == 200 and set(Counter(e.answer for e in examples)) == set("ABCD")
    assert all(example.question.count("\nA) ") == 1 and "\nA. " not in example.question for example in examples)
    assert examples[0].question.endswith("C) Colorectal cancer\nD) Pancreatic cancer") and examples[0].answer == "C"


def test_arc_in_both_forms(tmp_path: Path) -> None:
    of_hub = {
        "id": "x", "question": "Why?", "choices": {"text": ["so", "or"], "label": ["1", "2"]}, "answerKey": "2",
    }  # fmt: skip
    choices = [{"text": "so", "label": "A"}, {"text": "or", "label": "B"}]
    of_authors = {"id": "y", "question": {"stem": "Why?", "choices": choices}, "answerKey": "A"}
    path = write_json_lines(tmp_path / "arc.jsonl", of_hub, of_authors)
    for name in ("arc_easy", "arc_challenge"):
        first, second = make_task(name, path, whole_file=True).test()
        assert first.question == second.question == "Why?\nA) so\nB) or"
        assert (first.answer, second.answer) == ("B", "A") and first.id == f"{name}-x"


def test_mmlu_in_three_forms(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("Who?,I,you,he,she,C\n", encoding="utf-8")
    named = tmp_path / "b.csv"
    named.write_text("question,A,B,C,D,answer\nWho?,I,you,he,she,C\n", encoding="utf-8")
    lines = write_json_lines(
        tmp_path / "c.jsonl", {"question": "Who?", "choices": ["I", "you", "he", "she"], "answer": 2, "subject": "s"}
    )
    found = [make_task("mmlu", file, whole_file=True).test()[0] for file in (path, named, lines)]
    assert {(e.question, e.answer) for e in found} == {("Who?\nA) I\nB) you\nC) he\nD) she", "C")}
    assert found[2].meta["subject"] == "s"


@pytest.mark.parametrize(
    ("name", "row", "said"),
    [
        ("medqa", {"question": "?", "options": "a", "answer": "a"}, "'options' must be a list of texts"),
        ("medqa", {"question": "?", "options": ["a", "b"], "answer": "c"}, "must be one of the 2 choices, got 'c'"),
        ("medqa", {"question": "?", "options": ["a", "a"], "answer": "a"}, None),  # "a" is also the first letter
        ("medqa", {"question": "?", "options": ["x", "x"], "answer": "x"}, "must be one of the 2 choices, got 'x'"),
        ("medqa", {"question": "?", "options": ["a"], "answer": "a"}, "a question has 2 to 10 choices, got 1"),
        ("medqa", {"question": "?", "options": ["a", "b"]}, "'answer_idx' is missing"),
        ("arc_easy", {"question": "?", "choices": {"text": ["a"], "label": []}, "answerKey": "A"}, "as many texts as"),
        ("arc_easy", {"question": "?", "choices": {"text": ["a"], "label": ["A"]}, "answerKey": "B"}, "one of A, got"),
        ("mmlu", {"question": "?", "choices": ["a", "b"], "answer": 2}, "must be one of the 2 choices, got 2"),
        ("mmlu", {"question": "?", "choices": ["a", "b"], "answer": True}, "must be one of the 2 choices, got True"),
        ("aime24", {"problem": "?", "answer": "1000"}, "a whole number from 0 to 999, got '1000'"),
        ("aime25", {"problem": "?", "answer": "-3"}, "a whole number from 0 to 999, got '-3'"),
    ],
)
def test_broken_rows(tmp_path: Path, name: str, row: dict[str, Any], said: str | None) -> None:
    path = write_json_lines(tmp_path / "a.jsonl", row)
    if said is None:
        assert make_task(name, path, whole_file=True).test()[0].answer == "A"
        return
    with pytest.raises(DataError) as caught:
        make_task(name, path)
    assert said in str(caught.value) and "a.jsonl, line 1: " in str(caught.value)


def test_aime(tmp_path: Path) -> None:
    path = write_json_lines(
        tmp_path / "a.jsonl", {"Problem": "3 * 14?", "Answer": 42}, {"problem": "?", "answer": "007"}
    )
    first, second = make_task("aime24", path, whole_file=True).test()
    assert (first.question, first.answer, second.answer) == ("3 * 14?", "42", "7")
    assert make_task("aime24", path).grade(r"so \boxed{042}", first).outcome == "right"


@pytest.mark.parametrize("name", sorted(TASKS))
def test_every_task_names_itself_and_a_domain_that_has_people(name: str, tmp_path: Path) -> None:
    from gcache.agents.decision import decision_maker
    from gcache.agents.roles import pick_agents

    row = {"prompt_A": "Ann is in Lund.", "prompt_B": "Where?", "y": "Lund", "label": "Lund", "options": ["Lund", "Ys"]}
    alone = name in ("countries", "tipsheets")  # these are on no hub
    task = make_task(name, write_json_lines(tmp_path / "a.jsonl", row)) if alone else make_task(name)
    assert isinstance(task, Task) and task.name == name
    decision_maker(task.domain)
    assert len(pick_agents(task.domain)) in (0, 4)


@pytest.mark.parametrize("name", ["gpqa", "medqa", "arc_easy", "arc_challenge", "mmlu"])
def test_there_is_room_to_weigh_the_choices(name: str) -> None:
    assert make_task(name).max_new_tokens == 512
