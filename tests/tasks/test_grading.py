"""The graders: what they read, what they compare, and that they never guess."""

from __future__ import annotations

import asyncio
import json
import time
from concurrent.futures import ThreadPoolExecutor

import needs
import pytest

from gcache.tasks import extract_number, grade_exact_code, grade_number, numbers_equal
from gcache.tasks.example import Example, grade_text
from gcache.tasks.grading import NumberTask

STATED = [
    (r"so \boxed{42}.", "42"),
    (r"\boxed{1}, no, \boxed{2}", "2"),
    (r"\boxed{7} and 9 more \boxed{}", "7"),
    (r"\boxed{\frac{3}{4}} of 8", "3/4"),
    (r"\boxed{-\dfrac{1}{2}}", "-1/2"),
    (r"\boxed{2\frac{1}{2}}", "5/2"),
    (r"\boxed{\$1{,}200}", "1200"),
    (r"\boxed{1\,200\text{ km}}", "1200"),
    (r"\boxed{45 \text{ km/h}}", "45"),
    (r"\boxed{45\ m^{2}}", "45"),
    (r"\boxed{50\%}", "50"),
    (r"\boxed{x = -5}", "-5"),
    (r"\boxed{12 + 30 = 42}", "42"),
    (r"\boxed{1.5 \times 10^{6}}", "1.5e6"),
    (r"\boxed{\boxed{5}}", "5"),
    (r"\boxed{2\sqrt{3}}", r"2\sqrt{3}"),
    (r"\boxed{3, 4}", "3, 4"),
    ("Half of 144.\n#### 72", "72"),
    ("#### -1,200.50 dollars", "-1200.50"),
    ("#### $18.", "18"),
    ("#### 3/4\nAs said, of 9.", "3/4"),
    ("The answer is 18. There were 20 eggs.", "18"),
    ("**Answer:**\n\n18", "18"),
    ("The final answer is **$1,200.50** for 3 people.", "1200.50"),
    (r"The answer is \(18\) eggs, 2 more.", "18"),
    ("Answer: she earns $18 a day. That is 3 more.", "18"),
    ("The answer is 3 + 4 = 7.", "7"),
    ("The answer is x = 5, not 6", "5"),
    ("the answer is 18, because 2*9 = 18 and 18 + 0 = 18", "18"),
    ("the answer is 2 1/2 hours", "5/2"),
    ("answer: -7", "-7"),
    ("The answer to question 3 is 5", "5"),
    ("The answer is 5. Wait, the answer is 6.", "6"),
    ("12/60", "1/5"),
    ("-$5", "-5"),
    ("$-5", "-5"),
    ("20-8", "20-8"),
    ("1,234,567.25", "1234567.25"),
    ("45km", "45"),
    ("0.50%", "0.50"),
    ("1e6", "1e6"),
    ("00012", "00012"),
]  # fmt: skip

# Texts that state nothing, with the number that stands last.
UNSTATED = [
    (r"\boxed{42", "42"),  # never closed: the text was cut off
    ("#### 1. Count the eggs\n5 - 2 leaves 3", "3"),
    ("first 5, then 8 apples.", "8"),
    ("It costs -$5", "-5"),
    ("It costs $-5", "-5"),
    ("That makes \u22128 degrees", "-8"),
    ("a drop of .5", ".5"),
    ("1,234,567.25 is what we have in all", "1234567.25"),
    ("She had 45km left", "45"),
    ("5 m^2 on the 3rd day, says R2D2", "5"),
    ("We add 36, so 36 times 68 is", "68"),
    ("She eats 3. Now she has", "3"),
    ("There are 16 - 7 = 9 eggs.\n\n2.", "2"),
    ("Next, we multiply 3 by", "3"),
]  # fmt: skip

SILENT = [
    "",
    "   \n",
    "I do not know.",
    "twelve",
    "on the 3rd day, says R2D2 of x_1",
    r"There are 3 of 9, so \boxed{\text{none}}",
    "She has 48 clips. The answer is unknown.",
    "She has 48 clips. The answer is not known.",
    "The answer is 3 or 4.",
    "10^200 or 1e400",
    "5/0",
    "1" * 50_000,
    "a" * 50_000,
    "\\boxed{" * 7_000,
]

