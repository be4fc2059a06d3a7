r"""The number that a phrase names, such as what follows "the answer is" or stands in a box.

A phrase counts if all of it is read: words that change nothing ("exactly"), one number or one piece of arithmetic, its
scale ("5 million", "3k", "2 dozen") and its unit, and then the end of the clause, or a word that only says of what the
number is ("for", "because"). Of "x = 3 + 4 = 7" the right side counts. A phrase that opens with a number but goes on
in any other way ("5 or 6", "5-6", "2 hours and 30 minutes", "5 less than 10", "5i") names no one number, and one that
opens with anything else ("at least 5", "half of 10", "page 5", "> 5") names none at all.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction
from functools import partial
from typing import NamedTuple

from gcache.tasks.number_units import Tail, tail
from gcache.tasks.number_value import NUMBER, canonical, is_value, worth

EQUALS = re.compile(r"(?<![<>!:=])=(?![=>])|\u2248|\\approx(?![a-z])")
_MARKS = r"[\s*_:\"'$()\[\]\\~,`]*"
LEAD = re.compile(
    rf"(?i){_MARKS}(?:\b(?:approximately|approx\.?|about|around|roughly|exactly|precisely|simply|just|only|now|still"
    r"|probably|likely|definitely|certainly|clearly|obviously|surely|indeed|therefore|thus|then|hence|actually|also"
    r"|equal to|given by|a (?:grand )?total of|in total|in fact|of course"
    r"|the (?:final |total )?(?:number|value|amount|answer|total)(?: is| of)?"
    rf"|(?:usd|us|eur|gbp|rs\.?)(?=\s?[$\d]))(?![A-Za-z]){_MARKS})*\u2248?\s*"
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
_AROUND = "()[]{}$\u20ac\u00a3\u00a5 \t\\%*"
_DATE = re.compile(r"[0-9]+(?:/[0-9]+){2,}|[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}|[0-9]+(?:\.[0-9]+){2,}")
_RANGE = re.compile(r"\s*\$?([0-9.,]+)\s*[-\u2013]\s*\$?([0-9.,]+)\s*")
_TOKEN = (
    r"(?:(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?"
    r"(?:[eE][-+]?[0-9]{1,2}(?![A-Za-z0-9]))?|\.[0-9]+|\\(?:[dt]?frac|sqrt|pi|cdot|times|div|left|right)"
    r"(?![A-Za-z])|\\?[$%\u20ac\u00a3\u00a5]|[-+*/^!\u00d7\u00f7\u00b7\u221a\u03c0(){}\[\]]"
    r"|(?<=[0-9) ])x(?=\s*[0-9(\\$])|[ \t])"
)
_RUN = re.compile(rf"{_TOKEN}+")
_SIDE_BY_SIDE = re.compile(r"[0-9]\s+\.?[0-9]+(?![0-9]*\s*/)")  # "5 6", but not "2 1/2"
_DIGIT = re.compile(r"[0-9\u03c0]|\\pi")
_IN_WORDS = (
    (re.compile(r"(?i)(?<=[0-9)]) plus (?=[$\d(.])"), "+"), (re.compile(r"(?i)(?<=[0-9)]) minus (?=[$\d(.])"), "-"),
    (re.compile(r"(?i)(?<=[0-9)]) (?:times|multiplied by) (?=[$\d(.])"), "*"),
    (re.compile(r"(?i)(?<=[0-9)]) divided by (?=[$\d(.])"), "/"),
    (re.compile(r"(?i)\b(?:minus|negative) (?=[$\d.])"), "-"),
)  # fmt: skip
_WIDE_THOUSANDS = re.compile(r"(?<![0-9,.])[0-9]{1,3}(?: [0-9]{3})+(?![0-9.])")
CLAUSE = re.compile(r"[;\n]|,(?![0-9]{3})|\b(?:and|or|because|since|so|where|when|if|not|between)\b|[<>\u2264\u2265|]")
#: What may stand on the left of "=": a name, words, arithmetic.
_LEFT_SIDE = re.compile(r"[\w\s$()\[\]{}\\*+/^.,%'\"\u00d7\u00f7\u00b7\u20ac\u00a3\u00b0=\u2248\u221a\u03c0:-]*")


class Named(NamedTuple):
    """A number in a phrase: what it is, or None where the phrase names no one number, where it stands, and what
    follows it."""

    value: str | None
    start: int
    end: int
    rest: Tail = Tail("no", 0)

    def whole(self, phrase: str) -> bool:
        """Whether the phrase says nothing but this number."""
        return self.value is not None and self.rest.kind == "end" and not re.search(r"\w", phrase[self.rest.end :])


def named_number(phrase: str, *, units: Sequence[str] = ()) -> Named | None:
    """The number that a phrase opens with, or that its equation comes to; None where it opens with no number.

    Args:
        phrase: made `tidy`, of at most a few hundred characters.
        units: scale words that are units here, since they are what is asked ("how many dozen").
    """
    if not _DIGIT.search(phrase):
        return None
    text = in_signs(phrase)
    found = _opening(text, 0, units)
    if found and found.value is not None and NUMBER.fullmatch(found.value) and found.rest.kind != "equation":
        return found
    if found and found.rest.kind == "equation":  # whose right side is no number: "5 = x + 2"
        found = found._replace(value=None)
    return right_side(text, 0, units) or found


def right_side(text: str, start: int, units: Sequence[str]) -> Named | None:
    """What the equation comes to that is the first clause of `text[start:]`; None where that is no equation."""
    stop = CLAUSE.search(text, start)
    end = stop.start() if stop else len(text)
    signs = list(EQUALS.finditer(text, start, end))
    if not signs or not _LEFT_SIDE.fullmatch(text, start, signs[-1].start()):
        return None
    found = _opening(text, signs[-1].end(), units)
    return found if found is None or found.rest.kind != "equation" else found._replace(value=None)


def in_signs(phrase: str) -> str:
    """The phrase with words of arithmetic as signs, and thousands set apart by blanks joined, place for place."""
    phrase = re.sub(r"\\[()\[\]]", "  ", phrase)
    for written, sign in _IN_WORDS:
        phrase = written.sub(partial(_padded, sign), phrase)
    return _WIDE_THOUSANDS.sub(lambda found: found.group().replace(" ", "").ljust(len(found.group())), phrase)


def _padded(sign: str, found: re.Match[str]) -> str:
    return sign.rjust(len(found.group()))


def _opening(text: str, start: int, units: Sequence[str]) -> Named | None:
    """The number or the expression that a text opens with, fillers left out."""
    lead = LEAD.match(text, start)
    first = start
    start = lead.end() if lead else start
    while start > first and text[start - 1] in "([\\$":  # they may be the expression's own
        start -= 1
    return number_at(text, start, units)


def number_at(text: str, start: int, units: Sequence[str] = ()) -> Named | None:
    """The number or the expression that begins right at `start`."""
    run = _RUN.match(text, start)
    if run is None or not _DIGIT.search(run.group()):
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
    return _read(text, value, start, end)


def _expression(text: str, start: int, body: str) -> Named:
    end = start + len(body)
    bare = " ".join(body.strip(" $\t").split())
    if not is_expression(bare):
        return Named(None, start, end, tail(text, start, end, bare))
    return _read(text, bare, start, end)


def is_expression(text: str) -> bool:
    """Whether all of a text is one piece of arithmetic that can be evaluated, and no range or date."""
    between = _RANGE.fullmatch(text)
    rising = between and (worth(between[1].rstrip(".,")) or 0) <= (worth(between[2].rstrip(".,")) or 0)
    if rising or _DATE.fullmatch(text):
        return False
    inner = text[1:-1] if len(text) > 2 and text[0] == text[-1] == "|" else text
    return _RUN.fullmatch(inner) is not None and not _SIDE_BY_SIDE.search(inner) and worth(text) is not None


def _read(text: str, value: str, start: int, end: int) -> Named:
    rest = tail(text, start, end, value)
    return Named(None if rest.kind == "no" else value, start, end, rest)
