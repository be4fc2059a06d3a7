from __future__ import annotations

import re

import pytest

from gcache.errors import ConfigError
from gcache.tasks.entities import ENDS, HEADS, KINDS, MIDDLES, Entities, grade_colour, grade_name
from gcache.tasks.example import Example, Task
from gcache.tasks.places import PLACES, TRAIN_PLACES
from gcache.tasks.worlds import COLOURS


def values(examples: list[Example], kind: str) -> set[str]:
    return {example.answer for example in examples if example.meta["kind"] == kind}


def test_it_is_a_task_with_one_agent_who_alone_has_the_answer() -> None:
    task = Entities()
    assert isinstance(task, Task)
    examples = [*task.train(300), *task.test(300)]
    for example in examples:
        (note,) = example.notes
        assert len(re.findall(rf"\b{example.answer}\b", note.text)) == 1, note.text
        assert example.answer not in example.question
        # what the policy and the decision maker may see of the agent does not have it either
        assert example.answer not in f"{note.role} {note.description}"
        assert task.grade(example.answer, example).outcome == "right"
        assert task.grade(note.text.split(": ", 1)[1], example).outcome == "right"
    assert {example.meta["kind"] for example in examples} == set(KINDS)
    assert len({example.id for example in examples}) == 600


def test_every_combination_of_syllables_is_a_name_of_its_own() -> None:
    names = {head + middle + end for head in HEADS for middle in MIDDLES for end in ENDS}
    assert len(names) == len(HEADS) * len(MIDDLES) * len(ENDS) == 4608


@pytest.mark.parametrize("kind", ["number", "name"])
def test_new_values_are_never_in_training_and_seen_ones_are_of_the_same_set(kind: str) -> None:
    train = values(list(Entities(kind).train(4000)), kind)
    new = values(list(Entities(kind).test(500)), kind)
    seen = values(list(Entities(kind, values="seen").test(500)), kind)
    assert not train & new and not new & seen
    assert len(seen & train) > len(seen) / 3  # training does not draw every name
    assert kind == "name" or seen <= train


def test_colours_are_a_closed_set() -> None:
    assert values(list(Entities("colour").train(400)), "colour") == set(COLOURS)
    assert values(list(Entities("colour").test(400)), "colour") == set(COLOURS)


@pytest.mark.parametrize("shown", ["new", "seen"])
def test_places_of_test_questions_are_new_in_any_case(shown: str) -> None:
    task = Entities(values=shown)
    trained = {example.meta["place"] for example in task.train(2000)}
    assert trained == {place for _, place in PLACES[:TRAIN_PLACES]}
    assert {example.meta["place"] for example in task.test(500)} == {place for _, place in PLACES[TRAIN_PLACES:]}


def test_the_same_seed_gives_the_same_questions_and_another_seed_others() -> None:
    assert Entities().test(20, 1) == Entities().test(20, 1)
    asked = [[(e.question, e.answer) for e in Entities().test(20, seed)] for seed in (0, 1)]
    assert asked[0] != asked[1]


@pytest.mark.parametrize(
    ("text", "outcome", "stated"),
    [
        ("Tamadan", "right", "Tamadan"),
        (' "Tamadan".\n', "right", "Tamadan"),
        ("The owner of the ferry is called Tamadan.", "right", "Tamadan"),
        ("Tamadan is the owner. The owner is Tamadan.", "right", "Tamadan"),
        ("Tamodan", "wrong", "Tamodan"),
        ("Not Belodan but Tamadan.", "right", "Tamadan"),
        ("Belodan? No, Tamadan.", "right", "Tamadan"),
        ("Tamadan or Belodan", "unparsed", None),
        ("It is not Tamadan.", "unparsed", None),
        ("The owner isn't Tamadan", "unparsed", None),
        ("Is it Tamadan?", "unparsed", None),
        ("If it is Tamadan, fine.", "unparsed", None),
        ("Neither Tamadan nor Belodan", "unparsed", None),
        ("I do not know.", "unparsed", None),
        ("tamadan", "unparsed", None),
        ("", "unparsed", None),
        ("123", "unparsed", None),
    ],
)
def test_names_are_graded_without_a_guess(text: str, outcome: str, stated: str | None) -> None:
    grade = grade_name(text, "Tamadan")
    assert (grade.outcome, grade.answer) == (outcome, stated)


@pytest.mark.parametrize(
    ("text", "outcome"),
    [("Red.", "right"), ("It is blue", "wrong"), ("red or blue", "unparsed"), ("no", "unparsed"),
     ("It is not red", "unparsed"), ("not a colour red", "unparsed"), ("not blue but red", "right"),
     ("Red, not blue.", "right"), ("Is it red?", "unparsed"), ("between red and blue", "unparsed")],
)  # fmt: skip
def test_colours_are_graded_without_a_guess(text: str, outcome: str) -> None:
    assert grade_colour(text, "red").outcome == outcome


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"kind": "smell"}, "unknown kind of entities 'smell'; choose one of: any, colour, name, number"),
        ({"values": "old"}, "unknown values of entities 'old'; choose one of: new, seen"),
    ],
)
def test_options_that_are_not_allowed(options: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(words)):
        Entities(**options)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="1 or more"):
        Entities().test(0)
