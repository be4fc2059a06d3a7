r"""The number that a phrase names, such as what follows "the answer is" or stands in a box.

Units, currency and a percent sign are dropped, scale words count ("5 million", "3k", "2 dozen"), arithmetic is kept
as it stands for `numbers_equal` ("3+4"), and of "3 + 4 = 7" the right side counts. A phrase that names several numbers
("5 or 6", "5-6", "2 hours and 30 minutes"), a bound ("at least 5") or a part of something ("half of 10") names no one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction
from functools import partial
from typing import NamedTuple

from gcache.tasks.number_value import NUMBER, canonical, is_value, worth

EQUALS = re.compile(r"[=\u2248]|\\approx(?![a-z])")
_LETTER_EQUALS = re.compile(r"[\s$(*]*[A-Za-z]?\s*=")
_FILLER = re.compile(
    r"(?i)[\s*_:\"'$()\[\]\\~,]*(?:\b(?:approximately|approx\.?|about|around|roughly|exactly|precisely|simply"
    r"|just|only|now"
    r"|probably|likely|definitely|clearly|indeed|therefore|thus|then|actually|equal to|given by|a total of|in total"
    r"|the (?:final )?(?:number|value|amount|answer)(?: is| of)?|usd|rs\.?)\b[\s*_:\"'$()\[\]\\~,]*)*"
)
#: Words before a number that make it a part, a bound or a step of something else.
_MODIFIED = re.compile(
    r"(?i)(?:\b(?:half|twice|double|triple|thrice|third|quarter|times|square|root|sum|difference|product|average|mean"
    r"|at least|at most|(?:more|less|fewer|greater|larger|smaller|other|rather) than|over|under|above|below"
    r"|up to|nearly"
    r"|almost|minimum of|maximum of|out of|percent of|multiple of|factor of|step|part|question|problem|case"
    r"|option|day"
    r"|plus|minus|instead of|divided by|multiplied by|between|from|each|every|per)\b(?:\W|\b(?:of|the|a|an)\b)*"
    r"|[<>\u2264\u2265]"
    r"|(?:[+/^\u00d7\u00f7\u00b7]|[A-Za-z0-9)\]]\s*\*(?!\*))\s*[$(\\]*|[A-Za-z0-9)]\s?-\s*[$(\\]*)$"
)
_SCALES = {
    "hundred": 100, "thousand": 1000, "k": 1000, "million": 10**6, "mn": 10**6, "mln": 10**6, "billion": 10**9,
    "bn": 10**9, "trillion": 10**12, "dozen": 12, "score": 20, "lakh": 10**5, "crore": 10**7, "m": 10**6, "b": 10**9,
}  # fmt: skip
_SCALE = re.compile(
    r"(?i)(?:[ -]?(hundred|thousand|million|billion|trillion|dozen|score|lakh|crore|mln|mn|bn)s?\b|(k)\b)"
)
_SHORT_SCALE = re.compile(r"([mMbB])(?![A-Za-z])")  # of money; else "5m" is a length, and "5M" says too little
_PARTS = {"half": Fraction(1, 2), "quarter": Fraction(1, 4), "third": Fraction(1, 3)}
_AND_A_HALF = re.compile(r"(?i) and (?:a|one)[ -](half|quarter|third)\b")
_UNREADABLE = re.compile(
    r"(?i)\s*(?:[xyzn]\b(?!\s*=)|\\pi|\u03c0|\^|_|!|squared\b|cubed\b|factorial\b|(?:%|percent|\\%)\s+of\b"
    r"|of\s+(?:the\s+)?[$\d]"
    r"|out of\b|(?:less|more|fewer) than (?:half|twice|an?\b|the\b|\W*\d)|short of\b|remainder\b|r\s?\d"
    r"|modulo\b|mod\b|to the power\b|or\b"
    r"|to the (?:\w+ )?power\b|times (?:as|more|the|that)\b|\u00b1|\\pm|/\s*\d|[+\u00d7\u00f7\u00b7^]\s*\w"
    r"|\*(?!\*)\s*\d"
    r"|\\(?:times|cdot|div|sqrt)|-\s*[\d(\\$]|(?:\s+[A-Za-z]+){1,2}\s*(?:[+*/\u00d7\u00f7]|-\s)\s*\W?\d)"
)
_UNIT = r"(?:\s*[A-Za-z%\u00b0$][A-Za-z%/.\u00b0']*){0,3}"
_AND_ANOTHER = re.compile(
    rf"(?i){_UNIT}\s*(?:,\s*)?(?:\b(?:or|and|to|through|versus|vs\.?)\b|[&/\u2013\u2014]"
    rf"|-(?=\s*\d))\s*(?:\b(?:maybe|perhaps|even"
    rf"|about|possibly|then)\b\s*)?[\"'*(\\$]{{0,3}}-?\$?[0-9.]|\s*,\s*(?:or|and)?\s*[\"'*(\\$]{{0,3}}-?[0-9]"
    r"|\s*(?:hours?|hrs?|minutes?|mins?|feet|ft|foot|pounds?|lbs?|days?|weeks?|years?|months?|dollars?|yards?"
    r"|met(?:er|re)s?)"
    r"\s*,?\s*(?:and\s+)?[0-9]+\s*(?:minutes?|mins?|seconds?|secs?|inch(?:es)?|cents?|ounces?|oz|hours?|days?"
    r"|weeks?|months?|cm)\b"
)
_ANOTHER_WAY = re.compile(r"(?i)(?:,\s*)?\s*(?:or|i\.e\.|that is)\s+\W{0,3}([0-9.,/]+)%?")
_AROUND = "()[]{}$\u20ac\u00a3\u00a5 \t\\%*"
_AFTER_A_VERB = re.compile(r"\b(?:is|are|was|were|equals|be)\b[\s*_:$(\\]*$")
_DATE = re.compile(r"[0-9]+(?:/[0-9]+){2,}")
_RANGE = re.compile(r"\s*([0-9.,]+)\s*[-\u2013]\s*\$?([0-9.,]+)\s*")
_TOKEN = (
    r"(?:(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?"
    r"(?:[eE][-+]?[0-9]{1,2}(?![A-Za-z0-9]))?|\.[0-9]+|\\(?:[dt]?frac|sqrt|pi|cdot|times|div|left|right)"
    r"(?![A-Za-z])|\\?[$%\u20ac\u00a3\u00a5]|[-+*/^!\u00d7\u00f7\u00b7\u221a\u03c0(){}\[\]]"
    r"|(?<=[0-9) ])x(?=\s*[0-9(\\$])|[ \t])"
)
_RUN = re.compile(rf"{_TOKEN}+")
_IN_WORDS = (
    (re.compile(r"(?i)(?<=[0-9)]) plus (?=[$\d(.])"), "+"), (re.compile(r"(?i)(?<=[0-9)]) minus (?=[$\d(.])"), "-"),
    (re.compile(r"(?i)(?<=[0-9)]) (?:times|multiplied by) (?=[$\d(.])"), "*"),
    (re.compile(r"(?i)(?<=[0-9)]) divided by (?=[$\d(.])"), "/"),
    (re.compile(r"(?i)\b(?:minus|negative) (?=[$\d.])"), "-"),
)  # fmt: skip
_WIDE_THOUSANDS = re.compile(r"(?<![0-9,.])[0-9]{1,3}(?: [0-9]{3})+(?![0-9.])")


class Named(NamedTuple):
    """A number in a phrase: what it is, or None where the phrase names no one number, and where it stands."""

    value: str | None
    start: int
    end: int


def named_number(phrase: str, *, sentence: bool = False, units: Sequence[str] = ()) -> Named | None:
    """The number that a phrase opens with, or that its equation comes to; None where it has no number.

    Args:
        phrase: made `tidy`, of at most a few hundred characters.
        sentence: whether the only number of a sentence counts wherever it stands; a sentence that has numbers, but
            none that can be told from the others, names "several".
        units: scale words that are units here, since they are what is asked ("how many dozen").
    """
    if not re.search(r"[0-9\u03c0]|\\pi", phrase):
        return None
    text = _in_signs(phrase)
    found = _opening(text, 0, units)
    equals = list(EQUALS.finditer(text))
    worked_out = found is not None and (found.value is None or not NUMBER.fullmatch(found.value))
    if equals and (worked_out if found else sentence or _LETTER_EQUALS.match(text)):
        right = _opening(text, equals[-1].end(), units)
        found = right if right and right.value is not None else found or right
    if sentence and found is None:
        found = _only(text, units) or Named(None, 0, len(phrase))
    return found


def _in_signs(phrase: str) -> str:
    """The phrase with words of arithmetic as signs, and thousands set apart by blanks joined, place for place."""
    phrase = re.sub(r"\\[()\[\]]", "  ", phrase)
    for written, sign in _IN_WORDS:
        phrase = written.sub(partial(_padded, sign), phrase)
    return _WIDE_THOUSANDS.sub(lambda found: found.group().replace(" ", "").ljust(len(found.group())), phrase)


def _padded(sign: str, found: re.Match[str]) -> str:
    return sign.rjust(len(found.group()))


def _opening(text: str, start: int, units: Sequence[str]) -> Named | None:
    """The number or the expression that a text opens with, fillers left out."""
    lead = _FILLER.match(text, start)
    start = lead.end() if lead else start
    while start > 0 and text[start - 1] in "([\\$":  # they may be the expression's own
        start -= 1
    run = _RUN.match(text, start)
    if run is None or not re.search(r"[0-9\u03c0]|\\pi", run.group()):
        return None
    body = _without_loose_ends(run.group())
    for marks in (_AROUND.replace("\\", "").replace("}", ""), _AROUND):  # the braces of a fraction are its own
        bare = re.sub(r"^(-)\s+", r"\1", body.strip(marks))
        number = NUMBER.fullmatch(bare)
        if number:
            end = start + len(body.rstrip(marks))
            whole = is_value(bare + text[end : end + 3], number)
            return _scaled(text, number, start, end, units) if whole else Named(None, start, end)
    return _expression(text, start, body)


def _without_loose_ends(body: str) -> str:
    body = re.split(r"(?<=[0-9)%])\s+(?=\()", body, maxsplit=1)[0]  # "7 (3 + 4)"
    body = re.sub(r"(?:[-+*/^x\s\u00d7\u00f7(\[{\\!]|\\(?:left|cdot|times|div))+$", "", body)
    while body.endswith(")") and body.count(")") > body.count("("):
        body = body[:-1].rstrip()
    return body


def _scaled(text: str, number: re.Match[str], start: int, end: int, units: Sequence[str]) -> Named:
    """A number with the scale that follows it; of value None where it is one of several, or part of something."""
    value = canonical(number)
    short, scale = _SHORT_SCALE.match(text, end), _SCALE.match(text, end)
    while scale:
        word = (scale[1] or scale[2]).lower()
        if word not in units:
            value = str(Fraction(value) * _SCALES[word])
        end, scale = scale.end(), _SCALE.match(text, scale.end())
    paid = re.search(r"[$\u20ac\u00a3\u00a5]", text[start:end])
    if short and paid:
        value, end = str(Fraction(value) * _SCALES[short[1].lower()]), short.end()
    elif short and short[1] != "m":
        return Named(None, start, end)
    part = _AND_A_HALF.match(text, end)
    if part:
        value, end = str(Fraction(value) + _PARTS[part[1].lower()]), part.end()
    rest = text[end:]
    other = _ANOTHER_WAY.match(rest)
    if other and worth(other[1].rstrip(".,")) == worth(value):
        return Named(value, start, end)
    return Named(None if _AND_ANOTHER.match(rest) or _UNREADABLE.match(rest) else value, start, end)


def _expression(text: str, start: int, body: str) -> Named:
    end = start + len(body)
    bare = " ".join(body.strip(" $\t").split())
    between = _RANGE.fullmatch(bare)
    rising = between and (worth(between[1].rstrip(".,")) or 0) <= (worth(between[2].rstrip(".,")) or 0)
    if rising or _DATE.fullmatch(bare) or _AND_ANOTHER.match(text[end:]) or worth(bare) is None:
        return Named(None, start, end)
    return Named(bare, start, end)


def _only(text: str, units: Sequence[str]) -> Named | None:
    """The only number of a sentence, or the only one right after a verb, if no word makes it a part of something."""
    numbers = [number for number in NUMBER.finditer(text) if is_value(text, number)]
    if len(numbers) > 1:
        numbers = [number for number in numbers if _AFTER_A_VERB.search(text[: number.start()])]
    if len(numbers) != 1 or _MODIFIED.search(text[: numbers[0].start()]):
        return None
    return _scaled(text, numbers[0], numbers[0].start(), numbers[0].end(), units)
