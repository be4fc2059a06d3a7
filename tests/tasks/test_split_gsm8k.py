from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gcache.errors import ConfigError, DataError
from gcache.tasks.dealing import runs
from gcache.tasks.example import Task
from gcache.tasks.registry import make_task
from gcache.tasks.sentences import sentences
from gcache.tasks.split_gsm8k import SplitGsm8k

STORY = "Mr. Lee has 12.5 kg of rice. He eats 2 kg! Ms. Poe adds 3 kg.  She likes St. Ives. How much rice is there?"
TOLD = ["Mr. Lee has 12.5 kg of rice.", "He eats 2 kg!", "Ms. Poe adds 3 kg.", "She likes St. Ives."]
ROWS = [
    {"question": STORY, "answer": "so it is\n#### 13.5"},
    {"question": "What is 2 plus 2?", "answer": "#### 4"},
    {"question": "Ann has 3 cats. How many legs have they?", "answer": "#### 12"},
]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "gsm8k.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    return path


def whole(file: Path, **options: Any) -> SplitGsm8k:
    return SplitGsm8k(file, whole_file=True, **options)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (STORY, [*TOLD, "How much rice is there?"]),
        ("One.", ["One."]),
        ("He said: \"Give me 3.\" Then he left. Why?", ['He said: "Give me 3."', "Then he left.", "Why?"]),
        ("It costs $5. $3 are paid at 5 p.m. Why?", ["It costs $5.", "$3 are paid at 5 p.m. Why?"]),
        ("no capital. so it goes on", ["no capital. so it goes on"]),
        ("", [""]),
    ],
)  # fmt: skip
def test_sentences_by_hand(text: str, expected: list[str]) -> None:
    assert sentences(text) == expected


def test_runs_by_hand() -> None:
    assert runs([1, 2, 3, 4], 3) == [[1, 2], [3], [4]]
    assert runs([1, 2], 3) == [[1], [2], []]
    assert runs([], 2) == [[], []]


def test_the_decision_maker_sees_the_question_alone(file: Path) -> None:
    task = whole(file)
    assert isinstance(task, Task)
    first = task.test()[0]
    assert first.question == "How much rice is there?"
    assert [note.text for note in first.notes] == [
        f"The first witness: {TOLD[0]} {TOLD[1]}",
        f"The second witness: {TOLD[2]}",
        f"The third witness: {TOLD[3]}",
    ]
    assert (first.answer, first.meta["problem"]) == ("13.5", STORY)
    assert task.grade("#### 13.50", first).outcome == "right"


def test_what_is_one_sentence_is_left_out_and_the_numbers_stay(file: Path) -> None:
    assert [example.id for example in whole(file).test()] == ["split_gsm8k-1", "split_gsm8k-3"]


def test_more_agents_than_sentences(file: Path) -> None:
    notes = whole(file, n_agents=2).test()[1].notes
    assert [note.text for note in notes] == [
        "The first witness: Ann has 3 cats.",
        "The second witness: I was told nothing.",
    ]
    assert [note.kind for note in notes] == ["witness", "witness of nothing"]


@pytest.mark.parametrize(("share", "common"), [(0.0, 0), (0.5, 2), (1.0, 4)])
def test_a_share_of_the_sentences_is_for_everybody(file: Path, share: float, common: int) -> None:
    example = whole(file, shared=share).test()[0]
    seen = [sentence for sentence in TOLD if sentence in example.question]
    held = [sentence for sentence in TOLD if any(sentence in note.text for note in example.notes)]
    assert len(seen) == common
    assert sorted(seen + held) == sorted(TOLD)
    assert example.question.endswith("How much rice is there?")
    assert whole(file, shared=share).test()[0] == example  # by a hash, not by chance


def test_adversaries_claim_a_wrong_number(file: Path) -> None:
    for example in whole(file, adversary=2).test():
        told = [note.text for note in example.notes if note.kind == "adversary"]
        assert len(told) == 2 and len(example.notes) == 5
        for text in told:
            assert text.count("The answer is ") == 2
            assert text.split("The answer is ")[1].split(".")[0] != example.answer


def test_an_adversary_of_a_fraction(tmp_path: Path) -> None:
    path = tmp_path / "fraction.jsonl"
    path.write_text(json.dumps({"question": "Al cuts a cake in 4. He eats 3. How much?", "answer": "#### 3/4"}))
    (example,) = SplitGsm8k(path, whole_file=True, adversary=1).test()
    assert example.answer == "3/4" and "The answer is " in example.notes[-1].text


def test_splits_are_by_the_whole_problem(tmp_path: Path) -> None:
    """Many problems end in the same question, and must not all fall on one side."""
    path = tmp_path / "same.jsonl"
    rows = [{"question": f"Bo has {i} nuts. How many are left?", "answer": f"#### {i}"} for i in range(100)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    task = SplitGsm8k(path)
    train, test = {e.id for e in task.train()}, {e.id for e in task.test()}
    assert len(train | test) == 100 and not train & test
    assert 8 < len(test) < 35


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_agents": 0}, "n_agents must be from 1 to 8"),
        ({"n_agents": True}, "n_agents must be from 1 to 8"),
        ({"shared": 1.5}, "shared must be a share from 0 to 1"),
        ({"shared": "half"}, "shared must be a share from 0 to 1"),
        ({"adversary": -1}, "adversary must be a number of agents from 0 to 8"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_task("split_gsm8k", None, **options)


def test_a_broken_row_is_named(tmp_path: Path) -> None:
    path = tmp_path / "broken.jsonl"
    path.write_text(json.dumps(ROWS[0]) + "\n" + json.dumps({"question": "A. B?", "answer": "none"}) + "\n")
    with pytest.raises(DataError, match="line 2: the field 'answer' must end in"):
        SplitGsm8k(path)