LONG = ["1 ", "1,", "9,999", "1.", "1/", "1 1/1 ", "-", "$", r"\$ ", "10^", "#", "#### 1\n", "(", " ",
        "answer ", "answer is ", r"\boxed{", r"\boxed{1}", r"\frac{", "{", "}", "1x"]  # fmt: skip


@pytest.mark.parametrize(("text", "number"), STATED)
def test_reads_the_stated_number(text: str, number: str) -> None:
    assert extract_number(text) == number


@pytest.mark.parametrize(("text", "number"), UNSTATED)
def test_a_number_that_merely_stands_last_is_no_statement(text: str, number: str) -> None:
    assert extract_number(text) is None
    grade = grade_number(text, number)
    assert (grade.outcome, grade.answer, grade.utility, grade.unstated) == ("unstated", number, 0.0, True)
    accepted = grade_number(text, number, accept_last_number=True)
    assert (accepted.outcome, accepted.answer, accepted.utility, accepted.unstated) == ("right", number, 1.0, True)
    assert grade_number(text, "77", accept_last_number=True).outcome == "wrong"


def test_accepting_the_last_number_accepts_no_denial_and_changes_no_statement() -> None:
    for text in ("The answer isn't 5", "Is it 5?", "Suppose the answer is 5.", "5 or 6", "The answer is unknown. 5"):
        assert grade_number(text, "5", accept_last_number=True).outcome == "unparsed"
    grade = grade_number("The answer is 5. She has 6 left", "5", accept_last_number=True)
    assert (grade.outcome, grade.unstated) == ("right", False)


@pytest.mark.parametrize("text", SILENT, ids=lambda text: text[:30])
def test_the_grader_never_guesses(text: str) -> None:
    assert extract_number(text) is None
    for answer in ("0", "3", "48", "12"):
        grade = grade_number(text, answer)
        assert (grade.outcome, grade.answer, grade.utility) == ("unparsed", None, 0.0)


def test_a_scale_word_that_the_question_asks_for_is_a_unit() -> None:
    assert grade_number("The answer is 2 dozen.", "24").outcome == "right"
    assert grade_number("The answer is 2 dozen.", "2").outcome == "wrong"
    assert grade_number("The answer is 2 dozen.", "2", asked="How many dozen eggs are there?").outcome == "right"
    assert grade_number("The answer is 5 million.", "5", asked="How many people, in millions?").outcome == "right"


def test_a_text_that_is_cut_in_its_number_states_none() -> None:
    task, example = NumberTask(), Example("q", "How many?", "1")
    assert task.grade("So the answer is 1", example).outcome == "right"
    assert grade_text(task, "So the answer is 1", example).outcome == "right"  # type: ignore[arg-type]
    assert grade_text(task, "So the answer is 1", example, cut=True).outcome == "unparsed"  # type: ignore[arg-type]
    assert task.grade("So 1 is left.", example).outcome == "right"
    assert grade_text(task, "So 1 is left. 2.", example, cut=True).outcome == "unstated"  # type: ignore[arg-type]
    for text in ("The answer is 1. Let me check: 1 + ", "The answer is 1 egg", "####1\nShe", r"is \boxed{1}"):
        assert grade_text(task, text, example, cut=True).outcome == "right"  # type: ignore[arg-type]


