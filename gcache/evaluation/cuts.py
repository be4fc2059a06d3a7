"""Which edges matter: the accuracy that is lost when each is cut from the topologies that have it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from gcache.errors import ConfigError
from gcache.evaluation.cost import Cost
from gcache.evaluation.evaluate import Evaluation, evaluate
from gcache.evaluation.intervals import bootstrap_difference
from gcache.gnn.greedy import warn_where_greedy
from gcache.gnn.summary import LATER
from gcache.gnn.team import Team
from gcache.gnn.topology import DECISION, Edge, Topology
from gcache.graph.agent_graph import AgentGraph
from gcache.tasks.example import Example, Task

#: Source and target, by kind; see `LearnedEdge`.
Ends = tuple[str, str]


def ends_of(edge: Edge, names: Sequence[str]) -> Ends:
    """What an edge's ends are called."""
    return names[edge.source], names[edge.target] + (LATER if edge.delay else "")


def kinds_of(team: Team, example: Example) -> list[str]:
    """The kind of each agent of a question, then the decision maker."""
    return [agent.label for agent in team.agents_of(example)] + [DECISION]


def cost_of_edges(
    graph: AgentGraph, task: Task, examples: Sequence[Example], progress: bool = True
) -> tuple[Evaluation, dict[Ends, Cost]]:
    """The graph as it is, and what cutting each edge costs it, by the kinds at its ends.

    All edges between agents of these kinds are cut together. Edges that are in no question's topology (the most likely
    one, or with many agents the greedy one) cost nothing and are not in the result.

    Raises:
        ConfigError: fewer than two questions, of which no interval can be had.
    """
    if len(examples) < 2:
        raise ConfigError(f"the cost of an edge needs 2 questions or more, got {len(examples)}; raise the limit")
    warn_where_greedy(graph, examples)
    with torch.no_grad():
        topology = {example.id: graph.topology(example) for example in examples}
    names = {example.id: kinds_of(graph, example) for example in examples}
    used: dict[Ends, set[str]] = {}
    for example in examples:
        for edge in topology[example.id].edges:
            used.setdefault(ends_of(edge, names[example.id]), set()).add(example.id)
    whole = evaluate(graph, task, examples, "as it is", lambda e: topology[e.id], progress=progress)
    right = {row.id: float(row.outcome == "right") for row in whole.rows}
    costs = {}
    for ends, ids in sorted(used.items()):
        # questions without the edge need not be asked again: nothing changes for them
        asked = [example for example in examples if example.id in ids]
        name = f"without {ends[0]} -> {ends[1]}"

        def without(example: Example, ends: Ends = ends) -> Topology:
            own = topology[example.id]
            kept = tuple(e for e in own.edges if ends_of(e, names[example.id]) != ends)
            return replace(own, edges=kept)

        cut = evaluate(graph, task, asked, name, without, progress=progress)
        then = {**right, **{row.id: float(row.outcome == "right") for row in cut.rows}}
        before = [right[example.id] for example in examples]
        costs[ends] = Cost(
            *bootstrap_difference(before, [then[example.id] for example in examples]), len(examples), len(ids)
        )
    return whole, costs
