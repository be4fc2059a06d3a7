"""Sources of topologies that say what they are told to, question by question."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from gcache.agents.decision import DecisionMaker
from gcache.agents.roles import Agent
from gcache.gnn.distribution import EdgeDistribution
from gcache.gnn.topology import EdgeKey

AGENTS = (Agent("planner", "plans", "plan"), Agent("critic", "checks", "find it"))
DECIDES = DecisionMaker("decides", "answer")
#: Of two agents: into the decision maker, then to each other.
KEYS: tuple[EdgeKey, ...] = ((0, 2), (1, 2), (0, 1), (1, 0))


@dataclass(frozen=True)
class Table:
    """question -> the probability of each of `keys`, between `n_agents`."""

    chances: Mapping[str, Sequence[float]]
    keys: tuple[EdgeKey, ...] = KEYS
    n_agents: int = 2

    def distribution(self, agents: Sequence[Agent], decision: DecisionMaker, question: str) -> EdgeDistribution:
        chances = torch.tensor(self.chances[question])
        return EdgeDistribution(self.n_agents, self.keys, torch.logit(chances))
