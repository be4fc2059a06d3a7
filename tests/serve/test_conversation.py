"""How a conversation becomes a question."""

from __future__ import annotations

import pytest

from gcache.serve.conversation import question
from gcache.serve.refusals import Refused


def test_one_user_message_is_the_question_to_the_letter() -> None:
    assert question([("user", "  What is\n2 + 3?  ")]) == "  What is\n2 + 3?  "


def test_instructions_come_first_then_earlier_turns_then_the_question() -> None:
    turns = [
        ("user", "Hi"), ("system", "Be brief."), ("assistant", "Hello"), ("developer", "In English."),
        ("user", "2 + 2?"),
    ]  # fmt: skip
    assert question(turns) == "Be brief.\n\nIn English.\n\nuser: Hi\nassistant: Hello\n\n2 + 2?"


def test_of_instructions_alone_the_last_is_the_question() -> None:
    assert question([("developer", "2 + 2?")]) == "2 + 2?"
    assert question([("system", "Be brief."), ("developer", "2 + 2?")]) == "Be brief.\n\n2 + 2?"


def test_empty_turns_leave_no_trace() -> None:
    assert question([("system", " "), ("assistant", ""), ("user", "2 + 2?")]) == "2 + 2?"


@pytest.mark.parametrize(
    ("turns", "said"), [
        ([("user", "a"), ("assistant", "b")], "the user's"), ([("user", " \n ")], "blank"),
        ([("user", "a"), ("system", "b")], "the user's"), ([("assistant", "a"), ("system", "b")], "the user's"),
        ([("system", " ")], "blank"),
    ],
)
def test_what_asks_nothing_is_refused(turns: list[tuple[str, str]], said: str) -> None:
    with pytest.raises(Refused, match=said):
        question(turns)
