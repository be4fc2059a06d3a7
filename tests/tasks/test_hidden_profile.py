from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from gcache.errors import ConfigError, DataError
from gcache.tasks.choices import LETTERS
from gcache.tasks.example import Example, Task
from gcache.tasks.hidden_profile import HOUSES, TRAIN_HOUSES, HiddenBench, HiddenProfile

POINT = re.compile(r"(Good|Bad): (\w+ House) ")
ENTRY = {
    "name": "picnic",
    "description": "Where is the picnic?",
    "shared_information": ["The park is sunny.", "The lake is far."],
    "hidden_information": ["The park is closed.", "The hill is on fire."],
    "possible_answers": ["Park", "Lake", "Hill"],
    "correct_answer": "Lake",
}


def totals(*texts: str) -> Counter[str]:
    found: Counter[str] = Counter()
    for text in texts:
        found.update({house: 0 for _, house in POINT.findall(text)})
        for kind, house in POINT.findall(text):
            found[house] += 1 if kind == "Good" else -1
    return found


def options(example: Example) -> dict[str, str]:
    return dict(re.findall(r"(?m)^([A-C])\) (.+)$", example.question))


def leader(counts: Counter[str]) -> str | None:
    """The house with the most points; None where two have as many."""
    (first, most), (_, second) = counts.most_common(2)
    return first if most > second else None


@pytest.mark.parametrize("n_agents", [3, 4, 7])
@pytest.mark.parametrize("split", ["train", "test"])
def test_shared_points_mislead_and_all_together_do_not(n_agents: int, split: str) -> None:
    task = HiddenProfile(n_agents)
    assert isinstance(task, Task)
    for example in task.train(100) if split == "train" else task.test(100):
        right, decoy = options(example)[example.answer], example.meta["decoy"]
        held = [note.text for note in example.notes]
        assert len(held) == n_agents and right != decoy
        assert leader(totals(example.question)) == decoy
        assert all(leader(totals(example.question, one)) == decoy for one in held)
        assert leader(totals(example.question, *held)) == right
        for left_out in range(n_agents):  # every point is needed
            assert leader(totals(example.question, *held[:left_out], *held[left_out + 1 :])) is None


def test_the_right_letter_and_the_decoys_are_spread() -> None:
    examples = HiddenProfile().train(300)
    letters = Counter(example.answer for example in examples)
    assert set(letters) == set("ABC") and min(letters.values()) > 70


def test_splits_have_no_house_in_common_and_are_repeatable() -> None:
    task = HiddenProfile()
    seen = {
        name: {house for example in found for house in options(example).values()}
        for name, found in (("train", task.train(300)), ("test", task.test(300)))
    }
    assert seen["train"] == set(HOUSES[:TRAIN_HOUSES]) and seen["test"] == set(HOUSES[TRAIN_HOUSES:])
    assert task.test(20, seed=3) == task.test(40, seed=3)[:20]
    assert task.test(20, seed=3) != task.test(20, seed=4)


def test_an_adversary_pushes_the_decoy() -> None:
    for example in HiddenProfile(adversary=1).train(20):
        (claim,) = [note.text for note in example.notes if note.kind == "adversary"]
        letter = re.search(r"The right choice is ([A-C])\.", claim)
        assert letter and options(example)[letter[1]] == example.meta["decoy"]


def test_grading_reads_the_letter() -> None:
    task = HiddenProfile()
    example = task.test(1)[0]
    other = next(letter for letter in "ABC" if letter != example.answer)
    assert task.grade(f" {example.answer}", example).outcome == "right"
    assert task.grade(f"{other})", example).outcome == "wrong"
    assert task.grade("the Oak House", example).outcome == "unparsed"


@pytest.mark.parametrize("bad", [{"n_agents": 2}, {"n_agents": 9}, {"adversary": 9}, {"adversary": 0.5}])
def test_bad_options_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="must be"):
        HiddenProfile(**bad)


def read(tmp_path: Path, **changes: Any) -> HiddenBench:
    path = tmp_path / "benchmark.json"
    path.write_text(json.dumps([{**ENTRY, **changes}]), encoding="utf-8")
    return HiddenBench(path, whole_file=True)


def test_hiddenbench_is_read(tmp_path: Path) -> None:
    (example,) = read(tmp_path).test()
    assert example.question == (
        "Where is the picnic?\n- The park is sunny.\n- The lake is far.\nA) Park\nB) Lake\nC) Hill\n"
        "Answer with the letter only."
    )
    assert [note.text for note in example.notes] == [
        "The first visitor alone knows this: The park is closed.",
        "The second visitor alone knows this: The hill is on fire.",
    ]
    assert (example.answer, example.meta["name"]) == ("B", "picnic")
    assert HiddenBench.grade(read(tmp_path), "B", example).outcome == "right"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"correct_answer": "Moon"}, "'Moon' is none of possible_answers"),
        ({"possible_answers": ["Lake", "Lake"]}, "2 to 10 different options"),
        ({"possible_answers": "Lake"}, "'possible_answers' must be a list"),
        ({"hidden_information": []}, "at least one agent"),
        ({"hidden_information": [3]}, "'hidden_information' must be a list of non-empty strings"),
        ({"description": " "}, "'description' must be a non-empty string"),
    ],
)
def test_a_broken_entry_is_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=f"entry 1: .*{message}"):
        read(tmp_path, **changes)


def test_more_holders_than_ordinals(tmp_path: Path) -> None:
    (example,) = read(tmp_path, hidden_information=[f"fact {i}" for i in range(9)]).test()
    assert example.notes[-1].role == "9th visitor"
    assert len(LETTERS) == 10
