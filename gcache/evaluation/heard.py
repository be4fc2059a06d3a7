"""Whether an evaluated graph was a graph: who was heard, and whether there was anything to choose from."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from gcache.evaluation.tables import MOST_CUT
from gcache.gnn.providers import PolicyProvider
from gcache.graph.agent_graph import AgentGraph
from gcache.graph.result import RunResult

logger = logging.getLogger(__name__)


def warn_of_unheard(name: str, graph: AgentGraph, results: Sequence[RunResult]) -> None:
    """Say where a learned topology hears nobody on most questions, and where `marginal` had no answer to choose."""
    n = len(results)
    heard = [r for r in results if r.topology.into(r.topology.decision_node)]
    alone = n - len(heard)
    if 2 * alone > n and isinstance(graph.topology_provider, PolicyProvider):
        logger.warning(
            "%s: on %d of %d questions the learned topology hears nobody, so they are answered as by one prompt; train "
            "for longer, or begin at a higher --decision_probability", name, alone, n,
        )  # fmt: skip
    if graph.decision.method == "marginal":
        unstated = sum(r.ballot is None for r in heard)
        if unstated > MOST_CUT * n:
            logger.warning(
                "%s: on %d of %d questions no agent that is heard states an answer, so the decision maker wrote a text "
                "of its own; raise --reason_tokens if they were cut off", name, unstated, n,
            )  # fmt: skip
