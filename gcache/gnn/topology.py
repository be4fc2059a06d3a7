"""Who hands to whom: a frozen, acyclic set of weighted edges."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from gcache.errors import ConfigError


@dataclass(frozen=True, order=True)
class Edge:
    """One hand-over.

    Attributes:
        source, target: agents 0 to N - 1; N is the decision maker.
        weight: w in (0, 1], how strongly the receiver attends to the sender's slots.
        probability: the edge's probability under the policy; 1 in a fixed topology.
    """

    source: int
    target: int
    weight: float = 1.0
    probability: float = 1.0

    def __post_init__(self) -> None:
        if not 0.0 < self.weight <= 1.0:
            raise ConfigError(f"an edge's weight must be in (0, 1], got {self.weight}")


@dataclass(frozen=True)
class Topology:
    """Edges among N agents and into the decision maker (node N).

    Attributes:
        n_agents: N.
        edges: sorted, no two alike.
        probabilities: the probabilities of all candidate edges it was drawn from, as
            (source, target, probability); empty for a fixed topology.

    Raises:
        ConfigError: an edge out of range, a repeated edge, an edge out of the decision maker, or
            a cycle.
    """

    n_agents: int
    edges: tuple[Edge, ...] = ()
    probabilities: tuple[tuple[int, int, float], ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "edges", tuple(sorted(self.edges)))
        seen: set[tuple[int, int]] = set()
        for edge in self.edges:
            if not (0 <= edge.source < self.n_agents and 0 <= edge.target <= self.n_agents):
                raise ConfigError(
                    f"edge {edge.source} -> {edge.target} is out of range: sources are agents 0 to "
                    f"{self.n_agents - 1}, targets those and the decision maker {self.n_agents}"
                )
            if (edge.source, edge.target) in seen:
                raise ConfigError(f"edge {edge.source} -> {edge.target} occurs twice")
            seen.add((edge.source, edge.target))
        if not is_acyclic(self.n_agents, seen):
            raise ConfigError(f"topology has a cycle among its edges {sorted(seen)}")

    @property
    def decision_node(self) -> int:
        return self.n_agents

    @cached_property
    def pairs(self) -> frozenset[tuple[int, int]]:
        return frozenset((e.source, e.target) for e in self.edges)

    def into(self, node: int) -> tuple[Edge, ...]:
        """Edges that end at a node, by sender."""
        return self._by_target.get(node, ())

    @cached_property
    def _by_target(self) -> dict[int, tuple[Edge, ...]]:
        found: dict[int, tuple[Edge, ...]] = {}
        for edge in self.edges:
            found[edge.target] = (*found.get(edge.target, ()), edge)
        return found

    @cached_property
    def heard(self) -> frozenset[int]:
        """Agents from whom some path leads to the decision maker."""
        reached = {self.decision_node}
        frontier = [self.decision_node]
        while frontier:
            for edge in self.into(frontier.pop()):
                if edge.source not in reached:
                    reached.add(edge.source)
                    frontier.append(edge.source)
        return frozenset(reached - {self.decision_node})

    def to_networkx(self, names: Sequence[str] | None = None) -> Any:
        """A networkx.DiGraph with `weight` and `probability` on its edges and `role` on its nodes."""
        import networkx

        graph = networkx.DiGraph()
        for node in range(self.n_agents + 1):
            fallback = "decision maker" if node == self.n_agents else f"agent {node}"
            graph.add_node(node, role=names[node] if names and node < len(names) else fallback)
        for edge in self.edges:
            graph.add_edge(edge.source, edge.target, weight=edge.weight, probability=edge.probability)
        return graph


def is_acyclic(n_agents: int, pairs: Iterable[tuple[int, int]]) -> bool:
    """Whether the edges can be followed in some order (Kahn 1962)."""
    targets: dict[int, list[int]] = {node: [] for node in range(n_agents + 1)}
    incoming = dict.fromkeys(targets, 0)
    for source, target in pairs:
        targets[source].append(target)
        incoming[target] += 1
    ready = [node for node, count in incoming.items() if count == 0]
    done = 0
    while ready:
        done += 1
        for target in targets[ready.pop()]:
            incoming[target] -= 1
            if incoming[target] == 0:
                ready.append(target)
    return done == n_agents + 1


def reaches(pairs: Iterable[tuple[int, int]], start: int, goal: int) -> bool:
    """Whether a path of edges leads from `start` to `goal`."""
    targets: dict[int, list[int]] = {}
    for source, target in pairs:
        targets.setdefault(source, []).append(target)
    frontier, seen = [start], {start}
    while frontier:
        node = frontier.pop()
        if node == goal:
            return True
        for target in targets.get(node, ()):
            if target not in seen:
                seen.add(target)
                frontier.append(target)
    return False
