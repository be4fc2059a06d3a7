"""Whether an answer that a text names is its own: "Tom's answer", "my initial answer" and a quoted one are not."""

from __future__ import annotations

import re

from gcache.tasks.number_words import words

_REACH = 160  # characters before the word

_WORDS_BEFORE = re.compile(r"(?:[\w'-]+[ ]){0,4}$")
#: Words of which the answer may still be anybody's; the word before them decides.
_OF_ANYBODY = words(
    "final correct right actual true real exact numerical numeric total overall best only new revised corrected"
    " updated simplified simplest required desired complete short math"
)
_OF_ANOTHER = words(
    "his her their your its whose someone another an a one each any other every no which what some initial first"
    " original previous earlier old former alternative possible potential plausible tentative preliminary expected"
    " second student user of intermediate partial rough estimated guessed sample example model's teacher's proposed"
    " suggested given"
)
_BY_ANOTHER = re.compile(
    r"\b(?:gave|wrote|got|gives?|given|said|had)\b|\b(?:of|from|by|in)\s+(?:the\s+)?(?:[A-Z]\w+|others?\b|students?\b|book\b)"
)
_OF_THE_TASK = re.compile(r"(?i)\b(?:i|we|my|our|question|problem|exercise|task|puzzle|equation|sum|number)\b")
_THINKS = (
    r"(?:says?|said|thinks?|thought|believes?|believed|claims|claimed|guesses|guessed|argues|argued|insists|insisted)"
)
_SAYS = rf"(?:{_THINKS}|tells?|told|writes?|wrote|suggests?|suggested|replie[sd]|reports|reported|hopes|hoped|wishes)"
_THOUGHT = re.compile(rf"(?i)\b(?!(?:i|we|this|that|which|it)\b)[\w'-]+[ ]{_THINKS}\b(?!.*\bbut\b)")
_REPORTED = re.compile(
    rf"(?i)\b(?!(?:i|we|this|that|which|it|question|problem)\b)[\w'-]+[ ]{_SAYS}\b(?!.*\bbut\b)"
    r"|\b(?:i|we)[ ](?:guess(?:ed)?|hope|wish|want|wanted|first thought|thought|originally|initially|used to)\b"
    r"(?!.*\bbut\b)"
    r"|\baccording to (?!(?:the|this|our|my) (?:problem|question|calculation|rule|formula|equation|table|above)|this\b"
    r"|our\b)"
    r"|\bnot (?:saying|claiming|convinced|suggesting)\b"
    r"|\b(?:maybe|perhaps|possibly|hopefully|my guess|e\.g\.|for example|for instance|such as|in the (?:form|format))"
    r"(?!.*\bbut\b)"
)
_SENTENCE_END = re.compile(r"(?<!e\.g)(?<!\bMr)(?<!\bMrs)(?<!\bMs)(?<!\bDr)[.!?](?=[\s\"')])|\n|;")


def own(text: str, start: int, between: str = "") -> bool:
    """Whether the answer that is named at `start` is the text's own.

    Args:
        between: the words between "answer" and its verb.
    """
    before = _SENTENCE_END.split(text[max(0, start - _REACH) : start])[-1]
    words = _WORDS_BEFORE.search(before)
    for word in reversed(words.group().split() if words else []):
        low = word.lower()
        if low in _OF_ANOTHER or (re.search(r"(?:'s|s')$", low) and low not in ("let's", "that's", "it's", "here's")):
            return False
        if low not in _OF_ANYBODY:
            break
    if re.match(r"\s*(?:#?[0-9]+\s*$|key\b|sheet\b|choices?\b|format\b)", between):
        return False
    if re.search(r"\bwould\b", between) and re.search(r"(?i)\b(?:if|had|were)\b", before):
        return False
    if "number" not in between and _BY_ANOTHER.search(between) and not _OF_THE_TASK.search(between):
        return False
    return not _REPORTED.search(before) and not _quoted(text, start)


def thought_by_another(sentence: str) -> bool:
    """Whether a sentence says what somebody says or thinks: "Bob says he has 5"."""
    return _THOUGHT.search(sentence) is not None


def _quoted(text: str, start: int) -> bool:
    """Whether a quotation in a longer text is open there."""
    line = text[max(0, start - 2 * _REACH) : start].rpartition("\n")[2]
    if line.count('"') % 2 == 0:
        return False
    return bool(re.search(r"[A-Za-z]", line[: line.rindex('"')]))
