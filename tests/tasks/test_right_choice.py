"""Which choice a row names as the right one: by its label, its place or its words, never by what happens to match."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from data_rows import examples_of, refusal, right_words

from gcache.errors import DataError
from gcache.tasks.choice_rows import choices_of
from gcache.tasks.right_choice import right_choice

BLOOD = ["O", "A", "B", "AB"]
SPECIES = ["C. elegans", "D. melanogaster", "E. coli", "S. cerevisiae"]
Row = dict[str, Any]


def lettered(choices: list[str]) -> dict[str, str]:
    return dict(zip("ABCDEFGHIJ", choices, strict=False))


@pytest.mark.parametrize(
    ("task", "row", "right"),
    [
        # a label is a label, whatever the words of the choices are
        ("mmlu", {"choices": BLOOD, "answer": "A"}, "O"),
        ("mmlu", {"choices": BLOOD, "answer": "B"}, "A"),
        ("mmlu", {**lettered(BLOOD), "target": "C"}, "B"),
        ("arc_easy", {"choices": {"text": BLOOD, "label": list("ABCD")}, "answerKey": "B"}, "A"),
        ("medqa", {"options": lettered(BLOOD), "answer": "B", "answer_idx": "C"}, "B"),
        ("medqa", {"options": lettered(BLOOD), "answer_idx": "B"}, "A"),
        ("gpqa", {"options": BLOOD, "answer": "A"}, "O"),
        # labels as they come: any case, with blanks or brackets, as numbers
        ("arc_easy", {"choices": {"text": ["x", "y"], "label": ["A", "B"]}, "answerKey": " b "}, "y"),
        ("arc_easy", {"choices": {"text": ["x", "y"], "label": ["1", "2"]}, "answerKey": "1"}, "x"),
        ("arc_easy", {"choices": {"text": ["x", "y"], "label": ["1", "2"]}, "answerKey": 2}, "y"),
        ("arc_easy", {"choices": {"text": ["x", "y"], "label": [1, 2]}, "answerKey": "2"}, "y"),
        ("arc_easy", {"choices": {"text": ["x", "y"], "label": ["2", "1"]}, "answerKey": "1"}, "y"),
        ("arc_easy", {"choices": {"text": ["x", "y", "z"], "label": ["A", "C", "E"]}, "answerKey": "E"}, "z"),
        ("arc_easy", {"choices": {"text": ["1", "2"], "label": ["2", "1"]}, "answerKey": "1"}, "2"),
        ("mmlu", {"choices": ["x", "y"], "answer": "(b)"}, "y"),
        ("mmlu", {"choices": ["x", "y"], "answer": "B."}, "y"),
        ("medqa", {"options": {"C": "z", "A": "x", "B": "y"}, "answer_idx": "c"}, "z"),
        ("medqa", {"options": {"C": "z", "A": "x", "B": "y"}, "answer": "y"}, "y"),
        ("medqa", {"options": {"1": "x", "2": "y"}, "answer": "2"}, "y"),
        ("medqa", {"options": {**lettered(["x", "y", "z", "u"]), "E": None}, "answer_idx": "D"}, "u"),
        ("medqa", {"options": [{"key": "B", "value": "y"}, {"key": "A", "value": "x"}], "answer_idx": "B"}, "y"),
        # labels as the row prints them
        ("arc_easy", {"choices": {"text": ["x", "y"], "label": ["(A)", "(B)"]}, "answerKey": "B"}, "y"),
        ("arc_easy", {"choices": {"text": ["x", "y"], "label": ["(A)", "(B)"]}, "answerKey": "(b)"}, "y"),
        ("arc_easy", {"choices": {"text": ["x", "y"], "label": ["1.", "2."]}, "answerKey": "2"}, "y"),
        ("arc_easy", {"choices": {"text": ["(B) y", "(A) x"], "label": ["(B)", "(A)"]}, "answerKey": "A"}, "x"),
        ("arc_easy", {"choices": [{"text": "x", "label": "A)"}, {"text": "y", "label": "B)"}], "answerKey": "B"}, "y"),
        ("medqa", {"options": {"[B]": "y", "[A]": "x"}, "answer_idx": "B"}, "y"),
        # columns that are numbered, by letters
        ("gpqa", {**{f"choice{n}": w for n, w in enumerate("xyzu", 1)}, "answer": "B"}, "y"),
        ("gpqa", {**{f"choice{n}": w for n, w in enumerate("xyzu")}, "answer": "b"}, "y"),
        ("mmlu", {**{f"option_{n}": w for n, w in enumerate("xyzu", 1)}, "answer": "(D)"}, "u"),
        ("arc_easy", {**{f"choice{n}": w for n, w in enumerate("xyzu", 1)}, "answerKey": "C"}, "z"),
        ("medqa", {"ending0": "x", "ending1": "y", "answer_idx": "B"}, "y"),
        ("gpqa", {"choice1": "A. x", "choice2": "B. y", "answer": "B"}, "y"),
        # a number is a place, from 0, where the choices are texts
        ("mmlu", {"choices": ["1", "2", "3", "4"], "answer": 1}, "2"),
        ("mmlu", {"choices": ["x", "y", "z", "u"], "answer": 2.0}, "z"),
        ("mmlu", {"choices": ["x", "y", "z", "u"], "answer": "2"}, "z"),
        ("mmlu", {"choices": ["3", "1", "2", "4"], "answer": "2"}, "2"),  # by its place and by its words
        ("mmlu", {"options": list("uvwxyz"), "answer": "F", "answer_index": 5}, "z"),
        ("medqa", {"sent1": "Which?", "ending0": "x", "ending1": "y", "ending2": "z", "label": 1}, "y"),
        # words, where they can be nothing else
        ("medqa", {"options": ["10", "20", "30"], "answer": "20"}, "20"),
        ("medqa", {"options": ["1", "2", "3", "4"], "answer": "2"}, "2"),
        ("medqa", {"options": BLOOD, "answer": "AB"}, "AB"),
        ("medqa", {"options": ["A", "B", "AB", "O"], "answer": "B"}, "B"),  # both readings agree
        ("mmlu", {"choices": ["Yes", "No"], "answer": "no"}, "No"),
        ("medqa", {"options": {"B": "y", "A": "x"}, "answer_idx": "B"}, "y"),
        ("mmlu", {"choices": ["x", "the  sun"], "answer": "the sun"}, "the  sun"),
        ("mmlu", {"choices": [1, 2.5, 3], "answer": "C"}, "3"),
        # letters in front of the words
        ("medqa", {"options": ["A. zinc", "B. iron"], "answer": "B. iron"}, "iron"),
        ("medqa", {"options": ["(A) zinc", "(B) iron"], "answer": "iron"}, "iron"),
        ("medqa", {"options": ["zinc", "iron"], "answer": "B) iron"}, "iron"),
        ("medqa", {"options": ["Candida", "B. cereus", "E. coli"], "answer": "B. cereus"}, "B. cereus"),
        ("medqa", {"options": ["x", "x", "y"], "answer_idx": "B"}, "x"),  # a label tells equal words apart
    ],
)  # fmt: skip
def test_the_right_choice(tmp_path: Path, task: str, row: Row, right: str) -> None:
    (example,) = examples_of(tmp_path, task, {"question": "Which?", **row})
    assert right_words(example) == right


@pytest.mark.parametrize(
    ("task", "row", "said"),
    [
        ("medqa", {"options": BLOOD, "answer": "B"}, "must be one of the 4 choices, got 'B', which may be choice 2"),
        ("mmlu", {"choices": ["1", "2", "3", "4"], "answer": "2"}, "may be choice 2 or 3"),
        ("mmlu", {"choices": [1, 2, 3, 4], "answer": 2}, "may be choice 2 or 3"),
        ("mmlu", {"choices": ["b", "c", "a"], "answer": "a"}, "may be choice 1 or 3"),
        ("medqa", {"options": {"1": "x", "2": "y", "3": "z"}, "answer_idx": 1}, "may be choice 1 or 2"),
        ("medqa", {"options": {"B": "y", "A": "x"}, "answer_idx": 1}, "may be choice 1 or 2"),
        ("medqa", {"options": ["x", "x", "y"], "answer": "x"}, "may be choice 1 or 2"),
        ("medqa", {"options": lettered(["x", "y"]), "answer": "x", "answer_idx": "B"}, "may be choice 1 or 2"),
        ("medqa", {"options": lettered(["x", "y"]), "answer": "A", "answer_idx": "B"}, "name different choices"),
        ("medqa", {"options": lettered(["x", "y"]), "answer": "z", "answer_idx": "B"}, "must be one of the 2 choices"),
        ("mmlu", {"options": list("uvwxyz"), "answer": "F", "answer_index": 4}, "name different choices: 4 and 'F'"),
        ("mmlu", {"choices": ["x", "y"], "answer": "A", "Answer": "B"}, "'answer' and 'Answer' say different things"),
        ("arc_easy", {"choices": {"text": ["x", "y"], "label": ["1", "2"]}, "answerKey": "A"}, "one of 1, 2, got 'A'"),
        ("arc_easy", {"choices": {"text": ["x", "y"], "label": ["A", "A"]}, "answerKey": "A"}, "labels of the choices"),
        ("arc_easy", {"choices": {"text": ["x", "y"], "label": ["(A)", "A"]}, "answerKey": "A"}, "labels of the choi"),
        ("gpqa", {"choice1": "x", "choice2": "y", "choice4": "z", "answer": "C"}, "one of the 3 choices, got 'C'"),
        ("gpqa", {"choice1": "B. x", "choice2": "A. y", "answer": "B"}, "one of the 2 choices, got 'B'"),
        ("gpqa", {"choice1": "x", "choice2": "y", "choice3": "z", "answer": "2"}, "may be choice 2 or 3"),
        ("gpqa", {"choice1": "B", "choice2": "C", "choice3": "A", "answer": "B"}, "may be choice 1 or 2"),
        ("gpqa", {"choice1": "x", "choice2": "y", "answer": "C"}, "one of the 2 choices, got 'C'"),
        ("mmlu", {"choices": ["x", "y"], "answer": -1}, "must be one of the 2 choices, got -1"),
        ("mmlu", {"choices": ["x", "y"], "answer": 0.5}, "must be one of the 2 choices, got 0.5"),
        ("mmlu", {"choices": ["x", "y"], "answer": "\u00b2"}, "must be one of the 2 choices"),
        ("mmlu", {"choices": ["x", None], "answer": 0}, "with None in it"),
        ("mmlu", {"choices": ["x", True], "answer": 0}, "with True in it"),
        ("mmlu", {"choices": list("abcdefghijk"), "answer": 0}, "2 to 10 choices, got 11"),
        ("mmlu", {"choices": [], "answer": 0}, "2 to 10 choices, got 0"),
        ("medqa", {"options": []}, "2 to 10 choices, got 0"),
        ("medqa", {"options": {"A": None}, "answer": "x"}, "2 to 10 choices, got 0"),
        ("mmlu", {"choices": ["x", "y"]}, "'answer' is missing"),
    ],
)  # fmt: skip
def test_what_names_no_choice_or_several_is_refused(tmp_path: Path, task: str, row: Row, said: str) -> None:
    message = refusal(tmp_path, task, {"question": "Which?", **row})
    assert "rows.jsonl, line 1: " in message and said in message


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("Which?,O,A,B,AB,A", "O"),
        ("Which?,O,A,B,AB,b", "A"),
        ("question,A,B,C,D,answer\nWhich?,O,A,B,AB,B", "A"),
        ("Which?;O;A;B;AB;C", "B"),
        ("Which?\tO\tA\tB\tAB\tD", "AB"),
        (",question,A,B,C,D,answer\n0,Which?,1,2,3,4,B", "2"),
        # a line of names has more of them than a row may hold by chance
        ("Which?,text,y,z,u,A", "text"),
        ("Which?,x,input,z,u,B", "input"),
        ("Which?,x,y,title,u,C", "title"),
        ("Which?,x,y,z,label,D", "label"),
        ("Which?,text,input,title,label,D", "label"),
        ("Which?,question,answer,query,quiz,A", "question"),
        ("Which?;text;y;z;u;A", "text"),
        ("a;text;b?,x,y,z,u,A", "x"),
        ("Which?,A,B,AB,text,D", "text"),
        ("answer,question,A,B,C,D\nD,Which?,x,y,z,u", "u"),
        ("question,option1,option2,option3,option4,answer\nWhich?,x,y,z,u,C", "z"),
        ("Question,Choice A,Choice B,Choice C,Choice D,Answer\nWhich?,x,y,z,u,B", "y"),
        ("Question,Option A,Option B,Option C,Option D,Correct Choice\nWhich?,x,y,z,u,B", "y"),
        ("Question,Answer Choice A,Answer Choice B,Answer Choice C,Answer\nWhich?,x,y,z,B", "y"),
        ("Question,Choice A,Choice B,Choice C,Choice D,Answer Choice\nWhich?,x,y,z,u,B", "y"),
        ("Question,Choice 1,Choice 2,Choice 3,Choice 4,Answer\nWhich?,x,y,z,u,B", "y"),
        ("prompt,A,B,C,D,answer\nWhich?,x,y,z,u,D", None),
        ("Which is a part of it?,question,choices,answer,x,D", None),  # a row, or the names of three and more
        ("question,A,B,C,D,who\nWhich?,x,y,z,u,D", None),
        ("input,A,B,C,D,target\nWhich?,x,y,z,u,D", "u"),
        ("question,A,B,C,D,E,F,answer\nWhich?,x,y,z,u,v,w,F", "w"),
        ("question,A,B,C,D,E,answer\nWhich?,x,y,z,u,,D", "u"),
        ("question,choices,answer\nWhich?,\"['x', 'y', 'z']\",2", "z"),
        ("question,choices,answer\nWhich?,\"['x' 'y' 'z']\",2", None),  # as numpy prints it
        ("Which?,x,y,z,u,v,w,F", None),
        ("Which?,x,y,,u,A", None),
    ],
)
def test_mmlu_in_csv(tmp_path: Path, text: str, right: str | None) -> None:
    if right is None:
        said = refusal(tmp_path, "mmlu", text, name="rows.csv")
        assert "rows.csv, line " in said or "rows.csv: the first line may be a question" in said
    else:
        (example,) = examples_of(tmp_path, "mmlu", text, name="rows.csv")
        assert right_words(example) == right


def test_a_heading_of_csv_that_is_not_known_is_told(tmp_path: Path) -> None:
    said = refusal(tmp_path, "mmlu", "Item,First,Second,Third,Fourth,Key\nWhich?,x,y,z,u,B", name="rows.csv")
    assert "line 1: " in said and "if this is the heading, name the columns question,A,B,C,D,answer" in said
    said = refusal(tmp_path, "mmlu", "Which?,x,y,z,u,E", name="rows.csv")
    assert "line 1: " in said and "if this is" not in said


def test_a_label_that_no_terminal_shows_is_written_out(tmp_path: Path) -> None:
    said = refusal(
        tmp_path, "arc_easy", {"question": "Which?", "choices": {"text": ["x"], "label": ["\ufeff"]}, "answerKey": "B"}
    )
    assert said.isprintable() and r"must be one of '\ufeff', got 'B'" in said


def test_letters_of_an_object_stay_what_the_words_call_them(tmp_path: Path) -> None:
    row = {"question": "Which?", "options": {"C": "both A and B", "B": "iron", "A": "zinc"}, "answer_idx": "C"}
    (example,) = examples_of(tmp_path, "medqa", row)
    assert example.question == "Which?\nA) zinc\nB) iron\nC) both A and B" and example.answer == "C"


def test_only_choices_that_are_repeated_are_cut_off_a_question(tmp_path: Path) -> None:
    row = {"question": "He said:\nzinc\nis a metal. Is it?", "options": ["zinc", "iron"], "answer": "iron"}
    (example,) = examples_of(tmp_path, "medqa", row)
    assert example.question.startswith("He said:\nzinc\nis a metal. Is it?\nA) zinc")


@pytest.mark.parametrize(
    ("row", "label"),
    [
        ({"text": "q", "coarse_label": 5}, "number"),
        ({"text": "q", "label-coarse": 5}, "location"),  # the first version of the set counts otherwise
        ({"text": "q", "label-coarse": 0}, "description"),
        ({"text": "q", "coarse_label": "ENTY"}, "entity"),
        ({"text": "q", "label": 3, "label_coarse_original": "HUM"}, "human"),
        ({"text": "q", "label": "LOC"}, "location"),
        ({"text": "q", "label": 3}, None),
        ({"text": "q", "label_coarse": 3}, None),
        ({"text": "q", "coarse_label": 3, "coarse_label_text": "location"}, None),
    ],
)
def test_labels_of_trec(tmp_path: Path, row: Row, label: str | None) -> None:
    if label is None:
        assert "line 1: the field" in refusal(tmp_path, "trec", row)
    else:
        assert examples_of(tmp_path, "trec", row)[0].answer == label


@pytest.mark.parametrize(
    ("task", "row", "label"),
    [
        ("ag_news", {"text": "q", "label": 3, "label_text": "Sci/Tech"}, "science"),
        ("ag_news", {"Class Index": "4", "Title": "t", "Description": "d"}, "science"),
        ("ag_news", {"Class Index": 0, "Title": "t", "Description": "d"}, None),
        ("ag_news", {"text": "q", "label": 3, "label_text": "World"}, None),
        ("sst2", {"text": "q", "label": 1.0, "label_text": "positive"}, "positive"),
        ("sst2", {"text": "q", "label": 1, "label_text": "negative"}, None),
        ("sst2", {"text": "q", "label": "\u00b2"}, None),
        ("sst2", {"text": "q", "label": "9" * 5000}, None),
        ("banking77", {"text": "q", "label": 11, "label_text": "card_arrival"}, "card arrival"),
        ("banking77", {"text": "q", "label": 11}, None),  # nobody can say what 11 is about
        ("banking77", {"text": "q", "category": "a", "label_text": "b"}, None),
        ("banking77", {"text": "q", "category": "?"}, None),
        ("banking77", {"text": "q", "category": "lost; stolen"}, None),
    ],
)
def test_labels_of_the_others(tmp_path: Path, task: str, row: Row, label: str | None) -> None:
    if label is None:
        assert "rows.jsonl" in refusal(tmp_path, task, row)
    else:
        assert examples_of(tmp_path, task, row)[0].answer == label


@pytest.mark.parametrize(
    ("options", "answer", "right"),
    [
        (["B. x", "A. y"], "B", None),  # by its place or by what is printed
        (["B. x", "A. y"], 0, None),
        (["B. x", "A. y"], "y", None),
        (["B. x", "A. y"], "A. y", "A. y"),  # the words are whole
        (["B. x", "C. y", "D. z"], "C", None),
        (["A. x", "B. y", "D. z", "E. u"], "D", None),
        (["A. x", "B. y", "D. z", "E. u"], "B", "B. y"),  # both say so
        (["B. cereus", "A. niger", "C. albicans", "D. rerio"], "A", None),
        (["B. cereus", "A. niger", "C. albicans", "D. rerio"], "C", "C. albicans"),
        (["B. cereus", "A. niger", "C. albicans", "D. rerio"], 1, None),
        (["3. Division", "4. Brigade", "1. Army", "2. Corps"], "3", None),
        (["3. Division", "4. Brigade", "1. Army", "2. Corps"], "A", "3. Division"),
        # initials of names are words
        (SPECIES, "C", "E. coli"),
        (SPECIES, "D", "S. cerevisiae"),
        (SPECIES, 0, "C. elegans"),
        (SPECIES, "E. coli", "E. coli"),
        (["W. Clifford", "A. Ayer", "B. Russell", "C. Darwin"], "B", "A. Ayer"),
        (["T. rex", "F. catus"], "F", None),
        (["T. rex", "F. catus"], "B", "F. catus"),
        # labels are all there, in order
        (["a) x", "b) y", "c) z"], "c", "z"),
        (["0. x", "1. y"], 1, "y"),
        (["1. x", "2. y"], "B", None),  # there is no label of that name
        (["1) w", "2) x", "3) y", "4) z"], "2", None),  # a label or a place
        (["A) x", "B) y"], "B", "y"),
        (["[a] x", "[b] y"], "a", "x"),
    ],
)
def test_labels_that_are_printed_in_front_of_the_choices(options: list[str], answer: Any, right: str | None) -> None:
    row = {"question": "Which?", "options": options, "answer": answer}
    if right is None:
        with pytest.raises(DataError):
            right_choice(row, made_choices(row))
        return
    choices = made_choices(row)
    assert choices.texts[right_choice(row, choices)] == right


def test_printed_labels_that_are_not_the_rows_are_refused() -> None:
    with pytest.raises(DataError, match="labels of their own"):
        made_choices({"question": "Which?", "options": {"A": "B. x", "B": "A. y"}, "answer": "A"})


def options(**texts: str | None) -> Row:
    return {f"option_{letter}": text for letter, text in texts.items()}


def numbered(name: str, *numbers: int) -> Row:
    return {f"{name}{n}": word for n, word in zip(numbers, "xyzu", strict=False)}


@pytest.mark.parametrize(
    ("row", "right"),
    [
        ({**options(a="x", b="y", c=None, d="z", e="u"), "answer_idx": 3}, None),
        ({**options(a="x", b="y", c="", d="z"), "answer": 2}, None),
        ({**options(a="x", b="y", c="", d="z"), "answer": 3}, None),
        ({**options(a="x", b="y", c="", d="z"), "answer": "d"}, "z"),
        ({**options(a="x", b="y", c="", d="z"), "answer": "z"}, "z"),
        ({**options(a="x", b="y", c="", d="z"), "answer": 1}, "y"),  # before any gap
        ({**options(a="x", b="y", c="z", d=""), "answer": 2}, "z"),  # at the end there is none
        ({**options(a="x", b="y", c="z", d=""), "answer": 3}, None),
        ({**numbered("option", 1, 2, 4, 5), "answer": 3}, None),
        ({**numbered("option", 1, 2, 4, 5), "answer": 4}, None),
        ({**numbered("option", 1, 2, 4, 5), "answer": "C"}, None),
        ({**numbered("option", 1, 2, 4, 5), "answerKey": "4"}, "z"),
        ({"option0": "", **numbered("option", 1, 2, 3), "answer": 1}, None),
        ({**numbered("ending", 0, 1, 3, 4), "label": 2}, None),
        ({**numbered("ending", 0, 1, 3, 4), "label": 3}, None),
        ({"choices": {"A": "x", "B": None, "C": "y", "D": "z"}, "answer": 2}, None),
        ({"choices": {"A": "x", "B": None, "C": "y", "D": "z"}, "answer": "C"}, "y"),
        ({"choices": {"A": "x", "C": "y", "D": "z"}, "answer": 1}, None),
        ({"choices": {"one": "x", "two": None, "three": "y"}, "answer": 1}, None),
        ({"choices": {"one": "x", "two": None, "three": "y"}, "answer": "three"}, "y"),
        ({"choices": {"text": ["x", "y", "z"], "label": ["B", "C", "D"]}, "answer": 1}, None),
        ({"choices": {"text": ["x", "y", "z"], "label": ["B", "C", "D"]}, "answer": "C"}, "y"),
        ({"choices": [{"id": 1, "text": "x"}, {"id": 3, "text": "y"}], "answer": 1}, None),
        ({"choices": {"text": list("xyzu"), "label": list("PQRS")}, "answer": 2}, "z"),
    ],
)
def test_a_place_says_nothing_from_the_first_gap_on(row: Row, right: str | None) -> None:
    choices = made_choices(row)
    if right is None:
        with pytest.raises(DataError, match="must be one of the"):
            right_choice(row, choices)
    else:
        assert choices.texts[right_choice(row, choices)] == right


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"choices": list("xyzu"), "options": list("uzyx"), "answer": "A"}, "'options' and 'choices' hold different"),
        ({"choices": list("xyzu"), **lettered(list("uzyx")), "answer": "A"}, "'choices' and 'A' hold different"),
        ({**lettered(list("uzyx")), **options(a="x", b="z"), "answer": "A"}, "'A' and 'option_a' hold different"),
        ({"choices": list("xy"), "ending0": "y", "ending1": "x", "label": 0}, "'choices' and 'ending0' hold different"),
        ({"choices": list("xyz"), "options": lettered(["x", "y"]), "answer": "A"}, "'options' and 'choices' hold diff"),
        ({"choices": list("xyz"), **numbered("option", 1, 2, 3), "answer": 1}, "may be choice 1 or 2"),
        ({"choices": [{"text": "x", "correct": True}, {"text": "y", "correct": False}], "answer": 1}, "'correct' name"),
        ({"choices": [{"text": "x", "is_correct": 0}, {"text": "y", "is_correct": 1}], "answer": "A"}, "'correct'"),
        ({"choices": [{"text": "x", "correct": True}, {"text": "y", "correct": True}], "answer": 1}, "must mark one"),
        ({"choices": [{"text": "x", "correct": False}, {"text": "y"}], "answer": 1}, "must mark one choice"),
        ({"choices": [{"text": "x", "correct": "?"}, {"text": "y"}], "answer": 1}, "must mark one choice"),
        ({"choices": {"text": ["x", "y"], "label": ["A", "B"], "correct": [True, False]}, "answer": 1}, "'correct'"),
        ({"choices": {"text": ["x", "y"], "label": ["A", "B"], "correct": [True]}, "answer": 0}, "as many marks"),
        ({"choices": ["x", "y"], "answer": "A", "correct_choice": "B"}, "'answer' and 'correct_choice' name different"),
    ],
)  # fmt: skip
def test_choices_that_a_row_holds_twice_must_be_the_same(tmp_path: Path, row: Row, said: str) -> None:
    assert said in refusal(tmp_path, "mmlu", {"question": "Which?", **row})


@pytest.mark.parametrize(
    "row",
    [
        {"choices": list("xyzu"), "options": list("xyzu"), "answer": "B"},
        {"choices": list("xyzu"), "options": {"B": "y", "A": "x", "C": "z", "D": "u"}, "answer": "B"},
        {"choices": list("xyzu"), **lettered(list("xyzu")), "answer": "B"},
        {"choices": ["A. x", "B. y"], "options": ["x", "y"], "answer": "B"},
        {"choices": ["x", "y"], "options": "x|y", "answer": "B"} | {"options": ["x", "y"]},
        {"choices": [{"text": "x", "correct": False}, {"text": "y", "correct": True}], "answer": 1},
        {"choices": [{"text": "x", "correct": "no"}, {"text": "y", "correct": "Yes"}]},
        {"choices": [{"text": "x", "correct": None}, {"text": "y", "correct": None}], "answer": "B"},
        {"choices": [{"text": "y", "label": "B", "correct": 1}, {"text": "x", "label": "A", "correct": 0}]},
    ],
)
def test_choices_that_a_row_holds_twice_and_that_agree(tmp_path: Path, row: Row) -> None:
    for task in ("mmlu", "arc_easy"):
        (example,) = examples_of(tmp_path, task, {"question": "Which?", **row})
        assert right_words(example) == "y"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("['x', 'y'\n 'z', 'u']", "no comma between 'y' and 'z'"),
        ("['x', 'y' \"z\", 'u']", "no comma between 'y' and"),
        ("['x' 'y' 'z']", "no comma between 'x' and 'y'; write it as JSON (numpy prints no commas)"),
        ("{'A': 'x' 'y', 'B': 'z'}", "no comma between 'x' and 'y'"),
        ("{'A': 'x', 'A': 'y', 'B': 'z'}", "'A' is there twice"),
        ('{"A": "x", "A": "y", "B": "z"}', "'A' is there twice"),
        ('[{"text": "x", "text": "y"}, {"text": "z"}]', "'text' is there twice"),
    ],
)
def test_a_list_in_a_text_loses_nothing(tmp_path: Path, text: str, said: str) -> None:
    message = refusal(tmp_path, "mmlu", {"question": "Which?", "choices": text, "answer": "A"})
    assert "line 1: the list in the field 'choices' cannot be read: " in message and said in message


def made_choices(row: dict[str, Any]) -> Any:
    found = choices_of(row)
    assert found is not None
    return found
