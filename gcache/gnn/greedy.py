"""What is said where a question has too many agents for its most likely topology to be searched for exactly."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch

from gcache.gnn.distribution import EdgeDistribution
from gcache.gnn.mode import EXACT_AGENTS
from gcache.gnn.team import Team, as_example
from gcache.runtime.streams import stream
from gcache.tasks.example import Example

logger = logging.getLogger(__name__)

#: Questions whose gap is measured, and topologies drawn for each.
QUESTIONS = 4
SAMPLES = 1000
#: What topologies are called that are run.
MODE, GREEDY, EITHER = "most likely", "greedy", "most likely or greedy"


def is_greedy(graph: Team, example: Example | str) -> bool:
    """Whether `Team.topology` of a question is greedy and not the mode for certain."""
    if len(graph.agents_of(as_example(example))) <= EXACT_AGENTS:
        return False
    with torch.no_grad():
        found = graph.distribution(example)
    return isinstance(found, EdgeDistribution) and not found.is_exact


def topology_name(graph: Team, *examples: Example | str) -> str:
    """What `Team.topology` of these questions is called; of several, "most likely or greedy" where it depends."""
    return common_name([GREEDY if is_greedy(graph, example) else MODE for example in examples])


def common_name(names: Sequence[str]) -> str:
    """What topologies are called together that are called so."""
    return (set(names) or {MODE}).pop() if len(set(names)) < 2 else EITHER


def warn_where_greedy(graph: Team, examples: Sequence[Example]) -> list[float]:
    """Log how far greedy topologies are from the best of `SAMPLES` drawn ones; nothing where none is greedy.

    Returns, of the first few questions that have one, log p(greedy) less log p(best drawn): below 0, greedy misses the
    mode.
    """
    greedy = [example for example in examples if is_greedy(graph, example)]
    gaps: list[float] = []
    for example in greedy[:QUESTIONS]:
        with torch.no_grad():
            found = graph.distribution(example)
            assert isinstance(found, EdgeDistribution)
            best = found.best_of_samples(stream("best of samples", example.question), SAMPLES)
            gaps.append(float(found.most_likely()[1]) - best)
    if gaps:
        sizes = {len(graph.agents_of(example)) for example in greedy}
        logger.warning(
            "the topologies of %s agents are greedy, on %d of %d questions, since their mode is searched for up to %d: "
            "log p is %+.2f on the mean of %d questions beside the best of %d drawn ones (%d of them are better)",
            f"{min(sizes)} to {max(sizes)}" if len(sizes) > 1 else max(sizes), len(greedy), len(examples),
            EXACT_AGENTS, sum(gaps) / len(gaps), len(gaps), SAMPLES, sum(gap < 0 for gap in gaps),
        )  # fmt: skip
        graph.said_greedy = True
    return gaps
