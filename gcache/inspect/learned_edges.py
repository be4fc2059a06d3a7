"""What a policy learned, averaged over questions: how likely each kind of agent hands to each."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from gcache.agents.roles import agents_for
from gcache.gnn.distribution import EdgeDistribution
from gcache.graph.agent_graph import AgentGraph
from gcache.tasks.example import Example

DECISION = "decision maker"


@dataclass(frozen=True)
class LearnedEdge:
    """Edges from agents of one kind to agents of another.

    Attributes:
        probability: mean over questions and pairs; low, high: the middle 90 % of them.
        kept: share of them in the most likely topologies.
        pairs: how many were averaged.
    """

    source: str
    target: str
    probability: float
    low: float
    high: float
    kept: float
    pairs: int


def learned_edges(graph: AgentGraph, examples: Sequence[Example]) -> list[LearnedEdge]:
    """One row per pair of kinds: those into the decision maker first, then by probability.

    Empty where the topology is fixed.
    """
    chances: dict[tuple[str, str], list[float]] = defaultdict(list)
    kept: dict[tuple[str, str], int] = defaultdict(int)
    with torch.no_grad():
        for example in examples:
            distribution = graph.distribution(example)
            if not isinstance(distribution, EdgeDistribution):
                return []
            names = [agent.label for agent in agents_for(example, graph.agents)] + [DECISION]
            drawn = distribution.most_likely()[0].pairs
            for pair, chance in zip(distribution.candidates, distribution.probabilities.tolist(), strict=True):
                key = (names[pair[0]], names[pair[1]])
                chances[key].append(chance)
                kept[key] += pair in drawn
    rows = []
    for key, values in chances.items():
        tensor = torch.tensor(values)
        low, high = torch.quantile(tensor, torch.tensor([0.05, 0.95])).tolist()
        rows.append(LearnedEdge(*key, float(tensor.mean()), low, high, kept[key] / len(values), len(values)))
    return sorted(rows, key=lambda row: (row.target != DECISION, -row.probability))


def draw_learned_edges(edges: Sequence[LearnedEdge], path: Path, title: str) -> None:
    """A picture of the mean learned topology: an arrow per pair of kinds, as wide as it is likely."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    import networkx

    graph = networkx.DiGraph()
    for edge in edges:
        if edge.source != edge.target:
            graph.add_edge(edge.source, edge.target, probability=edge.probability)
    sources = sorted({name for name in graph if name != DECISION})
    place = {name: (0.0, -float(i)) for i, name in enumerate(sources)}
    place[DECISION] = (2.0, -(len(sources) - 1) / 2)
    figure, axes = plt.subplots(figsize=(7.5, 3.2 + 0.3 * len(sources)))
    colours = {name: "#0072b2" if name != DECISION else "#d55e00" for name in graph}
    networkx.draw_networkx_nodes(
        graph, place, ax=axes, node_size=600, node_color=[colours[n] for n in graph], edgecolors="white"
    )
    for name, (x, y) in place.items():
        side = -0.16 if name != DECISION else 0.16
        axes.text(x + side, y, name, ha="right" if side < 0 else "left", va="center", fontsize=11)
    for source, target, chance in graph.edges(data="probability"):
        bend = 0.0 if target == DECISION else 0.35
        networkx.draw_networkx_edges(
            graph, place, ax=axes, edgelist=[(source, target)], width=0.4 + 5 * chance, alpha=0.15 + 0.85 * chance,
            arrowsize=10 + 12 * chance, node_size=600, connectionstyle=f"arc3,rad={bend}",
        )  # fmt: skip
        if target == DECISION:
            (x0, y0), (x1, y1) = place[source], place[target]
            axes.text(
                0.55 * x0 + 0.45 * x1, 0.55 * y0 + 0.45 * y1, f"{chance:.2f}", fontsize=10, ha="center", va="center",
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5},
            )  # fmt: skip
    axes.set_title(title, fontsize=11)
    axes.set_xlim(-1.1, 3.1)
    axes.margins(y=0.2)
    axes.axis("off")
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    plt.close(figure)
