"""What a model writes between think tags, told apart from its answer.

    <think>7 is odd.</think>The answer is 7.       thinking "7 is odd.", answer "The answer is 7."
    7 is odd.</think>The answer is 7.              likewise: the template had opened the tag
    <think>7 is                                    cut off while thinking: no answer

Whoever grades or votes reads the answer alone: what is considered on the way is not stated.
"""

from __future__ import annotations

import re
from typing import NamedTuple

#: Opening and closing tags that models of the field are trained with.
TAGS = (
    ("<think>", "</think>"), ("<thinking>", "</thinking>"), ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"), ("[THINK]", "[/THINK]"), ("<seed:think>", "</seed:think>"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"), ("\u25c1think\u25b7", "\u25c1/think\u25b7"),
)  # fmt: skip
MARKERS = tuple(tag for pair in TAGS for tag in pair)
_CLOSING = {start: end for start, end in TAGS}
_START = re.compile("|".join(re.escape(start) for start, _ in TAGS))
_TAG = re.compile("|".join(map(re.escape, MARKERS)))


class Thought(NamedTuple):
    """A text in two: what was thought, without tags, and what was answered."""

    thinking: str
    answer: str


def told_apart(text: str, opened: bool = False) -> Thought:
    """Split a text.

    Args:
        opened: whether the prompt ended inside a tag, so that the text begins with thinking.

    A text without a tag is all answer, unless `opened`. Only at its beginning does a tag open thinking, blanks in front
    of it left aside: a program may well have such words in it.
    """
    found = _START.match(text.lstrip())
    if found:
        start = len(text) - len(text.lstrip()) + found.end()
        end = text.find(_CLOSING[found.group()], start)
        if end < 0:
            return Thought(text[start:].strip(), "")
        return Thought(text[start:end].strip(), text[end + len(_CLOSING[found.group()]) :].lstrip())
    closing = _TAG.search(text)
    if closing and closing.group() not in _CLOSING:
        return Thought(text[: closing.start()].strip(), text[closing.end() :].lstrip())
    return Thought(text.strip(), "") if opened else Thought("", text)


def opens_thinking(prompt: str) -> bool:
    """Whether a prompt ends inside a tag, as templates of models that always think do."""
    tags = list(_TAG.finditer(prompt))
    return bool(tags) and tags[-1].group() in _CLOSING
