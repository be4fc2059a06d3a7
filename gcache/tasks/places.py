"""The places, people and numbers that worlds of split facts are made of; training and test have none in common."""

from __future__ import annotations

import random
from collections.abc import Sequence

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
