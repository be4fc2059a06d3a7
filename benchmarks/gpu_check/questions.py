"""Word problems made of numbers and names, without a package that makes them or grades them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.setting import DOMAIN, Questions, Settings
from gcache.runtime.streams import shuffler
from gcache.tasks.example import Example, Grade

NAMES = ("Ada", "Ben", "Chloe", "David", "Emma", "Farid", "Grace", "Hugo")
THINGS = ("apples", "pencils", "books", "stamps", "marbles", "tickets", "stones", "cards")
PLACES = ("at the market", "in the library", "at school", "on the train", "in the garden")


def questions(count: int, seed: int = 0) -> list[Example]:
    """The first `count` of a seed; a smaller count gives the first of a larger one."""
    return [_question(number, seed) for number in range(count)]


def _question(number: int, seed: int) -> Example:
    draw = shuffler("a sum in words", seed, number)
    giver, taker = draw.sample(NAMES, 2)
    thing, place = draw.choice(THINGS), draw.choice(PLACES)
    has, gets, boxes = draw.randint(20, 99), draw.randint(2, 19), draw.randint(2, 9)
    more = f"Then {taker} buys {boxes} boxes {place}, and each box holds {gets} {thing}. " if number % 2 else ""
    text = f"{giver} has {has} {thing} and gives {gets} of them to {taker} {place}. {more}"
    asked, answer = (taker, gets + boxes * gets) if number % 2 else (giver, has - gets)
    return Example(f"sum-{seed}-{number}", f"{text}How many {thing} does {asked} have now?", str(answer))


@dataclass(frozen=True)
class Sums:
    """The task of these questions; right is a text that is the number."""

    name: str = "sums"
    domain: str = DOMAIN
    max_new_tokens: int = 64

    def train(self, limit: int | None = None, seed: int = 0) -> Sequence[Example]:
        return questions(64 if limit is None else limit, seed)

    def test(self, limit: int | None = None, seed: int = 0) -> Sequence[Example]:
        return questions(64 if limit is None else limit, seed)

    def grade(self, text: str, example: Example) -> Grade:
        return Grade("right" if text.strip() == example.answer else "wrong", text.strip())


def asked(settings: Settings) -> Questions:
    """So many of them as a benchmark is asked for."""
    return Questions(Sums(), tuple(questions(settings.questions, settings.seed)), "generated sums in words")
