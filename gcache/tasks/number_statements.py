"""Where a text says which number is its answer: boxes, `####` lines, "the answer is N", headings, conclusions, a bare
number.

What such a place holds counts if it is read to its end; see `gcache.tasks.number_reading`. A place that says something
else of an answer ("the answer is on page 5", "Tom's answer is 5") is a mention of the weakest rank, which states
nothing, so that the text counts as one that has spoken of its answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from gcache.tasks.number_boxes import boxes, value_in_a_box
from gcache.tasks.number_corrections import with_what_follows
from gcache.tasks.number_endings import ENDED, alone, concluding, last_line
from gcache.tasks.number_phrases import (
    ANSWER,
    BOX,
    FINAL,
    HASHES,
    LONGEST_PHRASE,
    UNREAD,
    Phrase,
    first_sentence,
    mention_in,
    mention_of,
    unread,
)
from gcache.tasks.number_reading import named_number
from gcache.tasks.number_sentences import sentence_number
from gcache.tasks.number_value import NUMBER, is_value
from gcache.tasks.speakers import own
from gcache.tasks.stance import sentence_at
from gcache.tasks.statements import Mention

_LAST_FEW = 20  # statements of each kind that are looked at, from the last one backwards
_HASH_LINE = re.compile(r"(?<!#)####(?!#)[ \t]*([^\n]{0,200})")
_STATEMENT = re.compile(
    r"(?i)(?:(?P<final>\bfinal[ ])(?:answer|number|result)|\bans(?:wers?)?)\b(?P<between>[^.\n:=?!;]{0,60}?)"
    r"(?:(?P<is>\b(?:is|be|are|was|were|equals?|(?:comes?|came)[ ](?:out[ ])?to)\b|\b(?:is|are|was|were|do|does|wo|ca"
    r"|could|would)n't\b"
    r"(?:[ ](?:be|equal))?|'s\b)|[-=]{0,2}>|[:=\u2192])(?P<marks>[\s*_:]{0,12})"
)
_BARE_FINAL = re.compile(
    r"(?i)\b(?P<final>final[ ])answer(?P<marks>[\s*_]{1,4})(?P<between>)(?P<is>)(?=[-$\\(]{0,3}[0-9])"
)
#: A line that is nothing but "Answer", and what stands below it.
_HEADING = re.compile(
    r"(?i)(?<![^\n])[ \t]{0,4}[#*_>]{0,6}[ \t]?[*_]{0,3}(?:(?:the|my|our)[ ])?(?P<final>final[ ])?"
    r"(?:answer|result|solution)[ \t]?[*_:]{0,4}[ \t]{0,4}\n[\s$\\\[]{0,12}(?P<said>[^\n]{1,200})"
)
_LABELS = r"(?i)(?:(?:the|grand|final|overall|total|correct)[ ])*(?:answer|ans|total|result|sum|conclusion|solution)\b"
_LABEL = re.compile(_LABELS + r"[ *_]{0,4}[:=][\s*_]*")
_LAST_LABEL = re.compile(_LABELS + r"(?:[ ]\w+){0,6}[ *_]{0,4}[:=][\s*_]*")  # "Total cost of the eggs:"
_IS_THE_ANSWER = re.compile(r"(?i)\b(?:is|was)[ ](?:the|my|our)[ ](?P<which>(?:\w+[ ]){0,2})answer\b")
_CLAUSE_START = re.compile(
    r"(?i)(?:^|[.!?\n,;:=(]|\b(?:so|therefore|thus|hence|that|think|believe|and|then|since|because|but|clearly|if|suppose"
    r"|whether|not|maybe|perhaps))[\s*_$\\(\"'{\[]*$"
)
_NOT_BUT = re.compile(r"(?i)\W*(?:not\b|n't\b)[^.;]*?\bbut\b")
_NO_STATEMENT = re.compile(
    r"(?i)\W*(?:first|step|let|we|to (?:find|solve|determine|calculate|answer|get)|given|since|because|if|when"
    r"|here|now)\b"
)
_VERB_BEFORE = re.compile(
    r"(?i)\b(?:to|can|will|could|would|must|should|did|not|n't|they|he|she|i|we|you|who|students|and)[ ]+$"
)


def number_mentions(text: str, units: Sequence[str]) -> list[Mention]:
    """The places where a text, made `tidy` and `plain`, says what the answer is, in order and apart.

    Args:
        units: see `named_number`.
    """
    apart: list[Mention] = []
    for mention in sorted(_all(text, units), key=lambda m: (m.start, m.rank)):
        if not apart or mention.start >= apart[-1].end:
            apart.append(mention)
        elif mention.rank < apart[-1].rank:  # "The answer is \boxed{5}" is one statement
            apart[-1] = mention
    return apart


def _all(text: str, units: Sequence[str]) -> Iterator[Mention]:
    strong = [*_boxed(text, units), *_hashed(text, units)]
    for phrase in [*_answers(text), *_called_the_answer(text)]:
        mention = mention_in(phrase, units)
        if mention:
            strong.append(mention)
    strong.sort(key=lambda mention: (mention.start, mention.rank))
    for place, mention in enumerate(strong):
        following = next((other.start for other in strong[place + 1 :] if other.start > mention.end), len(text))
        yield from with_what_follows(text, mention, following, units)
    yield from concluding(text, units)
    yield from alone(text, units)
    yield from last_line(text, units)


def _boxed(text: str, units: Sequence[str]) -> Iterator[Mention]:
    """Boxes; of several, those in earlier lines are steps, unless they say that they are the answer."""
    found = boxes(text, _LAST_FEW)
    for start, end, inside in found:
        if "\n" in text[end : found[-1][0]] and "answer" not in sentence_at(text, start, end).before.lower():
            continue
        if not _own_box(text, start):
            yield unread(start)
            continue
        value = value_in_a_box(inside, units)
        yield Mention(start, end, value or "", BOX, value is None, marked=True)


def _own_box(text: str, start: int) -> bool:
    before = text[max(0, start - 160) : start]
    if re.search(r"(?i)\b(?:suppose|assume|imagine|say|try)\W*$", before):
        return False
    named = list(re.finditer(r"(?i)\banswer\b(?=[^.!?\n]*$)", before))
    return own(text, start - len(before) + named[-1].start() if named else start)


def _hashed(text: str, units: Sequence[str]) -> Iterator[Mention]:
    for line in list(_HASH_LINE.finditer(text))[-_LAST_FEW:]:
        # "#### 2. Compute the price" is a heading, not an answer
        if re.match(r"\W*[0-9]+[.):][ \t]*[A-Za-z]", line[1]):
            continue
        if re.match(r"(?i)\W*[0-9]+[ ](?:steps|parts|ways|methods|things|tips|reasons|examples)\b", line[1]):
            continue
        last = not text[line.end() :].strip()
        label = (_LAST_LABEL if last else _LABEL).match(line[1])
        said = line[1][label.end() :] if label else line[1]
        phrase = Phrase(line.start(1) + len(line[1]) - len(said), said, HASHES)
        found = named_number(said, units=units)
        # "#### She has 5 left."
        if (found is None or found.value is None) and last and ENDED.search(line[1]):
            only = sentence_number(said, units=units)
            found = only if only and only.value is not None else found
        if found is not None:
            yield mention_of(phrase, found)


def _answers(text: str) -> Iterator[Phrase]:
    found = [*_STATEMENT.finditer(text), *_BARE_FINAL.finditer(text)]
    for statement in found[-_LAST_FEW:]:
        if _VERB_BEFORE.search(text[max(0, statement.start() - 20) : statement.start()]):
            continue
        said = first_sentence(text[statement.end() : statement.end() + LONGEST_PHRASE])
        start = statement.end()
        if "\n" in statement["marks"] and said.startswith("- "):  # a list, not a minus
            start, said = start + 2, said[2:]
        if not own(text, statement.start(), statement["between"]):
            yield Phrase(start, said, UNREAD)
            continue
        rank = FINAL if statement["final"] else ANSWER
        if _NOT_BUT.match(said):  # "not 5 but 6"
            wrong, but, _ = said.partition("but")
            yield Phrase(start, wrong, rank)
            start, said = start + len(wrong + but), said[len(wrong + but) :]
        if not _NO_STATEMENT.match(said):
            yield Phrase(start, said, rank, sentence=statement["is"] is None)
    for heading in list(_HEADING.finditer(text))[-_LAST_FEW:]:
        yield Phrase(heading.start("said"), heading["said"], FINAL if heading["final"] else ANSWER)


def _called_the_answer(text: str) -> Iterator[Phrase]:
    """ "5 is the answer"."""
    for words in list(_IS_THE_ANSWER.finditer(text))[-_LAST_FEW:]:
        before = text[max(0, words.start() - 40) : words.start()]
        numbers = [n for n in NUMBER.finditer(before) if is_value(before, n)]
        if numbers and re.fullmatch(r"(?:[ ]?[A-Za-z%]+){0,2}[\s*_)$\\\"'}]{0,6}", before[numbers[-1].end() :]):
            start = words.start() - len(before) + numbers[-1].start()
            fits = _CLAUSE_START.search(before[: numbers[-1].start()]) and own(text, words.end("which"))
            yield Phrase(start, text[start : words.start()], ANSWER if fits else UNREAD)
