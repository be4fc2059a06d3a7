r"""What a number is worth: plain numbers as fractions, other arithmetic (`3+4`, `\sqrt{16}`) by math-verify.

Nothing here can run away: what is evaluated is short, of arithmetic, roots and pi only, without towers of powers and
without deep nesting. No signals are used, so all of it may be called in any thread and inside an event loop.
"""

from __future__ import annotations

import functools
import logging
import re
import threading
import unicodedata
from fractions import Fraction

_LONGEST_NUMBER = 64  # characters; a longer run of digits is a model stuck in a loop
LONGEST_EXPRESSION = 100  # characters that are worth evaluating
_DEEPEST = 5  # brackets in brackets; the parser of math-verify takes exponential time for more
_TOLERANCE = Fraction(1, 2_000_000)  # half of the sixth decimal place, as in math-verify

_DECIMAL = r"(?:(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+)"
NUMBER = re.compile(
    rf"""(?<![A-Za-z0-9_^]) (?<![0-9]\.) (?<![\^_]\{{) (?<![0-9]\*\*)
    (?P<sign>(?:(?<![)\]}}])[-+])?)         # after a bracket, "-" is a subtraction
    (?P<currency>\\?[$\u20ac\u00a3\u00a5][ ]?)?(?P<inner>(?(currency)-?))
    (?: (?:(?P<whole>[0-9]+)[ ]?)? \\[dt]?frac\{{(?P<top>-?[0-9]+)\}}\{{(?P<bottom>[0-9]+)\}}
      | (?:(?P<mixed>[0-9]+)[ ])? (?P<over>{_DECIMAL})/(?P<under>{_DECIMAL})
      | (?:(?P<by>{_DECIMAL})\ ?(?:[*x\u00d7]|\\times|\\cdot)\ ?)?10\^(?P<ten>-?[0-9]|\{{-?[0-9]{{1,2}}\}})
      | (?P<plain>{_DECIMAL}(?:[eE][-+]?[0-9]{{1,2}}(?![A-Za-z0-9]))?)
    )""",
    re.VERBOSE,
)
# What may not follow a number: a power, an exponent out of range, the end of an ordinal.
_NOT_A_VALUE = re.compile(r"[\^_0-9]|\*\*[0-9]|[eE][-+]?[0-9]|(?:st|nd|rd|th)(?![A-Za-z])|:[0-9]")
_POWER_OF_A_NUMBER = re.compile(r"(?<![\^}\d)\]])[0-9]{1,4}\^(?:[0-9]|\{-?[0-9]{1,2}\})(?![0-9^])")
_ANOTHER_POWER = re.compile(r"\^(?:[0-9]|\{-?[0-9]{1,2}\})(?![0-9^])")
_FACTORIAL = re.compile(r"(?<![0-9)}!])([0-9]{1,2})!(?!!)")
_OTHER_COMMAND = r"\\(?!(?:[dt]?frac|sqrt|pi|cdot|times|div|left|right|text|mathrm)(?![A-Za-z]))[A-Za-z]"
_CONSTANT = r"(?<![A-Za-z\\])[eEiI](?![A-Za-z])"  # which the parser would take for Euler's number, or the unit
_LARGEST = 10**300
_IN_LATEX = (
    (re.compile(r"(?<=[0-9]),(?=[0-9]{3}(?![0-9]))"), ""), (re.compile(r"\u00d7|\*(?!\*)"), r" \\times "),
    (re.compile(r"(?<=[0-9) ])x(?=\s*[0-9(\\])"), r" \\times "), (re.compile("\u00b7|\u22c5"), r" \\cdot "),
    (re.compile("\u00f7"), r" \\div "),
    (re.compile(r"\u221a ?(\d+)"), r"\\sqrt{\1}"), (re.compile("\u221a"), r"\\sqrt"),
    (re.compile("\u03c0"), r"\\pi "),
    (re.compile(r"\\?[$\u20ac\u00a3\u00a5]"), ""), (re.compile(r"(?<=[0-9])\\?%"), ""),
    (re.compile(r"\\left|\\right"), ""),
)  # fmt: skip
_PLAIN_SIGNS: dict[int, str | int] = {
    0x2212: "-",
    0x2044: "/",
    0x2215: "/",
    **{c: c - 0xFEE0 for c in range(0xFF01, 0xFF5F)},
}
_SMALL_POWER = re.compile("(?<=[0-9A-Za-z)])[\u207b]?[\u00b2\u00b3\u00b9\u2070\u2074-\u2079]+")
_SMALL_FRACTION = re.compile("[\u00bc-\u00be\u2150-\u215e]")
_REPEATING = re.compile(r"(?<![0-9.,])([0-9]{1,9})\.([0-9]{0,9})\\overline\{([0-9]{1,9})\}(?![0-9])")
_IN_PLAIN_LATEX = (
    (
        re.compile(
            r"\\(?:text(?:bf|it|rm|sf|normal|up)?|math(?:bf|it|rm|sf)|mbox|bm|boldsymbol)\s?\{([^{}]{0,300})\}"
        ),
        r" \1 ",
    ),
    (re.compile(r"(?<=[A-Za-z]) \^"), "^"),
    (re.compile(r"\\(?:displaystyle|textstyle|bf|bfseries|large|Large|left|right|quad|qquad)(?![A-Za-z])"), " "),
    (re.compile(r"\\[cdt]frac(?![A-Za-z])"), r"\\frac"),
    (re.compile(r"\\frac ?([0-9]) ?([0-9])(?![0-9])"), r"\\frac{\1}{\2}"),
    (re.compile(r"\s?\^\s?(?:\\circ(?![A-Za-z])|\{\s?\\circ\s?\})|\\degree(?![A-Za-z])"), "\u00b0"),
    (re.compile(r"\\[,;: ]"), " "),
)  # fmt: skip
_math_verify_lock = threading.Lock()  # its LaTeX parser keeps shared tables


