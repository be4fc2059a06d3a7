"""Reading the answer a text states, and comparing it with the right one.

The graders never guess: a text that states no answer is `unparsed`, neither right nor wrong.
Reading takes time linear in the text, for models do at times return pages of noise.
"""

from __future__ import annotations

import logging
import re
import threading
from fractions import Fraction

from gcache.tasks.example import Grade
from gcache.tasks.places import of_another_place
from gcache.tasks.stance import plain, sentence_at
from gcache.tasks.statements import MOST, Mention, stated_value

_LONGEST_NUMBER = 64  # characters; a longer run of digits is a model stuck in a loop
_LONGEST_EXPRESSION = 100  # characters of a boxed expression that are worth comparing
_LAST_FEW = 20  # boxes or statements that are looked at, from the last one backwards
_TOLERANCE = Fraction(1, 2_000_000)  # half of the sixth decimal place, as in math-verify

_DECIMAL = r"(?:(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+)"
_NUMBER = re.compile(
    rf"""(?<![A-Za-z0-9_^]) (?<![0-9]\.) (?<![\^_]\{{) (?<![0-9]\*\*)
    (?P<sign>(?:(?<![)\]}}])[-+])?)         # after a bracket, "-" is a subtraction
    (?:\\?[$\u20ac\u00a3\u00a5][ ]?(?P<inner>-?))?
    (?: (?:(?P<whole>[0-9]+)[ ]?)? \\[dt]?frac\{{(?P<top>-?[0-9]+)\}}\{{(?P<bottom>[0-9]+)\}}
      | (?:(?P<mixed>[0-9]+)[ ])? (?P<over>{_DECIMAL})/(?P<under>{_DECIMAL})
      | (?:(?P<by>{_DECIMAL})\ ?(?:[*x\u00d7]|\\times|\\cdot)\ ?)?10\^(?P<ten>-?[0-9]|\{{-?[0-9]{{1,2}}\}})
      | (?P<plain>{_DECIMAL}(?:[eE][-+]?[0-9]{{1,2}}(?![A-Za-z0-9]))?)
    )""",
    re.VERBOSE,
)
# What may not follow a number: a power, an exponent out of range, the end of an ordinal.
_NOT_A_VALUE = re.compile(r"[\^_0-9]|\*\*[0-9]|[eE][-+]?[0-9]|(?:st|nd|rd|th)(?![A-Za-z])")
_OPERATOR = r"[+^\u00d7\u00f7\u221a]|\\(?:times|cdot|div|pm|sqrt|pi)"
_OPERATOR_BEFORE = re.compile(rf"(?:[0-9A-Za-z)}}%] ?[-*/]|{_OPERATOR}) ?$")
_OPERATOR_AFTER = re.compile(rf" ?(?:!|{_OPERATOR}|[-/](?! ?[A-Za-z]{{2}})|[*x](?= ?[0-9(\\$]))")
_EQUALS = re.compile(r"[=\u2248]|\\approx")
_HASHES = re.compile(r"(?<!#)####(?!#)[ \t]*([^\n]{0,200})")
_STATEMENT = re.compile(r"(?i)\banswer\b[^.\n:=]{0,60}?(?:\b(?:is|be|are|was|equals)\b|[:=])[\s*_:$(]{0,8}")
_SENTENCE_END = re.compile(r"\n|[.!?](?=\s|$)")
_REFUSAL = re.compile(r"(?i)(?:not|none|unknown|unclear|undefined|impossible)\b|\W*[0-9.,]+ or \W?[0-9]")
_CODE = re.compile(r"(?<![A-Za-z0-9_])(?<![0-9][.,:/-])[0-9]+(?![A-Za-z0-9_])(?![.,:/-][0-9])")
_OWNED = re.compile(r"(?i)(?<!\bit)(?<!that)(?<!what)'s\b|\b(?:of|for)\b")
_SMALL_POWER = r"\^(?:[0-9]|\{-?[0-9]{1,2}\})(?![0-9])"
_OTHER_COMMAND = r"\\(?!(?:[dt]?frac|sqrt|pi|cdot|times|div|left|right|text|mathrm)(?![A-Za-z]))[A-Za-z]"
_math_verify_lock = threading.Lock()  # its LaTeX parser keeps shared tables


