"""Codes: answers that are strings of digits, such as the door code "0417"."""

from __future__ import annotations

import re

from gcache.tasks.example import Grade
from gcache.tasks.places import PLACES, of_another_place
from gcache.tasks.predication import is_said
from gcache.tasks.stance import plain, sentence_at
from gcache.tasks.statements import MOST, Mention, stated_value

_CODE = re.compile(r"(?<![A-Za-z0-9_])(?<![0-9][.,:/-])[0-9]+(?![A-Za-z0-9_])(?![.,:/-][0-9])")
_ASKED = "|".join((
    "codes?", "numbers?", "answers?", "combination", "pin", "password", "passcode", "digits", "value", "result",
    "solution", "lockers?", "locks?", "doors?", "rooms?", "alarms?",
    *(re.escape(place) for pair in PLACES for place in pair),
))  # fmt: skip
_OWNED = re.compile(r"(?i)(?<!\bit)(?<!that)(?<!what)'s\b|\b(?:of|for)\b")


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
    asked = _ASKED if of is None else rf"{_ASKED}|{re.escape(of.removeprefix('the '))}"
    for code in codes[:MOST]:
        at = sentence_at(text, code.start(), code.end())
        if of is not None and of_another_place(at, of):
            continue
        owned = _OWNED.search(at.clause) and not (of is not None and of.lower() in at.clause.lower())
        mentions.append(Mention(code.start(), code.end(), code.group(), 1 if owned else 0, said=is_said(at, asked)))
    stated = stated_value(text, mentions)
    if stated is None:
        return Grade("unparsed")
    return Grade("right" if stated == answer else "wrong", stated)
