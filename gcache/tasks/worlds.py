"""The worlds of split facts: who knows what, and what is asked.

One hop: every keeper knows a number about a place, and that of one place is asked. Two hops: every
keeper knows the colour of the lock on a place, the locksmith the code of every colour, and the code
of one place's lock is asked. No note has that; two have it together. Caches that reach the decision
maker side by side were written without knowledge of each other, so one of the two agents has to be
handed the other's before it writes its own.

A gossip, where there is one, states wrong numbers about everything that has one.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from gcache.tasks.example import Note
from gcache.tasks.places import numbers

#: What may be asked of a place; a one-hop world has one of them. All values are three-digit numbers,
#: so that none gives itself away.
ATTRIBUTES = ("door code", "locker number", "room number", "alarm code")
#: Of locks, of which a two-hop world has one per place. Training and held-out questions share them.
COLOURS = ("red", "blue", "green", "yellow", "white", "black", "brown", "grey", "pink", "purple", "orange")


@dataclass(frozen=True)
class World:
    """One world and its question.

    Attributes:
        asked: what is asked, with {} for the number: "The door code of the mill is {}."
        notes: of all agents but adversaries: the keepers in the order of their places first, the gossip last.
        keeper, place: of the asked place.
        rumour: the gossip's answer, or what it would have been.
        numbers: all that occur.
    """

    question: str
    answer: str
    asked: str
    notes: tuple[Note, ...]
    keeper: str
    place: str
    rumour: str
    numbers: tuple[str, ...]


#: (rng, (keeper, place) of each keeper, a name per agent, whether there is a gossip, whether in training)
MakeWorld = Callable[[random.Random, Sequence[tuple[str, str]], Sequence[str], bool, bool], World]


def one_hop(
    rng: random.Random, places: Sequence[tuple[str, str]], people: Sequence[str], gossip: bool, train: bool
) -> World:
    """The keeper of the asked place knows its number."""
    attribute = rng.choice(ATTRIBUTES)
    values = numbers(rng, 2 * len(places), train)
    truth, rumours = values[: len(places)], values[len(places) :]
    facts = [f"The {attribute} of the {place} is {{}}." for _, place in places]
    asked = rng.randrange(len(places))
    notes = _keepers(places, people, [fact.format(value) for fact, value in zip(facts, truth, strict=True)], asked)
    told = [facts[i].format(rumours[i]) for i in rng.sample(range(len(places)), len(places))]
    if gossip:
        notes.append(_gossip(people[-1], told))
    keeper, place = places[asked]
    return World(
        f"What is the {attribute} of the {place}? Answer with the number only.",
        truth[asked], facts[asked], tuple(notes), keeper, place, rumours[asked], tuple(values),
    )  # fmt: skip


def two_hops(
    rng: random.Random, places: Sequence[tuple[str, str]], people: Sequence[str], gossip: bool, train: bool
) -> World:
    """The keeper of the asked place knows the colour of its lock, and the locksmith every colour's code."""
    colours = rng.sample(COLOURS, len(places))
    codes = numbers(rng, 2 * len(places), train)
    truth, rumours = codes[: len(places)], codes[len(places) :]
    asked = rng.randrange(len(places))
    known = [f"The {place} has the {colour} lock." for (_, place), colour in zip(places, colours, strict=True)]
    notes = _keepers(places, people, known, asked)
    notes.append(
        Note(
            role="locksmith",
            description="The locksmith knows the codes of all locks.",
            text=f"Note of {people[len(places)]}, the locksmith: {' '.join(_table(rng, colours, truth))}",
            kind="locksmith",
        )
    )
    if gossip:
        notes.append(_gossip(people[-1], _table(rng, colours, rumours)))
    keeper, place = places[asked]
    return World(
        f"What is the code of the lock of the {place}? Answer with the number only.",
        truth[asked], f"The code of the lock of the {place} is {{}}.", tuple(notes), keeper, place,
        rumours[asked], tuple(codes),
    )  # fmt: skip


#: Hops -> how its worlds are made, and how many agents there are beside the keepers and the gossip.
WORLDS: Mapping[int, tuple[MakeWorld, int]] = {1: (one_hop, 0), 2: (two_hops, 1)}


def _keepers(
    places: Sequence[tuple[str, str]], people: Sequence[str], facts: Sequence[str], asked: int
) -> list[Note]:
    return [
        Note(
            role=keeper,
            description=f"The {keeper} knows the {place}.",
            text=f"Note of {people[i]}, the {keeper}: {facts[i]}",
            kind="asked keeper" if i == asked else "other keeper",
        )
        for i, (keeper, place) in enumerate(places)
    ]


def _gossip(person: str, told: Sequence[str]) -> Note:
    return Note(
        role="gossip",
        description="The gossip talks about everybody's places.",
        text=f"Note of {person}, the gossip: {' '.join(told)}",
        kind="gossip",
    )


def _table(rng: random.Random, colours: Sequence[str], codes: Sequence[str]) -> list[str]:
    """The code of every lock, in an order of its own."""
    rows = [f"The code of the {colour} lock is {code}." for colour, code in zip(colours, codes, strict=True)]
    return rng.sample(rows, len(rows))
