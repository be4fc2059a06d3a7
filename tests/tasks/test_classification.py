"""Labelled texts, dealt out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gcache.errors import ConfigError, DataError
from gcache.tasks.classification import named
from gcache.tasks.registry import make_task

CSV = "text,category\n" + "".join(f'"Where is card {n}, please?",card_arrival\n' for n in range(30)) + "".join(
    f"I lost it {n}.,lost_or_stolen_card\nWhat fee is {n}?,card_payment_fee_charged\n" for n in range(30)
)  # fmt: skip


@pytest.fixture
def banking(tmp_path: Path) -> Path:
    path = tmp_path / "train.csv"
    path.write_text(CSV)
    return path


def test_the_text_is_one_agents_alone(banking: Path) -> None:
    for example in make_task("banking77", banking).train():
        (note,) = example.notes
        assert note.text.startswith('The message is: "')
        assert note.text.split('"')[1] not in example.question
        assert example.question == (
            "What is the customer's message about? card arrival; card payment fee charged; lost or stolen card."
        )


def test_splits_share_no_text_and_are_not_sorted_by_label(banking: Path) -> None:
    task = make_task("banking77", banking)
    train, test = ({e.notes[0].text for e in split} for split in (task.train(), task.test()))
    assert len(train) + len(test) == 90 and not train & test
    assert len({e.answer for e in task.train(10)}) == 3
    assert {e.id for e in task.train(10, 1)} != {e.id for e in task.train(10)}
    assert task.labels() == ["card arrival", "card payment fee charged", "lost or stolen card"]


def test_only_some_classes(banking: Path) -> None:
    task = make_task("banking77", banking, classes=2, whole_file=True)
    assert {e.answer for e in task.test()} == {"card arrival", "card payment fee charged"}
    assert task.test()[0].question.endswith("card arrival; card payment fee charged.")
    with pytest.raises(DataError, match="there are 3 labels, but classes=4; ask for fewer"):
        make_task("banking77", banking, classes=4)
    for classes in (1, 0, -2, True, "3", 2.0):
        with pytest.raises(ConfigError, match="classes must be 2 or more"):
            make_task("banking77", banking, classes=classes)


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("card arrival", "card arrival"),
        (" Card_Arrival.", "card arrival"),
        ("The label is\ncard  payment fee charged!", "card payment fee charged"),
        ("card payment", "card payment"),
        ("", None),
        ("it is about a card", None),
        ("card arrival or lost card", None),
        ("card arrivals", None),
        ("discard payment", None),
        ("card payment fee charged, that is, card payment fee charged", "card payment fee charged"),
        ("card payment fee charged, not card payment", "card payment fee charged"),
        ("not card payment but card arrival", "card arrival"),
        ("It is about card arrival, not about a lost card.", "card arrival"),
        ("card arrival? No, card payment.", "card payment"),
        ("not card arrival", None),
        ("It isn\u2019t about card arrival.", None),
        ("anything but card arrival", None),
        ("Is it card arrival?", None),
        ("If it is card arrival, they wait.", None),
        ("either card arrival or card payment", None),
        ("card arrival, card payment", None),
        ("card arrival is wrong", None),
    ],
)
def test_the_reader_never_guesses(text: str, label: str | None) -> None:
    assert named(text, ["card arrival", "card payment", "card payment fee charged", "lost card"]) == label


def test_a_label_that_has_a_denial_in_it_denies_nothing() -> None:
    labels = ["card not working", "card arrival", "lost or stolen card"]
    assert named("card not working", labels) == "card not working"
    assert named("It is card not working.", labels) == "card not working"
    assert named("lost or stolen card", labels) == "lost or stolen card"
    assert named("card not working, card arrival", labels) is None


def test_grades(banking: Path) -> None:
    task = make_task("banking77", banking)
    example = next(e for e in task.train() if e.answer == "card arrival")
    assert task.grade("card arrival", example).outcome == "right"
    assert task.grade("lost or stolen card", example).outcome == "wrong"
    assert task.grade("hm", example).outcome == "unparsed"


ROWS: dict[str, list[dict[str, Any]]] = {
    "sst2": [{"sentence": "a fine film", "label": 1}, {"sentence": "dull", "label": "negative"}],
    "ag_news": [{"text": "They won the cup.", "label": 1}, {"text": "Shares fell.", "label": "Business"}],
    "trec": [{"text": "Who wrote it ?", "coarse_label": 3}, {"text": "Where is it ?", "label-coarse": "5"}],
}
EXPECTED = {"sst2": ["negative", "positive"], "ag_news": ["business", "sports"], "trec": ["human", "location"]}


@pytest.mark.parametrize("name", sorted(ROWS))
def test_the_other_sets(name: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS[name]))
    assert sorted(e.answer for e in make_task(name, path, whole_file=True).train()) == EXPECTED[name]


@pytest.mark.parametrize(
    ("name", "row", "error"),
    [
        ("banking77", {"text": "a"}, "the field 'category' is missing"),
        ("banking77", {"category": "a"}, "the field 'text' is missing"),
        ("banking77", {"text": " ", "category": "a"}, "the field 'text' must be a non-empty string"),
        ("sst2", {"sentence": "a", "label": 2}, "'label' must be one of negative, positive, or a number from 0 to 1"),
        ("sst2", {"sentence": "a", "label": -1}, "got -1"),
        ("ag_news", {"text": "a"}, "'label' must be one of world, sports, business, science.*got None"),
        ("trec", {"text": "a", "coarse_label": True}, "'coarse_label' must be one of abbreviation.*got True"),
    ],
)
def test_a_broken_row_is_named(name: str, row: dict[str, Any], error: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({**ROWS.get(name, [{"text": "b", "category": "c"}])[0]}) + "\n" + json.dumps(row) + "\n")
    with pytest.raises(DataError, match=rf"rows\.jsonl, line 2: .*{error}"):
        make_task(name, path)


def test_the_installed_agents_work_on_it(banking: Path) -> None:
    from gcache.agents.decision import decision_maker
    from gcache.agents.roles import agents_for, pick_agents

    task = make_task("banking77", banking)
    assert pick_agents(task.domain) == ()
    assert agents_for(task.train()[0], ())[0].role == "reader"
    assert decision_maker(task.domain).answer_prefix == "Label:"
