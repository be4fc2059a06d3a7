"""Hidden profiles: what everybody knows points to the wrong option, what all know together to the right one.

After Stasser and Titus (1985), "Pooling of unshared information in group decision making". Every
option has good and bad points; the one with the most good points, less its bad ones, is right.
Most points are known to everybody and favour the decoy; n more are held by one agent each:

                     known to all        held by one agent each      all together
    the decoy        n good              k bad                       n - k
    the right one    1 good              n - k good                  n - k + 1
    the third        1 good, 1 bad       nothing                     0

So one agent's point leaves the decoy ahead, all n turn it by one, and n - 1 of them give a tie.

`HiddenBench` reads the public benchmark of that name (Li et al. 2025, arXiv:2505.11556).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from gcache.errors import DataError
from gcache.runtime.numbers import require_whole
from gcache.runtime.streams import shuffler
from gcache.tasks.choices import LETTERS, grade_example
from gcache.tasks.data_fields import find
from gcache.tasks.data_set import DataSet, Row, words
from gcache.tasks.dealing import MOST_AGENTS, ORDINALS, adversary, check_adversaries
from gcache.tasks.example import Example, Grade, Note
from gcache.tasks.generated import GeneratedTask
from gcache.tasks.text_lists import listed

#: Houses that are chosen from; the first ones train, the rest is held out.
HOUSES: tuple[str, ...] = (
    "Oak House", "Mill House", "Lake House", "Rose House", "Hill House", "Corner House", "Bridge House",
    "Garden House", "Church House", "Red House", "Station House", "Orchard House", "Meadow House", "Castle House",
    "River House", "Tower House", "Forest House", "Market House", "Bell House", "Sand House",
)  # fmt: skip
TRAIN_HOUSES = 14
GOOD: tuple[str, ...] = (
    "is quiet", "is cheap to heat", "has a sunny garden", "is close to the station", "has large rooms",
    "has a new roof", "has friendly neighbours", "is near the school", "has a dry cellar", "has a fine view",
    "has fast internet", "has a workshop",
)  # fmt: skip
BAD: tuple[str, ...] = (
    "has a leaking roof", "is damp", "is noisy at night", "is far from the shops", "has dark rooms",
    "has old wiring", "has mice", "has no parking space", "has a cracked wall", "floods in spring",
)  # fmt: skip
LEAST_AGENTS = 3
_ASKED = "Answer with the letter only."


@dataclass(frozen=True)
class HiddenProfile(GeneratedTask):
    """Generated choices where what everybody knows points to the wrong option.

    Args:
        n_agents: those who hold a point each, from 3 to 8.
        adversary: further agents that push the decoy.
        train_size, test_size: how many questions a split has unless `limit` says otherwise.

    Raises:
        ConfigError: an option that is not allowed.
    """

    n_agents: int = 4
    adversary: int = 0
    train_size: int = 4096
    test_size: int = 512
    name: str = field(default="hidden_profile", init=False)
    domain: str = field(default="hidden_profile", init=False)
    max_new_tokens: int = field(default=6, init=False)

    def __post_init__(self) -> None:
        require_whole("n_agents", self.n_agents, LEAST_AGENTS, MOST_AGENTS, " for hidden_profile")
        check_adversaries(self.adversary)

    def grade(self, text: str, example: Example) -> Grade:
        """Right if the text states the letter of the right option."""
        return grade_example(text, example)

    def draw(self, split: str, seed: int, index: int) -> Example:
        """See `GeneratedTask`."""
        rng = shuffler("hidden_profile", split, seed, index)
        houses = rng.sample(HOUSES[:TRAIN_HOUSES] if split == "train" else HOUSES[TRAIN_HOUSES:], 3)
        decoy, right, third = rng.sample(houses, 3)
        good = {house: rng.sample(GOOD, self.n_agents + 1) for house in houses}
        bad = {house: rng.sample(BAD, self.n_agents) for house in houses}
        against = rng.randrange(1, self.n_agents)
        n = self.n_agents
        shared = [_good(decoy, point) for point in good[decoy][:n]]
        shared += [_good(right, good[right][0]), _good(third, good[third][0]), _bad(third, bad[third][0])]
        held = [_bad(decoy, point) for point in bad[decoy][:against]]
        held += [_good(right, point) for point in good[right][1 : n - against + 1]]
        rng.shuffle(shared)
        rng.shuffle(held)
        notes = [_holder(i, point) for i, point in enumerate(held)]
        notes += [adversary(f"The right choice is {LETTERS[houses.index(decoy)]}.") for _ in range(self.adversary)]
        question = (
            "Which house has the most good points, when every bad point takes one off? Known to all:\n"
            + "\n".join(f"- {point}" for point in shared)
        )
        return _asked(
            f"hidden_profile-{split}-{seed}-{index}", question, houses, right, notes, {"decoy": decoy}
        )


class HiddenBench(DataSet):
    """The public benchmark of hidden profiles, from its JSON file.

    An entry has `name`, `description`, `shared_information`, `hidden_information` (one per agent),
    `possible_answers` and `correct_answer`. The decision maker sees the description and what is
    shared; every agent, besides, one hidden piece.
    """

    name = "hiddenbench"
    domain = "hidden_profile"
    max_new_tokens = 256
    form = "HiddenBench in JSON form, a list of objects"
    hub = ("YuxuanLi1225/HiddenBench", None, {"train": "train", "test": "train"})

    def example(self, row: Row, number: int) -> Example:
        shared, hidden, options = (
            _strings(row, name) for name in ("shared_information", "hidden_information", "possible_answers")
        )
        right = words(row, "correct_answer")
        if not 2 <= len(options) <= len(LETTERS) or len(set(options)) < len(options):
            raise DataError(f"possible_answers must be 2 to {len(LETTERS)} different options, got {options!r:.80}")
        if right not in options:
            raise DataError(f"correct_answer {right!r:.40} is none of possible_answers {options!r:.80}")
        if not hidden:
            raise DataError("hidden_information must have an entry for at least one agent, got none")
        question = words(row, "description") + "\n" + "\n".join(f"- {fact}" for fact in shared)
        notes = [_holder(i, fact) for i, fact in enumerate(hidden)]
        return _asked(f"hiddenbench-{number}", question, options, right, notes, {"name": words(row, "name")})

    def grade(self, text: str, example: Example) -> Grade:
        """Right if the text states the letter of the right option."""
        return grade_example(text, example)


def _asked(
    name: str, question: str, options: Sequence[str], right: str, notes: Sequence[Note], meta: dict[str, str]
) -> Example:
    choices = "\n".join(f"{letter}) {option}" for letter, option in zip(LETTERS, options, strict=False))
    return Example(
        name, f"{question}\n{choices}\n{_ASKED}", LETTERS[list(options).index(right)], tuple(notes),
        {**meta, "choices": str(len(options))},
    )  # fmt: skip


def _holder(index: int, point: str) -> Note:
    place = ORDINALS[index] if index < len(ORDINALS) else f"{index + 1}th"
    return Note(
        role=f"{place} visitor",
        description=f"The {place} visitor saw something that nobody else saw.",
        text=f"The {place} visitor alone knows this: {point}",
        kind="visitor",
    )


def _good(house: str, point: str) -> str:
    return f"Good: {house} {point}."


def _bad(house: str, point: str) -> str:
    return f"Bad: {house} {point}."


def _strings(row: Row, name: str) -> list[str]:
    found = find(row, name)
    value = row.get(name) if found is None else listed(found[1], name)
    if not isinstance(value, list) or not all(isinstance(item, str) and item.strip() for item in value):
        raise DataError(f"the field {name!r} must be a list of non-empty strings, got {value!r:.60}")
    return [item.strip() for item in value]
