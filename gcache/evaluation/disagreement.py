"""Where two checkpoints disagree: on the same questions, who hands to whom under each."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from gcache.errors import ConfigError
from gcache.evaluation.cuts import Ends, kinds_of
from gcache.evaluation.intervals import bootstrap_difference
from gcache.evaluation.tables import markdown
from gcache.gnn.distribution import EdgeDistribution
from gcache.gnn.greedy import common_name, topology_name
from gcache.gnn.summary import LATER
from gcache.gnn.team import Team
from gcache.gnn.topology import EdgeKey
from gcache.tasks.example import Example

#: Questions that are named: those on which the two differ most.
NAMED = 5


@dataclass(frozen=True)
class EdgeDisagreement:
    """One pair of kinds.

    Attributes:
        first, second: mean probability of such an edge over questions.
        difference: second less first; low, high: its 95 % bootstrap interval over questions.
        apart: share of questions in which the topologies that are run differ in such an edge.
        questions: that have such a pair of agents.
    """

    source: str
    target: str
    first: float
    second: float
    difference: float
    low: float
    high: float
    apart: float
    questions: int


@dataclass(frozen=True)
class QuestionDisagreement:
    """One question.

    Attributes:
        distance: sum over edges of the difference of their probabilities.
        only_first, only_second: edges of one topology that is run which the other has not, in words.
    """

    id: str
    question: str
    distance: float
    only_first: tuple[str, ...]
    only_second: tuple[str, ...]


@dataclass(frozen=True)
class Disagreement:
    """Of two checkpoints, over questions.

    Attributes:
        same: share of questions whose `topologies` are the same.
        edges: the largest difference first; questions: the `NAMED` farthest apart.
        topologies: what they are called, "most likely", "greedy", or "most likely or greedy" where that depends on the
            question or on the checkpoint.
    """

    n: int
    same: float
    edges: tuple[EdgeDisagreement, ...]
    questions: tuple[QuestionDisagreement, ...]
    topologies: str = "most likely"

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def disagreement(first: Team, second: Team, examples: Sequence[Example], seed: int = 0) -> Disagreement:
    """Compare who hands to whom, question by question.

    Args:
        seed: of the bootstrap.

    Raises:
        ConfigError: no questions, or graphs whose agents differ.
    """
    if not examples:
        raise ConfigError("there is no question to compare topologies on; raise the limit")
    by_ends: dict[Ends, list[tuple[float, float, bool]]] = defaultdict(list)
    rows = []
    for example in examples:
        names = kinds_of(first, example)
        if kinds_of(second, example) != names:
            raise ConfigError(
                f"the two graphs have other agents: {', '.join(names[:-1])} and "
                f"{', '.join(kinds_of(second, example)[:-1])}; compare checkpoints with the same roles"
            )
        (ours, drawn), (theirs, other) = _chances(first, example), _chances(second, example)
        pairs: dict[Ends, list[tuple[float, float, bool]]] = defaultdict(list)
        for key in sorted(ours.keys() | theirs.keys()):
            ends = names[key[0]], names[key[1]] + (LATER if len(key) > 2 else "")
            pairs[ends].append((ours.get(key, 0.0), theirs.get(key, 0.0), (key in drawn) != (key in other)))
        for ends, found in pairs.items():  # agents of one kind count as one, or questions would not be independent
            one, two, apart = zip(*found, strict=True)
            by_ends[ends].append((sum(one) / len(one), sum(two) / len(two), any(apart)))
        distance = sum(abs(ours.get(key, 0.0) - theirs.get(key, 0.0)) for key in ours.keys() | theirs.keys())
        roles = first.names_of(example)
        rows.append(
            QuestionDisagreement(
                example.id, example.question, distance, _words(drawn - other, roles), _words(other - drawn, roles)
            )
        )
    edges = [_edge(ends, values, seed) for ends, values in by_ends.items()]
    same = sum(not row.only_first and not row.only_second for row in rows) / len(rows)
    return Disagreement(
        len(examples),
        same,
        tuple(sorted(edges, key=lambda e: -abs(e.difference))),
        tuple(sorted(rows, key=lambda row: -row.distance)[:NAMED]),
        common_name([topology_name(team, *examples) for team in (first, second)]),
    )


def _chances(team: Team, example: Example) -> tuple[dict[EdgeKey, float], frozenset[EdgeKey]]:
    """The probability of every edge, and the edges of the topology that is run."""
    with torch.no_grad():
        distribution = team.distribution(example)
        drawn = distribution.most_likely()[0].pairs
    if not isinstance(distribution, EdgeDistribution):
        return dict.fromkeys(drawn, 1.0), drawn
    return dict(zip(distribution.candidates, distribution.probabilities.tolist(), strict=True)), drawn


def _edge(ends: Ends, values: Sequence[tuple[float, float, bool]], seed: int) -> EdgeDisagreement:
    one, two, apart = zip(*values, strict=True)
    n = len(values)
    return EdgeDisagreement(
        *ends, sum(one) / n, sum(two) / n, *bootstrap_difference(one, two, seed=seed), sum(apart) / n, n
    )


def _words(keys: frozenset[EdgeKey], roles: Sequence[str]) -> tuple[str, ...]:
    return tuple(f"{roles[key[0]]} -> {roles[key[1]]}{LATER if len(key) > 2 else ''}" for key in sorted(keys))


def disagreement_table(found: Disagreement, first: str, second: str) -> str:
    """As Markdown, under the names of the two."""
    head = ["from", "to", first, second, "difference", "bootstrap interval", "kept by one alone", "questions"]
    rows = [
        [
            e.source, e.target, f"{e.first:.3f}", f"{e.second:.3f}", f"{e.difference:+.3f}",
            f"{e.low:+.3f} to {e.high:+.3f}", f"{e.apart:.1%}", str(e.questions),
        ]
        for e in found.edges
    ]  # fmt: skip
    same = f"The {found.topologies} topologies are the same on {found.same:.1%} of {found.n} questions.\n"
    lines = [same, markdown(head, rows)]
    named = [
        [row.id, row.question, f"{row.distance:.3f}", ", ".join(row.only_first), ", ".join(row.only_second)]
        for row in found.questions
        if row.distance
    ]
    if named:
        lines.append(markdown(["question", "words", "distance", f"only {first}", f"only {second}"], named))
    return "\n".join(lines)
