"""What a terminal shows of a training: a line per step, and at the end who hands to whom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from gcache.evaluation.plain import one_line
from gcache.gnn.summary import LearnedEdge
from gcache.training.early_stop import ASKED, RIGHT

#: Edges in a step's line: with those of the main job's three kinds of agents it fits a terminal.
IN_A_LINE = 3
#: Edges in the picture at the end, so that it stays a picture with many kinds of agents.
IN_A_PICTURE = 12
#: Characters of a bar that stands for a probability of 1.
BAR = 20


def lines_above_the_bar(progress: bool) -> AbstractContextManager[None]:
    """Within it the log's lines do not run into a progress bar, if there is one."""
    if not progress:
        return nullcontext()
    from tqdm.contrib.logging import logging_redirect_tqdm  # not at the head: in a notebook its import warns

    redirected: AbstractContextManager[None] = logging_redirect_tqdm()
    return redirected


def step_line(metrics: Mapping[str, Any], edges: Sequence[LearnedEdge], steps: int) -> str:
    """How right a step's rollouts were, and the edges they were drawn from: those into the decision maker, likeliest
    first.

    Args:
        edges: before the step, in the order of `learned_edges`.
        steps: of the whole training.
    """
    parts = [f"step {metrics['step'] + 1} of {steps}", f"utility {metrics['utility']:.2f}"]
    if metrics.get(ASKED):
        parts.append(f"likeliest topology right {metrics[RIGHT]} of {metrics[ASKED]}")
    parts.append(f"{metrics['edges']:.1f} edges a question")
    parts += [f"{_ends(edge)} {edge.probability:.2f}" for edge in edges[:IN_A_LINE]]
    return ", ".join(parts)


def edges_picture(edges: Sequence[LearnedEdge]) -> str:
    """Who hands to whom, an edge a line, with a bar as long as it is likely; "" where the topology is fixed."""
    shown = list(edges[:IN_A_PICTURE])
    width = max((len(_ends(edge)) for edge in shown), default=0)
    lines = [f"  {_ends(e):<{width}}  {e.probability:.2f}  {'#' * round(BAR * e.probability)}".rstrip() for e in shown]
    left = len(edges) - len(shown)
    return "\n".join([*lines, *([f"  and {left} more"] if left else [])])


def _ends(edge: LearnedEdge) -> str:
    return one_line(f"{edge.source} -> {edge.target}")
