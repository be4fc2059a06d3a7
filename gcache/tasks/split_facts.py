"""Split facts: a question that nobody can answer without being handed the right cache.

N agents each keep a place and privately know facts about it; the facts stand in that agent's
prompt and nowhere else. One of them is a gossip who states wrong values about everybody's place.
The decision maker knows nothing and is asked one fact. So no edge answers nothing, every edge
lets the gossip in, and the one right edge depends on the question. With two hops the answer takes
two agents' facts in a row, and so an edge between them; see `gcache.tasks.worlds`. Adversaries, where
asked for, insist on a wrong value of the very fact that is asked.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from gcache.errors import ConfigError
from gcache.runtime.numbers import require_whole
from gcache.runtime.streams import shuffler
from gcache.tasks.codes import grade_exact_code
from gcache.tasks.dealing import adversary, check_adversaries
from gcache.tasks.example import Example, Grade
from gcache.tasks.generated import GeneratedTask
from gcache.tasks.places import NAMES, PLACES, TRAIN_NAMES, TRAIN_PLACES, numbers
from gcache.tasks.worlds import WORLDS


@dataclass(frozen=True)
class SplitFacts(GeneratedTask):
    """Generated questions whose answer one agent knows, among others and a gossip who lies.

    Args:
        n_agents: all but adversaries: the keepers, the gossip and, with two hops, the locksmith; from 3 to 12.
        hops: how many facts in a row the answer takes, 1 or 2.
        gossip: without it, there is a keeper more.
        adversary: further agents that insist on a wrong answer.
        train_size, test_size: how many questions a split has unless `limit` says otherwise.

    Raises:
        ConfigError: an option that is not allowed: fewer agents than 3 or than two keepers take, or more than
            there are held-out places and names for.
    """

    n_agents: int = 5
    hops: int = 1
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
        if isinstance(self.hops, bool) or self.hops not in WORLDS:
            raise ConfigError(f"hops must be one of {', '.join(map(str, WORLDS))}, got {self.hops!r}")
        others = self.n_agents - self.n_keepers
        most = min(len(PLACES) - TRAIN_PLACES + others, len(NAMES) - TRAIN_NAMES)
        least = max(3, 2 + others)
        require_whole("n_agents", self.n_agents, least, most, " for split_facts")
        check_adversaries(self.adversary)

    @property
    def n_keepers(self) -> int:
        """Agents that keep a place."""
        return self.n_agents - self.gossip - WORLDS[self.hops][1]

    def grade(self, text: str, example: Example) -> Grade:
        """Right if the one number that the text states, of the asked place or of none, is the asked one."""
        return grade_exact_code(text, example.answer, example.meta["place"])

    def draw(self, split: str, seed: int, index: int) -> Example:
        """See `GeneratedTask`."""
        # worlds of one hop are called as they were when there were no others
        task = "split_facts" if self.hops == 1 else f"split_facts-{self.hops}"
        rng = shuffler(task, split, seed, index)
        train = split == "train"
        names = NAMES[:TRAIN_NAMES] if train else NAMES[TRAIN_NAMES:]
        chosen = rng.sample(PLACES[:TRAIN_PLACES] if train else PLACES[TRAIN_PLACES:], self.n_keepers)
        world = WORLDS[self.hops][0](rng, chosen, rng.sample(names, self.n_agents), self.gossip, train)
        notes = list(world.notes)
        # drawn last, so that the world is the same with and without them
        wrong = numbers(rng, self.adversary, train, besides=world.numbers)
        notes += [adversary(world.asked.format(value)) for value in wrong]
        rng.shuffle(notes)
        return Example(
            id=f"{task}-{split}-{seed}-{index}",
            question=world.question,
            answer=world.answer,
            notes=tuple(notes),
            meta={"place": world.place, "keeper": world.keeper, "rumour": world.rumour},
        )
