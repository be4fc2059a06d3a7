"""What is looked at: a graph's nodes and edges, averaged over questions or of one question, in plain values.

Every format (table, picture, page, file for other programs) is made from a `View`, so they say the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from gcache.evaluation.cost import Cost
from gcache.gnn.summary import LATER
from gcache.gnn.topology import DECISION

#: What edges in other programs' files carry, beside their costs.
EDGE_VALUES = ("probability", "later", "low", "high", "kept", "weight", "bytes", "slots", "channel", "words")
#: Stands wherever readings of latent thoughts do.
HINT = "Readings are a hint of what a cache holds, not a proof: the model's output head was not trained on them."


@dataclass(frozen=True)
class ViewEdge:
    """One edge.

    Attributes:
        source, target: ids of nodes.
        later: whether it is from the round before.
        probability: under the policy; of several questions, their mean, and low, high the middle 90 % of them.
        kept: share of the questions whose topology that is run has it; see `View.topologies`.
        weight, bytes, slots, channel: of one question's hand-over; words: of the solution whose slots went over it, or
            that were told.
        cost: of cutting it.
    """

    source: str
    target: str
    probability: float
    later: bool = False
    low: float | None = None
    high: float | None = None
    kept: float | None = None
    weight: float | None = None
    bytes: int | None = None
    slots: int | None = None
    channel: str | None = None
    words: str | None = None
    cost: Cost | None = None


@dataclass(frozen=True)
class ViewNode:
    """An agent, agents of one kind, or the decision maker.

    Attributes:
        details: short facts, as (name, value).
        prompt: its own words; text: what it wrote.
        reading: of each latent step, the tokens it is nearest to.
        reading_text: what the model writes from its cache alone.
        attention: per layer, the share of the answer's attention that went to its slots.
    """

    id: str
    label: str
    decision: bool = False
    details: tuple[tuple[str, str], ...] = ()
    prompt: str | None = None
    text: str | None = None
    reading: tuple[tuple[str, ...], ...] = ()
    reading_text: str | None = None
    attention: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Frame:
    """The edges at one time of a training."""

    step: int
    label: str
    edges: tuple[ViewEdge, ...]


@dataclass(frozen=True)
class Curve:
    """A number over the steps of a training."""

    name: str
    points: tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class View:
    """See the module's docstring.

    Attributes:
        nodes: the decision maker last.
        frames: in the order of training; the last one is the checkpoint.
        topologies: what those are called that are run: "most likely", "greedy" or "most likely or greedy".
    """

    title: str
    subtitle: str
    task: str
    model: str
    step: int
    nodes: tuple[ViewNode, ...]
    frames: tuple[Frame, ...]
    question: str | None = None
    answer: str | None = None
    curves: tuple[Curve, ...] = ()
    hint: str = HINT
    notes: tuple[str, ...] = field(default_factory=tuple)
    topologies: str = "most likely"

    @property
    def edges(self) -> tuple[ViewEdge, ...]:
        """Of the checkpoint."""
        return self.frames[-1].edges

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values; what the page reads."""
        return asdict(self)

    def to_networkx(self) -> Any:
        """A networkx.MultiDiGraph whose nodes and edges carry what is known of them; what is not is left out."""
        import networkx

        graph = networkx.MultiDiGraph(
            title=self.title, task=self.task, model=self.model, step=self.step, topologies=self.topologies
        )
        for node in self.nodes:
            graph.add_node(node.id, label=node.label, decision=node.decision, **_known(node, ("prompt", "text")))
        for edge in self.edges:
            values = _known(edge, EDGE_VALUES)
            if edge.cost is not None:
                values |= {f"cost_{name}": value for name, value in asdict(edge.cost).items()}
            graph.add_edge(edge.source, edge.target, **values)
        return graph


def _known(record: Any, names: Sequence[str]) -> dict[str, Any]:
    return {name: value for name in names if (value := getattr(record, name)) is not None}


def edges_of(
    rows: Sequence[Sequence[Any]], costs: Mapping[tuple[str, str], Cost] | None = None
) -> tuple[ViewEdge, ...]:
    """Edges of rows as `LearnedEdge.ends_and_chances` gives them.

    Args:
        costs: by the ends, as they are called in the rows.
    """
    found = []
    for source, target, probability, low, high, kept in rows:
        cost = (costs or {}).get((source, target))
        later = target.endswith(LATER)
        found.append(
            ViewEdge(source, target.removesuffix(LATER), probability, later, low, high, kept, cost=cost)
        )
    return tuple(found)


def nodes_of(frames: Sequence[Frame], besides: Sequence[str] = ()) -> tuple[ViewNode, ...]:
    """The kinds of agents at the ends of edges, by name; the decision maker last."""
    names = {*besides, *(e.source for f in frames for e in f.edges), *(e.target for f in frames for e in f.edges)}
    return (*(ViewNode(name, name) for name in sorted(names - {DECISION})), ViewNode(DECISION, DECISION, True))
