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
from collections.abc import Callable
from typing import NamedTuple

from gcache.agents.chat_template import THINK_TAGS
from gcache.agents.quotation import Quotation

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
        opened = _first_tag(text) == TAGS[0][1]
    parting = ThinkSplitter(opened)
    parting.grow(text)
    return parting.end()


class ThinkSplitter:
    """A text that grows, told apart; of neither part is anything ever taken back."""

    def __init__(self, opened: bool = False) -> None:
        self._thinking, self._answer = _Part(), _Part()
        self._held, self._at = "", 0  # from there on, what may still be a tag
        self._end = _END if opened else None  # what ends the thinking, while there is any
        self._first = opened  # whether a tag here would only repeat the prompt's
        self._opens = opened  # whether a piece of thinking has begun, with nothing in it yet
        self._blanks = ""  # that may be the last of a part, or stand around a tag
        self._behind = False  # whether some thinking has ended, and nothing was answered since

    @property
    def thinking(self) -> str:
        """What was thought so far."""
        return self._thinking.text

    @property
    def answer(self) -> str:
        """What was answered so far."""
        return self._answer.text

    def grow(self, more: str) -> Thought:
        """What can be told of both parts beyond what was."""
        self._held, self._at = self._held[self._at :] + more, 0
        while self._begin() if self._first else self._read_answer() if self._end is None else self._think(self._end):
            pass
        return Thought(self._thinking.fresh(), self._answer.fresh())

    def end(self) -> Thought:
        """Both whole parts, where no more comes."""
        self._first = False
        (self._add_answer if self._end is None else self._add_thinking)(self._held[self._at :])
        untouched = self._end is None and not self._behind and not self._thinking and not self._answer
        return Thought(self.thinking, self._blanks if untouched else self.answer)

    def finish(self, thinking: str, answer: str) -> Thought:
        """The rest of both whole parts; of a part that does not begin with what was told of it, nothing."""
        return Thought(_rest(thinking, self.thinking), _rest(answer, self.answer))

    def _begin(self) -> bool:
        """Read a tag that repeats the prompt's; False where nothing can be decided yet."""
        start = self._held.lstrip()
        found = _START.match(start)
        if found is None and (not start or _begun(start, _STARTS) == len(start)):
            return False
        if found is not None:
            self._end, self._at = _CLOSING[found.group().lower()], len(self._held) - len(start) + found.end()
        self._first = False
        return True

    def _think(self, end: re.Pattern[str]) -> bool:
        """Read thinking, up to its end; False where nothing can be decided yet."""
        tag = self._next(end, _ENDS, self._add_thinking)
        if tag is None:
            return False
        if not self._opens and not self._blanks and self._thinking.before.is_open:
            self._add_thinking(tag)
            return True
        self._end, self._blanks, self._behind = None, "", True
        return True

    def _read_answer(self) -> bool:
        """Read an answer, up to the next thinking; False where nothing can be decided yet."""
        tag = self._next(_START, _STARTS, self._add_answer)
        if tag is None:
            return False
        before = self._answer.before
        if (not self._blanks and before.is_open) or before.in_block(self._blanks):
            self._add_answer(tag)
            return True
        self._end, self._opens, self._behind = _CLOSING[tag.lower()], True, False
        return True

    def _next(self, tag: re.Pattern[str], tags: tuple[str, ...], add: Callable[[str], None]) -> str | None:
        """The next tag, where what stands before it is added; None where what is held has none, but perhaps the
        beginning of one of `tags`."""
        found = tag.search(self._held, self._at)
        begun = 0 if found else _begun(self._held[max(self._at, len(self._held) - _LONGEST) :], tags)
        start = found.start() if found else len(self._held) - begun
        add(self._held[self._at : start])
        self._at = found.end() if found else start
        return found.group() if found else None

    def _add_thinking(self, more: str) -> None:
        """Blanks are told once something follows them; in front of a piece of thinking they are none of it."""
        if self._opens:
            more = more.lstrip()
            if not more:
                return
            self._opens, self._blanks = False, "\n\n" if self._thinking else ""
        text = self._blanks + more
        sure = text.rstrip()
        self._thinking.add(sure)
        self._blanks = text[len(sure) :]

    def _add_answer(self, more: str) -> None:
        """Blanks in front of the answer are none of it where some thinking stood there; between two of its pieces,
        there is always one."""
        text = self._blanks + more
        if (not self._answer or self._behind) and not text.strip():
            self._blanks = text
            return
        if self._behind:
            body = text.lstrip()
            apart = not self._answer or self._answer.last.isspace()
            text = body if apart else (text[: len(text) - len(body)] or "\n") + body
        self._answer.add(text)
        self._blanks, self._behind = "", False


class _Part:
    """One of the two parts as it grows."""

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._told = 0  # pieces
        self.last = ""  # character
        #: What stands before whatever comes next.
        self.before = Quotation()

    def __bool__(self) -> bool:
        return bool(self.last)

    def add(self, text: str) -> None:
        if text:
            self._pieces.append(text)
            self.last = text[-1]
            self.before.add(text)

    def fresh(self) -> str:
        """What was added since this was asked last."""
        first, self._told = self._told, len(self._pieces)
        return "".join(self._pieces[first:])

    @property
    def text(self) -> str:
        return "".join(self._pieces)


def _first_tag(text: str) -> str | None:
    """The first tag of a text that is not only spoken of, in small letters."""
    before, at = Quotation(), 0
    for tag in _TAG.finditer(text):
        before.add(text[at : tag.start()])
        at = tag.start()
        if not before.is_open:
            return tag.group().lower()
    return None


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
