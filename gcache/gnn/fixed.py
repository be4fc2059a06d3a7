"""Topologies that do not learn, behind the interface of those that do."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gcache.errors import ConfigError, unknown
from gcache.gnn.topology import Edge, Topology
from gcache.runtime.streams import shuffler

if TYPE_CHECKING:
    from torch import Tensor

    from gcache.runtime.streams import Stream

Pairs = set[tuple[int, int]]


def _to_decision(n: int) -> Pairs:
    return {(i, n) for i in range(n)}


def _none(n: int, _: random.Random) -> Pairs:
    return set()


def _chain(n: int, _: random.Random) -> Pairs:
    """0 -> 1 -> ... -> decision maker: LatentMAS's order."""
    return {(i, i + 1) for i in range(n)}


def _star(n: int, _: random.Random) -> Pairs:
    """Every agent to the decision maker, none to another."""
    return _to_decision(n)


def _layered(n: int, _: random.Random) -> Pairs:
    """Two layers: the first half to each of the second, the second half to the decision maker."""
    half = n // 2
    return {(i, j) for i in range(half) for j in range(half, n)} | {(j, n) for j in range(half, n)}


def _full(n: int, _: random.Random) -> Pairs:
    """Every agent to all later ones and to the decision maker: the most edges without a cycle."""
    return {(i, j) for i in range(n) for j in range(i + 1, n + 1)}


def _random(n: int, rng: random.Random) -> Pairs:
    """Each edge of `full` with probability one half."""
    return {pair for pair in sorted(_full(n, rng)) if rng.random() < 0.5}


def _debate(n: int, _: random.Random) -> Pairs:
    """The first agent opens, all others answer it, and the decision maker hears everyone."""
    return {(0, j) for j in range(1, n)} | _to_decision(n)


TOPOLOGIES: Mapping[str, Callable[[int, random.Random], Pairs]] = {
    "none": _none,
    "chain": _chain,
    "star": _star,
    "layered": _layered,
    "full": _full,
    "random": _random,
    "debate": _debate,
}


@dataclass(frozen=True)
class FixedTopology:
    """Always the same topology (for `random`: one per seed), every edge at weight 1.

    Raises:
        ConfigError: unknown name, or no agents.
    """

    name: str
    n_agents: int
    seed: int = 0

    def __post_init__(self) -> None:
        if self.name not in TOPOLOGIES:
            raise unknown("topology", self.name, TOPOLOGIES)
        if self.n_agents < 1:
            raise ConfigError(f"n_agents must be 1 or more, got {self.n_agents}")

    def sample(self, generator: Stream | None = None) -> tuple[Topology, Tensor]:
        """The topology; its log-probability is 0."""
        return self.most_likely()

    def most_likely(self) -> tuple[Topology, Tensor]:
        """The topology; its log-probability is 0."""
        import torch  # not at the head: the command line names topologies before torch is there

        pairs = TOPOLOGIES[self.name](self.n_agents, shuffler("random topology", self.seed, self.n_agents))
        return Topology(self.n_agents, tuple(Edge(s, t) for s, t in pairs)), torch.zeros(())
