"""Two hops: what the answer takes, by hand and by counting."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import pytest

from gcache.errors import ConfigError
from gcache.tasks.example import Example
from gcache.tasks.split_facts import SplitFacts

SPLITS = ("train", "test")
LOCK = re.compile(r"The ([a-z ]+) has the ([a-z]+) lock\.")
CODE = re.compile(r"The code of the ([a-z]+) lock is (\d+)\.")


def drawn(split: str, limit: int = 100, **options: int | bool) -> Sequence[Example]:
    task = SplitFacts(hops=2, **options)  # type: ignore[arg-type]
    return task.train(limit) if split == "train" else task.test(limit)


def one(example: Example, kind: str) -> str:
    (text,) = [note.text for note in example.notes if note.kind == kind]
    return text


@pytest.mark.parametrize("split", SPLITS)
def test_the_answer_follows_from_the_keepers_note_and_the_locksmiths_and_from_no_note_alone(split: str) -> None:
    for example in drawn(split):
        asked = re.fullmatch(
            r"What is the code of the lock of the ([a-z ]+)\? Answer with the number only\.", example.question
        )
        assert asked is not None
        ((place, colour),) = LOCK.findall(one(example, "asked keeper"))
        codes = dict(CODE.findall(one(example, "locksmith")))
        assert place == asked[1] == example.meta["place"]
        assert codes[colour] == example.answer
        assert asked[1] not in one(example, "locksmith") and not re.search(r"\d", one(example, "asked keeper"))
        # every colour of the locksmith's is that of some place here, so none stands out
        colours = [found for note in example.notes for _, found in LOCK.findall(note.text)]
        assert sorted(colours) == sorted(codes) and len(set(colours)) == 3
        assert Counter(note.kind for note in example.notes) == {
            "asked keeper": 1, "other keeper": 2, "locksmith": 1, "gossip": 1,
        }  # fmt: skip


@pytest.mark.parametrize("split", SPLITS)
def test_the_gossip_has_other_codes_for_the_same_locks(split: str) -> None:
    for example in drawn(split):
        truth, told = (dict(CODE.findall(one(example, kind))) for kind in ("locksmith", "gossip"))
        assert truth.keys() == told.keys() and not set(truth.values()) & set(told.values())
        assert example.meta["rumour"] in told.values()


def test_training_and_held_out_questions_share_no_place_and_no_code() -> None:
    words = [set(re.findall(r"\d+|(?:The ([a-z ]+) has)", " ".join(n.text for e in drawn(s, 300) for n in e.notes)))
             for s in SPLITS]  # fmt: skip
    codes = [{c for e in drawn(s, 300) for n in e.notes for c in re.findall(r"\d+", n.text)} for s in SPLITS]
    assert all(words) and not (words[0] - {""}) & (words[1] - {""})
    assert all(codes) and not codes[0] & codes[1]


def test_neither_side_has_a_seat_of_its_own() -> None:
    for kind in ("asked keeper", "locksmith", "gossip"):
        seats = Counter([note.kind for note in example.notes].index(kind) for example in drawn("train", 400))
        assert set(seats) == set(range(5)) and max(seats.values()) < 120  # 80 expected, deviation 8


def test_the_locksmith_stands_at_every_place_of_the_table() -> None:
    places = Counter(
        list(dict(CODE.findall(one(e, "locksmith"))).values()).index(e.answer) for e in drawn("train", 300)
    )
    assert set(places) == {0, 1, 2} and max(places.values()) < 135  # 100 expected, deviation 8


@pytest.mark.parametrize(("n_agents", "gossip"), [(4, True), (3, False), (12, True), (12, False)])
def test_every_number_of_agents_that_is_allowed_can_be_dealt(n_agents: int, gossip: bool) -> None:
    for example in drawn("test", 5, n_agents=n_agents, gossip=gossip):
        assert len(example.notes) == len({note.role for note in example.notes}) == n_agents
        assert len(CODE.findall(one(example, "locksmith"))) == n_agents - 1 - gossip


def test_too_few_for_two_keepers_and_other_hops_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"n_agents must be from 4 to 12 for split_facts, got 3"):
        SplitFacts(3, hops=2)
    for hops in (0, 3, True):
        with pytest.raises(ConfigError, match=f"hops must be one of 1, 2, got {hops}"):
            SplitFacts(hops=hops)


def test_an_adversary_insists_on_a_wrong_code_in_the_same_world() -> None:
    for alone, pushed in zip(drawn("test", 30), drawn("test", 30, adversary=1), strict=True):
        assert (alone.question, alone.answer) == (pushed.question, pushed.answer)
        said = re.findall(r"The code of the lock of the ([a-z ]+) is (\d+)\.", one(pushed, "adversary"))
        assert len(set(said)) == 1 and said[0][0] == pushed.meta["place"] and said[0][1] != pushed.answer
