"""Who the agents of a graph are and where their topologies come from: all of a graph that needs no language model."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from gcache.agents.decision import DecisionMaker
from gcache.agents.roles import Agent, agents_for
from gcache.errors import DataError
from gcache.gnn.topology import DECISION, Topology
from gcache.graph.sources import TopologyDistribution, TopologySource
from gcache.tasks.example import Example


class Cast:
    """Agents, a decision maker, and a source of topologies.

    Args:
        agents: who they are, for questions that bring no agents of their own.
        decision: who answers.
        source: where topologies come from.
    """

    def __init__(self, agents: Sequence[Agent], decision: DecisionMaker, source: TopologySource) -> None:
        self.agents = tuple(agents)
        self.decision = decision
        self.source_of_topologies = source

    def distribution(self, example: Example | str) -> TopologyDistribution:
        """What the source says of a question; with gradient where it learns."""
        asked = as_example(example)
        return self.source_of_topologies.distribution(self.agents_of(asked), self.decision, asked.question)

    def topology(self, example: Example | str) -> Topology:
        """The most likely topology of a question; greedy with many agents (`EdgeDistribution.most_likely`)."""
        with torch.no_grad():
            return self.distribution(example).most_likely()[0]

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
