"""Who the agents of a graph are and where their topologies come from: all of a graph that needs no language model."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
from torch import Tensor

from gcache.agents.decision import DecisionMaker
from gcache.agents.roles import Agent, agents_for
from gcache.errors import DataError
from gcache.gnn.distribution import EdgeDistribution
from gcache.gnn.mode import EXACT_AGENTS
from gcache.gnn.providers import TopologyDistribution, TopologyProvider
from gcache.gnn.topology import DECISION, Topology
from gcache.tasks.example import Example

logger = logging.getLogger(__name__)


class Team:
    """Agents, a decision maker, and a provider of topologies.

    Args:
        agents: who they are, for questions that bring no agents of their own.
        decision: who answers.
        provider: where topologies come from.
    """

    def __init__(self, agents: Sequence[Agent], decision: DecisionMaker, provider: TopologyProvider) -> None:
        self.agents = tuple(agents)
        self.decision = decision
        self.topology_provider = provider
        self.said_greedy = False  # whether it was logged that a topology is greedy

    def distribution(self, example: Example | str) -> TopologyDistribution:
        """What the provider says of a question; with gradient where it learns."""
        asked = as_example(example)
        return self.topology_provider.distribution(self.agents_of(asked), self.decision, asked.question)

    def topology(self, example: Example | str) -> Topology:
        """The most likely topology of a question; greedy with many agents (`EdgeDistribution.most_likely`)."""
        with torch.no_grad():
            return self.likeliest(self.distribution(example))[0]

    def likeliest(self, found: TopologyDistribution) -> tuple[Topology, Tensor]:
        """The topology that is run, of what the provider says of a question, and its log-probability. That it is greedy
        and not the mode for certain is logged, once a graph."""
        if isinstance(found, EdgeDistribution) and not found.is_exact and not self.said_greedy:
            self.said_greedy = True
            logger.warning(
                "the topology of %d agents is greedy, since the most likely one is searched for up to %d: each edge at "
                "its likelier value, the likelier first", found.n_agents, EXACT_AGENTS,
            )  # fmt: skip
        return found.most_likely()

    def agents_of(self, example: Example) -> tuple[Agent, ...]:
        """Who works on a question.

        Raises:
            ConfigError: neither the question nor the graph has any agents.
        """
        return agents_for(example, self.agents)

    def names_of(self, example: Example | str) -> list[str]:
        """What the nodes of a question's topology are called: its agents' roles, then the decision maker."""
        return [agent.role for agent in self.agents_of(as_example(example))] + [DECISION]


def as_example(example: Example | str) -> Example:
    """A question in words as a task's example, without an expected answer.

    Raises:
        DataError: it holds half a character, which no tokenizer reads.
    """
    found = Example("question", example, "") if isinstance(example, str) else example
    for text in (found.question, *(note.text for note in found.notes)):
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise DataError(
                f"question {found.id!r} holds half a character ({text[error.start]!a}, character {error.start + 1} of "
                f"{len(text)}), which is no text; leave it out, or write the whole character"
            ) from error
    return found
