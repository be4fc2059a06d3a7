"""Do readings of latent thoughts name what was thought of? Counted on split facts, against chance.

Of every question, the keeper of the asked place knows the asked value, and its thought is read. Whether the reading
names the place and the value is counted; chance is the same reading held against another question's place and value.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from gcache.errors import ConfigError
from gcache.gnn.topology import Edge, Topology
from gcache.graph.cache_graph import CacheGraph
from gcache.graph.records import RunResult
from gcache.inspect.readings import Reading, readings
from gcache.llm.local import LocalLLM
from gcache.statistics import bootstrap_difference, wilson
from gcache.tasks.example import Example

#: How the keeper of the asked place is labelled; see `gcache.tasks.worlds`.
ASKED = "asked keeper"
#: Letters of a word that a token must at least have to name it; shorter words must be whole.
LETTERS = 3


@dataclass(frozen=True)
class Named:
    """How often readings name something.

    Attributes:
        read: "latent steps" (their nearest tokens) or "written" (what the model writes from the cache alone).
        what: "place" or "value".
        share: of the questions; low, high: its 95 % interval (Wilson).
        chance: the share that names another question's.
        above: share less chance; above_low, above_high: the paired bootstrap interval.
    """

    read: str
    what: str
    share: float
    low: float
    high: float
    chance: float
    above: float
    above_low: float
    above_high: float
    n: int


def check_readings(
    graph: CacheGraph, llm: LocalLLM, examples: Sequence[Example], tokens: int = 10, seed: int = 0
) -> tuple[list[Named], list[dict[str, Any]]]:
    """The counts, and each question's reading.

    Args:
        examples: of split facts.
        tokens: of each latent step that count.
        seed: of the bootstrap.

    Raises:
        ConfigError: questions of another task, or all about one place.
    """
    keeper = {example.id: _asked(example) for example in examples}

    def alone(example: Example) -> Topology:  # nothing but the thought that is read
        n_agents = len(example.notes)
        return Topology(n_agents, (Edge(keeper[example.id], n_agents),))

    results = graph.run_all(examples, topology=alone, keep_caches=True, keep_states=True)
    found = [
        by_node[graph.config.rounds - 1, keeper[result.example.id]]
        for by_node, result in zip(readings(graph, llm, results, tokens), results, strict=True)
    ]
    donors = [_donor(examples, number) for number in range(len(examples))]
    rows = [
        _counted(read, what, found, examples, donors, seed)
        for read in ("latent steps", "written")
        if read == "written" or any(reading.steps for reading in found)
        for what in ("place", "value")
    ]
    return rows, [_record(result, reading) for result, reading in zip(results, found, strict=True)]


def _asked(example: Example) -> int:
    for number, note in enumerate(example.notes):
        if note.kind == ASKED:
            return number
    raise ConfigError(f"question {example.id} has no {ASKED}; readings are checked on split_facts")


def _donor(examples: Sequence[Example], number: int) -> Example:
    """The next question, in a circle, about another place and value."""
    own = examples[number]
    for example in (*examples[number + 1 :], *examples[:number]):
        if example.meta["place"] != own.meta["place"] and example.answer != own.answer:
            return example
    raise ConfigError("all questions are about one place, so there is no chance to compare with; raise the limit")


def _counted(
    read: str, what: str, found: Sequence[Reading], examples: Sequence[Example], donors: Sequence[Example], seed: int
) -> Named:
    own = [float(_names(read, what, reading, example)) for reading, example in zip(found, examples, strict=True)]
    other = [float(_names(read, what, reading, donor)) for reading, donor in zip(found, donors, strict=True)]
    n = len(own)
    above = bootstrap_difference(other, own, seed=seed)
    return Named(read, what, sum(own) / n, *wilson(int(sum(own)), n), sum(other) / n, *above, n)


def _names(read: str, what: str, reading: Reading, example: Example) -> bool:
    wanted = example.meta["place"] if what == "place" else example.answer
    if read == "written":
        return wanted.casefold() in reading.text.casefold()
    return any(names_word(token, word) for step in reading.steps for token in step for word in wanted.split())


def names_word(token: str, word: str) -> bool:
    """Whether a token is the beginning of a word, or, if it is a number, of its digits.

    >>> names_word("Clo", "clock"), names_word("c", "clock"), names_word("8", "856")
    (True, False, True)
    """
    start, whole = token.strip().casefold(), word.casefold()
    least = 1 if whole.isdigit() else min(LETTERS, len(whole))
    return len(start) >= least and whole.startswith(start)


def _record(result: RunResult, reading: Reading) -> dict[str, Any]:
    example = result.example
    return {
        "id": example.id, "place": example.meta["place"], "value": example.answer, "steps": reading.steps,
        "written": reading.text,
    }  # fmt: skip


def named_json(rows: Sequence[Named]) -> list[dict[str, Any]]:
    return [asdict(row) for row in rows]
