"""What a model writes between think tags, told apart from its answer.

    <think>7 is odd.</think>The answer is 7.       thinking "7 is odd.", answer "The answer is 7."
    7 is odd.</think>The answer is 7.              likewise, where the prompt had opened the tag
    Well. <think>7 is odd.</think>It is 7.         thinking "7 is odd.", answer "Well. It is 7."
    <think>7 is                                    cut off while thinking: no answer

Whoever grades or votes reads the answer alone: what is considered on the way is not stated.
"""

from __future__ import annotations

import re
import string
from typing import NamedTuple

from gcache.agents.chat_template import THINK_TAGS
from gcache.tasks.fences import ends_in_a_block

TAGS = THINK_TAGS
MARKERS = tuple(tag for pair in TAGS for tag in pair)
#: Tags are known in any case; ASCII, so that no other letter passes for one of theirs.
_ANY_CASE = re.IGNORECASE | re.ASCII


def _any_of(tags: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(map(re.escape, tags)), _ANY_CASE)


_STARTS, _ENDS = tuple(start for start, _ in TAGS), tuple(end for _, end in TAGS)
_START, _END = _any_of(_STARTS), _any_of(_ENDS)
_TAG = _any_of(MARKERS)
_LONGEST = max(map(len, MARKERS))
_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)  # keeps every place, as str.lower does not
_CLOSING = {start.lower(): _any_of((end,)) for start, end in TAGS}
#: What a tag that is only spoken of stands behind: marks that open and close alike, and some that only open.
_MARKS, _OPENING = "`'\"", "\u2018\u201c\u00ab"


class Thought(NamedTuple):
    """A text in two: what was thought, without tags, and what was answered."""

    thinking: str
    answer: str


def split_thinking(text: str, opened: bool | None = False) -> Thought:
    """Split a text.

    Args:
        opened: whether the prompt ended inside a tag, so that the text begins with thinking; None where nobody knows
            the prompt, as behind an API: a closing tag says so, then.

    A text without a tag is all answer, unless `opened`. Thinking may begin anywhere and more than once, but not in a
    block of code. Right behind a mark that opens a quotation, a tag is only spoken of and neither begins nor ends it.
    """
    if opened is None:  # of a prompt that nobody knows, only the usual tag says that it was open
        first = next((tag for tag in _TAG.finditer(text) if not _is_quoted(text[: tag.start()])), None)
        opened = first is not None and first.group().lower() == TAGS[0][1]
    parting = ThinkSplitter(opened)
    parting.grow(text)
    return parting.end()


