"""The letter that a text states, and no other."""

from __future__ import annotations

import time

import pytest

from gcache.tasks.choices import extract_choice, grade_choice

ESSAY = "Option A is a toxin and B is a drug, so we look at C and D. "


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        # the ways to say it
        ("The answer is (C).", "C"),
        ("The answer is C.", "C"),
        ("The correct answer is: **B**", "B"),
        ("Answer: D", "D"),
        ("ANSWER = D", "D"),
        ("Final answer: (a)", "A"),
        ("the answer is b", "B"),
        ("the answer is b.", "B"),
        ("The best choice is D, because it is cheap.", "D"),
        ("The correct option is option C", "C"),
        ("I would choose B here.", "B"),
        ("I pick (D)", "D"),
        ("So C is correct.", "C"),
        ("(B) is the right answer", "B"),
        ("D is the answer.", "D"),
        ("The answer is A because it is small.", "A"),
        ("The answer is A", "A"),
        (r"so \boxed{C}", "C"),
        (r"\boxed{\text{(B)}}", "B"),
        (r"\boxed{D. Aspirin}", "D"),
        (r"\boxed{c}", "C"),
        ("working\n#### B", "B"),
        ("#### (c)", "C"),
        ("C", "C"),
        ("(c)", "C"),
        (" **B.** ", "B"),
        ("B) Aspirin", "B"),
        ("C. Colorectal cancer", "C"),
        ("It reduces fever.\n\n(D)", "D"),
        # several statements: the last one, unless it is taken back
        ("The answer is A. No, the answer is B.", "B"),
        ("The answer is not (A). The answer is (B).", "B"),
        ("The answer is (B). The answer is not (A).", "B"),
        ("The answer is (A). Wait, the answer is not (A).", None),
        (r"The answer is A. \boxed{B}", "B"),
        (ESSAY + "The answer is D.", "D"),
        # what is no statement
        ("the answer is not (A)", None),
        ("The answer is A or B.", None),
        ("The answer is A and C", None),
        ("Answer: A, B", None),
        ("The answer is (A) or (C).", None),
        (r"\boxed{A or B}", None),
        (r"\boxed{42}", None),
        (r"\boxed{Aspirin}", None),
        (ESSAY, None),
        ("The answer is a virus.", None),
        ("The answer is A virus.", None),
        ("The answer is I think unclear.", None),
        ("The answer is Aspirin.", None),
        ("Is the answer B?", None),
        ("The answer is B?", None),
        ("Answer choices: A) x B) y", None),
        ("Answer with the letter only.", None),
        ("A. x\nB. y\nC. z", None),
        ("A) First, the stomach.\nB) Then, the liver.", None),
        ("A patient comes in.", None),
        ("I cannot say.", None),
        ("B is not correct.", None),
        ("Vitamin C is important.", None),
        ("42", None),
        ("", None),
        ("   \n ", None),
        # letters that no choice has
        ("The answer is E.", None),
        ("Z", None),
    ],
)
def test_the_stated_letter(text: str, letter: str | None) -> None:
    assert extract_choice(text, "ABCD") == letter


def test_grades() -> None:
    assert grade_choice("The answer is (B).", "B", "ABCD").outcome == "right"
    assert grade_choice("The answer is (B).", "C", "ABCD").answer == "B"
    assert grade_choice("The answer is (B).", "C", "ABCD").outcome == "wrong"
    assert grade_choice("the answer is not (A)", "A", "ABCD").outcome == "unparsed"
    assert extract_choice("The answer is (E).", "ABCDE") == "E"


@pytest.mark.parametrize(
    "noise",
    ["answer " * 8000, "answer is not " * 4000, "x A) " * 10000, "(" * 50000, "A or " * 10000, "\\boxed{" * 7000],
)
def test_long_noise_is_read_in_no_time(noise: str) -> None:
    began = time.perf_counter()
    assert extract_choice(noise[:50_000]) is None
    assert extract_choice(noise[:50_000] + "\nThe answer is (C).\n") in ("C", None)
    assert time.perf_counter() - began < 2
