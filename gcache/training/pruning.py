"""Edges that stay unlikely are cut for good, half way through training.

One cut, as in AgentPrune (Zhang et al., "Cut the Crap", ICLR 2025), but by roles: an edge is known by who
its ends are, since agents differ from question to question.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from gcache.errors import ConfigError
from gcache.gnn.providers import RoleEdge, role_edge
from gcache.graph.result import RunResult

#: An edge is judged by so many questions at least.
LEAST_SEEN = 5
#: What is as likely as not is never cut.
UNLIKELY = 0.5


def check_pruning_rate(rate: float) -> None:
    """Raise ConfigError for a share that is not from 0 to 1, 1 excluded."""
    if not 0.0 <= rate < 1.0:
        raise ConfigError(f"pruning_rate must be from 0 (cut nothing) to below 1, got {rate}")


class Pruner:
    """Watches how likely edges are from a quarter of the steps on, and cuts at half of them.

    Args:
        rate: the share of the edges that were seen often enough to cut, the least likely ones; those
            that are `UNLIKELY` or more are kept even so.
        steps: of the whole training.
    """

    def __init__(self, rate: float, steps: int) -> None:
        check_pruning_rate(rate)
        self.rate, self.first, self.last = rate, steps // 4, steps // 2
        self.seen: dict[RoleEdge, tuple[float, int]] = {}

    def after(self, step: int, groups: Iterable[Sequence[RunResult]]) -> frozenset[RoleEdge] | None:
        """The edges to cut, after the step that is the last to be watched; else None."""
        if not self.rate or not self.first <= step <= self.last:
            return None
        for group in groups:
            self._watch(group[0])
        return self._unlikely() if step == self.last else None

    def _watch(self, result: RunResult) -> None:
        for *key, chance in result.topology.probabilities:
            edge = role_edge(tuple(int(end) for end in key), result.agents)
            total, count = self.seen.get(edge, (0.0, 0))
            self.seen[edge] = (total + chance, count + 1)

    def _unlikely(self) -> frozenset[RoleEdge]:
        means = {edge: total / count for edge, (total, count) in self.seen.items() if count >= LEAST_SEEN}
        least = sorted(means, key=lambda edge: (means[edge], edge))[: int(self.rate * len(means))]
        return frozenset(edge for edge in least if means[edge] < UNLIKELY)

    def to_json(self) -> list[list[str | float]]:
        return [[*edge, total, count] for edge, (total, count) in sorted(self.seen.items())]

    def restore(self, rows: Iterable[Sequence[str | float]]) -> None:
        """The inverse of `to_json`."""
        self.seen = {
            (str(source), str(target), int(delay)): (float(total), int(count))
            for source, target, delay, total, count in rows
        }