def extract_number(text: str, *, last_number: bool = True) -> str | None:
    r"""The final numeric answer that a text states, without thousands commas, currency and unit.

    The first of these that the text has decides: its last closed `\boxed{...}`, its last `#### N` line, its
    last "answer is N" or "answer: N", and, with `last_number`, its last number. Fractions and mixed numbers
    come back reduced ("3/4"), powers of ten as "1.5e6"; a percent sign is a unit and is dropped. A boxed
    expression that is more than one number (`2\sqrt{3}`) comes back as it stands, for `numbers_equal`.
    Ordinals, exponents, subscripts and digits inside words are no numbers. A box without a digit, "answer
    is unknown" and "answer is 3 or 4" say that there is no one number, so nothing further is tried.

    Returns:
        The number as a string, or None if the text states none.
    """
    text = _tidy(text)
    box = last_box(text)
    if box is not None:
        tail = _EQUALS.split(box)[-1].strip()
        speaks = len(tail) <= _LONGEST_EXPRESSION and re.search("[0-9]", tail)
        return _clear_number(tail, opening=False) or (tail if speaks else None)
    for line in reversed(_HASHES.findall(text)):
        number = _NUMBER.match(line)
        # "#### 2. Compute the price" is a heading, not an answer.
        if number and _is_value(line, number) and not re.match(r"[.):][ \t]*\w", line[number.end() :]):
            return _canonical(number)
    for statement in reversed(list(_STATEMENT.finditer(text))[-_LAST_FEW:]):
        said = _SENTENCE_END.split(text[statement.end() : statement.end() + 200], maxsplit=1)[0]
        if _REFUSAL.match(said):
            return None
        tail = _EQUALS.split(said)[-1]
        value = _clear_number(said, opening=True) or _clear_number(tail, opening=False)
        if value:
            return value
    numbers = _numbers(text) if last_number else []
    return _canonical(numbers[-1]) if numbers else None


def numbers_equal(a: str, b: str) -> bool:
    r"""Whether two strings name the same number, to within half of the sixth decimal place.

    Plain numbers ("1,200", "$0.75", "3/4", `\frac{3}{4}`, "50%", which is 50) are compared as
    fractions. Other LaTeX goes to math-verify, if it is short, has nothing but arithmetic, roots
    and pi, and no power that could run away; else it equals nothing. No signals are used, so this
    may be called in any thread and inside an event loop.
    """
    a, b = _tidy(a), _tidy(b)
    left, right = _as_fraction(a), _as_fraction(b)
    if left is not None and right is not None:
        return abs(left - right) <= _TOLERANCE
    return _can_be_evaluated(a) and _can_be_evaluated(b) and _expressions_equal(a, b)


def grade_number(text: str, answer: str) -> Grade:
    """Grade a text whose right answer is one number: `right`, `wrong`, or `unparsed` where
    `extract_number` finds that the text states none."""
    stated = extract_number(text)
    if stated is None:
        return Grade("unparsed")
    return Grade("right" if numbers_equal(stated, answer) else "wrong", stated)


def grade_exact_code(text: str, answer: str, of: str | None = None) -> Grade:
    """Grade a text whose right answer is a string of digits, such as a door code "0417".

    A code is a run of digits that touches no letter and is no part of "4,417", "4.5", "12:30" or "44-17". What the
    text says of it decides; see `gcache.tasks.statements`. "The code is not 0417" and "0417 or 0418" state none,
    which is `unparsed`. Where a text has a code without an owner, codes that it gives to somebody ("and the mill's
    is 9902") are asides. Codes are compared as strings, so leading zeros count.

    Args:
        of: the place whose code is asked; codes that the text gives to other places do not count.
    """
    text = plain(text)
    codes = list(_CODE.finditer(text))
    if len(codes) > MOST and len({code.group() for code in codes}) > 1:
        return Grade("unparsed")
    mentions: list[Mention] = []
    for code in codes[:MOST]:
        at = sentence_at(text, code.start(), code.end())
        if of is not None and of_another_place(at, of):
            continue
        owned = _OWNED.search(at.clause) and not (of is not None and of.lower() in at.clause.lower())
        mentions.append(Mention(code.start(), code.end(), code.group(), rank=1 if owned else 0))
    stated = stated_value(text, mentions)
    if stated is None:
        return Grade("unparsed")
    return Grade("right" if stated == answer else "wrong", stated)


