from __future__ import annotations

import pytest

from gcache.agents.thinking import TAGS, ThinkSplitter, opens_thinking, split_thinking
from gcache.graph.result import Spoken
from gcache.llm.requests import Generation


@pytest.mark.parametrize(("start", "end"), TAGS)
def test_each_pair_of_tags(start: str, end: str) -> None:
    assert split_thinking(f"{start}\nis it 5? no\n{end}\n\nThe answer is 6.") == ("is it 5? no", "The answer is 6.")
    assert split_thinking(f" \n{start}the answer is 5") == ("the answer is 5", "")  # cut off in thought
    assert split_thinking(f"is it 5?{end}6", True) == ("is it 5?", "6")  # the template had opened it
    server = ("is it 5?", "6") if end == "</think>" else ("", f"is it 5?{end}6")
    # a server's prompt may have, and only the usual tag says so
    assert split_thinking(f"is it 5?{end}6", None) == server
    assert split_thinking(f"is it 5?{end}6") == ("", f"is it 5?{end}6")
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
        ("Let me think.\n<think>5?</think>\n\nThe answer is 6.", False, ("5?", "Let me think.\nThe answer is 6.")),
        ("Okay. <think>the answer is 5</think> 6", False, ("the answer is 5", "Okay. 6")),
        ("So<think>5?</think>6", False, ("5?", "So\n6")),
        ("So<think>5?</think> 6", False, ("5?", "So 6")),
        ("<think>a</think>\n<think>b</think>\n6", False, ("a\n\nb", "6")),
        ("<think>a</think>6 <think>b</think> it is", False, ("a\n\nb", "6 it is")),
        ("<think> </think><think>b", False, ("b", "")),
        ("<think>a</think>6\n<think>the answer is 5", False, ("a\n\nthe answer is 5", "6\n")),
        ("hm</think>6 <think>5?</think>or so", True, ("hm\n\n5?", "6 or so")),
        ("hm</think>6 <think>5?</think>or so", None, ("hm\n\n5?", "6 or so")),
        ("Well. <think>5?</think>6", None, ("5?", "Well. 6")),
        ("<THINK>a</Think>6", False, ("a", "6")),
        ("a</THINK>6", True, ("a", "6")),
        ("<Think>a</THINK>6", None, ("a", "6")),
        ("<th\u0131nk>a</think>6", False, ("", "<th\u0131nk>a</think>6")),  # no letter of the tag's
        ("The tag `<think>` is one", False, ("", "The tag `<think>` is one")),
        ('He said "stop."<think>5</think>6', False, ("5", 'He said "stop."\n6')),
        ("It is 5'<think>the answer is 4", False, ("the answer is 4", "It is 5'")),
        ("A ` alone <think>5</think> 6", False, ("5", "A ` alone 6")),
        ("It's ['a', '<think>'] # 6", False, ("", "It's ['a', '<think>'] # 6")),
        ("- ```\n  x = 1\n  ```\n<think>The answer is 4.", False, ("The answer is 4.", "- ```\n  x = 1\n  ```\n")),
        ("Code: ```\nx\n```\n<think>5", False, ("5", "Code: ```\nx\n```\n")),
        ("```python\nx = 1```\n<think>5", False, ("5", "```python\nx = 1```\n")),
        ("````\n```\n````\n<think>5", False, ("5", "````\n```\n````\n")),
        ("````\n```\n<think>\n````\n6", False, ("", "````\n```\n<think>\n````\n6")),
        ("<think>I close with `</think>` later. It is 4", False, ("I close with `</think>` later. It is 4", "")),
        ("<think>`x`</think>6", False, ("`x`", "6")),
        ("<think>so 'done'</think>6", False, ("so 'done'", "6")),
        ("<think>```\nx</think>6", False, ("```\nx", "6")),  # what is open in a thought ends with it
        ("The answer is 4. (no `</think>`)", None, ("", "The answer is 4. (no `</think>`)")),
        ('The tag "<think>" is one', False, ("", 'The tag "<think>" is one')),
        ("```python\nx = 1  # <think>\n```\n6", False, ("", "```python\nx = 1  # <think>\n```\n6")),
        ("```\na\n```\n<think>b</think>6", False, ("b", "```\na\n```\n6")),
    ],
)
def test_texts(text: str, opened: bool, found: tuple[str, str]) -> None:
    assert split_thinking(text, opened) == found


TOLD = [
    "The answer is 6.", "", "  6 ", "<think>5?</think>6", " <think> 5? \n</think>\n\n6 <think> 7", "<think>5? ",
    "<thi", "<thin>6", "[THINK]a[/THINK] b</think> c",
    "a</think>6", "a <think> b</think>6", "a </thin", "< think>", "<think></think>",
    "<think>\n\n</think>\n\n", "print('<think>')", "Well.\n<think>5?</think>\n\n6", "a<think>b</think>c",
    "<think>a</think> <think> b </think>\n c <THINK> d", "`<think>` a\n <Think>\nb\n</Think>\nc ", "  <thinks>",
    "a </thi",
    "<think>a</think>\n```\n<think>\n```\n<think>b</think>", "  ", "\n<think> </think> \n",
    "a <think> </think> ",
]  # fmt: skip


@pytest.mark.parametrize("opened", [False, True])
@pytest.mark.parametrize("text", TOLD)
@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_a_text_that_grows_is_told_apart_as_the_whole_is(text: str, opened: bool, size: int) -> None:
    parting, told = ThinkSplitter(opened), [("", "")]
    for start in range(0, len(text), size):
        told.append(parting.grow(text[start : start + size]))
    whole = split_thinking(text, opened)
    assert whole.thinking.startswith(parting.thinking) and whole.answer.startswith(parting.answer)
    told.append(parting.finish(*whole))
    assert ("".join(thinking for thinking, _ in told), "".join(answer for _, answer in told)) == whole


def test_what_is_sure_is_told_at_once() -> None:
    parting = ThinkSplitter()
    told = [tuple(parting.grow(more)) for more in ("<think>", "is it ", "5?</th", "ink>\n", "6", " or so")]
    assert told == [("", ""), ("is it", ""), (" 5?", ""), ("", ""), ("", "6"), ("", " or so")]


def test_the_answer_of_a_text_is_what_stands_behind_its_thinking() -> None:
    text = Generation("<think>5?</think>6", (1, 2), (0.0, 0.0), True)
    spoken = Spoken((), (1,), text)
    assert (spoken.text, spoken.reasoning, spoken.whole) == ("6", "5?", "<think>5?</think>6")
    cut = Spoken((), (1,), Generation("the answer is 5", (1,), (0.0,), False), thinks=True)
    assert (cut.text, cut.reasoning) == ("", "the answer is 5")
