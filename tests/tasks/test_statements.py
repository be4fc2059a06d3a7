"""What counts as stated: negations, alternatives, hypotheses, questions and withdrawals, in codes."""

from __future__ import annotations

import pytest

from gcache.tasks import grade_exact_code
from gcache.tasks.split_facts import SplitFacts

# The right code is 4417 in all of them.
RIGHT = [
    "4417", " 4417.", "\"4417\"", "**4417**", "The code is 4417", "The code is 4417.", "The code is \"4417\".",
    "The code is: 4417", "The code is:\n4417", "Code: 4417", "Answer: 4417",
    "The locker number of the clock tower is 4417.", "I think it is 4417.", "It is probably 4417.",
    "It must be 4417.", "I believe the code is 4417", "The number is 4417, I am sure.",
    "I am not sure, but the code is 4417.", "I'm not certain, but 4417.", "It is not 4416 but 4417.",
    "Not 4416 but 4417", "not 4416, but 4417", "It is not 4416. It is 4417.", "It isn't 4416, it is 4417.",
    "4417, not 4416", "4417, and not 4416.", "The code is 4417, not 4416.", "4417 rather than 4416",
    "The code is 4417 instead of 4416", "4416? No, 4417.", "4416. No, 4417.", "4416. Wait, no: 4417",
    "4416, sorry, 4417", "4416, I mean 4417.", "4416 is wrong. The code is 4417.",
    "The gossip says 9902. The code is 4417.", "The gossip says 9902, but the code is 4417.",
    "Rumour has it that it is 9902; it is 4417", "Is it 9902? No. It is 4417.", "Is it 4417? Yes.",
    "What is the code? It is 4417.", "What is the code? 4417", "If I remember correctly, the code is 4417.",
    "If I am not mistaken, it is 4417.", "Let's see: the code is 4417.",
    "It could be 9902. So the code is 4417? Yes, 4417.", "It is 4417 or 9902. So it is 4417.",
    "The code is 4417, yes, 4417!", "4417 (and the mill's is 9902)", "4417 4417", "4417\n4417",
    "According to the note, the code is 4417.", "The note says that the code is 4417.",
    "The librarian says the code is 4417.", "There is no doubt that the code is 4417.",
    "The code is none other than 4417.", "It cannot be anything but 4417.", "The code is not only easy, it is 4417.",
    "The code is 4417 or, in other words, 4417.", "4417\n\nNote that this is final.", "\u201c4417\u201d",
    "4417 (not 9902)",
    "4417 and not 9902",
    "I'm not sure: 4417",
    "The keeper of the mill told me that it is 4417.",
]  # fmt: skip
WRONG = [
    "9902", "The code is 9902, not 4417.", "It is not 4417 but 9902.", "9902 rather than 4417", "4417. No, 9902.",
    "4417? No, 9902.", "04417",
    "4417, no wait, 9902",
]  # fmt: skip
SILENT = [
    "The code is not 4417", "The code is not 4417.", "The code isn't 4417", "The code isn\u2019t 4417\n",
    "The code wasn't 4417", "It cannot be 4417.", "It can't be 4417.", "It is definitely not 4417",
    "The code is no longer 4417", "It is never 4417", "not 4417", "Not 4417!", "Not \"4417\"", "NOT 4417",
    "anything but 4417", "It is anything but 4417.", "other than 4417", "any number except 4417",
    "neither 4417 nor 9902", "I doubt it is 4417", "I don't think it is 4417.",
    "I do not believe that the code is 4417", "It is false that the code is 4417.",
    "It is not true that the code is 4417.", "It is unlikely to be 4417", "4417 is not the code.", "4417 is wrong.",
    "4417 isn't it.", "4417 is incorrect", "\"4417\" is false.", "4417? No.", "4417. No.",
    "The code is 4417. That is wrong.", "4417 or 9902", "4417 or 4418", "either 4417 or 9902",
    "The code is 4417 or 9902.", "The code is either 4417, 4418 or 4419", "4417, 9902", "4417 and 9902",
    "4417 / 9902", "4417/9902", "4417-9902", "4417 - 9902", "4417 to 9902", "between 4417 and 9902",
    "between 4416 and 4417", "It is between 4416 and 4418", "4417 9902", "4417\n9902", "4417, or 9902?", "4417?",
    "Is it 4417?", "Is the code 4417?", "Could it be 4417?", "If the code is 4417", "If it is 4417, the door opens.",
    "Suppose the code is 4417.", "Suppose 4417", "Assume that it is 4417.", "It might be 4417.",
    "The gossip says 4417.", "The gossip says the code is 4417", "4417 or so", "4417 or something",
    "4417, or maybe not", "The code is 4417. The code is 9902.", "4417. The code is 9902.", "I do not know", "",
    "44-17", "x4417", "4,417", "The code is 4417 is not true", "4417 does not open it",
    "It is impossible that it is 4417", "Nobody says 4417, it's not 4417.", "The code should not be 4417",
    "I would not say 4417", "The code is 4417 or 9902 or 1234", "Maybe 4417, maybe 9902", "One of 4417 and 9902",
    "The code is not:\n4417", "Anything except for 4417", "It ain't 4417",
    "The code is certainly not the number 4417",
    "The code used to be 4417.",
    "one more than 4417",
    "Some say 4417",
    "4417 might be right",
    "Don't use 4417",
    "Ignore 4417",
    "4417\u20139902",
    "\"4417\" or \"9902\"",
    "The code can't possibly be 4417",
    "At least 4417",
]  # fmt: skip
# (text, asked place, outcome)
OWNED = [
    ("The locker number of the clock tower is 4417.", "clock tower", "right"),
    ("The code of the red lock is 4417.", "mill", "right"),
    ("The code of the lock of the mill is 4417.", "mill", "right"),
    ("The mill's code is 4417 and the bakery's is 9902.", "mill", "right"),
    ("9902 for the bakery and 4417 for the mill.", "mill", "right"),
    ("The code of the bakery is 9902. The code of the mill is 4417.", "mill", "right"),
    ("It's 4417.", "mill", "right"),
    ("The code of the bakery is 4417.", "mill", "unparsed"),
    ("The bakery's code is 4417", "mill", "unparsed"),
    ("4417 is the code of the bakery.", "mill", "unparsed"),
    ("The bakery's code is 4417 and the mill's is 9902.", "mill", "wrong"),
    ("The code of the mill is 9902 and that of the bakery 4417.", "mill", "wrong"),
]