class ThinkSplitter:
    """A text that grows, told apart; of neither part is anything ever taken back."""

    def __init__(self, opened: bool = False) -> None:
        self.thinking, self.answer = "", ""
        self._held = ""  # what may still be a tag
        self._end = _END if opened else None  # what ends the thinking, while there is any
        self._first = opened  # whether a tag here would only repeat the prompt's
        self._opens = opened  # whether a piece of thinking has begun, with nothing in it yet
        self._blanks = ""  # that may be the last of a part, or stand around a tag
        self._behind = False  # whether some thinking has ended, and nothing was answered since

    def grow(self, more: str) -> Thought:
        """What can be told of both parts beyond what was."""
        before = len(self.thinking), len(self.answer)
        self._held += more
        while self._begin() if self._first else self._answer() if self._end is None else self._think(self._end):
            pass
        return Thought(self.thinking[before[0] :], self.answer[before[1] :])

    def end(self) -> Thought:
        """Both whole parts, where no more comes."""
        self._first = False
        (self._add_answer if self._end is None else self._add_thinking)(self._held)
        untouched = self._end is None and not self._behind and not self.thinking and not self.answer
        return Thought(self.thinking, self._blanks if untouched else self.answer)

    def finish(self, thinking: str, answer: str) -> Thought:
        """The rest of both whole parts; of a part that does not begin with what was told of it, nothing."""
        rest = Thought(_rest(thinking, self.thinking), _rest(answer, self.answer))
        self.thinking, self.answer = thinking, answer
        return rest

    def _begin(self) -> bool:
        """Read a tag that repeats the prompt's; False where nothing can be decided yet."""
        start = self._held.lstrip()
        found = _START.match(start)
        if found is None and (not start or _begun(start, _STARTS) == len(start)):
            return False
        if found is not None:
            self._end, self._held = _CLOSING[found.group().lower()], start[found.end() :]
        self._first = False
        return True

    def _think(self, end: re.Pattern[str]) -> bool:
        """Read thinking, up to its end; False where nothing can be decided yet."""
        found = end.search(self._held)
        sure = found.start() if found else len(self._held) - _begun(self._held, _ENDS)
        self._add_thinking(self._held[:sure])
        self._held = self._held[sure:]
        if found is None:
            return False
        tag, self._held = found.group(), self._held[len(found.group()) :]
        if not self._opens and _is_quoted(self.thinking + self._blanks):
            self._add_thinking(tag)
            return True
        self._end, self._blanks, self._behind = None, "", True
        return True

    def _answer(self) -> bool:
        """Read an answer, up to the next thinking; False where nothing can be decided yet."""
        found = _START.search(self._held)
        sure = found.start() if found else len(self._held) - _begun(self._held, _STARTS)
        self._add_answer(self._held[:sure])
        self._held = self._held[sure:]
        if found is None:
            return False
        tag, self._held = found.group(), self._held[len(found.group()) :]
        before = self.answer + self._blanks
        if _is_quoted(before) or ends_in_a_block(before):
            self._add_answer(tag)
            return True
        self._end, self._opens, self._behind = _CLOSING[tag.lower()], True, False
        return True

    def _add_thinking(self, more: str) -> None:
        """Blanks are told once something follows them; in front of a piece of thinking they are none of it."""
        if self._opens:
            more = more.lstrip()
            if not more:
                return
            self._opens, self._blanks = False, "\n\n" if self.thinking else ""
        text = self._blanks + more
        sure = text.rstrip()
        self.thinking += sure
        self._blanks = text[len(sure) :]

    def _add_answer(self, more: str) -> None:
        """Blanks in front of the answer are none of it where some thinking stood there; between two of its pieces,
        there is always one."""
        text = self._blanks + more
        if (not self.answer or self._behind) and not text.strip():
            self._blanks = text
            return
        if self._behind:
            body = text.lstrip()
            apart = not self.answer or self.answer[-1].isspace()
            text = body if apart else (text[: len(text) - len(body)] or "\n") + body
        self.answer += text
        self._blanks, self._behind = "", False


def _is_quoted(before: str) -> bool:
    """Whether a text ends with a mark that opens a quotation: one that stands behind no word, and has no other of its
    kind to close."""
    line = before.rpartition("\n")[2]
    mark = line[-1:]
    if not mark or mark in _OPENING:
        return bool(mark)
    if mark not in _MARKS or line[-2:-1].isalnum():
        return False
    others = re.sub(rf"(?<=\w){mark}(?=\w)", "", line[:-1])  # without those within words, which quote nothing
    return others.count(mark) % 2 == 0


def _begun(text: str, tags: tuple[str, ...]) -> int:
    """How much of a tag's beginning, but not all of it, the text ends with."""
    end = text[-_LONGEST:].translate(_LOWER)
    return max(overlap(end, tag.translate(_LOWER)) for tag in tags)


def _rest(whole: str, told: str) -> str:
    return whole[len(told) :] if whole.startswith(told) else ""


def overlap(text: str, word: str) -> int:
    """How much of a word's beginning, but not all of it, the text ends with."""
    return next((n for n in range(min(len(word) - 1, len(text)), 0, -1) if text.endswith(word[:n])), 0)


def opens_thinking(prompt: str) -> bool:
    """Whether a prompt ends inside a tag, as templates of models that always think do."""
    tags = list(_TAG.finditer(prompt))
    return bool(tags) and tags[-1].group().lower() in _CLOSING
