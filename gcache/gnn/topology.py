"""Who hands to whom: a frozen set of weighted edges, acyclic within a round.

Beside its edges, a topology may say what goes over each of them and how long each agent thinks.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from gcache.errors import ConfigError, unknown

#: (source, target) of an edge within a round, (source, target, 1) of one from the round before.
EdgeKey = tuple[int, ...]
#: (round, agent)
Node = tuple[int, int]
#: What an edge may choose to carry; see `gcache.gnn.payload`.
CHANNELS = ("cache", "latents", "reasoning", "text")
#: How likely an edge into the decision maker, and one among agents, is before training, unless it is told otherwise.
DECISION_PROBABILITY, AGENT_PROBABILITY = 0.3, 0.1
#: How the decision maker is called beside the agents' roles.
DECISION = "decision maker"


@dataclass(frozen=True)
class Edge:
    """One hand-over.

    Attributes:
        source, target: agents 0 to N - 1; N is the decision maker.
        weight: w in (0, 1], how strongly the receiver attends to the sender's slots.
        probability: the edge's probability under the policy; 1 in a fixed topology.
        delay: 0 within a round; 1 from the round before (a temporal edge).
        payload: one of `CHANNELS`; None for what the graph's agents hand on everywhere.
    """

    source: int
    target: int
    weight: float = 1.0
    probability: float = 1.0
    delay: int = 0
    payload: str | None = None

    def __post_init__(self) -> None:
        if not 0.0 < self.weight <= 1.0:
            raise ConfigError(f"an edge's weight must be in (0, 1], got {self.weight}")
        if self.delay not in (0, 1):
            raise ConfigError(f"an edge's delay must be 0 (within a round) or 1 (the round before), got {self.delay}")
        if self.payload is not None and self.payload not in CHANNELS:
            raise unknown("payload", self.payload, CHANNELS)

    @property
    def key(self) -> EdgeKey:
        """What it is known by."""
        return (self.source, self.target, self.delay) if self.delay else (self.source, self.target)


@dataclass(frozen=True)
class Topology:
    """Edges among N agents and into the decision maker (node N).

    Attributes:
        n_agents: N.
        edges: sorted, no two alike.
        probabilities: the probabilities of all candidate edges it was drawn from, as
            (*key, probability); empty for a fixed topology.
        latent_steps: of each agent; None for the graph's.

    Raises:
        ConfigError: an edge out of range, a repeated edge, an edge out of the decision maker, a cycle
            within a round, or an edge from the round before that is into the decision maker or of an
            agent to itself, who has a memory anyway.
    """

    n_agents: int
    edges: tuple[Edge, ...] = ()
    probabilities: tuple[tuple[float, ...], ...] = ()
    latent_steps: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "edges", tuple(sorted(self.edges, key=lambda edge: (*edge.key, 0)[:3])))
        seen: set[EdgeKey] = set()
        for edge in self.edges:
            if not (0 <= edge.source < self.n_agents and 0 <= edge.target <= self.n_agents):
                raise ConfigError(
                    f"edge {edge.source} -> {edge.target} is out of range: sources are agents 0 to "
                    f"{self.n_agents - 1}, targets those and the decision maker {self.n_agents}"
                )
            if edge.delay and edge.target in (self.n_agents, edge.source):
                raise ConfigError(
                    f"edge {edge.source} -> {edge.target} from the round before is not possible: such edges are among "
                    "different agents"
                )
            if edge.key in seen:
                raise ConfigError(f"edge {edge.source} -> {edge.target} occurs twice")
            seen.add(edge.key)
        within = {(e.source, e.target) for e in self.edges if not e.delay}
        if not is_acyclic(self.n_agents, within):
            raise ConfigError(f"topology has a cycle among its edges {sorted(within)}")
        if self.latent_steps is not None and (len(self.latent_steps) != self.n_agents or min(self.latent_steps) < 0):
            raise ConfigError(f"latent_steps must be {self.n_agents} numbers of 0 or more, got {self.latent_steps}")

    @property
    def decision_node(self) -> int:
        return self.n_agents

    @cached_property
    def pairs(self) -> frozenset[EdgeKey]:
        """The keys of all edges."""
        return frozenset(e.key for e in self.edges)

    @cached_property
    def choices(self) -> tuple[Any, ...]:
        """All that was chosen: edges, their payloads and latent steps."""
        return (frozenset((e.key, e.payload) for e in self.edges), self.latent_steps)

    @cached_property
    def payloads(self) -> dict[EdgeKey, str | None]:
        """What was chosen to go over each edge."""
        return {e.key: e.payload for e in self.edges}

    def into(self, node: int) -> tuple[Edge, ...]:
        """Edges within a round that end at a node, by sender."""
        return self._by_target.get((node, 0), ())

    def before(self, node: int) -> tuple[Edge, ...]:
        """Edges from the round before that end at a node, by sender."""
        return self._by_target.get((node, 1), ())

    @cached_property
    def _by_target(self) -> dict[tuple[int, int], tuple[Edge, ...]]:
        found: dict[tuple[int, int], tuple[Edge, ...]] = {}
        for edge in self.edges:
            end = (edge.target, edge.delay)
            found[end] = (*found.get(end, ()), edge)
        return found

    def heard(self, rounds: int) -> frozenset[int]:
        """Agents from whom, in some round, a path leads to the decision maker."""
        return frozenset(agent for _, agent in self.heard_nodes(rounds))

    def heard_nodes(self, rounds: int) -> frozenset[Node]:
        """(round, agent) of all turns from which some path leads to the decision maker, who listens after
        the last round; agents remember their own."""
        reached: set[Node] = set()
        frontier = [(rounds - 1, edge.source) for edge in self.into(self.decision_node)]
        while frontier:
            node = frontier.pop()
            if node in reached:
                continue
            reached.add(node)
            frontier += [sender for sender, _ in self.senders(*node)]
        return frozenset(reached)

    def senders(self, round_: int, agent: int) -> list[tuple[Node, EdgeKey | None]]:
        """Who hands to an agent in a round, and over which edge, by number: its predecessors in the same
        round, those in the round before, then itself in the round before (over None, which is no
        edge and of weight 1)."""
        edges = [*self.into(agent), *self.before(agent)]
        return senders([edge.key for edge in edges], round_, agent)

    def _repr_svg_(self) -> str:
        """What a notebook shows."""
        from gcache.gnn.svg import topology_svg

        return topology_svg(self.n_agents, self.edges, self.names())

    def names(self, known: Sequence[str] = ()) -> list[str]:
        """What its nodes are called: as they are known, else by number; the decision maker last."""
        fallback = [*(f"agent {node}" for node in range(self.n_agents)), DECISION]
        return [*known[: self.n_agents + 1], *fallback[len(known) :]]

    def to_networkx(self, names: Sequence[str] | None = None) -> Any:
        """A networkx.DiGraph with `weight`, `probability`, `delay` and `payload` on its edges and `role` on its
        nodes; with edges from the round before a MultiDiGraph."""
        import networkx

        graph = networkx.MultiDiGraph() if any(e.delay for e in self.edges) else networkx.DiGraph()
        for node, name in enumerate(self.names(names or ())):
            graph.add_node(node, role=name)
        for edge in self.edges:
            graph.add_edge(
                edge.source, edge.target, weight=edge.weight, probability=edge.probability, delay=edge.delay,
                payload=edge.payload,
            )  # fmt: skip
        return graph


def senders(edges: Iterable[EdgeKey], round_: int, agent: int) -> list[tuple[Node, EdgeKey | None]]:
    """See `Topology.senders`: those over these edges, in their order, then the agent itself in the round before."""
    found: list[tuple[Node, EdgeKey | None]] = [
        ((round_ - (len(key) - 2), key[0]), key) for key in edges if key[1] == agent and round_ >= len(key) - 2
    ]
    return [*found, ((round_ - 1, agent), None)] if round_ else found


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


def check_choices(channels: Sequence[str], latent_choices: Sequence[int]) -> None:
    """Raise ConfigError for channels or numbers of latent steps that an edge or an agent cannot choose from."""
    for name in channels:
        if name not in CHANNELS:
            raise unknown("channel", name, CHANNELS)
    if len(set(channels)) != len(channels):
        raise ConfigError(f"channels must all be different, got {tuple(channels)}")
    if any(isinstance(count, bool) or not isinstance(count, int) or count < 0 for count in latent_choices):
        raise ConfigError(f"latent_choices must be numbers of 0 or more, got {tuple(latent_choices)}")
    if len(latent_choices) == 1 or len(set(latent_choices)) != len(latent_choices):
        raise ConfigError(f"latent_choices must be two or more different numbers, or none, got {tuple(latent_choices)}")
