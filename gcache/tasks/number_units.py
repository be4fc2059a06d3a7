"""What follows a number: its unit and the end of its clause, or something that makes it no number of its own."""

from __future__ import annotations

import re
import unicodedata
from typing import Literal, NamedTuple

from gcache.tasks.number_value import worth
from gcache.tasks.number_words import LINKS, NEVER, NUMBER_WORDS, UNITS, WORD_NUMBER

_MOST_WORDS = 6  # of a unit; "18 fresh duck eggs"

#: Marks that may close what was opened before the number.
_MARKS = re.compile(r"(?:[\s*`\"')\]}$]|_(?![A-Za-z0-9{])|\\(?=[)\]$%\s]|$))*")
_SIGN = re.compile(
    r"\s?(?:\\?%|\u00b0(?:\s?[CFK]\b)?|[\u20ac\u00a3\u00a5\u20b9\u00a2\u20a9]|\u2103|\u2109|/\s?[A-Za-z]{2,}|[ap]\.m\b\.?)"
)
_PERCENT = re.compile(r"(?i)per\s?cent(?:age points?)?\b")
_WORD = re.compile(r"[A-Za-z]+(?:['-][A-Za-z]+)*\.?(?=[^A-Za-z]|$)")
#: "m^2", "m2", "s^{-2}", "km/h", "miles/gallon".
_POWER = r"(?:\^(?:\{\s?-?[1-9]\s?\}|-?[1-9])|\*\*[23]|[23](?![0-9]))"
_COMPOUND = re.compile(rf"{_POWER}?(?:\s?[/\u00b7]\s?[A-Za-z]+\.?{_POWER}?)*(?![A-Za-z0-9^])")
_A_NUMBER = rf"[\s\"'*(\\$]{{0,4}}(?:[-+\u2013]?\s?[$\u20ac\u00a3]?\.?[0-9]|(?i:{WORD_NUMBER}))"
_HEDGE = r"(?:(?:maybe|perhaps|even|about|possibly|then|around|nearly|almost|roughly|another)\s+)?"
#: After these words the number goes on.
_GOES_ON = re.compile(
    rf"(?i)(?:to|by|per|of)\s+{_HEDGE}(?:the\s+)?{_A_NUMBER}"
    rf"|in\s+[0-9]+\s*(?:$|[.,;])|in\s+{WORD_NUMBER}\s*(?:$|[.,;])"
    rf"|and\s+(?!not\b)(?:(?!answer)[\w=]+\s+){{0,3}}{_A_NUMBER}"
    r"|and\s+(?:a|one)\b|and\s+(?:up|over|above|more|counting|below|under)\b"
    r"|to\s+(?:the\s+)?(?:\w+\s+)?(?:power|infinity)\b"
    r"|at\s+(?:least|most|best|minimum|maximum)\b|out\s+of\b|away\s+from\b"
    rf"|of\s+what\b|with\s+(?:a\s+)?remainder\b|but\s+(?:\w+\s+){{0,3}}(?:maybe|perhaps|possibly|could|might|may)\b"
    rf"|but\s+(?:only\s+)?(?:if|when|unless)\b|as\s+long\s+as\b|about\b|around\b|than\s+{_HEDGE}{_A_NUMBER}"
    r"|than\s+(?:half|twice|[a-z])\b|which\s+(?:is|are|equals|rounds?|makes|means)\b[^.;]{0,40}?[0-9]|per\s?cent\s+of\b"
)
_RATES = frozenset(("per", "a", "an", "each", "every"))
_RATE = re.compile(r"(?i)(?:per|an?|each|every)\s+(?!lot\b|bit\b|few\b|little\b)[a-z]{2,}")
_OF_EACH = re.compile(r"(?i)of\s+[0-9]+\s+[a-z]{2,}")
_LENGTHS = ("m", "cm", "mm", "km", "ft", "in", "yd")
#: In brackets or behind a dash they belong to the number: "5(x + 1)", "5 - x".
_ALGEBRA = re.compile(r"\s*[a-z]\s*(?:[-+*/^=)]|$|[.,;])|\s*-?[0-9]*[a-z]\s*[-+*/^]")
_TIMES = re.compile(r"(?i)times\b(?=\s*(?:$|[.,;!)*$\\]|(?:a|an|per|in|during|each|every|on|for|because|since|so)\b))")
_END = re.compile(r"$|\n|[.,;:!?\u2026\u2014|&(\[]|<(?=/)|-\s|->|\u2013\s|(?=\\[(\[])")
#: After the end of a clause: the number is one of several, or there is a second equation.
_ANOTHER = re.compile(
    rf"(?i)\s*(?:(?:or|and|then|maybe|perhaps|even|possibly|but maybe|give or take|plus or minus)\b\s*){{0,2}}"
    rf"(?:{_A_NUMBER}|(?:and\s+)?[a-z]\w*\s*=)|\s*(?:give or take|plus or minus|or|at least|at most|maybe|perhaps"
    r"|possibly"
    r"|i guess|i suppose|(?:only )?if|which (?:rounds?|is rounded)\b[^.]{0,40}[0-9]|unless|provided|assuming|mod)\b"
)
_NO_OTHER = re.compile(r"(?i)\s*[0-9.,]+%?\s+(?:more|less|fewer)\b")
_SAME = re.compile(
    r"(?i)\s*(?:or|i\.e\.|that is|which is|meaning|equivalently|[=,(])*,?\s*\W{0,3}?(-?[0-9][^;)\n]{0,60}|[a-z]+)"
)


