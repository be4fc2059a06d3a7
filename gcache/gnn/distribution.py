"""A distribution over acyclic topologies whose log-probability is exactly that of its sampler.

Candidate edges are visited in a fixed order. An edge that would close a cycle with those already
drawn is left out with certainty; any other is drawn with its own probability. Each topology is
reached along exactly one path, so the probabilities of all topologies sum to 1, and

    log p(G) = sum over visited edges that were free to choose of log Bernoulli(drawn; p_e).

An edge that was forced out contributes nothing. The edges into the decision maker are visited
first; they close no cycle. Among agents i -> j comes before j -> i for i < j, so the sampler favours the
first where both are likely; `most_likely` does not, it goes by the probabilities.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid

from gcache.errors import ConfigError
from gcache.gnn.topology import Edge, Topology, reaches


def candidate_edges(n_agents: int) -> list[tuple[int, int]]:
    """All edges that may be drawn, in the order they are visited."""
    into_decision = [(i, n_agents) for i in range(n_agents)]
    among = [
        pair for i in range(n_agents) for j in range(i + 1, n_agents) for pair in ((i, j), (j, i))
    ]
    return into_decision + among


@dataclass(frozen=True)
class EdgeDistribution:
    """Independent edge probabilities, cycles excluded.

    Attributes:
        n_agents: N.
        candidates: E edges, in the order the sampler visits them.
        logits: (E,) of their probabilities; gradient flows through them.
    """

    n_agents: int
    candidates: tuple[tuple[int, int], ...]
    logits: Tensor

    def __post_init__(self) -> None:
        if tuple(self.logits.shape) != (len(self.candidates),):
            raise ConfigError(
                f"logits must be (E,) = ({len(self.candidates)},), one per candidate, got {tuple(self.logits.shape)}"
            )

    @property
    def probabilities(self) -> Tensor:
        """(E,)"""
        return torch.sigmoid(self.logits)

    def sample(self, generator: torch.Generator | None = None) -> tuple[Topology, Tensor]:
        """A topology and its log-probability (0-dim, with gradient)."""
        uniform = torch.rand(len(self.candidates), generator=generator)
        chances = self.probabilities.detach()
        return self._draw(lambda e: bool(uniform[e] < chances[e]))

    def most_likely(self) -> tuple[Topology, Tensor]:
        """Every edge at its likelier value, with its log-probability.

        Where likely edges close a cycle, the likelier ones stand. This is the mode where they close none.
        """
        logits = self.logits.detach()
        chosen: set[tuple[int, int]] = set()
        for e in torch.argsort(logits, descending=True, stable=True).tolist():
            source, target = self.candidates[e]
            if logits[e] > 0 and not reaches(chosen, target, source):
                chosen.add((source, target))
        return self._draw(lambda e: self.candidates[e] in chosen)

    def log_prob(self, topology: Topology) -> Tensor:
        """0-dim log-probability of a topology, with gradient.

        Raises:
            ConfigError: a topology that this distribution cannot draw.
        """
        if topology.n_agents != self.n_agents or topology.pairs - set(self.candidates):
            raise ConfigError(
                f"topology has edges {sorted(topology.pairs)} over {topology.n_agents} agents, which a "
                f"distribution over {self.n_agents} agents with {len(self.candidates)} candidate edges cannot draw"
            )
        return self._draw(lambda e: self.candidates[e] in topology.pairs)[1]

    def weights(self, topology: Topology) -> dict[tuple[int, int], Tensor]:
        """The weight of each of the topology's edges as a 0-dim tensor, with gradient."""
        index = {pair: e for e, pair in enumerate(self.candidates)}
        chances = self.probabilities
        return {pair: chances[index[pair]] for pair in sorted(topology.pairs)}

    @property
    def expected_edges(self) -> Tensor:
        """0-dim, the mean number of edges before cycles are excluded."""
        return self.probabilities.sum()

    @property
    def entropy(self) -> Tensor:
        """0-dim, in nats, of the edges before cycles are excluded."""
        p = self.probabilities
        return -(p * logsigmoid(self.logits) + (1 - p) * logsigmoid(-self.logits)).sum()

    def _draw(self, wanted: Callable[[int], bool]) -> tuple[Topology, Tensor]:
        drawn: list[int] = []
        free: list[int] = []
        pairs: set[tuple[int, int]] = set()
        for e, (source, target) in enumerate(self.candidates):
            if reaches(pairs, target, source):
                continue
            free.append(e)
            if wanted(e):
                drawn.append(e)
                pairs.add((source, target))
        outcome = torch.zeros(len(free), device=self.logits.device)
        outcome[[free.index(e) for e in drawn]] = 1.0
        log_prob = -binary_cross_entropy_with_logits(self.logits[free], outcome, reduction="sum")
        chances = self.probabilities.detach().tolist()
        edges = tuple(Edge(*self.candidates[e], weight=_weight(chances[e]), probability=chances[e]) for e in drawn)
        table = tuple((*pair, chance) for pair, chance in zip(self.candidates, chances, strict=True))
        return Topology(self.n_agents, edges, table), log_prob


def _weight(probability: float) -> float:
    """Keeps a drawn edge's weight in (0, 1] where its probability underflowed."""
    return min(max(probability, 1e-12), 1.0)
