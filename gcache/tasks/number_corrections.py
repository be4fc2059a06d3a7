"""What follows a statement and takes it back, and what is then stated in its place."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from gcache.tasks.number_phrases import LONGEST_PHRASE, UNREAD, Phrase, first_sentence, mention_of
from gcache.tasks.number_reading import named_number
from gcache.tasks.stance import sentence_at, stance
from gcache.tasks.statements import Mention

THAT_IS = r"(?:it|that|this)(?:'s|[ ]is|[ ](?:should|must|has[ ]to|ought[ ]to)[ ](?:actually[ ]|really[ ])?be)[ ]"
_IT_IS = rf"(?:{THAT_IS}|the[ ](?:(?:correct|right|final|actual|true)[ ])?answer[ ](?:is|should[ ]be)[ ])"
_MARKED = r"(?=[-$\\(*\"]{0,4}[0-9])"
_INSTEAD = re.compile(
    rf"(?i)(?:[ ]\w+){{0,3}}[\s\"'*_)$\\.,;:\u2014-]*(?:(?:but|instead|rather|no"
    rf"|actually)\b[\s,]*(?:rather\b[\s,]*)?{_IT_IS}?|{_IT_IS})"
    rf"(?:actually[ ]|really[ ])?{_MARKED}"
)
_EXCLAIMED = (
    r"(?:(?:oh|no|wait|actually|sorry|oops|correction|i mean|rather|hmm+|make (?:that|it)|(?:scratch|strike) that|well"
    r"|my (?:bad|mistake)|i (?:made a mistake|was wrong)|on second thought)\b[\s,.:!;\u2026\u2014-]*)"
)
_WITHDRAWING = re.compile(
    rf"(?i)(?:[ ](?!or\b|and\b)\w+){{0,3}}[\s\"'*_)$\\.,;:\u2014-]*{_EXCLAIMED}{{1,4}}{_IT_IS}?"
    rf"(?:actually[ ]|really[ ])?{_MARKED}"
)
#: A sentence that takes back what was stated before it.
_TAKEN_BACK = re.compile(
    rf"(?i)(?:^|[.!?;,\n\u2014\u2013}}])[\s\"'*_)$\\\]-]*(?:{_EXCLAIMED}|(?:but|however|and|now|then|so)\b[\s,]*){{0,4}}"
    r"(?:(?:that|this|it|the answer|my answer|something|which)\s+(?:\w+\s+)?"
    r"(?:(?:does not|doesn't|do not|cannot|can't|can not|couldn't|isn't|is not|wasn't|was not)\s+(?:\w+\s+){0,2}"
    r"(?:right|correct|add up|make sense|sense|fit|work|match|true|possible)\b"
    r"|(?:cannot|can't|can not|couldn't)\s+be\b(?!\W{0,4}[0-9])"
    r"|(?:'s|is|was|seems|looks|feels|sounds|must be)\s+(?:\w+\s+){0,2}(?:wrong|off|incorrect|false|fishy|strange"
    r"|impossible|too (?:high|low|big|small|large|much|many))\b)"
    r"|(?:that|it|this)'s\s+(?:\w+\s+)?(?:wrong|incorrect|not (?:right|correct|it))\b"
    r"|(?:scratch|strike|forget|ignore|disregard)\s+(?:that|this|it)\b"
    r"|(?:i think (?:that )?)?i\s+(?:take (?:that|it) back|was wrong|am wrong|misread|miscalculated|miscounted|forgot"
    r"|made (?:a|an) (?:\w+\s)?"
    r"(?:mistake|error))\b"
    r"|let me (?:try again|start over|redo|recompute|recalculate|correct (?:that|this|myself|it)|fix)\b"
    r"|never mind\b|on second thought\b|correction\b)"
)
_CORRECTED = re.compile(
    rf"(?i)[^.!?\n]{{0,40}}?[\s\"'*_)$\\.,;:!\u2026\u2014-]+{_EXCLAIMED}{{0,4}}(?:(?:so|and|but)\b[\s,]*)?{_IT_IS}?"
    rf"(?:actually[ ]|really[ ])?{_MARKED}"
)


def with_what_follows(text: str, mention: Mention, following: int, units: Sequence[str]) -> Iterator[Mention]:
    """A statement, and what comes in its place where it is denied or withdrawn: "isn't 5, it's 6", "is 5. Wait, no,
    6", "is 5. Hmm, that does not look right"."""
    if mention.rank == UNREAD:
        yield mention
        return
    denied = stance(sentence_at(text, mention.start, mention.end)) == "denied"
    at_once = (_INSTEAD if denied else _WITHDRAWING).match(text, mention.end)
    if at_once:
        yield mention
        yield from _replacing(text, at_once.end(), mention.rank, units)
        return
    taken_back = _TAKEN_BACK.search(text, mention.end, min(following, mention.end + 400))
    if denied or not taken_back:
        yield mention
        return
    yield Mention(mention.start, mention.end, "", mention.rank, several=True, marked=mention.marked)
    words = _CORRECTED.match(text, taken_back.end())
    if words:
        yield from _replacing(text, words.end(), mention.rank, units)


def _replacing(text: str, start: int, rank: int, units: Sequence[str]) -> Iterator[Mention]:
    said = first_sentence(text[start : start + LONGEST_PHRASE])
    found = named_number(said, units=units)
    if found is not None:
        yield mention_of(Phrase(start, said, rank), found)