def numbers_equal(a: str, b: str) -> bool:
    r"""Whether two strings name the same number, to within half of the sixth decimal place.

    Plain numbers ("1,200", "$0.75", "3/4", `\frac{3}{4}`, "50%", which is 50) are compared as fractions, other
    arithmetic by its value. What cannot be evaluated, or is no one number, equals nothing.
    """
    left, right = worth(a), worth(b)
    return left is not None and right is not None and abs(left - right) <= _TOLERANCE


@functools.lru_cache(maxsize=4096)  # a text may compare the same few expressions again and again
def worth(text: str) -> Fraction | None:
    """The value of a number or of an expression; None where it has none, or cannot be evaluated safely."""
    text = tidy(text)
    bare = text.strip().rstrip(".%$\\ ")
    number = NUMBER.fullmatch(bare)
    if number and is_value(bare, number):
        return Fraction(canonical(number))
    return _evaluated(text) if _can_be_evaluated(text) else None


def tidy(text: str) -> str:
    """The text with plain signs: one minus, powers as `^2`, fractions as `1/2`, thousands joined, and without the
    commands of LaTeX that only set how a formula looks."""
    if not text.isascii():
        text = _SMALL_POWER.sub(_as_power, _SMALL_FRACTION.sub(_as_fraction, text.translate(_PLAIN_SIGNS)))
    if "\\" in text:
        text = text.replace("{,}", ",").replace(r"\!", "")
        text = re.sub(r"(?<=[0-9])\\,(?=[0-9]{3}(?![0-9]))", "", text)
        for written, sign in _IN_PLAIN_LATEX:
            text = written.sub(sign, text)
        text = _REPEATING.sub(_as_ratio, text)
    return re.sub(r"(?<=[0-9])[\u202f\u2009](?=[0-9]{3})", "", text.replace("{,}", ","))


def _as_power(found: re.Match[str]) -> str:
    return "^{" + unicodedata.normalize("NFKC", found.group()).replace("\u2212", "-") + "}"


def _as_fraction(found: re.Match[str]) -> str:
    mixed = found.start() > 0 and found.string[found.start() - 1].isdecimal()
    return " " * mixed + unicodedata.normalize("NFKC", found.group()).replace("\u2044", "/")


def _as_ratio(found: re.Match[str]) -> str:
    """A decimal that repeats, as a fraction: 0.1\\overline{6} is 1/6."""
    whole, once, again = found[1], found[2], found[3]
    value = Fraction(int(whole + once + again) - int(whole + once), 10 ** len(once) * (10 ** len(again) - 1))
    return f"{value.numerator}/{value.denominator}"


def is_value(text: str, number: re.Match[str]) -> bool:
    """Whether a match of `NUMBER` is a number, and no part of an ordinal, a power, a time or a run of digits."""
    bottom = number["bottom"] or number["under"] or "1"
    fits = number.end() - number.start() <= _LONGEST_NUMBER and bottom.strip("0.,") != ""
    return fits and not _NOT_A_VALUE.match(text, number.end())


def canonical(number: re.Match[str]) -> str:
    """A match of `NUMBER` in the form that `Fraction` reads."""
    part = {name: value.replace(",", "") for name, value in number.groupdict(default="").items()}
    sign = "-" if "-" in (part["sign"], part["inner"]) else ""
    if part["plain"]:
        return sign + part["plain"]
    if part["ten"]:
        return f"{sign}{part['by'] or '1'}e{part['ten'].strip('{}')}"
    value = Fraction(part["top"] or part["over"]) / Fraction(part["bottom"] or part["under"])
    whole = part["whole"] or part["mixed"]
    return str((-1 if sign else 1) * (value + int(whole) if whole and 0 <= value < 1 else value))


def _can_be_evaluated(text: str) -> bool:
    if not 0 < len(text) <= LONGEST_EXPRESSION or re.search(_OTHER_COMMAND, text) or re.search(_CONSTANT, text):
        return False
    depth = deepest = 0
    for sign in text:
        depth += (sign in "({[") - (sign in ")}]")
        deepest = max(deepest, depth)
    # of a power nothing may be left that could be the base or the exponent of another one
    rest = _ANOTHER_POWER.sub("", _FACTORIAL.sub("n", _POWER_OF_A_NUMBER.sub("n", text.replace("**", "^"))), count=1)
    return deepest <= _DEEPEST and not re.search(r"[!^]|[0-9]{60}", rest)


def _evaluated(text: str) -> Fraction | None:
    from math_verify import LatexExtractionConfig, parse

    log = logging.getLogger("math_verify.parser")
    log.setLevel(max(log.level, logging.ERROR))  # it warns that no timeout is set
    text = text.strip(" $").replace("**", "^")
    for written, latex in _IN_LATEX:
        text = written.sub(latex, text)
    with _math_verify_lock:
        found = parse(f"${text}$", [LatexExtractionConfig()], "no_fallback", parsing_timeout=None)
        if not found or not hasattr(found[0], "evalf"):
            return None
        value, finer = found[0].evalf(30), found[0].evalf(60)
    if not all(getattr(v, "is_Float", False) or getattr(v, "is_Integer", False) for v in (value, finer)):
        return None
    # 1/(1-1), left as it is written, is noise that differs with the precision
    if abs(value) > _LARGEST or abs(value - finer) > abs(finer) / 10**20:
        return None
    return Fraction(str(value))
