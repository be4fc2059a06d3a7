"""What a text states without a word for its answer: by its last sentence, by its last line, or by being a number."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from gcache.tasks.number_corrections import THAT_IS
from gcache.tasks.number_phrases import ANSWER, CONCLUSION, LONGEST_PHRASE, Phrase, mention_of, sentence_ends
from gcache.tasks.number_reading import named_number
from gcache.tasks.number_sentences import sentence_number
from gcache.tasks.statements import Mention

#: The last line of a text.
_LAST_LINE = re.compile(
    r"(?i)[-*#>\s$\\\[(]{0,12}(?:a(?=:)|ans\b\.?|(?:(?:the|grand|final|overall)[ ])?(?:answer|total|result|sum"
    r"|solution)\b|(?P<name>[a-z])(?=\s?=))?[ *_]{0,4}(?P<sign>[:=]?)[\s*_]{0,6}"
)
_IT_IS_ALONE = re.compile(
    rf"(?i)(?:(?:it|that)(?:'s|[ ]is)[ ]not[ ][-$]{{0,2}}[0-9.,]{{1,12}}(?<![.,])(?:[,;.]|[ ]but)[ ])?"
    rf"(?:(?:i[ ](?:think|believe)|so|therefore|thus|hence),?[ ](?:that[ ])?)?{THAT_IS}"
)
_CONCLUSION_WORD = re.compile(
    r"(?i)[\s*_#>-]*(?:and[ ])?(?:so(?! far\b)|therefore|thus|hence|consequently|in conclusion|in total|in summary"
    r"|altogether|overall|in all"
    r"|finally|we (?:can )?conclude that|this means(?: that)?|that means(?: that)?|as a result)\b,?"
)
#: A text of one sentence that has such a word is no plain statement of a number.
_SPEAKS_OF_IT = re.compile(r"(?i)\banswers?\b|^[^\n]*:\s|^\W*(?:if|suppose|assume)\b")
ENDED = re.compile(r"[.!][\s\"'*_)\]\\$}]*$")


def concluding(text: str, units: Sequence[str]) -> Iterator[Mention]:
    """The last sentence, if it is complete and draws a conclusion ("Therefore she earns $18 a day."), or is all that
    the text says."""
    end = len(text.rstrip())
    if not ENDED.search(text[max(0, end - 20) : end]):
        return
    before = text[max(0, end - 400) : end]
    ends = [found.end() for found in sentence_ends(before) if before[found.end() :].strip(" \"'*_)\\]$}")]
    if not ends and end > len(before):
        return
    start = end - len(before) + (ends[-1] if ends else 0)
    opening = _CONCLUSION_WORD.match(text, start)
    if opening is None and (ends or _SPEAKS_OF_IT.search(text)):
        return
    start = opening.end() if opening else start
    said = text[start:end]
    found = sentence_number(said, units=units)
    if found and found.value is not None:
        yield mention_of(Phrase(start, said, CONCLUSION), found)


def alone(text: str, units: Sequence[str]) -> Iterator[Mention]:
    """A text that is a number, its unit and marks, perhaps after "it is", and nothing else."""
    said = text.strip()
    opening = _IT_IS_ALONE.match(said)
    said = said[opening.end() :] if opening else said
    found = named_number(said, units=units) if len(said) <= LONGEST_PHRASE else None
    if found and (found.whole(said) or (opening and found.value)):
        yield mention_of(Phrase(text.index(said), said, ANSWER), found)


def last_line(text: str, units: Sequence[str]) -> Iterator[Mention]:
    """A last line such as "A: 5", "Total = 5", "= 5", "x = 5", if it is not of code or one of several such lines."""
    if text.rstrip().endswith(("```", "\u2026")):
        return
    lines = text[-2 * LONGEST_PHRASE :].rstrip("\n\t $`*\\)]").rsplit("\n", 1)
    label = _LAST_LINE.match(lines[-1])
    if (
        len(lines[-1]) > LONGEST_PHRASE
        or label is None
        or not (label["sign"] or label.group().strip().lower() in ("ans", "ans."))
    ):
        return
    if label["name"] and re.search(
        rf"(?im)^\W*(?!{label['name']})[a-z]\s?=\s?-?[0-9.]+\W*$", lines[0][-LONGEST_PHRASE:]
    ):
        return
    said = lines[-1][label.end() :]
    found = named_number(said, units=units)
    if found and found.whole(said):
        yield mention_of(Phrase(text.rindex(lines[-1]) + label.end(), said, CONCLUSION), found)
