"""Which documents a method has: the nearest, the needed, all or none."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from gcache.commands.compare import _hold_notes
from gcache.commands.main import main
from gcache.errors import ConfigError
from gcache.evaluation.compare import compare, markdown
from gcache.evaluation.documents import (
    DocumentChoice,
    OnDocuments,
    check_choices,
    make_choices,
    needed,
    on_choices,
    original,
    set_f1,
)
from gcache.evaluation.method import Answer, DeferredMethod
from gcache.tasks.example import Example, Grade, Note

TEXTS = (
    "Lisbon: Lisbon is the capital of Portugal.",
    "Tagus: The Tagus is a river that flows past the capital of Portugal.",
    "Chess: Chess is played on a board of 64 squares.",
    "Bread: Bread is made of flour and water.",
)
EXAMPLE = Example(
    "q", "Which river flows past the capital of Portugal?", "the Tagus",
    tuple(Note(text.split(":")[0], text, text) for text in TEXTS), {"supporting": "0 1"},
)  # fmt: skip


def kept(name: str, example: Example = EXAMPLE) -> Example:
    (choice,) = make_choices([name])
    return choice.of(example)


@pytest.mark.parametrize(
    "name, left", [("all", (0, 1, 2, 3)), ("none", ()), ("supporting", (0, 1)), ("bm25:1", (1,)), ("bm25:2", (0, 1))]
)
def test_choices(name: str, left: tuple[int, ...]) -> None:
    example = kept(name)
    assert [note.text for note in example.notes] == [TEXTS[number] for number in left]
    assert original(example, range(len(example.notes))) == left
    assert needed(example) == (0, 1)  # by the numbers that they had at first
    assert (example.id, example.question, example.answer) == (EXAMPLE.id, EXAMPLE.question, EXAMPLE.answer)


@pytest.mark.embedded
def test_the_nearest_by_embeddings() -> None:
    assert [note.role for note in kept("cosine:2").notes] == ["Lisbon", "Tagus"]


def test_what_bm25_knows_nothing_of_is_in_order() -> None:
    assert [note.role for note in kept("bm25:2", replace(EXAMPLE, question="Zebras?")).notes] == ["Lisbon", "Tagus"]
    assert len(kept("bm25:9").notes) == 4  # there are no more


@pytest.mark.parametrize("texts", [("the of", "a b c"), ("\u6f22 \u5b57", "x"), ("the", "of")])
def test_bm25_of_documents_without_a_word_that_counts(texts: tuple[str, str]) -> None:
    notes = tuple(Note(f"n{number}", "", text) for number, text in enumerate(texts))
    assert [note.role for note in kept("bm25:1", replace(EXAMPLE, notes=notes, meta={})).notes] == ["n0"]


def test_bm25_ranks_among_this_questions_documents_alone() -> None:
    """A word that all of them have tells nothing."""
    notes = tuple(Note(name, "", text) for name, text in (("a", "red box"), ("b", "red hat"), ("c", "red red shoe")))
    example = replace(EXAMPLE, question="the red hat", notes=notes, meta={})
    assert [note.role for note in kept("bm25:1", example).notes] == ["b"]


@pytest.mark.parametrize(
    "heard, wanted, f1",
    [((0, 1), (0, 1), 1), ((0,), (0, 1), 2 / 3), ((2, 3), (0, 1), 0), (range(10), (0, 1), 1 / 3), ((), (0, 1), 0)],
)
def test_f1_of_sets(heard: Sequence[int], wanted: Sequence[int], f1: float) -> None:
    assert set_f1(heard, wanted) == pytest.approx(f1)


@pytest.mark.parametrize(
    "name",
    ["nearest", "cosine", "cosine:0", "bm25:-1", "bm25:x", "all:2", "", "cosine:\u00b2", "bm25:999999999"],
)
def test_an_unknown_choice_is_one_line(name: str) -> None:
    with pytest.raises(ConfigError, match=r"unknown choice of documents .*all, none, supporting, cosine:K, bm25:K"):
        make_choices([name])


def test_a_choice_is_named_once() -> None:
    with pytest.raises(ConfigError, match="each be named once, got all, all"):
        make_choices(["all", "all"])


def test_what_cannot_be_chosen_from_is_found_before_any_work() -> None:
    check_choices([], [replace(EXAMPLE, notes=())])
    check_choices(["supporting"], [EXAMPLE])
    with pytest.raises(ConfigError, match="'q' has no documents to choose from; leave out --documents"):
        check_choices(["all"], [replace(EXAMPLE, notes=())])
    with pytest.raises(ConfigError, match="does not say which documents of question 'q' are needed"):
        check_choices(["supporting"], [replace(EXAMPLE, meta={})])


class Reader:
    """States the titles of what it has."""

    name = "reader"

    def answer(self, examples: Sequence[Example], on_answer: Callable[[], None] = lambda: None) -> list[Answer]:
        return [
            Answer(
                e, " ".join(note.role for note in e.notes), {"prefilled": 1, "latent": 0, "generated": 1},
                documents=original(e, range(len(e.notes))) if e.notes else None,
            )
            for e in examples
        ]  # fmt: skip


class Titles:
    name, domain, max_new_tokens = "titles", "reading", 4

    def train(self, limit: int | None = None, seed: int = 0) -> Sequence[Example]:
        return [EXAMPLE]

    test = train

    def grade(self, text: str, example: Example) -> Grade:
        return Grade("right" if "Tagus" in text else "wrong", text)


def test_a_method_on_a_choice_has_these_alone_and_the_table_says_which() -> None:
    choices = make_choices(["all", "bm25:1", "none"])
    rows = compare([OnDocuments(Reader(), choice) for choice in choices], Titles(), [EXAMPLE, EXAMPLE], progress=False)
    assert [row.name for row in rows] == ["reader, all", "reader, bm25:1", "reader, none"]
    assert [row.answers[0][3] for row in rows] == ["Lisbon Tagus Chess Bread", "Tagus", ""]
    assert [row.documents for row in rows] == [((0, 1, 2, 3),) * 2, ((1,),) * 2, ((),) * 2]
    assert [row.document_f1s[0] for row in rows] == pytest.approx([2 * 2 / 6, 2 / 3, 0])
    assert json.loads(json.dumps(rows[0].to_json()))["documents"] == [[0, 1, 2, 3]] * 2
    head, _, first, second, third = markdown(rows).splitlines()
    assert head.count("F1 of documents") == 2 and "| documents |" in head
    column = head.split(" | ").index("documents")
    assert [line.split(" | ")[column] for line in (first, second, third)] == ["4.00", "1.00", "0.00"]


def test_a_graph_without_documents_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    class Agents(Reader):
        name, agents_hold_notes = "agents", True

    with caplog.at_level("INFO"):
        found = on_choices([Reader(), Agents()], make_choices(["none", "all"]))
    assert [method.name for method in found] == ["reader, none", "reader, all", "agents, all"]
    assert "agents is left out where there are no documents" in caplog.text


def test_a_method_that_says_nothing_of_its_documents_is_not_said_to_have_none() -> None:
    class Silent(Reader):
        def answer(self, examples: Sequence[Example], on_answer: Callable[[], None] = lambda: None) -> list[Answer]:
            return [replace(answer, documents=None) for answer in super().answer(examples)]

    rows = compare([OnDocuments(Silent(), choice) for choice in make_choices(["all"])], Titles(), [EXAMPLE], False)
    assert (rows[0].documents, rows[0].document_f1s) == ((), ())


def test_a_deferred_graph_is_left_out_too() -> None:
    """Of several quantizations, each model is made when it is asked."""
    graph = DeferredMethod("graph", Reader, agents_hold_notes=True)
    one = DeferredMethod("one", Reader)
    assert [method.name for method in on_choices([graph, one], make_choices(["none"]))] == ["one, none"]
    assert [_hold_notes(name) for name in ("gcache", "latent_mas", "text_mas", "single")] == [True, True, True, False]


def test_graphs_alone_on_no_documents_are_refused_before_a_model_is_loaded(tmp_path: Path, capsys: object) -> None:
    data = tmp_path / "hotpot.jsonl"
    row = {"question": "how many ?", "answer": "4", "context": [["Box", ["the box"]]], "supporting_facts": [["Box", 0]]}
    data.write_text(json.dumps(row) + "\n")
    asked = ["compare", "--methods", "gcache", "--task", "hotpotqa", "--data", str(data), "--documents", "none"]
    assert main([*asked, "--llm_name", "nowhere"]) == 2
    assert "without documents nobody is there to be heard" in capsys.readouterr().err  # type: ignore[attr-defined]


def test_a_choice_may_come_from_outside() -> None:
    """Anything that picks numbers."""
    last = DocumentChoice("last", lambda example: [len(example.notes) - 1])
    (answer,) = OnDocuments(Reader(), last).answer([EXAMPLE])
    assert (answer.text, answer.documents, answer.example) == ("Bread", (3,), EXAMPLE)


def test_questions_without_documents_have_no_such_columns(tmp_path: Path) -> None:
    plain = replace(EXAMPLE, notes=(), meta={})
    rows = compare([Reader()], Titles(), [plain], progress=False)
    assert (rows[0].documents, rows[0].document_f1s) == ((), ()) and "documents" not in markdown(rows)
