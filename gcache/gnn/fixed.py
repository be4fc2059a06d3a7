"""Topologies that do not learn, behind the interface of those that do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gcache.errors import unknown
from gcache.gnn.topologies import TOPOLOGIES
from gcache.gnn.topology import Edge, Topology
from gcache.runtime.numbers import require_whole
from gcache.runtime.streams import shuffler

if TYPE_CHECKING:
    from gcache.runtime.streams import Stream

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
        require_whole("n_agents", self.n_agents, 1)

    def sample(self, generator: Stream | None = None) -> tuple[Topology, Tensor]:
        """The topology; its log-probability is 0."""
        return self.most_likely()

    def most_likely(self) -> tuple[Topology, Tensor]:
        """The topology; its log-probability is 0."""
        pairs = TOPOLOGIES[self.name](self.n_agents, shuffler("random topology", self.seed, self.n_agents))
        return Topology(self.n_agents, tuple(Edge(s, t) for s, t in pairs)), torch.zeros(())
