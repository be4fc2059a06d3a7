from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

import pytest

from gcache.errors import ConfigError
from gcache.tasks.example import Example, Task
from gcache.tasks.places import NAMES, PLACES, TRAIN_NAMES, TRAIN_PLACES
from gcache.tasks.split_facts import SplitFacts
from gcache.tasks.worlds import ATTRIBUTES

VALUE = re.compile(r"\d+")
FACT = re.compile(r"The ([a-z ]+) of the ([a-z ]+) is (\d+)\.")
SPLITS = ("train", "test")


def drawn(split: str, limit: int = 200, seed: int = 0, n_agents: int = 5) -> Sequence[Example]:
    task = SplitFacts(n_agents)
    return task.train(limit, seed) if split == "train" else task.test(limit, seed)


def facts(text: str) -> dict[tuple[str, str], str]:
    """(attribute, place) -> value"""
    return {(attribute, place): value for attribute, place, value in FACT.findall(text)}


def asked(example: Example) -> tuple[str, str]:
    found = re.fullmatch(r"What is the ([a-z ]+) of the ([a-z ]+)\? Answer with the number only\.", example.question)
    assert found is not None, example.question
    return found[1], found[2]


def words(examples: Iterable[Example]) -> dict[str, set[str]]:
    """The places, keepers, names and values that questions and notes mention."""
    notes = [note for example in examples for note in example.notes]
    return {
        "places": {place for note in notes for _, place in facts(note.text)},
        "keepers": {note.role for note in notes if note.role != "gossip"},
        "names": {re.match(r"Note of (\w+),", note.text)[1] for note in notes},  # type: ignore[index]
        "values": {value for note in notes for value in VALUE.findall(note.text)},
    }


def test_it_is_a_task() -> None:
    task = SplitFacts()
    assert isinstance(task, Task)
    assert (task.name, task.domain) == ("split_facts", "split_facts")


def test_train_and_test_have_no_place_keeper_name_or_value_in_common() -> None:
    train, test = words(drawn("train", 1000)), words(drawn("test", 500))
    for kind, found in train.items():
        assert found and test[kind], kind
        assert not found & test[kind], kind
    # all that there is was drawn, so that nothing was left out of the comparison
    assert train["places"] == {place for _, place in PLACES[:TRAIN_PLACES]}
    assert test["places"] == {place for _, place in PLACES[TRAIN_PLACES:]}
    assert train["names"] == set(NAMES[:TRAIN_NAMES]) and test["names"] == set(NAMES[TRAIN_NAMES:])
    assert len(train["values"]) > 600 and len(test["values"]) > 200


def test_places_keepers_and_names_are_listed_once() -> None:
    for listed in ([place for _, place in PLACES], [keeper for keeper, _ in PLACES], list(NAMES)):
        assert [name for name, count in Counter(listed).items() if count > 1] == []


@pytest.mark.parametrize("split", SPLITS)
def test_the_asked_fact_stands_in_exactly_one_note_and_the_gossip_contradicts_it(split: str) -> None:
    for example in drawn(split):
        told = {note.kind: facts(note.text).get(asked(example)) for note in example.notes}
        assert told.pop("asked keeper") == example.answer
        rumour = told.pop("gossip")
        assert rumour is not None and rumour != example.answer
        assert rumour == example.meta["rumour"]
        assert set(told.values()) <= {None}  # the other keepers say nothing of it
        assert sum(example.answer in VALUE.findall(note.text) for note in example.notes) == 1
        assert example.answer not in example.question


@pytest.mark.parametrize("split", SPLITS)
def test_the_gossip_is_wrong_about_everybodys_place(split: str) -> None:
    for example in drawn(split, 50):
        (gossip,) = [note for note in example.notes if note.kind == "gossip"]
        truth = {key: value for note in example.notes if note is not gossip for key, value in facts(note.text).items()}
        told = facts(gossip.text)
        assert told.keys() == truth.keys() and len(truth) == 4
        assert not set(told.values()) & set(truth.values())
        values = [value for note in example.notes for value in VALUE.findall(note.text)]
        assert len(set(values)) == len(values) == 8
        assert all(re.fullmatch("[1-9][0-9]{2}", value) for value in values)


@pytest.mark.parametrize("split", SPLITS)
def test_a_keeper_knows_its_own_place_alone(split: str) -> None:
    keepers = dict(PLACES)
    for example in drawn(split, 50):
        attribute, place = asked(example)
        assert attribute in ATTRIBUTES
        for note in example.notes:
            if note.kind != "gossip":
                assert list(facts(note.text)) == [(attribute, keepers[note.role])]
        (keeper,) = [note for note in example.notes if note.kind == "asked keeper"]
        assert (keeper.role, place) == (example.meta["keeper"], example.meta["place"])


@pytest.mark.parametrize("split", SPLITS)
def test_no_role_or_description_gives_a_value_a_person_or_the_kind_away(split: str) -> None:
    for example in drawn(split):
        for note in example.notes:
            public = f"{note.role} {note.description}"
            assert not re.search(r"\d", public)
            assert "asked" not in public and "other" not in public
            assert not any(re.search(rf"\b{name}\b", public) for name in NAMES)


