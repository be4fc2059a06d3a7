"""Which documents name which others."""

from __future__ import annotations

import pytest

from gcache.tasks.citations import name_of, says, with_citations
from gcache.tasks.example import Note
from gcache.tasks.reading import Document, asked_of
from gcache.tasks.registry import make_task


def cited(*documents: tuple[str, str]) -> list[tuple[str, ...]]:
    notes = [Note(title, title, f"{title}: {text}") for title, text in documents]
    return [note.cites for note in with_citations(notes)]


def test_a_document_names_others_whatever_the_case_and_punctuation() -> None:
    found = cited(
        ("Ida Moe", "She made HARBOUR-LIGHTS in 1950."),
        ("Harbour Lights (film)", "A film by Ida Moe, of Bergen."),
        ("Bergen", "A city. Ida Moes live here."),
    )
    assert found == [("Harbour Lights (film)",), ("Ida Moe", "Bergen"), ()]


def test_no_document_names_itself_or_one_of_its_own_title() -> None:
    assert cited(("Bergen", "Bergen is a city."), ("Bergen", "Bergen is a hill.")) == [(), ()]


@pytest.mark.parametrize("title", ["It", "M", "(film)", "?!", ""])
def test_a_title_that_could_be_any_word_is_not_named(title: str) -> None:
    assert cited(("Ida Moe", f"She saw it, {title}, m and film."), (title, "A film.")) == [(), ()]


def test_letters_of_any_script_are_words() -> None:
    assert cited(("Нева", "Река."), ("Река", "Нева течёт.")) == [("Река",), ("Нева",)]
    assert says("Where is Fjörður?", name_of("fjörður")) and not says("Where is it?", name_of("Fjörður"))


def test_questions_about_documents_say_who_names_whom() -> None:
    asked = asked_of("q", "Who?", ["Moe"], [Document("A film", "By Ida Moe."), Document("Ida Moe", "A director.")])
    assert [note.cites for note in asked.notes] == [("Ida Moe",), ()]


def test_other_tasks_name_nobody() -> None:
    assert all(not note.cites for note in make_task("split_facts").test(1)[0].notes)


def test_documents_do_not_name_others_by_their_own_titles() -> None:
    found = cited(
        ("The Tide (film)", "A film of 1975."), ("The Tide (novel)", "A book."), ("The Tide 2", "It follows The Tide.")
    )
    assert found == [(), (), ("The Tide (film)", "The Tide (novel)")]


def test_one_letter_may_be_written_in_two_ways() -> None:
    assert cited(("Ana", "She met Rene\u0301 Roux."), ("Ren\u00e9 Roux", "A man.")) == [("Ren\u00e9 Roux",), ()]


def test_many_documents_take_time_in_proportion() -> None:
    notes = [Note(f"Person {n} Smith", "x", f"Person {n} Smith: met Person {n + 1} Smith. " * 20) for n in range(3000)]
    found = with_citations(notes)  # some 24,000 words and 3,000 titles: pairs of both would be minutes
    assert found[7].cites == ("Person 8 Smith",) and found[-1].cites == ()
