"""A checkpoint without a question: edges by the roles at their ends, and how they moved in training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gcache.evaluation.cost import Cost
from gcache.evaluation.cuts import Ends, ends_of, kinds_of
from gcache.gnn.distribution import EdgeDistribution
from gcache.gnn.greedy import MODE
from gcache.gnn.summary import learned_edges
from gcache.gnn.team import Team
from gcache.inspect.view import Curve, Frame, View, edges_of, nodes_of
from gcache.tasks.example import Example

#: Curves of the metrics, and what they are called.
CURVES = (
    ("utility", "utility of the rollouts"),
    ("edges", "edges per question"),
    ("tokens_generated", "tokens generated per step"),
    ("seconds", "seconds per step"),
)


def overview(
    team: Team,
    examples: Sequence[Example],
    *,
    title: str,
    task: str,
    model: str,
    step: int,
    metrics: Sequence[Mapping[str, Any]] = (),
    costs: Mapping[Ends, Cost] | None = None,
) -> View:
    """The view of a checkpoint.

    Args:
        examples: over which the checkpoint's edges are averaged.
        step: that the checkpoint was made after.
        metrics: of the training's steps, whose edges become frames before the checkpoint's own. Theirs are averaged
            over training questions; those of older runs have none.
        costs: see `cost_of_edges`.
    """
    frames = [
        Frame(int(m["step"]), f"before step {int(m['step']) + 1}", edges_of(m["learned_edges"]))
        for m in metrics
        if m.get("learned_edges")
    ]
    found = learned_edges(team, examples)
    rows = [edge.ends_and_chances() for edge in found] or _fixed(team, examples)
    frames.append(Frame(step, f"after {step} steps", edges_of(rows, costs)))
    called = found[0].topologies if found else MODE
    learned = isinstance(team.distribution(examples[0]), EdgeDistribution)
    curves = [
        Curve(called, tuple((int(m["step"]) + 1, float(m[name])) for m in metrics if name in m))
        for name, called in CURVES
    ]
    return View(
        title,
        f"edges by role, mean over {len(examples)} questions" + (f", {called} topologies" if called != MODE else "")
        if learned
        else "a fixed topology",
        task,
        model,
        step,
        nodes_of(frames, [agent.label for agent in team.agents_of(examples[0])]),
        tuple(frames),
        curves=tuple(curve for curve in curves if curve.points),
        topologies=called,
    )


def _fixed(team: Team, examples: Sequence[Example]) -> list[list[Any]]:
    """Rows of a fixed topology: of the pairs of kinds that have an edge in any question, the share that has it."""
    counts: dict[Ends, int] = {}
    for example in examples:
        names = kinds_of(team, example)
        for ends in dict.fromkeys(ends_of(edge, names) for edge in team.topology(example).edges):
            counts[ends] = counts.get(ends, 0) + 1
    shares = {ends: count / len(examples) for ends, count in counts.items()}
    return [[*ends, share, share, share, share] for ends, share in shares.items()]
