"""Where topologies come from: a name that is always the same graph, or a policy that learns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from gcache.agents.decision import DecisionMaker
from gcache.agents.roles import Agent
from gcache.errors import unknown
from gcache.gnn.distribution import EdgeDistribution
from gcache.gnn.features import Encoder
from gcache.gnn.policy import QuestionFeatures, TopologyPolicy
from gcache.gnn.topology import Topology
from gcache.graph.fixed import TOPOLOGIES, FixedTopology


class TopologyDistribution(Protocol):
    """What a source says of one question."""

    def sample(self, generator: torch.Generator | None = None) -> tuple[Topology, Tensor]: ...

    def most_likely(self) -> tuple[Topology, Tensor]: ...


class TopologySource(Protocol):
    """Maps a question and its agents to a distribution over topologies."""

    def distribution(
        self, agents: Sequence[Agent], decision: DecisionMaker, question: str
    ) -> TopologyDistribution: ...


@dataclass(frozen=True)
class FixedSource:
    """The same named topology for every question."""

    name: str
    seed: int = 0

    def __post_init__(self) -> None:
        if self.name not in TOPOLOGIES:
            raise unknown("topology", self.name, TOPOLOGIES)

    def distribution(self, agents: Sequence[Agent], decision: DecisionMaker, question: str) -> FixedTopology:
        return FixedTopology(self.name, len(agents), self.seed)


@dataclass(frozen=True)
class PolicySource:
    """A topology policy and the encoder of its features."""

    policy: TopologyPolicy
    encoder: Encoder

    def features(self, agents: Sequence[Agent], decision: DecisionMaker, question: str) -> QuestionFeatures:
        roles = self.encoder.encode([agent.description for agent in agents] + [decision.description])
        return QuestionFeatures(roles, self.encoder.encode([question])[0])

    def distribution(self, agents: Sequence[Agent], decision: DecisionMaker, question: str) -> EdgeDistribution:
        """With gradient to the policy, unless the caller switched gradients off."""
        distribution: EdgeDistribution = self.policy(self.features(agents, decision, question))
        return distribution
