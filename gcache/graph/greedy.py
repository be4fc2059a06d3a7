"""What is said where a question has too many agents for its most likely topology to be searched for exactly."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch

from gcache.gnn.distribution import EdgeDistribution
from gcache.gnn.mode import EXACT_AGENTS
from gcache.graph.cast import Cast
from gcache.streams import stream
from gcache.tasks.example import Example

logger = logging.getLogger(__name__)

#: Questions that are looked at, and topologies drawn for each.
QUESTIONS = 4
SAMPLES = 1000


def is_greedy(graph: Cast, example: Example | str) -> bool:
    """Whether `Cast.topology` of a question is greedy and not the mode for certain."""
    with torch.no_grad():
        found = graph.distribution(example)
    return isinstance(found, EdgeDistribution) and not found.is_exact


def topology_name(graph: Cast, example: Example | str) -> str:
    """What `Cast.topology` of a question is called."""
    return "greedy" if is_greedy(graph, example) else "most likely"


def warn_where_greedy(graph: Cast, examples: Sequence[Example]) -> list[float]:
    """Log how far greedy topologies are from the best of `SAMPLES` drawn ones; nothing where none is greedy.

    Returns, of the first few questions, log p(greedy) less log p(best drawn): below 0, greedy misses the mode.
    """
    gaps: list[float] = []
    agents = 0
    for example in examples[:QUESTIONS]:
        with torch.no_grad():
            found = graph.distribution(example)
            if isinstance(found, EdgeDistribution) and not found.is_exact:
                agents = found.n_agents
                best = found.best_of_samples(stream("best of samples", example.question), SAMPLES)
                gaps.append(float(found.most_likely()[1]) - best)
    if gaps:
        logger.warning(
            "the topologies of %d agents are greedy, since their mode is searched for up to %d: log p is %+.2f on the "
            "mean of %d questions beside the best of %d drawn ones (%d of them are better)",
            agents, EXACT_AGENTS, sum(gaps) / len(gaps), len(gaps), SAMPLES, sum(gap < 0 for gap in gaps),
        )  # fmt: skip
    return gaps
