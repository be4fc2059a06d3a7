"""The one value that a text states, of all that it names.

Every grader that reads words finds the places where its kind of value is named (`Mention`) and asks here. Two
different statements are no answer, unless the text withdraws the first ("No, it is 0418"), denies it, or concludes
with the last ("So it is 0418").
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from gcache.tasks.stance import REPLACED, WITHDRAWN, Sentence, Stance, plain, sentence_at, stance

#: Mentions that are looked at; a text with more is a model stuck in a loop, and states something only if all agree.
MOST = 200
_MARKS = r"[\s\"'*_`()\[\]{}$\\,.]"
#: What stands between two values of a list: "0417 or 0418", "0417, 0418", "0417-0418".
_JOINED = re.compile(
    rf"(?i){_MARKS}*(?:(?:[/|&\u2013\u2014-]|\b(?:or|and|to|through|until|versus|vs|maybe|perhaps|possibly|else|even|also"
    rf"|either|the|option|choice|code|number)\b){_MARKS}*)*"
)


@dataclass(frozen=True)
class Mention:
    """A place where a text names a value.

    Attributes:
        start, end: of the value in the text.
        rank: of the form of the statement, 0 for the strongest; the strongest one decides.
        several: whether it is one of several values that are named in one breath.
        marked: whether it is set apart by a mark that makes it an answer in a long sentence, too, such as a box.
        said: whether the words around it say it of what is asked; a value that is not can only be denied.
    """

    start: int
    end: int
    value: str
    rank: int = 0
    several: bool = False
    marked: bool = False
    said: bool = True


@dataclass(frozen=True)
class _Said:
    value: str | None  # None for several at once
    rank: int
    concluded: bool


def stated_value(
    text: str, mentions: Sequence[Mention], same: Callable[[str, str], bool] = lambda a, b: a == b
) -> str | None:
    """The one value that a text states; None where it states none, or several.

    Args:
        mentions: in order, without overlaps.
        same: whether two values are one.
    """
    text = _masked(plain(text), mentions)
    if len(mentions) > MOST and len({mention.value for mention in mentions}) > 1:
        return None
    said: list[_Said] = []
    last = 0
    for place, mention in enumerate(mentions[:MOST]):
        at = sentence_at(text, mention.start, mention.end)
        found = _stance(text, mentions, place, at, same)
        if found == "denied":
            said = [one for one in said if one.value is None or not same(one.value, mention.value)]
        if found not in ("stated", "offered"):
            continue
        new = _Said(mention.value if found == "stated" else None, mention.rank, at.concludes)
        if REPLACED.search(text, last, mention.start):
            said = [one for one in said if one.value is not None and same(one.value, mention.value)]
        elif found == "stated":
            said = [one for one in said if not _superseded(one, new)]
        last = mention.end
        if found == "stated" and (WITHDRAWN.match(at.after) or WITHDRAWN.match(at.rest)):
            said = [one for one in said if one.value is None or not same(one.value, mention.value)]
        else:
            said.append(new)
    best = [one.value for one in said if one.rank == min(other.rank for other in said)]
    if not best or best[0] is None or any(value is None or not same(value, best[0]) for value in best):
        return None
    return best[0]


def _masked(text: str, mentions: Sequence[Mention]) -> str:
    """The text with letters in place of the values, so that a label such as "card not working" denies nothing."""
    pieces, end = [], 0
    for mention in mentions:
        pieces += [text[end : mention.start], "x" * (mention.end - mention.start)]
        end = mention.end
    return "".join([*pieces, text[end:]])


def _superseded(one: _Said, new: _Said) -> bool:
    """A choice among several is settled by a statement, and what was considered by a conclusion."""
    return one.rank >= new.rank and (one.value is None or (new.concluded and not one.concluded))


def _stance(
    text: str, mentions: Sequence[Mention], place: int, at: Sentence, same: Callable[[str, str], bool]
) -> Stance:
    found = stance(at, mentions[place].marked)
    near = mentions[max(0, place - 1) : place + 2]
    beside = [
        (one.value, two.value) for one, two in pairwise(near)
        if two.start - one.end < 60 and _JOINED.fullmatch(text, one.end, two.start)
        and not (found == "stated" and _denied(text, two if one is mentions[place] else one))
    ]  # fmt: skip
    if not mentions[place].said and found in ("stated", "offered"):
        return "supposed"
    if found == "stated" and (mentions[place].several or any(not same(one, two) for one, two in beside)):
        return "offered"
    if found == "offered" and beside and all(same(one, two) for one, two in beside):
        return "stated"  # "0417 or 0417"
    return found


def _denied(text: str, mention: Mention) -> bool:
    return stance(sentence_at(text, mention.start, mention.end), mention.marked) == "denied"