@pytest.mark.parametrize(
    ("text", "outcome"),
    [*((t, "right") for t in RIGHT), *((t, "wrong") for t in WRONG), *((t, "unparsed") for t in SILENT)],
)
def test_a_code_counts_where_it_is_stated(text: str, outcome: str) -> None:
    assert grade_exact_code(text, "4417").outcome == outcome


@pytest.mark.parametrize(("text", "place", "outcome"), OWNED)
def test_the_code_of_another_place_is_no_answer(text: str, place: str, outcome: str) -> None:
    assert grade_exact_code(text, "4417", place).outcome == outcome


def test_split_facts_ask_for_the_code_of_their_place() -> None:
    for example in SplitFacts().test(20):
        answer, place, rumour = example.answer, example.meta["place"], example.meta["rumour"]
        other = "mill" if place != "mill" else "zoo"
        for said, outcome in (
            (f"The locker number of the {place} is {answer}.", "right"),
            (f"The locker number of the {other} is {answer}.", "unparsed"),
            (f"The {other}'s is {rumour}, the {place}'s is {answer}.", "right"),
            (f"It is not {answer}.", "unparsed"),
            (f"{answer} or {rumour}", "unparsed"),
        ):
            assert SplitFacts().grade(said, example).outcome == outcome, said


def test_a_text_of_very_many_codes_states_one_only_if_they_agree() -> None:
    assert grade_exact_code("The code is 4417. " * 10_000, "4417").outcome == "right"
    assert grade_exact_code("The code is 4417. " * 10_000 + "It is 9902.", "4417").outcome == "unparsed"
    for unit in ("not ", "if ", "or 1 ", "1, ", "the mill's ", "no, ", "it is not "):
        assert grade_exact_code((unit * 50_000)[:50_000] + " 4417", "4417", "mill").outcome != "wrong"


@pytest.mark.parametrize(
    "text",
    [
        "0417 can't be the code.", "0417 won't open it.", "The wrong code is 0417", "Wrong code: 0417",
        "The old code is 0417",
    ],
)
def test_a_code_that_is_said_to_be_wrong_is_not_stated(text: str) -> None:
    assert grade_exact_code(text, "0417").outcome == "unparsed"