def _tidy(text: str) -> str:
    text = text.replace("\u2212", "-").replace("{,}", ",").replace(r"\!", "")
    return re.sub(r"(?<=[0-9])(?:\\,|\u202f)(?=[0-9]{3})", "", text)


def last_box(text: str) -> str | None:
    r"""What is in the last closed, non-empty `\boxed{...}` of at most 1,000 characters."""
    for box in reversed(list(re.finditer(r"\\boxed ?\{", text))[-_LAST_FEW:]):
        rest, depth = text[box.end() : box.end() + 1000], 1
        for brace in re.finditer(r"(?<!\\)[{}]", rest):
            depth += 1 if brace.group() == "{" else -1
            if depth == 0:
                break
        if depth == 0 and rest[: brace.start()].strip():
            return rest[: brace.start()].strip()
    return None


def _numbers(text: str) -> list[re.Match[str]]:
    return [number for number in _NUMBER.finditer(text) if _is_value(text, number)]


def _is_value(text: str, number: re.Match[str]) -> bool:
    bottom = number["bottom"] or number["under"] or "1"
    fits = number.end() - number.start() <= _LONGEST_NUMBER and bottom.strip("0.,") != ""
    return fits and not _NOT_A_VALUE.match(text, number.end())


def _in_expression(text: str, number: re.Match[str]) -> bool:
    before = text[max(0, number.start() - 12) : number.start()]
    return bool(_OPERATOR_BEFORE.search(before) or _OPERATOR_AFTER.match(text, number.end()))


def _clear_number(text: str, *, opening: bool) -> str | None:
    """The number a text opens with, or else the only one it has, unless an operator is beside it."""
    numbers = _numbers(text)
    if not numbers or _in_expression(text, numbers[0]):
        return None
    fits = not re.search(r"\w", text[: numbers[0].start()]) if opening else len(numbers) == 1
    return _canonical(numbers[0]) if fits else None


def _canonical(number: re.Match[str]) -> str:
    """The form that `Fraction` reads."""
    part = {name: value.replace(",", "") for name, value in number.groupdict(default="").items()}
    sign = "-" if "-" in (part["sign"], part["inner"]) else ""
    if part["plain"]:
        return sign + part["plain"]
    if part["ten"]:
        return f"{sign}{part['by'] or '1'}e{part['ten'].strip('{}')}"
    value = Fraction(part["top"] or part["over"]) / Fraction(part["bottom"] or part["under"])
    whole = part["whole"] or part["mixed"]
    return str((-1 if sign else 1) * (value + int(whole) if whole and 0 <= value < 1 else value))


def _as_fraction(text: str) -> Fraction | None:
    bare = text.strip().rstrip(".%$\\ ")
    number = _NUMBER.fullmatch(bare)
    return Fraction(_canonical(number)) if number and _is_value(bare, number) else None


def _can_be_evaluated(text: str) -> bool:
    rest = re.sub(_SMALL_POWER, "", text, count=1)
    return len(text) <= _LONGEST_EXPRESSION and not re.search(rf"[!^]|\*\*|{_OTHER_COMMAND}", rest)


def _expressions_equal(a: str, b: str) -> bool:
    from math_verify import LatexExtractionConfig, parse, verify

    for log in (logging.getLogger("math_verify.parser"), logging.getLogger("math_verify.grader")):
        log.setLevel(max(log.level, logging.ERROR))  # they warn that no timeout is set
    how = [LatexExtractionConfig()]
    with _math_verify_lock:
        left, right = (parse(f"${s.strip(' $')}$", how, "no_fallback", parsing_timeout=None) for s in (a, b))
        return bool(left and right and verify(left, right, timeout_seconds=None))
