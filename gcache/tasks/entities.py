"""Entities: one agent knows one fact, and the decision maker is asked for it to the letter.

For measuring what a hand-over keeps. With one agent there is nobody to choose between, so an answer is as good as the
channel. What is asked is a number (three digits, of 900), a name (made up of syllables, of 4,608) or, as the control
of a channel that carries what a text is about but not its letters, one of 11 colours. Places, and unless asked
otherwise numbers and names, of test questions occur in no training question; colours are the same.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from gcache.errors import unknown
from gcache.runtime.streams import shuffler
from gcache.tasks.classification import named
from gcache.tasks.codes import grade_exact_code
from gcache.tasks.example import Example, Grade, Note
from gcache.tasks.generated import GeneratedTask
from gcache.tasks.places import PLACES, TRAIN_PLACES, numbers
from gcache.tasks.predication import is_said
from gcache.tasks.stance import plain, sentence_at
from gcache.tasks.statements import MOST, Mention, stated_value
from gcache.tasks.worlds import ATTRIBUTES, COLOURS

HEADS = (
    "Bal", "Cor", "Dun", "Fal", "Gar", "Hol", "Jas", "Kel", "Lor", "Mab", "Nor", "Pel",
    "Quin", "Ros", "Sul", "Tam", "Ulm", "Vel", "Wex", "Yar", "Zan", "Bris", "Crem", "Thor",
)  # fmt: skip
MIDDLES = ("a", "e", "i", "o", "ami", "eno", "ilo", "ora")
ENDS = (
    "bek", "dan", "fin", "gar", "hul", "kin", "lund", "mer", "nick", "pard", "quist", "ric",
    "sen", "tov", "vans", "wick", "zer", "brook", "dale", "ford", "grim", "moth", "stad", "vell",
)  # fmt: skip
PEOPLE = ("owner", "guard", "cleaner", "painter")
PARTS = ("door", "roof", "sign", "gate")
#: Words that a text may begin with and that are nobody's name.
NO_NAMES = frozenset(
    (
        "a", "an", "and", "answer", "as", "called", "he", "her", "his", "i", "in", "is", "it", "its", "my",
        "name", "no", "not", "note", "of", "on", "she", "sorry", "sure", "that", "the", "their", "there", "they",
        "this", "to", "we", "what", "who", "yes", "you", "your", "actually", "but", "correction", "either", "if", "isn",
        "let", "maybe", "neither", "nor", "or", "perhaps", "probably", "rumour", "so", "suppose", "then", "therefore",
        "thus", "wait",
    )
).union(PEOPLE)  # fmt: skip

ANY = "any"
#: Whether values of test questions are those that training questions never had, or those that they have.
VALUES = ("new", "seen")


@dataclass(frozen=True)
class Kind:
    """One kind of entity.

    Attributes:
        of: what has one.
        fact, question: with {what} and {place}, the fact also with {value}.
        draw: from (rng, whether from the values of training) to a value.
        grade: from (text, answer) to a grade.
    """

    of: Sequence[str]
    fact: str
    question: str
    draw: Callable[[random.Random, bool], str]
    grade: Callable[[str, str], Grade]


def made_up_name(rng: random.Random, train: bool) -> str:
    """A name; those of training and test have none in common."""
    while True:
        head, middle, end = (rng.randrange(len(part)) for part in (HEADS, MIDDLES, ENDS))
        number = (head * len(MIDDLES) + middle) * len(ENDS) + end
        if (number % 7 in (2, 5)) != train:
            return HEADS[head] + MIDDLES[middle] + ENDS[end]


_PLACED = "|".join(re.escape(place) for _, place in PLACES)
_NAMED = rf"{'|'.join(PEOPLE)}|names?|answer|person|one"
_COLOURED = rf"{'|'.join(PARTS)}|colou?rs?|answer|{_PLACED}"
_PAINTED = r"(?:(?:painted|coloured|colored|a|an|in|bright|deep|dark|light|all)\s+)+"


def grade_name(text: str, answer: str) -> Grade:
    """Right if the one name that the text states is the right one; `unparsed` where it has none, or several.

    A name is a capitalised word that is not one of those that sentences here begin with.
    """
    text = plain(text)
    words = [w for w in re.finditer(r"[^\W\d_]+", text) if w.group()[0].isupper() and w.group().lower() not in NO_NAMES]
    if len(words) > MOST and len({word.group() for word in words}) > 1:
        return Grade("unparsed")
    stated = stated_value(
        text,
        [
            Mention(*word.span(), word.group(), said=is_said(sentence_at(text, *word.span()), _NAMED))
            for word in words[:MOST]
        ],
    )
    if stated is None:
        return Grade("unparsed")
    return Grade("right" if stated == answer else "wrong", stated)


def grade_colour(text: str, answer: str) -> Grade:
    """Right if the one colour that the text states is the right one; `unparsed` where it states none, or several."""
    found = named(text, COLOURS, lambda at: is_said(at, _COLOURED, _PAINTED))
    return Grade("unparsed") if found is None else Grade("right" if found == answer else "wrong", found)


KINDS: Mapping[str, Kind] = {
    "number": Kind(
        ATTRIBUTES,
        "The {what} of the {place} is {value}.",
        "What is the {what} of the {place}? Answer with the number only.",
        lambda rng, train: numbers(rng, 1, train)[0],
        grade_exact_code,
    ),
    "name": Kind(
        PEOPLE,
        "The {what} of the {place} is called {value}.",
        "What is the {what} of the {place} called? Answer with the name only.",
        made_up_name,
        grade_name,
    ),
    "colour": Kind(
        PARTS,
        "The {what} of the {place} is {value}.",
        "What colour is the {what} of the {place}? Answer with the colour only.",
        lambda rng, train: rng.choice(COLOURS),
        grade_colour,
    ),
}


@dataclass(frozen=True)
class Entities(GeneratedTask):
    """Generated questions for a number, a name or a colour that one agent knows to the letter.

    Args:
        kind: what is asked: number, name or colour, or any, drawn for each question.
        values: of test questions: new, those that training never has, or seen. Places are new in any case.
        train_size, test_size: how many questions a split has unless `limit` says otherwise.

    Raises:
        ConfigError: an option that is not allowed.
    """

    kind: str = ANY
    values: str = VALUES[0]
    train_size: int = 4096
    test_size: int = 512
    name: str = field(default="entities", init=False)
    domain: str = field(default="split_facts", init=False)
    max_new_tokens: int = field(default=16, init=False)

    def __post_init__(self) -> None:
        if self.kind not in (ANY, *KINDS):
            raise unknown("kind of entities", self.kind, (ANY, *KINDS))
        if self.values not in VALUES:
            raise unknown("values of entities", self.values, VALUES)

    def grade(self, text: str, example: Example) -> Grade:
        """As its kind is graded; see `KINDS`."""
        return KINDS[example.meta["kind"]].grade(text, example.answer)

    def draw(self, split: str, seed: int, index: int) -> Example:
        """See `GeneratedTask`."""
        rng = shuffler(self.name, self.kind, split, seed, index)
        train = split == "train"
        keeper, place = rng.choice(PLACES[:TRAIN_PLACES] if train else PLACES[TRAIN_PLACES:])
        kind = rng.choice(list(KINDS)) if self.kind == ANY else self.kind
        form = KINDS[kind]
        what, value = rng.choice(form.of), form.draw(rng, train or self.values == "seen")
        fact = form.fact.format(what=what, place=place, value=value)
        return Example(
            id=f"{self.name}-{split}-{seed}-{index}",
            question=form.question.format(what=what, place=place),
            answer=value,
            notes=(Note(keeper, f"The {keeper} knows the {place}.", f"Note of the {keeper}: {fact}", "keeper"),),
            meta={"kind": kind, "place": place},
        )
