"""The letter that a text states, and no other."""

from __future__ import annotations

import time

import pytest

from gcache.tasks.choices import extract_choice, grade_choice, grade_example
from gcache.tasks.example import Example

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
        ("### Final Answer\n\n**C) Vitamin C**", "C"),
        ("Final answer\nA good way to start", None),
        ("The wrong answer is C.", None),
        ("B can't be correct.", None),
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
        # names, and what is said of a letter
        ("Vitamin C is the best", None),
        ("Vitamin C is the best.", None),
        ("Hepatitis B is the correct diagnosis", None),
        ("Hepatitis B is the correct diagnosis.", None),
        ("A is correct and C is correct", None),
        ("Suppose the answer is C. That contradicts. So D.", "D"),
        ("The answer is probably C", "C"),
        ("The answer is most likely C.", "C"),
        ("Option B", "B"),
        ("(B)", "B"),
        ("B.", "B"),
        ("**B**", "B"),
        (r"\boxed{B}", "B"),
        ("Option B is correct.", "B"),
        ("I would not choose B", None),
        ("I wouldn't pick B.", None),
        ("B is wrong", None),
        ("B is wrong.", None),
        ("not A but B", "B"),
        ("It is not A but B.", "B"),
        ("either A or B", None),
        ("The answer is either A or B.", None),
        ("A good approach is to wait.", None),
        ("I think", None),
        ("I think so.", None),
        ("The correct answer is B, not C", "B"),
        ("Answer: b", "B"),
        ("The answer isn't B.", None),
        ("The answer isn\u2019t B", None),
        ("The answer cannot be B.", None),
        ("The answer is not B", None),
        ("The answer is B or C.", None),
        ("The answer is B and C.", None),
        ("Is B correct?", None),
        ("If the answer is B, he dies.", None),
        ("Suppose the answer is C.", None),
        ("Suppose C is correct.", None),
        ("Assume B is correct.", None),
        ("A is wrong, B is wrong. C is correct.", "C"),
        ("B is wrong. The answer is C.", "C"),
        ("The answer is B. That is wrong.", None),
        ("The answer is B. Wait, no, the answer is C.", "C"),
        ("The answer is B. No, it is C.", "C"),
        ("The answer is B. The answer is C.", None),
        ("The answer is vitamin C.", None),
        ("The answer is C. difficile", None),
        ("Neither A nor B is correct.", None),
        ("I don't think the answer is B.", None),
        ("I doubt that B is correct.", None),
        ("I think the answer is B.", "B"),
        ("I think B is correct.", "B"),
        ("I believe that B is the right choice.", "B"),
        ("So the answer is B.", "B"),
        ("Therefore, the correct option is (B).", "B"),
        ("The best answer is B because it is small.", "B"),
        ("A is correct.", "A"),
        ("The answer is A, because B is wrong.", "A"),
        ("The correct answer is:\n\n**D) Cerebellum**", "D"),
        ("Answer: **D**", "D"),
        ("B", "B"),
        ("b", "B"),
        ("The answer is (B)", "B"),
        ("My choice is B.", "B"),
        ("Final answer: B", "B"),
        ("I'd go with B.", "B"),
        ("We choose B.", "B"),
        ("Not B.", None),
        ("not B", None),
        ("anything but B", None),
        ("The answer is anything but B.", None),
        ("The answer is not B nor C.", None),
        ("It must be B.", "B"),
        ("It's B.", "B"),
        ("It could be B.", None),
        ("The answer could be B.", None),
        ("A or B", None),
        ("A, B", None),
        ("Both A and B", None),
        ("Both A and B are correct", None),
        ("Type A is the best.", None),
        ("Blood type B is correct.", None),
        ("Grade A is best", None),
        ("Plan B is the right one.", None),
        ("Thus (B).", "B"),
        ("Hence, B.", "B"),
        ("So A patient comes.", None),
        ("answer (B)", "B"),
        ("Answer B", "B"),
        ("I can answer B with ease, but C too", None),
        ("The answer might seem to be B, but the answer is C.", "C"),
        ("Let's go through the options. A is false. C is false. D is false. So the answer is B.", "B"),
        ("The gossip claims the answer is B.", None),
        ("It is not true that the answer is B.", None),
        ("The answer is definitely not B.", None),
        ("The correct answer is not B.", None),
        ("The answer is not B, it is C.", "C"),
        ("The answer is not B but C.", "C"),
        ("The answer isn't B, but C.", "C"),
        ("<answer>B</answer>", "B"),
        ("The answer's B.", "B"),
        ("B, because it is small.", "B"),
        ("B because it is small.", "B"),
        ("B - the aorta", "B"),
        ("B, C", None),
        ("A because", None),
        ("The answer is not A, B or C, so D.", "D"),
        ("B might be correct.", None),
        ("Some say B is correct.", None),
        ("B is the best fit.", "B"),
        ("The answer is more than B", None),
        # letters that no choice has
        ("The answer is E.", None),
        ("Z", None),
    ],
)
def test_the_stated_letter(text: str, letter: str | None) -> None:
    assert extract_choice(text, "ABCD") == letter


HEARTS = ("atrium", "left atrium", "aorta", "left atrium and aorta")


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("The answer is the aorta.", "C"),
        ("The answer is left atrium.", "B"),
        ("The answer is left atrium and aorta.", "D"),
        ("The answer is LEFT ATRIUM", "B"),
        ("aorta", "C"),
        ("Aorta.", "C"),
        (r"\boxed{\text{aorta}}", "C"),
        ("#### aorta", "C"),
        ("The aorta is correct.", "C"),
        ("The answer is (C) aorta.", "C"),
        ("The answer is B) left atrium", "B"),
        ("The answer is D: left atrium and aorta", "D"),
        # the letter and the words are of different choices
        ("The answer is (C) left atrium.", None),
        ("A) left atrium", None),
        ("The answer is not the aorta.", None),
        ("The answer is the aorta or the atrium.", None),
        ("Is the answer the aorta?", None),
        ("The aorta is a vessel.", None),
        ("The answer is atrial.", None),
        ("It leaves the heart through the aorta", None),
        ("atrium\naorta", None),
    ],
)
def test_the_words_of_a_choice(text: str, letter: str | None) -> None:
    assert extract_choice(text, "ABCD", HEARTS) == letter


def test_the_words_come_from_the_question() -> None:
    listed = "\n".join(f"{letter}) {words}" for letter, words in zip("ABCD", HEARTS, strict=True))
    example = Example("q", f"Where?\n{listed}", "C", meta={"choices": "4"})
    assert grade_example("The answer is the aorta.", example).outcome == "right"
    assert grade_example("The answer is the vein.", example).outcome == "unparsed"
    assert grade_example("The answer is (C).", Example("q", "Where?", "C", meta={"choices": "4"})).outcome == "right"


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
    began = time.process_time()
    assert extract_choice(noise[:50_000]) is None
    assert extract_choice(noise[:50_000] + "\nThe answer is (C).\n") in ("C", None)
    assert time.process_time() - began < 10  # quadratic time would take minutes