@pytest.mark.parametrize("unit", LONG)
def test_reading_long_noise_is_quick(unit: str) -> None:
    text = (unit * 50_000)[:50_000]
    start = time.process_time()
    grade_number(text, "1")
    grade_exact_code(text, "1")
    # It takes about 0.1 s; reading in quadratic time would take minutes.
    assert time.process_time() - start < 5


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("72", "72.0"), ("1,200", "1200"), ("$0.75", "3/4"), (r"\frac{3}{4}", "0.75"), ("-0", "0"),
        ("50%", "50"), ("0.333333", "1/3"), ("0.30000000000000004", "0.3"), ("1e5", "100000"),
        (r"2\sqrt{4}", "4"), ("2^{10}", "1024"), ("12+30", "42"), (r"\frac{\sqrt{4}}{2}", "1"),
        ("3+4", "7"), ("3 * 4", "12"), ("12 \u00f7 4", "3"), ("5!", "120"), ("2^3+3^2", "17"), ("\u221a16", "4"),
        (r"\frac{\pi}{2}", "1.5707963"), ("1,000+2", "1002"), ("$5 + $6", "11"),
    ],
)  # fmt: skip
def test_equal_numbers(a: str, b: str) -> None:
    assert numbers_equal(a, b)
    assert numbers_equal(b, a)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("72", "-72"), ("109200000", "109200001"), ("0.3333", "1/3"), ("50%", "0.5"), ("3, 4", "3"),
        (r"2\sqrt{3}", "4"), ("x", "5"), ("", ""), ("", "0"), ("5/0", "0"), ("1" * 5000, "1"),
        ("9^{9^{9^{9}}}", "1"), ("9^{9999999}", "1"), ("99999!", "1"), ("(9!)!", "1"), ("9^9^9^9", "1"),
        ("((9^9)^9)^9", "1"),
        (r"\frac{1}{1-1}", "0"), ("(" * 40 + "1" + ")" * 40, "1"), ("2e", "5.4365636"), (r"\sum_{n=1}^{9}n", "45"),
    ],
)  # fmt: skip
def test_unequal_or_not_comparable(a: str, b: str) -> None:
    assert not numbers_equal(a, b)
    assert not numbers_equal(b, a)


def test_comparing_works_in_threads_and_in_an_event_loop() -> None:
    async def compare() -> bool:
        return numbers_equal(r"2\sqrt{4}", "4")

    assert asyncio.run(compare())
    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(lambda n: numbers_equal(rf"{n}\sqrt{{4}}", str(2 * n)), range(1, 20)))


@pytest.mark.parametrize(
    ("text", "answer", "outcome", "stated"),
    [
        ("#### 1,080", "1080", "right", "1080"),
        ("The answer is $18.00", "18", "right", "18.00"),
        ("The answer is 17", "18", "wrong", "17"),
        (r"\boxed{3 \cdot 6}", "18", "right", r"3 \cdot 6"),
        (r"\boxed{3, 6}", "18", "wrong", "3, 6"),
        (r"\boxed{\frac{\pi}{2}}", "2", "wrong", r"\frac{\pi}{2}"),
        (r"\boxed{\sqrt{16}}", "16", "wrong", r"\sqrt{16}"),
        (r"\boxed{\sqrt{16}}", "4", "right", r"\sqrt{16}"),
        ("The answer is 3+4", "4", "wrong", "3+4"),
        ("#### - 5", "5", "wrong", "-5"),
        ("#### - 5", "-5", "right", "-5"),
        ("5 million", "5", "wrong", "5000000"),
        ("no idea", "18", "unparsed", None),
    ],
)
def test_grades_numbers(text: str, answer: str, outcome: str, stated: str | None) -> None:
    grade = grade_number(text, answer)
    assert (grade.outcome, grade.answer) == (outcome, stated)


@pytest.mark.parametrize(
    ("text", "outcome", "stated"),
    [
        ("4417", "right", "4417"),
        (" **4417**.", "right", "4417"),
        ("The code is 4417, yes, 4417!", "right", "4417"),
        ("4417 (and the mill's is 9902)", "right", "4417"),
        ("9902, or 4417?", "unparsed", None),
        ("9902", "wrong", "9902"),
        ("04417", "wrong", "04417"),
        ("44170", "wrong", "44170"),
        ("It is 4417 or 9902.", "unparsed", None),
        ("4,417", "unparsed", None),
        ("44-17", "unparsed", None),
        ("x4417", "unparsed", None),
        ("I do not know", "unparsed", None),
        ("", "unparsed", None),
    ],
)
def test_grades_codes(text: str, outcome: str, stated: str | None) -> None:
    grade = grade_exact_code(text, "4417")
    assert (grade.outcome, grade.answer) == (outcome, stated)


def test_official_solutions_are_right() -> None:
    with needs.data_file("gsm8k", "train.jsonl").open(encoding="utf-8") as lines:
        solutions = [json.loads(line)["answer"] for line, _ in zip(lines, range(300), strict=False)]
    for solution in solutions:
        assert grade_number(solution, solution.rpartition("####")[2]).outcome == "right"
