"""What a model writes between think tags, told apart from its answer.

    <think>7 is odd.</think>The answer is 7.       thinking "7 is odd.", answer "The answer is 7."
    7 is odd.</think>The answer is 7.              likewise, where the prompt had opened the tag
    <think>7 is                                    cut off while thinking: no answer

Whoever grades or votes reads the answer alone: what is considered on the way is not stated.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from gcache.chat_template import THINK_TAGS

TAGS = THINK_TAGS
MARKERS = tuple(tag for pair in TAGS for tag in pair)
_CLOSING = {start: end for start, end in TAGS}
_START = re.compile("|".join(re.escape(start) for start, _ in TAGS))
_TAG = re.compile("|".join(map(re.escape, MARKERS)))
_ENDS = re.compile("|".join(re.escape(end) for _, end in TAGS))


class Thought(NamedTuple):
    """A text in two: what was thought, without tags, and what was answered."""

    thinking: str
    answer: str


def told_apart(text: str, opened: bool | None = False) -> Thought:
    """Split a text.

    Args:
        opened: whether the prompt ended inside a tag, so that the text begins with thinking; None where nobody knows
            the prompt, as behind an API: a closing tag says so, then.

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
    closing = None if opened is False else (_ENDS if opened else _TAG).search(text)
    if closing and opened is None and closing.group() != TAGS[0][1]:
        closing = None  # of a prompt that nobody knows, only the usual tag says that it was open
    if closing and closing.group() not in _CLOSING:
        return Thought(text[: closing.start()].strip(), text[closing.end() :].lstrip())
    return Thought(text.strip(), "") if opened else Thought("", text)


class Parting:
    """A text that grows, told apart as `told_apart` does; of neither part is anything ever taken back."""

    def __init__(self, opened: bool = False) -> None:
        self._opened, self._answers = opened, False
        self._end: re.Pattern[str] | None = None
        self._held, self._said = "", ""  # what may still be a tag; blanks that may be the last
        self.thinking, self.answer = "", ""

    def grow(self, more: str) -> Thought:
        """What can be told of both parts beyond what was."""
        before = len(self.thinking), len(self.answer)
        self._held += more
        while self._step():
            pass
        return Thought(self.thinking[before[0] :], self.answer[before[1] :])

    def finish(self, thinking: str, answer: str) -> Thought:
        """The rest of both whole parts; of a part that does not begin with what was told of it, nothing."""
        rest = Thought(_rest(thinking, self.thinking), _rest(answer, self.answer))
        self.thinking, self.answer = thinking, answer
        return rest

    def _step(self) -> bool:
        """Decide on some of what is held; False where nothing can be decided yet."""
        if self._answers:
            self.answer += self._held
            self._held = ""
            return False
        if self._end is None:
            return self._open()
        found = self._end.search(self._held)
        if found is None:
            sure = len(self._held) - max(overlap(self._held, marker) for marker in MARKERS)
            self._think(self._held[:sure])
            self._held = self._held[sure:]
            return False
        self._think(self._held[: found.start()])
        rest = self._held[found.end() :].lstrip()
        if not rest:  # blanks in front of the answer are none of it
            self._held = self._held[found.start() :]
            return False
        self._held, self._answers = rest, True
        return True

    def _open(self) -> bool:
        """Whether the text begins with a tag."""
        start = self._held.lstrip()
        found = _START.match(start)
        if found:
            self._end, self._held = re.compile(re.escape(_CLOSING[found.group()])), start[found.end() :]
            return True
        if not start or any(tag.startswith(start) for tag in _CLOSING):
            return False
        self._end, self._answers = (_ENDS if self._opened else None), not self._opened
        return True

    def _think(self, more: str) -> None:
        """Blanks are told once something follows them."""
        text = self._said + more
        if not self.thinking:
            text = text.lstrip()
        sure = text.rstrip()
        self.thinking += sure
        self._said = text[len(sure) :]


def _rest(whole: str, told: str) -> str:
    return whole[len(told) :] if whole.startswith(told) else ""


def overlap(text: str, word: str) -> int:
    """How much of a word's beginning, but not all of it, the text ends with."""
    return next((n for n in range(min(len(word) - 1, len(text)), 0, -1) if text.endswith(word[:n])), 0)


def opens_thinking(prompt: str) -> bool:
    """Whether a prompt ends inside a tag, as templates of models that always think do."""
    tags = list(_TAG.finditer(prompt))
    return bool(tags) and tags[-1].group() in _CLOSING
