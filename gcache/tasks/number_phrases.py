"""What a phrase that speaks of the answer states: "5", "that she has 5", "not 5", "unknown"."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from gcache.tasks.number_reading import Named, named_number
from gcache.tasks.number_sentences import sentence_number
from gcache.tasks.number_words import WORD_NUMBER
from gcache.tasks.statements import Mention

LONGEST_PHRASE = 200  # characters of a statement
#: How strongly a statement speaks; the strongest ones of a text decide.
BOX, HASHES, FINAL, ANSWER, CONCLUSION, UNREAD = range(6)
_REFUSAL = re.compile(r"(?i)\W*(?:not (?!\W*[-$\\(]*[0-9])|none|unknown|unclear|undefined|impossible|undetermined)\b")
#: Before a number they leave it to `stance` what is said of it.
_DENYING = re.compile(
    r"(?i)\W*(?:(?:definitely|certainly|clearly|actually|simply|really|surely|most|just)\s+)*"
    r"(?:not|never|neither|no longer|anything but)\b"
    r"(?:\s+(?:necessarily|equal to|actually|simply|really|just|quite))*\s*"
)
_CLAUSE = re.compile(r"\W*(?:that\b|(?i:she|he|they|it|there|we|i)\b|[A-Z][a-z]+\b)")
_WHICH_IS = re.compile(r"(?i),?\s(?:which|that)\s(?:is|equals|comes to|makes|gives|simplifies to|works out to)\s+")
_IN_WORDS = re.compile(rf"(?i)\W*{WORD_NUMBER}(?:[ -][a-z]+){{0,3}}\s?[:(]\s*(?=[0-9])")
_WORD_OF_DOUBT = re.compile(r"(?i)\b(?:not|wrong|incorrect|or|between|least|most|maybe|perhaps|possibly)\b")
_SENTENCE_END = re.compile(r"[.!?](?=[\s\"')*_\]\\$]|$)|\n")
_TITLE = re.compile(r"(?:\b(?:Mr|Mrs|Ms|Dr|St|No|approx|vs|sq|cu|ft|in|oz|lbs?|min|hrs?|[A-Z]|[ap]\.m)|\b[pP]\.[eE])$")


class Phrase(NamedTuple):
    start: int
    text: str
    rank: int
    sentence: bool = False  # whether it may be a whole sentence ("Answer: she has 5.")


def mention_in(phrase: Phrase, units: Sequence[str]) -> Mention | None:
    """What a phrase states; None where it speaks of no number and refuses none."""
    if phrase.rank == UNREAD:
        return unread(phrase.start)
    found = named_number(phrase.text, units=units) or _denied(phrase.text, units) or _explained(phrase, units)
    if found is None and _REFUSAL.match(phrase.text):
        return unread(phrase.start, phrase.rank)
    if found is None:
        return unread(phrase.start) if re.search(r"[0-9]", phrase.text) else None
    return mention_of(phrase, found)


def unread(start: int, rank: int = UNREAD) -> Mention:
    return Mention(start, start, "", rank, several=True)


def mention_of(phrase: Phrase, found: Named) -> Mention:
    start, end = phrase.start + found.start, phrase.start + max(found.end, found.start + 1)
    return Mention(start, end, found.value or "", phrase.rank, several=found.value is None)


def _denied(phrase: str, units: Sequence[str]) -> Named | None:
    words = _DENYING.match(phrase)
    return _behind(phrase, words.end(), units) if words else None


def _explained(phrase: Phrase, units: Sequence[str]) -> Named | None:
    """A number in a sentence ("Answer: she has 5"), or behind one ("... 9 times 2, which is 18")."""
    which = list(_WHICH_IS.finditer(phrase.text)) or [*_IN_WORDS.finditer(phrase.text)][:1]
    found = _behind(phrase.text, which[-1].end(), units) if which else None
    if found and found.value is not None and not _WORD_OF_DOUBT.search(phrase.text[: found.start]):
        return found
    if not phrase.sentence and not _CLAUSE.match(phrase.text):
        return None
    found = sentence_number(re.sub(r"^\W*that\b", lambda that: " " * len(that.group()), phrase.text), units=units)
    return found if found and found.value is not None else None


def _behind(text: str, start: int, units: Sequence[str]) -> Named | None:
    found = named_number(text[start:], units=units)
    return found._replace(start=found.start + start, end=found.end + start) if found else None


def sentence_ends(text: str) -> Iterator[re.Match[str]]:
    """The marks that end a sentence, and no title ("Mr.") or unit ("sq. ft.")."""
    for end in _SENTENCE_END.finditer(text):
        if end.group() != "." or not _TITLE.search(text[max(0, end.start() - 20) : end.start()]):
            yield end


def first_sentence(text: str) -> str:
    """The text up to the end of its first sentence."""
    return next((text[: end.start()] for end in sentence_ends(text)), text)
