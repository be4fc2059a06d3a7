"""Questions about documents: how answers are graded, and what rows mean."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gcache.errors import ConfigError, DataError
from gcache.tasks.answer_overlap import Overlap, normalized, overlap, short_answer
from gcache.tasks.example import Example, Task, f1s_of
from gcache.tasks.reading import OTHER, SUPPORTING, UNKNOWN, right_answers
from gcache.tasks.registry import make_task
from tests import needs

HOPS: dict[str, Any] = {
    "_id": "5a7", "question": "Where was the author of The Reed born?", "answer": "Lund", "type": "bridge",
    "context": [["Harbors", ["Harbors are old.", " Some are new."]], ["The Reed", ["The Reed is a novel by Ida Ek."]],
                ["Ida Ek", ["Ida Ek was born in Lund.", " She wrote."]]],
    "supporting_facts": [["The Reed", 0], ["Ida Ek", 0]],
}  # fmt: skip
MUSIQUE: dict[str, Any] = {
    "id": "2hop__1_2", "question": "Where?", "answer": "Lund", "answer_aliases": ["Lund, Sweden"], "answerable": True,
    "paragraphs": [{"idx": 0, "title": "Ida Ek", "paragraph_text": "Mrs. Ek was born in Lund. She wrote.",
                    "is_supporting": True},
                   {"idx": 1, "title": "Harbors", "paragraph_text": "Harbors are old.", "is_supporting": False}],
}  # fmt: skip
SQUAD: dict[str, Any] = {
    "id": "57", "title": "Ida_Ek", "context": "Ida Ek was born in Lund. She wrote.", "question": "Where?",
    "answers": [{"text": "Lund", "answer_start": 19}, {"text": "in Lund", "answer_start": 16}],
}  # fmt: skip
TIPSHEET: dict[str, Any] = {
    "prompt_A": "Oak LLC grows. Elm LLC shrinks.", "prompt_B": "Choose from Oak LLC, Elm LLC.",
    "options": ["Oak LLC", "Elm LLC"], "label": "Oak LLC",
}  # fmt: skip


def made(tmp_path: Path, name: str, *rows: dict[str, Any], **options: Any) -> Task:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return make_task(name, path, whole_file=True, **options)


def one(tmp_path: Path, name: str, row: dict[str, Any]) -> Example:
    (example,) = made(tmp_path, name, row).test()
    return example


# -- overlap --------------------------------------------------------------------------------


@pytest.mark.parametrize("answer, same", [
    ("the Beatles!", "beatles"), ("A. A. Milne", "milne"), ("  new\n York ", "New York"), ("U.S.", "us"),
    ("An apple a day", "apple day"), ("rock 'n' roll", "rock n roll"),
])  # fmt: skip
def test_what_does_not_count(answer: str, same: str) -> None:
    assert normalized(answer) == normalized(same)


def test_letters_and_accents_count() -> None:
    assert normalized("Ångström") != normalized("Angstrom") and normalized("theatre") == "theatre"


@pytest.mark.parametrize("answer, right, closed, found", [
    ("Lund", ["Lund"], False, (True, 1.0)),
    ("in Lund", ["Lund"], False, (False, 2 / 3)),  # precision 1/2, recall 1
    ("the the Lund", ["Lund"], False, (True, 1.0)),
    ("Lund Lund", ["Lund"], False, (False, 2 / 3)),  # a word counts as often as it is right
    ("Rome", ["Lund"], False, (False, 0.0)),
    ("the city Lund in Sweden", ["Rome", "Lund, Sweden"], False, (False, 2 * (2 / 4) * 1 / (2 / 4 + 1))),
    ("yes it is", ["yes"], False, (False, 0.5)),
    ("yes it is", ["yes"], True, (False, 0.0)),
    ("no", ["no one knows"], True, (False, 0.0)),
    ("Yes.", ["yes"], True, (True, 1.0)),
])  # fmt: skip
def test_overlap_by_hand(answer: str, right: list[str], closed: bool, found: tuple[bool, float]) -> None:
    made = overlap(answer, right, closed)
    assert made.exact == found[0] and made.f1 == pytest.approx(found[1])


def test_exact_match_and_f1_may_be_of_different_right_answers() -> None:
    assert overlap("a b c d e", ["x", "b c d e"]) == Overlap(True, 1.0)
    assert overlap("b c", ["b", "b c d e f g h"]).f1 == pytest.approx(2 / 3)


@pytest.mark.parametrize("text, answer", [
    ("Lund", "Lund"), ("\n\n Lund. \nIt is a town.", "Lund."), ("I think so.\nAnswer: Lund\n", "Lund"), (" \n", ""),
    ("Answer: Rome\nAnswer:\n Lund", "Lund"), ("So. The answer, in a few words, is: Lund", "Lund"),
    ("The answer is: Lund", "Lund"), ("No answer there", "No answer there"),
])  # fmt: skip
def test_the_answer_of_a_text(text: str, answer: str) -> None:
    assert short_answer(text) == answer


def test_grades_and_what_they_are_worth(tmp_path: Path) -> None:
    task = made(tmp_path, "hotpotqa", HOPS)
    (example,) = task.test()
    texts = ("Lund", "in Lund", "Rome", " ")
    grades = [task.grade(text, example) for text in texts]
    assert [grade.outcome for grade in grades] == ["right", "wrong", "wrong", "unparsed"]
    assert [grade.utility for grade in grades] == pytest.approx([1.0, 2 / 3, 0.0, 0.0]) == list(f1s_of(grades))
    exact = made(tmp_path, "hotpotqa", HOPS, utility="em")
    assert [exact.grade(text, example).utility for text in texts] == [1.0, 0.0, 0.0, 0.0]
    assert f1s_of([exact.grade(text, example) for text in texts]) == f1s_of(grades)
    assert f1s_of([]) == ()
    with pytest.raises(ConfigError, match="unknown utility 'f2'; choose one of: em, f1"):
        made(tmp_path, "hotpotqa", HOPS, utility="f2")


# -- rows -----------------------------------------------------------------------------------


def test_a_row_of_two_hops(tmp_path: Path) -> None:
    example = one(tmp_path, "hotpotqa", HOPS)
    assert (example.id, example.question, example.answer) == ("hotpotqa-5a7", HOPS["question"], "Lund")
    assert example.meta == {"type": "bridge", "supporting": "1 2"}
    assert [note.kind for note in example.notes] == [OTHER, SUPPORTING, SUPPORTING]
    assert [note.role for note in example.notes] == ["Harbors", "The Reed", "Ida Ek"]
    assert example.notes[2].description == "Ida Ek: Ida Ek was born in Lund."
    assert example.notes[2].text == "Ida Ek: Ida Ek was born in Lund. She wrote."
    assert one(tmp_path, "2wikimultihopqa", HOPS).id == "2wikimultihopqa-5a7"


def test_the_hub_nests_a_row_otherwise(tmp_path: Path) -> None:
    titles, sentences = zip(*HOPS["context"], strict=True)
    nested = {
        **{key: value for key, value in HOPS.items() if key != "_id"}, "id": "5a7",
        "context": {"title": list(titles), "sentences": list(sentences)},
        "supporting_facts": {"title": ["The Reed", "Ida Ek"], "sent_id": [0, 0]},
    }  # fmt: skip
    assert one(tmp_path, "hotpotqa", nested) == one(tmp_path, "hotpotqa", HOPS)
    as_text = {**HOPS, "context": json.dumps(HOPS["context"])}
    assert one(tmp_path, "hotpotqa", as_text) == one(tmp_path, "hotpotqa", HOPS)


def test_which_documents_are_needed_may_not_be_known(tmp_path: Path) -> None:
    example = one(tmp_path, "hotpotqa", {key: value for key, value in HOPS.items() if key != "supporting_facts"})
    assert [note.kind for note in example.notes] == [UNKNOWN] * 3 and "supporting" not in example.meta


def test_a_row_of_musique(tmp_path: Path) -> None:
    task = made(tmp_path, "musique", MUSIQUE, {**MUSIQUE, "answerable": False})
    (example,) = task.test()
    assert right_answers(example) == ("Lund", "Lund, Sweden") and example.meta["supporting"] == "0"
    assert example.notes[0].description == "Ida Ek: Mrs. Ek was born in Lund."
    assert task.grade("lund sweden", example).outcome == "right"


def test_a_row_of_squad(tmp_path: Path) -> None:
    example = one(tmp_path, "squad", SQUAD)
    assert right_answers(example) == ("Lund", "in Lund")
    (note,) = example.notes
    assert (note.role, note.text) == ("Ida Ek", "Ida Ek: Ida Ek was born in Lund. She wrote.")
    of_hub = {**SQUAD, "answers": {"text": ["Lund", "in Lund"], "answer_start": [19, 16]}}
    assert one(tmp_path, "squad", of_hub) == example
    assert len(made(tmp_path, "squad", SQUAD, {**SQUAD, "answers": []}).test()) == 1  # no answer, not asked


def test_the_tasks_of_kvcomm(tmp_path: Path) -> None:
    countries = {"id": "c1", "prompt_A": "Uma is at the mill.", "prompt_B": "Where is Uma?", "y": "Norway"}
    example = one(tmp_path, "countries", countries)
    assert (example.question, example.answer) == ("Where is Uma?", "Norway")
    assert example.notes[0].text == "Uma is at the mill."
    task = made(tmp_path, "tipsheets", TIPSHEET)
    (sheet,) = task.test()
    said = ("Oak LLC", "I choose Elm LLC.", "Oak LLC or Elm LLC", "none", "Oak LLC\nnot Elm LLC")
    assert [task.grade(text, sheet).outcome for text in said] == ["right", "wrong", "unparsed", "unparsed", "right"]
    for name in ("countries", "tipsheets"):
        with pytest.raises(ConfigError, match=f"the task '{name}' needs the option 'data'; pass --data FILE"):
            make_task(name)


@pytest.mark.parametrize("name, row, said", [
    ("hotpotqa", {**HOPS, "context": []}, r"'context' must be a list of \[title, sentences\], got \[\]"),
    ("hotpotqa", {**HOPS, "context": [["t", "One."]]}, "paragraph 't' must be a list of sentences, got 'One.'"),
    ("hotpotqa", {**HOPS, "context": [["t", [" "]]]}, "paragraph 't' must be a list of sentences"),
    ("hotpotqa", {**HOPS, "context": {"title": ["t"], "sentences": []}}, "as many entries in 'title' as in"),
    ("hotpotqa", {**HOPS, "supporting_facts": [["Elsewhere", 0]]}, "names 'Elsewhere', which is the title of no"),
    ("hotpotqa", {**HOPS, "answer": "..."}, r"the answer '\.\.\.' cannot be read"),
    ("hotpotqa", {**HOPS, "answer": "Answer: Lund"}, "cannot be read in a text: it has .answer:."),
    ("musique", {**MUSIQUE, "paragraphs": ["x"]}, "'paragraphs' must be a list of objects"),
    ("musique", {**MUSIQUE, "answer_aliases": [1]}, "'answer_aliases' must be a list of strings"),
    ("musique", {**MUSIQUE, "paragraphs": [{**MUSIQUE["paragraphs"][0], "is_supporting": "yes"}]}, "true or false"),
    ("squad", {**SQUAD, "answers": "Lund"}, "'answers' must hold a list of texts"),
    ("tipsheets", {**TIPSHEET, "label": "Ash LLC"}, "must be one of different options"),
    ("tipsheets", {**TIPSHEET, "options": ["Oak LLC", "OAK LLC"]}, "must be one of different options"),
])  # fmt: skip
def test_a_broken_row_is_named(tmp_path: Path, name: str, row: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=f"rows.jsonl, line 1: .*{said}"):
        made(tmp_path, name, row)


@pytest.mark.parametrize("name, parts, n, most", [
    ("hotpotqa", ("hotpotqa", "test.jsonl.gz"), 500, 10), ("musique", ("musique", "test.jsonl.gz"), 150, 20),
    ("2wikimultihopqa", ("2wikimultihopqa", "train.jsonl.gz"), 350, 10), ("squad", ("squad", "test.jsonl.gz"), 4000, 1),
    ("countries", ("kvcomm", "countries.jsonl.gz"), 150, 1), ("tipsheets", ("kvcomm", "tipsheets.jsonl.gz"), 400, 1),
])  # fmt: skip
def test_the_data_sets_themselves(name: str, parts: tuple[str, ...], n: int, most: int) -> None:
    task = make_task(name, needs.data_file(*parts), whole_file=True)
    examples = task.test()
    assert len(examples) == n == len({example.id for example in examples})
    assert max(len(example.notes) for example in examples) == most
    assert all(task.grade(f" {example.answer}.", example).outcome == "right" for example in examples)
    if most > 1:
        assert all(2 <= len(example.meta["supporting"].split()) <= 4 for example in examples)
