"""Where a text says which number is its answer: boxes, `####` lines, "the answer is N", conclusions, a bare number."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from gcache.tasks.number_reading import EQUALS, Named, named_number
from gcache.tasks.number_value import LONGEST_EXPRESSION, NUMBER, is_value
from gcache.tasks.stance import sentence_at, stance
from gcache.tasks.statements import Mention

_LAST_FEW = 20  # statements of each kind that are looked at, from the last one backwards
_PHRASE = 200  # characters of a statement
#: How strongly a statement speaks; the strongest ones of a text decide.
_BOX, _HASHES, _FINAL, _ANSWER, _CONCLUSION = range(5)

_HASH_LINE = re.compile(r"(?<!#)####(?!#)[ \t]*([^\n]{0,200})")
_STATEMENT = re.compile(
    r"(?i)(?:(?P<final>\bfinal[ ])(?:answer|number|result)|\bans(?:wers?)?)\b(?P<between>[^.\n:=?!;]{0,60}?)"
    r"(?:\b(?:is|be|are|was|were|equals?|(?:comes?|came)[ ](?:out[ ])?to)\b|\b(?:is|are|was|were|do|does|wo|ca"
    r"|could|would)n't\b"
    r"(?:[ ](?:be|equal))?|'s\b|[:=>])(?P<marks>[\s*_:]{0,12})"
)
_BARE_FINAL = re.compile(r"(?i)\b(?P<final>final[ ])answer(?P<marks>[\s*_]{1,4})(?P<between>)(?=[-$\\(]{0,3}[0-9])")
_IS_THE_ANSWER = re.compile(r"(?i)\b(?:is|was)[ ](?:the|my|our)[ ](?:\w+[ ]){0,2}answer\b")
_REFUSAL = re.compile(r"(?i)\W*(?:not (?!\W*[-$\\(]*[0-9])|none|unknown|unclear|undefined|impossible|undetermined)\b")
_NOT_BUT = re.compile(r"(?i)\W*(?:not\b|n't\b)[^.;]*?\bbut\b")
_NO_STATEMENT = re.compile(
    r"(?i)\W*(?:first|step|let|we|to (?:find|solve|determine|calculate|answer|get)|given|since|because|if|when"
    r"|here|now)\b"
)
_VERB_BEFORE = re.compile(
    r"(?i)\b(?:to|can|will|could|would|must|should|did|not|n't|they|he|she|i|we|you|who|students|and)[ ]+$"
)
_IT_IS = r"(?:(?:it|that|this)(?:'s|[ ]is|[ ]should[ ]be|[ ]must[ ]be)[ ]|the[ ](?:\w+[ ])?answer[ ]is[ ])"
_MARKED = r"(?=[-$\\(*\"]{0,4}[0-9])"
_IT_IS_ALONE = re.compile(rf"(?i)(?:i[ ](?:think|believe)[ ](?:that[ ])?)?{_IT_IS}")
_INSTEAD = re.compile(
    rf"(?i)(?:[ ]\w+){{0,3}}[\s\"'*_)$\\.,;:\u2014-]*(?:(?:but|instead|rather|no"
    rf"|actually)\b[\s,]*(?:rather\b[\s,]*)?{_IT_IS}?|{_IT_IS})"
    rf"(?:actually[ ]|really[ ])?{_MARKED}"
)
_WITHDRAWING = re.compile(
    r"(?i)(?:[ ](?!or\b|and\b)\w+){0,3}[\s\"'*_)$\\.,;:\u2014-]*(?:(?:oh|no|wait|actually|sorry|oops|correction"
    r"|i mean|rather|hmm+|make that)"
    rf"\b[\s,.:!;\u2014-]*){{1,4}}{_IT_IS}?(?:actually[ ]|really[ ])?{_MARKED}"
)
_CONCLUSION_WORD = re.compile(
    r"(?i)[\s*_#>-]*(?:and[ ])?(?:so|therefore|thus|hence|consequently|in conclusion|in total|in summary"
    r"|altogether|overall"
    r"|finally|we (?:can )?conclude that|this means(?: that)?|that means(?: that)?|as a result)\b"
)
_SENTENCE_END = re.compile(r"[.!?](?=[\s\"')*_\]\\$]|$)|\n")
_ENDED = re.compile(r"[.!][\s\"'*_)\]\\$}]*$")


class _Phrase(NamedTuple):
    start: int
    text: str
    rank: int


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


def boxes(text: str) -> list[tuple[int, int, str]]:
    """(start, end, what is inside) of the last few boxes that are closed and hold something, but no other box."""
    found = []
    for box in list(re.finditer(r"\\(?:boxed|fbox) ?\{", text))[-_LAST_FEW:]:
        rest, depth = text[box.end() : box.end() + 1000], 1
        for brace in re.finditer(r"(?<!\\)[{}]", rest):
            depth += 1 if brace.group() == "{" else -1
            if depth == 0:
                break
        inside = rest[: brace.start()].strip() if depth == 0 else ""
        if inside and "\\boxed" not in inside:
            found.append((box.start(), box.end() + brace.end(), inside))
    return found


def _all(text: str, units: Sequence[str]) -> Iterator[Mention]:
    yield from _boxed(text, units)
    yield from _hashed(text, units)
    for phrase in [*_answers(text), *_called_the_answer(text)]:
        found = named_number(phrase.text, sentence=True, units=units)
        if found is None and not _REFUSAL.match(phrase.text):
            continue
        mention = _mention(phrase, found or Named(None, 0, len(phrase.text)))
        yield mention
        yield from _corrected(text, mention, units)
    yield from _concluding(text, units)
    yield from _alone(text, units)


def _mention(phrase: _Phrase, found: Named) -> Mention:
    start, end = phrase.start + found.start, phrase.start + max(found.end, found.start + 1)
    return Mention(start, end, found.value or "", phrase.rank, several=found.value is None)


def _boxed(text: str, units: Sequence[str]) -> Iterator[Mention]:
    """Boxes; of several, those in earlier lines are steps, unless they say that they are the answer."""
    found = boxes(text)
    for start, end, inside in found:
        if "\n" in text[end : found[-1][0]] and "answer" not in sentence_at(text, start, end).before.lower():
            continue
        value = _in_a_box(inside, units)
        yield Mention(start, end, value or "", _BOX, value is None, marked=True)


def _in_a_box(inside: str, units: Sequence[str]) -> str | None:
    inside = re.sub(r"\\(?:text|textbf|textrm|mathrm|mathbf|mbox)\s?\{([^{}]*)\}", r" \1 ", inside)
    inside = re.sub(r"\^\s*(?:\\circ|\{\\circ\})", "\u00b0", re.sub(r"\\(?:[,;: ]|quad|qquad)|~", " ", inside))
    inside = EQUALS.split(inside)[-1].strip()
    if re.search(r"(?i)\b(?:not|neither|nor|or|either|between)\b", inside):
        return None
    in_words = not re.search(r"[-+*/^\\_!]", inside)
    found = named_number(inside, sentence=in_words, units=units)
    if found and found.value is not None and "!" not in inside:
        return found.value
    several = re.search(r"(?i)\b(?:and|to)\b", inside)
    speaks = re.search(r"[0-9\u03c0]|\\(?:pi|sqrt)", inside)
    return inside if speaks and not several and len(inside) <= LONGEST_EXPRESSION else None


def _hashed(text: str, units: Sequence[str]) -> Iterator[Mention]:
    for line in list(_HASH_LINE.finditer(text))[-_LAST_FEW:]:
        phrase = _Phrase(line.start(1), line[1], _HASHES)
        # "#### 2. Compute the price" is a heading, not an answer
        if re.match(r"\W*[0-9]+[.):][ \t]*[A-Za-z]", line[1]):
            continue
        found = named_number(line[1], units=units)
        if found is None and not text[line.end() :].strip() and _ENDED.search(line[1]):  # "#### She has 5 left."
            only = named_number(line[1], sentence=True, units=units)
            found = only if only and only.value is not None else None
        if found is not None:
            yield _mention(phrase, found)


def _answers(text: str) -> Iterator[_Phrase]:
    found = [*_STATEMENT.finditer(text), *_BARE_FINAL.finditer(text)]
    for statement in found[-_LAST_FEW:]:
        if _VERB_BEFORE.search(text[max(0, statement.start() - 20) : statement.start()]):
            continue
        said = _SENTENCE_END.split(text[statement.end() : statement.end() + _PHRASE], maxsplit=1)[0]
        start = statement.end()
        if "\n" in statement["marks"] and said.startswith("- "):  # a list, not a minus
            start, said = start + 2, said[2:]
        rank = _FINAL if statement["final"] else _ANSWER
        if _NOT_BUT.match(said):  # "not 5 but 6"
            wrong, but, _ = said.partition("but")
            yield _Phrase(start, wrong, rank)
            start, said = start + len(wrong + but), said[len(wrong + but) :]
        if not _NO_STATEMENT.match(said):
            yield _Phrase(start, said, rank)


def _called_the_answer(text: str) -> Iterator[_Phrase]:
    """ "5 is the answer". """
    for words in list(_IS_THE_ANSWER.finditer(text))[-_LAST_FEW:]:
        before = text[max(0, words.start() - 40) : words.start()]
        numbers = [n for n in NUMBER.finditer(before) if is_value(before, n)]
        if numbers and re.fullmatch(r"(?:[ ]?[A-Za-z%]+){0,2}[\s*_)$\\\"'}]{0,6}", before[numbers[-1].end() :]):
            start = words.start() - len(before) + numbers[-1].start()
            yield _Phrase(start, text[start : words.start()], _ANSWER)


def _corrected(text: str, mention: Mention, units: Sequence[str]) -> Iterator[Mention]:
    """What follows a statement that is denied or withdrawn at once: "isn't 5, it's 6", "is 5. Wait, no, 6"."""
    denied = stance(sentence_at(text, mention.start, mention.end)) == "denied"
    words = (_INSTEAD if denied else _WITHDRAWING).match(text, mention.end)
    if words:
        said = _SENTENCE_END.split(text[words.end() : words.end() + _PHRASE], maxsplit=1)[0]
        found = named_number(said, units=units)
        if found is not None:
            yield _mention(_Phrase(words.end(), said, mention.rank), found)


def _concluding(text: str, units: Sequence[str]) -> Iterator[Mention]:
    """The last sentence, if it is complete and draws a conclusion: "Therefore she earns $18 a day."."""
    end = len(text.rstrip())
    if not _ENDED.search(text[max(0, end - 20) : end]):
        return
    before = text[max(0, end - 400) : end]
    ends = [found.end() for found in _SENTENCE_END.finditer(before) if before[found.end() :].strip(" \"'*_)\\]$}")]
    start = end - len(before) + (ends[-1] if ends else 0)
    opening = _CONCLUSION_WORD.match(text, start)
    if opening and (ends or start == 0):
        found = named_number(text[opening.end() : end], sentence=True, units=units)
        if found and found.value is not None:
            yield _mention(_Phrase(opening.end(), text[opening.end() : end], _CONCLUSION), found)


def _alone(text: str, units: Sequence[str]) -> Iterator[Mention]:
    """A text that is a number, its unit and marks, perhaps after "it is", and nothing else."""
    said = text.strip()
    opening = _IT_IS_ALONE.match(said)
    said = said[opening.end() :] if opening else said
    found = named_number(said, units=units) if len(said) <= _PHRASE else None
    if found and re.fullmatch(r"(?:[ ]?[A-Za-z%\u00b0/]+){0,3}[\W_]*", said[found.end :]):
        yield _mention(_Phrase(text.index(said), said, _ANSWER), found)
