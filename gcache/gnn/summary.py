"""What a policy learned, averaged over questions: how likely each kind of agent hands to each."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from gcache.agents.roles import agents_for
from gcache.gnn.distribution import EdgeDistribution
from gcache.gnn.greedy import GREEDY, MODE, common_name
from gcache.gnn.team import Team
from gcache.gnn.topology import DECISION
from gcache.tasks.example import Example

#: Behind the name of a receiver, over an edge from the round before.
LATER = ", a round later"


@dataclass(frozen=True)
class LearnedEdge:
    """Edges from agents of one kind to agents of another.

    Attributes:
        probability: mean over questions and pairs; low, high: the middle 90 % of them.
        kept: share of them in the topologies that are run.
        topologies: what these are called: "most likely", "greedy" with many agents, "most likely or greedy" where some
            questions have many.
        pairs: how many were averaged.
        channels: channel -> its mean probability where the edge is drawn; empty where that is no choice.
    """

    source: str
    target: str
    probability: float
    low: float
    high: float
    kept: float
    pairs: int
    channels: Mapping[str, float] = field(default_factory=dict)
    topologies: str = "most likely"

    @property
    def later(self) -> bool:
        """Whether it is from the round before."""
        return self.target.endswith(LATER)

    def ends_and_chances(self) -> list[Any]:
        """source, target, probability, low, high, kept: what every step's metrics have of it."""
        return [self.source, self.target, self.probability, self.low, self.high, self.kept]


@dataclass(frozen=True)
class LearnedSteps:
    """How long agents of one kind think.

    Attributes:
        chances: number of latent steps -> its mean probability.
    """

    agent: str
    chances: Mapping[int, float]


@dataclass(frozen=True)
class LearnedConsulting:
    """Whether the decision maker consults anybody, where that is a choice before its edges.

    Attributes:
        probability: mean over questions; low, high: the middle 90 % of them.
    """

    probability: float
    low: float
    high: float


def learned_edges(graph: Team, examples: Sequence[Example]) -> list[LearnedEdge]:
    """One row per pair of kinds: those into the decision maker first, then by probability.

    Empty where the topology is fixed.
    """
    chances: dict[tuple[str, str], list[float]] = defaultdict(list)
    channels: dict[tuple[str, str], list[list[float]]] = defaultdict(list)
    kept: dict[tuple[str, str], int] = defaultdict(int)
    offered: tuple[str, ...] = ()
    names_called: list[str] = []
    for names, distribution in _distributions(graph, examples):
        offered = distribution.channels
        names_called.append(MODE if distribution.is_exact else GREEDY)
        drawn = distribution.most_likely()[0].pairs
        over = _softmax(distribution.channel_logits, len(distribution.candidates))
        for key, chance, split in zip(
            distribution.candidates, distribution.probabilities.tolist(), over, strict=True
        ):
            ends = (names[key[0]], names[key[1]] + (LATER if len(key) > 2 else ""))
            chances[ends].append(chance)
            channels[ends].append(split)
            kept[ends] += key in drawn
    called = common_name(names_called)
    rows = []
    for ends, values in chances.items():
        means = torch.tensor(channels[ends]).mean(dim=0).tolist()
        rows.append(
            LearnedEdge(
                *ends, *_spread(values), kept[ends] / len(values), len(values),
                dict(zip(offered, means, strict=True)), called,
            )
        )  # fmt: skip
    return sorted(rows, key=lambda row: (row.target != DECISION, row.target.endswith(LATER), -row.probability))


def learned_steps(graph: Team, examples: Sequence[Example]) -> list[LearnedSteps]:
    """One row per kind of agent, by name; empty where latent steps are no choice."""
    found: dict[str, list[list[float]]] = defaultdict(list)
    choices: tuple[int, ...] = ()
    for names, distribution in _distributions(graph, examples):
        if distribution.latent_logits is None:
            return []
        choices = distribution.latent_choices
        for agent, split in enumerate(_softmax(distribution.latent_logits, distribution.n_agents)):
            found[names[agent]].append(split)
    return [
        LearnedSteps(name, dict(zip(choices, torch.tensor(splits).mean(dim=0).tolist(), strict=True)))
        for name, splits in sorted(found.items())
    ]


def learned_consulting(graph: Team, examples: Sequence[Example]) -> LearnedConsulting | None:
    """How likely the decision maker is to consult anybody; None where that is no choice of its own."""
    found = []
    for _, distribution in _distributions(graph, examples):
        if distribution.consult_logit is None:
            return None
        found.append(distribution.consult_probability)
    return LearnedConsulting(*_spread(found)) if found else None


def _spread(values: Sequence[float]) -> tuple[float, float, float]:
    """The mean, and the ends of the middle 90 %."""
    tensor = torch.tensor(values)
    low, high = torch.quantile(tensor, torch.tensor([0.05, 0.95])).tolist()
    return float(tensor.mean()), low, high


def _distributions(graph: Team, examples: Sequence[Example]) -> Iterator[tuple[list[str], EdgeDistribution]]:
    """The names of all nodes, and the distribution, of each question; none where the topology is fixed."""
    for example in examples:
        with torch.no_grad():
            distribution = graph.distribution(example)
        if not isinstance(distribution, EdgeDistribution):
            return
        yield [agent.label for agent in agents_for(example, graph.agents)] + [DECISION], distribution


def _softmax(logits: Tensor | None, rows: int) -> list[list[float]]:
    """Each row's probabilities; empty rows where there is no choice."""
    if logits is None:
        return [[] for _ in range(rows)]
    found: list[list[float]] = torch.softmax(logits, dim=1).tolist()
    return found
