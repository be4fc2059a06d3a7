"""What goes from whom to whom on one topology: the one place that decides it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

from gcache.gnn.payload import PAYLOADS, TEXT, Payload
from gcache.gnn.topology import EdgeKey, Node, Topology
from gcache.graph.agent_models import AgentModels


@dataclass(frozen=True)
class Routes:
    """What goes over each edge of a topology.

    Attributes:
        default: what the graph's agents hand on, see `GraphConfig.payload`.
        agent_models: with the links that the question goes over.
        words_alone: whether the senders' words go over every edge instead of what it chose.
    """

    default: Payload
    topology: Topology
    agent_models: AgentModels
    words_alone: bool = False

    @cached_property
    def model_of(self) -> tuple[int, ...]:
        """The number of each agent's model, and of the decision maker's at last."""
        return self.agent_models.numbers(self.topology.n_agents)

    def payload(self, sender: Node, receiver: Node, key: EdgeKey | None) -> Payload:
        """What goes over an edge: what the edge chose, else what all agents hand on. Between two models that no link
        joins, words go instead. Over None, an agent keeps what it handed on and said in the round before."""
        if key is None:
            return self.default if self.default.reasons else self.default.with_words()
        if self.words_alone or self.agent_models.tells(self.model_of[sender[1]], self.model_of[receiver[1]]):
            return TEXT
        chosen = self.topology.payloads[key]
        if chosen is None or chosen == "cache":
            return self.default
        return TEXT if chosen == "text" else replace(self.default, slots=PAYLOADS[chosen].slots)

    def reasons(self, key: EdgeKey | None) -> bool:
        """Whether a sender writes a solution for an edge, whichever way that goes to its receiver's model."""
        return self.default.reasons or (key is not None and self.topology.payloads[key] == "reasoning")
