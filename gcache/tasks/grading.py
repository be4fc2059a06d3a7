"""Reading the number that a text states as its answer, and comparing it with the right one.

The graders never guess. What counts is a statement that is read to its end: a box, a `####` line, "the answer is N", a
heading with N below it, a conclusion that ends the text, a last line such as "x = N", or a text that is nothing but a
number or one sentence that states it. A number that merely stands last is `unstated`, which is counted apart
and not right; a text that denies its answer, offers several or has no number is `unparsed`. Reading takes time linear
in the text, for models do at times return pages of noise.
"""

from __future__ import annotations

import re

from gcache.errors import ConfigError
from gcache.tasks.codes import grade_exact_code
from gcache.tasks.example import Example, Grade
from gcache.tasks.number_boxes import boxes
from gcache.tasks.number_phrases import UNREAD
from gcache.tasks.number_statements import number_mentions
from gcache.tasks.number_value import NUMBER, canonical, is_value, numbers_equal, tidy
from gcache.tasks.stance import plain, sentence_at, stance
from gcache.tasks.statements import stated_value

__all__ = [
    "NumberTask",
    "accepts",
    "extract_number",
    "grade_exact_code",
    "grade_number",
    "last_box",
    "last_number",
    "numbers_equal",
]

_CUT_NUMBER = re.compile(r"[0-9][0-9.,/^*+\u00d7\u00f7 -]*$")
_OR = re.compile(r"(?i)(?:\s*\w+){0,2}\s*,?\s*\bor\b[\s\"'*$]*|\s*\u2013\s*")
#: Scale words that a question asks for, and that are units then.
_ASKED_SCALE = re.compile(
    r"(?i)\b(?:how many|in|number of) (hundred|thousand|million|billion|trillion|dozen|score)s?\b"
)


def extract_number(text: str, *, asked: str = "") -> str | None:
    r"""The number that a text states as its answer, without thousands commas, currency and unit; None where it
    states none, or several.

    The strongest form that the text has decides: `\boxed{...}` (the last), `#### N`, "final answer", "the answer is N"
    or a text that is nothing but a number, and last a conclusion ("Therefore she earns $18.") or a line ("x = 18") that
    ends the text. A statement that is not read to its end ("5; 6", "5 at most") counts as none. What
    the text denies, asks, supposes or withdraws is not stated; see `gcache.tasks.statements`. Fractions and mixed
    numbers come back reduced ("3/4"), scale words multiplied out; arithmetic ("3+4", `2\sqrt{3}`) as it stands, for
    `numbers_equal`.

    Args:
        asked: the question; a scale word that it asks for ("how many dozen") is a unit.
    """
    return _read(text, asked)[0]


def grade_number(text: str, answer: str, *, asked: str = "", accept_last_number: bool = False) -> Grade:
    """Grade a text whose right answer is one number.

    `right` or `wrong` by `extract_number`; `unstated` where a number merely stands last, unless it is accepted;
    `unparsed` where there is no number, or what the text says of it is that it is not the answer.

    Args:
        accept_last_number: grade such a number as if it were stated; the grade still says that it was not.
    """
    stated, tried = _read(text, asked)
    if stated is not None:
        return Grade("right" if numbers_equal(stated, answer) else "wrong", stated)
    last = None if tried else last_number(text)
    if last is None:
        return Grade("unparsed")
    if not accept_last_number:
        return Grade("unstated", last)
    return Grade("right" if numbers_equal(last, answer) else "wrong", last, last_number=True)


def last_number(text: str) -> str | None:
    """The last number of a text, if the text neither denies it nor asks for it, supposes it or offers it."""
    text = plain(tidy(text))
    numbers = [number for number in NUMBER.finditer(text) if is_value(text, number)]
    if not numbers:
        return None
    before = text[numbers[-2].end() : numbers[-1].start()] if len(numbers) > 1 else ""
    if _OR.fullmatch(before):
        return None
    at = sentence_at(text, numbers[-1].start(), numbers[-1].end())
    return canonical(numbers[-1]) if stance(at) == "stated" else None


def last_box(text: str) -> str | None:
    r"""What is in the last closed, non-empty `\boxed{...}` of at most 1,000 characters."""
    found = boxes(text)
    return found[-1][2] if found else None


def as_cut(text: str) -> str:
    """A text that a length limit cut off, without a number that it breaks off in, and with a sign that it goes on."""
    return _CUT_NUMBER.sub("", text) + " \u2026"


class NumberTask:
    """What tasks with a number for an answer share.

    Attributes:
        accept_last_number: whether a number that merely stands last is graded as if the text stated it; it is counted
            as unstated in any case.
    """

    accept_last_number: bool = False

    def grade(self, text: str, example: Example) -> Grade:
        """Right if the number that the text states equals the example's."""
        return grade_number(text, example.answer, asked=example.question, accept_last_number=self.accept_last_number)

    def grade_cut(self, text: str, example: Example) -> Grade:
        """The grade of a text that a length limit cut off: a number that it breaks off in is none, and the sentence
        before that is not its end."""
        return self.grade(as_cut(text), example)


def accepts(accept_last_number: bool) -> bool:
    """The value of the option of that name. Raises ConfigError where it is neither true nor false."""
    if not isinstance(accept_last_number, bool):
        raise ConfigError(f"accept_last_number must be true or false, got {accept_last_number!r}")
    return accept_last_number


def _read(text: str, asked: str) -> tuple[str | None, bool]:
    """What is stated, and whether anything was said of an answer at all."""
    text = plain(tidy(text))
    mentions = number_mentions(text, [word.lower() for word in _ASKED_SCALE.findall(asked)])
    return stated_value(text, [mention for mention in mentions if mention.rank < UNREAD], _same), bool(mentions)


def _same(one: str, other: str) -> bool:
    return one == other or numbers_equal(one, other)