def test_a_keeper_is_described_alike_whether_asked_or_not() -> None:
    seen: dict[str, set[tuple[str, str]]] = {}
    for example in drawn("train", 300):
        for note in example.notes:
            seen.setdefault(note.role, set()).add((note.description, note.text.partition(",")[2].partition(":")[0]))
    assert all(len(ways) == 1 for ways in seen.values())


@pytest.mark.parametrize("split", SPLITS)
def test_neither_the_asked_keeper_nor_the_gossip_has_a_seat_of_its_own(split: str) -> None:
    for kind in ("asked keeper", "gossip"):
        seats = Counter([note.kind for note in example.notes].index(kind) for example in drawn(split, 400))
        assert set(seats) == set(range(5))
        assert max(seats.values()) < 120  # 80 expected, deviation 8


def test_questions_are_the_same_for_a_seed_and_others_for_another() -> None:
    task = SplitFacts()
    assert task.train(20, seed=3) == SplitFacts().train(20, seed=3)
    assert task.test(20, seed=3) == SplitFacts().test(20, seed=3)
    others = {example.question + example.answer for example in task.train(20, seed=4)}
    assert not others & {example.question + example.answer for example in task.train(20, seed=3)}


def test_a_limit_takes_the_first_questions_of_the_same_split() -> None:
    task = SplitFacts(train_size=30, test_size=10)
    assert (len(task.train()), len(task.test())) == (30, 10)
    assert task.train(5) == task.train()[:5]
    assert task.test(5) == task.test()[:5]
    ids = [example.id for example in (*task.train(), *task.test(), *task.train(seed=1))]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize(("limit", "seed", "named"), [(0, 0, "limit must be 1"), (None, -1, "seed must be 0")])
def test_impossible_limits_and_seeds_are_refused(limit: int | None, seed: int, named: str) -> None:
    for split in (SplitFacts().train, SplitFacts().test):
        with pytest.raises(ConfigError, match=named):
            split(limit, seed)


def most_agents() -> int:
    with pytest.raises(ConfigError, match=r"from 3 to (\d+)") as refused:
        SplitFacts(1000)
    found = re.search(r"from 3 to (\d+)", str(refused.value))
    assert found is not None
    return int(found[1])


@pytest.mark.parametrize("n_agents", [-1, 0, 2, most_agents() + 1])
def test_too_few_or_too_many_agents_are_refused(n_agents: int) -> None:
    with pytest.raises(ConfigError, match=rf"n_agents must be from 3 to \d+ for split_facts, got {n_agents}"):
        SplitFacts(n_agents)


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("n_agents", range(3, most_agents() + 1))
def test_every_number_of_agents_that_is_allowed_can_be_dealt(split: str, n_agents: int) -> None:
    for example in drawn(split, 5, n_agents=n_agents):
        kinds = Counter(note.kind for note in example.notes)
        assert kinds == {"gossip": 1, "asked keeper": 1, "other keeper": n_agents - 2}
        assert len({note.role for note in example.notes}) == n_agents
        assert len({note.text.split(",")[0] for note in example.notes}) == n_agents


@pytest.mark.parametrize(
    ("text", "outcome"),
    [("{answer}", "right"), (" {answer}.", "right"), ("It is {answer}", "right"), ("{rumour}", "wrong"),
     ("", "unparsed"), ("I do not know", "unparsed"), ("it is {answer} or {rumour}", "unparsed")],
)  # fmt: skip
def test_grading(text: str, outcome: str) -> None:
    for example in drawn("test", 5):
        said = text.format(answer=example.answer, rumour=example.meta["rumour"])
        assert SplitFacts().grade(said, example).outcome == outcome


def test_without_the_gossip_all_are_keepers() -> None:
    for example in SplitFacts(4, gossip=False).test(50):
        assert Counter(note.kind for note in example.notes) == {"asked keeper": 1, "other keeper": 3}


def test_adversaries_insist_on_a_wrong_value_in_the_same_world() -> None:
    alone, pushed = SplitFacts().train(50), SplitFacts(adversary=2).train(50)
    for without, example in zip(alone, pushed, strict=True):
        assert (without.question, without.answer) == (example.question, example.answer)
        keepers = {note for note in example.notes if note.kind != "adversary"}
        assert keepers == set(without.notes)
        claims = [note for note in example.notes if note.kind == "adversary"]
        assert len(claims) == 2 and len({note.text for note in claims}) == 2
        known = {value for note in keepers for value in facts(note.text).values()}
        for note in claims:
            (told,) = facts(note.text).items()
            assert told[0] == asked(example)
            assert told[1] not in known


@pytest.mark.parametrize("options", [{"gossip": "no"}, {"adversary": -1}, {"adversary": True}, {"adversary": 9}])
def test_bad_options_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="must be"):
        SplitFacts(**options)  # type: ignore[arg-type]
