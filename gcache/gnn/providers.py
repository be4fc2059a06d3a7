"""Where topologies come from: a name that is always the same graph, or a policy that learns."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from torch import Tensor

from gcache.agents.decision import DecisionMaker
from gcache.agents.roles import Agent
from gcache.errors import unknown
from gcache.gnn.cues import citations, known_cues
from gcache.gnn.distribution import EdgeDistribution
from gcache.gnn.features import Encoder
from gcache.gnn.fixed import TOPOLOGIES, FixedTopology
from gcache.gnn.policy import QuestionFeatures, TopologyPolicy
from gcache.gnn.topology import DECISION, EdgeKey, Topology

if TYPE_CHECKING:
    from gcache.runtime.streams import Stream


class TopologyDistribution(Protocol):
    """What a provider says of one question."""

    def sample(self, generator: Stream | None = None) -> tuple[Topology, Tensor]: ...

    def most_likely(self) -> tuple[Topology, Tensor]: ...


class TopologyProvider(Protocol):
    """Maps a question and its agents to a distribution over topologies."""

    def distribution(
        self, agents: Sequence[Agent], decision: DecisionMaker, question: str
    ) -> TopologyDistribution: ...


@dataclass(frozen=True)
class FixedProvider:
    """The same named topology for every question."""

    name: str
    seed: int = 0

    def __post_init__(self) -> None:
        if self.name not in TOPOLOGIES:
            raise unknown("topology", self.name, TOPOLOGIES)

    def distribution(self, agents: Sequence[Agent], decision: DecisionMaker, question: str) -> FixedTopology:
        return FixedTopology(self.name, len(agents), self.seed)


#: (role, role, delay): an edge by who its ends are, whatever their numbers.
RoleEdge = tuple[str, str, int]


class PolicyProvider:
    """A topology policy and the encoder of its features.

    Args:
        pruned: edges that are never drawn, whatever the policy says.
    """

    def __init__(self, policy: TopologyPolicy, encoder: Encoder, pruned: Collection[RoleEdge] = ()) -> None:
        self.policy, self.encoder = policy, encoder
        self.pruned = frozenset(pruned)

    def features(self, agents: Sequence[Agent], decision: DecisionMaker, question: str) -> QuestionFeatures:
        roles = self.encoder.encode([agent.description for agent in agents] + [decision.description])
        query = self.encoder.encode([question])[0]
        if not self.policy.cues:
            return QuestionFeatures(roles, query)
        return QuestionFeatures(roles, query, known_cues(question, agents, self.policy.cues), citations(agents))

    def distribution(self, agents: Sequence[Agent], decision: DecisionMaker, question: str) -> EdgeDistribution:
        """With gradient to the policy, unless the caller switched gradients off."""
        found: EdgeDistribution = self.policy(self.features(agents, decision, question))
        if not self.pruned:
            return found
        return found.without({key for key in found.candidates if role_edge(key, agents) in self.pruned})


def role_edge(key: EdgeKey, agents: Sequence[Agent]) -> RoleEdge:
    """Who an edge is between."""
    names = [*(agent.role for agent in agents), DECISION]
    return names[key[0]], names[key[1]], len(key) - 2
