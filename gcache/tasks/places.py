"""The places, people and numbers that worlds of split facts are made of; training and test have none in common."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

from gcache.tasks.stance import Sentence

#: (keeper, place). The first part trains, the rest is held out; the cut is TRAIN_PLACES.
PLACES: tuple[tuple[str, str], ...] = (
    ("librarian", "library"), ("harbour master", "harbour"), ("baker", "bakery"), ("miller", "mill"),
    ("pharmacist", "pharmacy"), ("station master", "railway station"), ("gardener", "garden"),
    ("lighthouse keeper", "lighthouse"), ("schoolteacher", "school"), ("museum curator", "museum"),
    ("innkeeper", "inn"), ("blacksmith", "forge"), ("beekeeper", "apiary"), ("zookeeper", "zoo"),
    ("postmaster", "post office"), ("banker", "bank"), ("priest", "church"), ("sailor", "ship"),
    ("shepherd", "sheepfold"), ("tailor", "tailor shop"), ("butcher", "butcher shop"),
    ("astronomer", "observatory"), ("brewer", "brewery"), ("judge", "courthouse"),
    ("actor", "theatre"), ("doctor", "hospital"), ("firefighter", "fire station"), ("pilot", "airport"),
    ("vintner", "vineyard"), ("farmer", "farm"), ("swimming coach", "swimming pool"), ("mayor", "town hall"),
    ("prison warden", "prison"), ("florist", "flower shop"), ("cinema projectionist", "cinema"),
    ("miner", "mine"), ("fishmonger", "fish market"), ("nun", "convent"), ("barber", "barber shop"),
    ("forest ranger", "forest"),
    ("ferryman", "ferry"), ("jeweller", "jewellery shop"), ("archivist", "archive"), ("cheesemaker", "dairy"),
    ("bus driver", "bus depot"), ("potter", "pottery"), ("clockmaker", "clock tower"), ("ski teacher", "ski hut"),
    ("bookbinder", "bindery"), ("falconer", "castle"), ("conductor", "concert hall"), ("quarryman", "quarry"),
)  # fmt: skip
TRAIN_PLACES = 40

NAMES: tuple[str, ...] = (
    "Ada", "Bruno", "Clara", "Dario", "Elin", "Felix", "Greta", "Hugo", "Ines", "Jonas", "Kira", "Leo",
    "Mara", "Nils", "Olga", "Pavel", "Rosa", "Sven", "Tara", "Ugo", "Vera", "Wim", "Yara", "Zeno",
    "Alma", "Boris", "Cora", "Dirk", "Edda", "Fynn", "Gwen", "Henk", "Ida", "Jiri", "Lena", "Milo",
)  # fmt: skip
TRAIN_NAMES = 24


def numbers(rng: random.Random, count: int, train: bool, besides: Sequence[str] = ()) -> list[str]:
    """Distinct three-digit numbers, `besides` left out; those of training and test have none in common."""
    known = {int(value) for value in besides}
    allowed = [v for v in range(100, 1000) if (v % 7 in (2, 5)) != train and v not in known]
    return [str(v) for v in rng.sample(allowed, count)]


_NAMED = "|".join(sorted((re.escape(place) for _, place in PLACES), key=len, reverse=True))
_PLACE = re.compile(rf"(?i)\bthe\s+({_NAMED})\b|\b({_NAMED})'s\b")
_BELONGS = re.compile(
    rf"(?i)\W{{0,4}}(?:is|was|for|of|at|in|opens|belongs to)\b[^.,;:0-9]{{0,40}}?"
    rf"(?:\bthe\s+({_NAMED})\b|\b({_NAMED})'s\b)"
)


def of_another_place(at: Sentence, place: str) -> bool:
    """Whether a sentence gives the value that it is around to another place of `PLACES` than this one."""
    named = _BELONGS.match(at.after) or next(iter(reversed(list(_PLACE.finditer(at.before)))), None)
    if named is None:
        return False
    nearer = place.lower() in at.before[named.end() :].lower() if named.re is _PLACE else False
    return not nearer and (named[1] or named[2]).lower() != place.lower()
