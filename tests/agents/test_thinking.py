from __future__ import annotations

import pytest

from gcache.agents.thinking import TAGS, opens_thinking, told_apart
from gcache.graph.records import Spoken
from gcache.llm.requests import Generation


@pytest.mark.parametrize(("start", "end"), TAGS)
def test_each_pair_of_tags(start: str, end: str) -> None:
    assert told_apart(f"{start}\nis it 5? no\n{end}\n\nThe answer is 6.") == ("is it 5? no", "The answer is 6.")
    assert told_apart(f" \n{start}the answer is 5") == ("the answer is 5", "")  # cut off in thought
    assert told_apart(f"is it 5?{end}6") == ("is it 5?", "6")  # the template had opened it
    assert opens_thinking(f"<|assistant|>{start}\n") and not opens_thinking(f"<|assistant|>{start}\n\n{end}\n\n")


@pytest.mark.parametrize(
    ("text", "opened", "found"),
    [
        ("The answer is 6.", False, ("", "The answer is 6.")),
        ("  6 ", False, ("", "  6 ")),
        ("", False, ("", "")),
        ("the answer is 5", True, ("the answer is 5", "")),
        ("hm</think>6", True, ("hm", "6")),
        ("<think></think>6", False, ("", "6")),
        ("print('<think>') # 6", False, ("", "print('<think>') # 6")),
        ("<think>a</think>b</think>c", False, ("a", "b</think>c")),
        ("<think>a <think> b</think>c", False, ("a <think> b", "c")),
    ],
)
def test_texts(text: str, opened: bool, found: tuple[str, str]) -> None:
    assert told_apart(text, opened) == found


def test_the_answer_of_a_text_is_what_stands_behind_its_thinking() -> None:
    text = Generation("<think>5?</think>6", (1, 2), (0.0, 0.0), True)
    spoken = Spoken((), (1,), text)
    assert (spoken.text, spoken.reasoning, spoken.whole) == ("6", "5?", "<think>5?</think>6")
    cut = Spoken((), (1,), Generation("the answer is 5", (1,), (0.0,), False), thinks=True)
    assert (cut.text, cut.reasoning) == ("", "the answer is 5")
