"""Split facts: a question that nobody can answer without being handed the right cache.

N agents each keep a place and privately know facts about it; the facts stand in that agent's
prompt and nowhere else. One of them is a gossip who states wrong values about everybody's place.
The decision maker knows nothing and is asked one fact. So no edge answers nothing, every edge
lets the gossip in, and the one right edge depends on the question. Adversaries, where asked for,
insist on a wrong value of the very fact that is asked.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from gcache.errors import ConfigError
from gcache.tasks.dealing import adversary, check_adversaries
from gcache.tasks.example import Example, Grade, Note
from gcache.tasks.grading import grade_exact_code
from gcache.tasks.splits import check_limit

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

#: What may be asked of a place; a world has one of them. All values are three-digit numbers, so
#: that none gives itself away.
ATTRIBUTES: tuple[str, ...] = ("door code", "locker number", "room number", "alarm code")


@dataclass(frozen=True)
class SplitFacts:
    """The task.

    Args:
        n_agents: keepers and the gossip together, from 3 to 12.
        gossip: without it, all agents are keepers.
        adversary: further agents that insist on a wrong answer.
        train_size, test_size: how many questions a split has unless `limit` says otherwise.

    Raises:
        ConfigError: fewer than 3 agents, or more than there are held-out places and names for.
    """

    n_agents: int = 5
    gossip: bool = True
    adversary: int = 0
    train_size: int = 4096
    test_size: int = 512
    name: str = field(default="split_facts", init=False)
    domain: str = field(default="split_facts", init=False)
    max_new_tokens: int = field(default=6, init=False)

    def __post_init__(self) -> None:
        if not isinstance(self.gossip, bool):
            raise ConfigError(f"gossip must be true or false, got {self.gossip!r}")
        most = min(len(PLACES) - TRAIN_PLACES + self.gossip, len(NAMES) - TRAIN_NAMES)
        if not 3 <= self.n_agents <= most:
            raise ConfigError(f"n_agents must be from 3 to {most} for split_facts, got {self.n_agents}")
        check_adversaries(self.adversary)

    def train(self, limit: int | None = None, seed: int = 0) -> Sequence[Example]:
        """Questions about the first places, names and values."""
        check_limit(limit, seed)
        size = self.train_size if limit is None else limit
        return [self._example("train", seed, index) for index in range(size)]

    def test(self, limit: int | None = None, seed: int = 0) -> Sequence[Example]:
        """Questions about places, names and values that no training question mentions."""
        check_limit(limit, seed)
        size = self.test_size if limit is None else limit
        return [self._example("test", seed, index) for index in range(size)]

    def grade(self, text: str, example: Example) -> Grade:
        """Right if the one number that the text states is the asked one."""
        return grade_exact_code(text, example.answer)

    def _example(self, split: str, seed: int, index: int) -> Example:
        rng = random.Random(f"split_facts/{split}/{seed}/{index}")
        train = split == "train"
        places = PLACES[:TRAIN_PLACES] if train else PLACES[TRAIN_PLACES:]
        names = NAMES[:TRAIN_NAMES] if train else NAMES[TRAIN_NAMES:]
        chosen = rng.sample(places, self.n_agents - self.gossip)
        people = rng.sample(names, self.n_agents)
        attribute = rng.choice(ATTRIBUTES)
        values = _values(rng, 2 * len(chosen), train)
        facts = [f"The {attribute} of the {place} is {{}}." for _, place in chosen]
        truth, rumour = values[: len(chosen)], values[len(chosen) :]
        asked = rng.randrange(len(chosen))
        notes = [
            _keeper(people[i], *chosen[i], fact=facts[i].format(truth[i]), asked=i == asked)
            for i in range(len(chosen))
        ]
        told = [facts[i].format(rumour[i]) for i in rng.sample(range(len(chosen)), len(chosen))]
        if self.gossip:
            notes.append(_gossip(people[-1], told))
        # drawn last, so that the world is the same with and without them
        wrong = _values(rng, self.adversary, train, besides=values)
        notes += [adversary(facts[asked].format(value)) for value in wrong]
        rng.shuffle(notes)
        keeper, place = chosen[asked]
        return Example(
            id=f"split_facts-{split}-{seed}-{index}",
            question=f"What is the {attribute} of the {place}? Answer with the number only.",
            answer=truth[asked],
            notes=tuple(notes),
            meta={"place": place, "keeper": keeper, "rumour": rumour[asked]},
        )


def _values(rng: random.Random, count: int, train: bool, besides: Sequence[str] = ()) -> list[str]:
    """Distinct three-digit numbers, `besides` left out; those of training and test have none in common."""
    known = {int(value) for value in besides}
    allowed = [v for v in range(100, 1000) if (v % 7 in (2, 5)) != train and v not in known]
    return [str(v) for v in rng.sample(allowed, count)]


def _keeper(person: str, keeper: str, place: str, fact: str, asked: bool) -> Note:
    return Note(
        role=keeper,
        description=f"The {keeper} knows the {place}.",
        text=f"Note of {person}, the {keeper}: {fact}",
        kind="asked keeper" if asked else "other keeper",
    )


def _gossip(person: str, told: Sequence[str]) -> Note:
    return Note(
        role="gossip",
        description="The gossip talks about everybody's places.",
        text=f"Note of {person}, the gossip: {' '.join(told)}",
        kind="gossip",
    )
