"""Do readings of latent thoughts name what was thought of? Counted on split facts, against chance.

Of every question, the keeper of the asked place knows the asked value, and its thought is read. Whether the reading
names the place and the value is counted; chance is the same reading held against another question's place and value.
The more tokens count, the more are right by accident, above all where tokens are single digits: the share says nothing
without its chance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gcache.errors import ConfigError
from gcache.evaluation.intervals import bootstrap_difference, wilson
from gcache.gnn.topology import Edge, Topology
from gcache.graph.cache_graph import CacheGraph
from gcache.inspect.readings import readings
from gcache.llm.local import LocalLLM
from gcache.tasks.example import Example

#: How the keeper of the asked place is labelled; see `gcache.tasks.worlds`.
ASKED = "asked keeper"
#: Letters of a word that a token must at least have to name it; shorter words must be whole.
LETTERS = 3
#: How many of each latent step's nearest tokens count: one after the other.
COUNTED = (1, 3, 10)
#: What is read: the text that the model writes from the cache alone, or so many tokens of each latent step.
WRITTEN = "written from the cache"


@dataclass(frozen=True)
class ReadThought:
    """The reading of one question's asked keeper.

    Attributes:
        steps: of each latent step, its nearest tokens, nearest first.
        written: what the model writes of the cache alone.
    """

    id: str
    place: str
    value: str
    steps: tuple[tuple[str, ...], ...]
    written: str


@dataclass(frozen=True)
class Named:
    """How often readings name something.

    Attributes:
        read: `WRITTEN`, or how many tokens of each latent step.
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


def read_thoughts(graph: CacheGraph, llm: LocalLLM, examples: Sequence[Example]) -> list[ReadThought]:
    """The readings of each question's asked keeper, who is heard and nobody else.

    Raises:
        ConfigError: questions of another task.
    """
    keeper = {example.id: _asked(example) for example in examples}

    def alone(example: Example) -> Topology:
        n_agents = len(example.notes)
        return Topology(n_agents, (Edge(keeper[example.id], n_agents),))

    results = graph.run_all(examples, topology=alone, keep_caches=True, keep_states=True)
    found = []
    for result, by_node in zip(results, readings(graph, llm, results, max(COUNTED)), strict=True):
        example, last = result.example, graph.config.num_rounds - 1
        reading = by_node[last, keeper[example.id]]
        found.append(ReadThought(example.id, example.meta["place"], example.answer, reading.steps, reading.text))
    return found


def _asked(example: Example) -> int:
    for number, note in enumerate(example.notes):
        if note.kind == ASKED:
            return number
    raise ConfigError(f"question {example.id} has no {ASKED}; readings are checked on split_facts")


def count_named(thoughts: Sequence[ReadThought], seed: int = 0) -> list[Named]:
    """How often the readings name the place and the value, and how often those of another question.

    Args:
        seed: of the bootstrap.

    Raises:
        ConfigError: all questions are about one place or value.
    """
    donors = [_donor(thoughts, number) for number in range(len(thoughts))]
    by_tokens = COUNTED if any(thought.steps for thought in thoughts) else ()
    rows = []
    for tokens in (*by_tokens, None):
        for what in ("place", "value"):
            own = [float(_names(thought, thought, what, tokens)) for thought in thoughts]
            pairs = zip(thoughts, donors, strict=True)
            other = [float(_names(thought, donor, what, tokens)) for thought, donor in pairs]
            n = len(own)
            read = WRITTEN if tokens is None else f"latent steps, {tokens} token{'s' if tokens > 1 else ''} each"
            above = bootstrap_difference(other, own, seed=seed)
            rows.append(Named(read, what, sum(own) / n, *wilson(int(sum(own)), n), sum(other) / n, *above, n))
    return rows


def _donor(thoughts: Sequence[ReadThought], number: int) -> ReadThought:
    """The next question, in a circle, about another place and value."""
    own = thoughts[number]
    for thought in (*thoughts[number + 1 :], *thoughts[:number]):
        if thought.place != own.place and thought.value != own.value:
            return thought
    raise ConfigError("all questions are about one place, so there is no chance to compare with; raise the limit")


def _names(read: ReadThought, asked: ReadThought, what: str, tokens: int | None) -> bool:
    wanted = asked.place if what == "place" else asked.value
    if tokens is None:
        return wanted.casefold() in read.written.casefold()
    return any(names_word(token, word) for step in read.steps for token in step[:tokens] for word in wanted.split())


def names_word(token: str, word: str) -> bool:
    """Whether a token is the beginning of a word, or, if it is a number, of its digits.

    >>> names_word("Clo", "clock"), names_word("c", "clock"), names_word("8", "856")
    (True, False, True)
    """
    start, whole = token.strip().casefold(), word.casefold()
    least = 1 if whole.isdigit() else min(LETTERS, len(whole))
    return len(start) >= least and whole.startswith(start)
