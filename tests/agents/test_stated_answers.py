"""What votes go by, against what graders read."""

from __future__ import annotations

import pytest

from gcache.agents.decision import DECISION_MAKERS, DecisionMaker, decision_maker
from gcache.tasks.classification import named
from gcache.tasks.entities import KINDS, Entities
from gcache.tasks.example import Example
from gcache.tasks.reading import asked_of
from gcache.tasks.registry import make_task

READING = decision_maker("reading")
PARIS = asked_of("capital", "What is the capital of France?", ["Paris"], [])
TEXTS = ["London", "Paris.", "the Paris", "paris", "The answer is: Paris\nIt is in France.", "", "  \n ", "...", "a"]


@pytest.mark.parametrize("text", TEXTS)
def test_a_short_answer_is_stated_where_the_grader_reads_one(text: str) -> None:
    assert (READING.stated(text, PARIS.question) is None) == (_grade(text) == "unparsed")


def _grade(text: str) -> str:
    return make_task("hotpotqa").grade(text, PARIS).outcome


def test_answers_that_the_grader_takes_for_one_have_their_votes_together() -> None:
    texts = ["London", "Paris.", "the Paris", "paris"]
    assert texts[READING.combine(texts, [1.0] * 4, PARIS.question)] == "Paris."
    assert [c.texts for c in READING.candidates(texts, PARIS.question)] == [(0,), (1, 2, 3)]
    right = [_grade(text) for text in texts]
    assert right == ["wrong", "right", "right", "right"]


def test_labels_are_compared_without_case_and_full_stops() -> None:
    maker, labels = decision_maker("classification"), ["refund", "card lost"]
    texts = ["Label: card lost", "It is about money.\nLabel: refund", "Refund."]
    assert texts[maker.combine(texts, [1.0] * 3)] == texts[1]
    assert [named(text, labels) for text in texts] == ["card lost", "refund", "refund"]


@pytest.mark.parametrize(
    ("kind", "texts", "wins"),
    [
        ("number", ["I do not know", "Answer: 4821", "4821."], 1),
        ("number", ["no idea", "nobody said", "Answer: 4821"], 2),
        ("name", ["Answer: Belko", "Tarin", "tarin."], 1),
        ("colour", ["green", "Answer: purple.", "Purple"], 1),
    ],
)
def test_a_fact_is_a_number_only_where_one_is_asked_for(kind: str, texts: list[str], wins: int) -> None:
    maker, example = decision_maker("split_facts"), Entities(kind=kind).train(1)[0]
    assert maker.combine(texts, [1.0] * len(texts), example.question) == wins
    assert all(maker.candidates([text], example.question) for text in texts[wins:])


@pytest.mark.parametrize("kind", KINDS)
def test_the_right_fact_is_stated(kind: str) -> None:
    maker, task = decision_maker("split_facts"), Entities(kind=kind)
    for example in task.train(5):
        assert task.grade(example.answer, example).outcome == "right"
        assert maker.stated(f"Answer: {example.answer}", example.question) is not None


@pytest.mark.parametrize("domain", DECISION_MAKERS)
def test_nothing_states_nothing(domain: str) -> None:
    maker: DecisionMaker = decision_maker(domain)
    question = Example("q", "Which one? (A) one (B) two", "A").question
    assert maker.stated("", question) is None and maker.stated(" \n", question) is None