class Tail(NamedTuple):
    """How what follows a number ends: at the end of its clause, at a word that says of what it is, at a sign of an
    equation, or not in a way that leaves it a number of its own ("no")."""

    kind: Literal["end", "link", "equation", "no"]
    end: int


def tail(text: str, start: int, end: int, value: str) -> Tail:
    """Read what follows the number `text[start:end]`."""
    glued = text[end : end + 1]
    if glued == "'" and "'" not in text[max(0, start - 2) : start]:
        return Tail("no", end)  # five feet, or the derivative of 5
    sign = _SIGN.match(text, end)
    percent = sign is not None and "%" in sign.group()
    at = sign.end() if sign else end
    low = ""
    for place in range(_MOST_WORDS + 1):
        marks = _MARKS.match(text, at)
        here = marks.end() if marks else at
        word = _WORD.match(text, here)
        if word is None:
            return _at_a_sign(text, at, here, value)
        name = word.group().rstrip(".")
        before, low = low, name.lower()
        in_words = _PERCENT.match(text, here)
        if in_words:
            percent, at = True, in_words.end()
            continue
        if name == "I":
            return Tail("link", here)
        glued_on = here == end
        short = name in UNITS and not (low in LINKS and not glued_on)
        if glued_on and not short and (len(name) < 3 or low in NEVER):
            return Tail("no", here)
        if low == "times" and _TIMES.match(text, here):
            at = here + 5
            continue
        if low in _RATES and _RATE.match(text, here) and not _GOES_ON.match(text, here):
            at = here + len(name)
            continue
        if name == "May":
            return Tail("no", here)
        if low == "or":
            return Tail("end" if _is_same(text, here, value) else "no", here)
        if low in ("a", "an") and not _RATE.match(text, here):
            return Tail("no", here)
        if (low in NEVER and not (place and low in ("squared", "cubed", "off"))) or (percent and low == "of"):
            return Tail("no", here)
        if low in LINKS and not short:
            of_each = place > 0 and _OF_EACH.match(text, here)  # "5 boxes of 12 eggs"
            if low == "than" and before in ("more", "less", "fewer") and re.match(r"than (?:an?|the)\b", text[here:]):
                return Tail("no", here)
            no = (_GOES_ON.match(text, here) and not of_each and not _is_same(text, here, value)) or _and_one_more(
                text, here, low
            )
            return Tail("no" if no else "link", here)
        if not short and (len(name) < 3 or place == _MOST_WORDS):
            return Tail("no", here)
        if re.fullmatch(WORD_NUMBER, low):
            return Tail("no", here)
        stop = here + len(name)
        more = _COMPOUND.match(text, stop)
        if more is None or (text[stop : stop + 1].isdigit() and name not in _LENGTHS):
            return Tail("no", here)
        at = max(more.end(), stop)
        if text[at : at + 1] == "." and short and re.match(r"\.\s+[a-z0-9]", text[at : at + 3]):
            at += 1
    return Tail("no", at)


def _at_a_sign(text: str, at: int, here: int, value: str) -> Tail:
    """What a sign says that follows a number and its unit."""
    stop = _END.match(text, here)
    if stop is None:
        if re.match(r"\s?(?:=|\u2248|\\approx)", text[here:]):
            return Tail("equation", here)
        closed = unicodedata.category(text[here]) in ("So", "Sk", "Cs", "Pe", "Pf") or text[here] in "\u3002\u3001"
        return Tail("end" if closed else "no", here)
    rest = text[stop.end() :]
    if stop.group() == "[" and re.match(r"\w", rest):
        return Tail("no", here)
    if stop.group() in ("", "\n", "!", "?", "\\"):
        return Tail("end", here)
    if stop.group() in ("(", "- ") and _ALGEBRA.match(rest):
        return Tail("no", here)
    if stop.group() == ".":
        return Tail("no" if re.match(r"\.*[0-9]", rest) else "end", here)
    if _ANOTHER.match(rest) and not _NO_OTHER.match(rest) and not _is_same(text, stop.end(), value):
        return Tail("no", here)
    return Tail("end", here)


def _and_one_more(text: str, here: int, link: str) -> bool:
    """Whether a second number is given in the same way: "5 for Tom and 6 for Ann"."""
    return (
        re.search(rf"(?i)\b(?:and|but|or)\s+{_A_NUMBER}[^.;\n]{{0,20}}?\b{re.escape(link)}\b", text[here:]) is not None
    )


def _is_same(text: str, at: int, value: str) -> bool:
    """Whether what follows is the same number in another way: "0.5 or 1/2", "18 (9 * 2 = 18)", "5 (five)"."""
    other = _SAME.match(text, at)
    if other is None:
        return False
    said = re.split(r"[=\u2248]", other[1])[-1].strip()
    if said.lower() in NUMBER_WORDS:
        said = str(NUMBER_WORDS.index(said.lower()))
    run = re.match(r"-?\$?[0-9][0-9.,/+*x\u00d7 -]*", said)
    return run is not None and worth(value) is not None and worth(run.group().rstrip(" .,+-*x")) == worth(value)
