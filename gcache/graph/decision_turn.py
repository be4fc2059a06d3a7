"""What the decision maker has before it answers: who hands to it, and what they wrote."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gcache.gnn.topology import Edge, Node
from gcache.graph.begin import Start
from gcache.graph.parts import Parts
from gcache.graph.schedule import Coming
from gcache.graph.trace import Trace
from gcache.graph.transport import Transport
from gcache.llm.requests import Generation


@dataclass(frozen=True)
class DecisionTurn:
    """What the decision maker has: the run's parts, and what each agent wrote."""

    parts: Parts
    start: Start
    transport: Transport
    trace: Trace
    question_tokens: tuple[int, ...]
    written: Mapping[Node, Generation]

    @property
    def last(self) -> int:
        """The round in which it hears."""
        return self.parts.config.num_rounds - 1

    @property
    def receiver(self) -> Node:
        return self.last, self.transport.topology.decision_node

    @property
    def edges(self) -> list[Edge]:
        """Over which it hears somebody; an agent that failed is nobody."""
        into = self.transport.topology.into(self.transport.topology.decision_node)
        return [edge for edge in into if (self.last, edge.source) not in self.transport.failed]

    def is_cut(self, edge: Edge) -> bool:
        """Whether a length limit cut off what an edge's sender wrote."""
        text = self.written.get((self.last, edge.source))
        return text is not None and not text.finished

    def coming(self, edges: Sequence[Edge]) -> Coming:
        return [((self.last, edge.source), edge.key) for edge in edges]

    def judges(self, edges: Sequence[Edge]) -> bool:
        """Whether it is handed a solution."""
        return any((self.last, edge.source) in self.transport.reasoners for edge in edges)

    def solved(self, edges: Sequence[Edge]) -> list[tuple[str, bool]]:
        """Of each edge's sender what it said, and whether that was cut off."""
        return [(self.transport.said.get((self.last, edge.source), ""), self.is_cut(edge)) for edge in edges]
