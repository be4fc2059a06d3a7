from __future__ import annotations

from typing import Any, cast

import pytest

from gcache.agents.roles import Agent
from gcache.errors import ConfigError
from gcache.gnn.topology import Topology
from gcache.graph.result import RunResult
from gcache.training.pruning import Pruner

AGENTS = (Agent("baker", "bakes"), Agent("miller", "grinds"))


class Drawn:
    """All that a pruner looks at in a run."""

    def __init__(self, *chances: float, agents: tuple[Agent, ...] = AGENTS) -> None:
        keys: list[tuple[int, ...]] = [(0, 2), (1, 2), (0, 1), (1, 0), (0, 1, 1)]
        self.agents = agents
        self.topology = Topology(2, (), tuple((*key, chance) for key, chance in zip(keys, chances, strict=True)))


def watched(pruner: Pruner, steps: int, *runs: Any) -> list[Any]:
    return [pruner.after(step, [[cast(RunResult, run)] for run in runs]) for step in range(steps)]


def test_the_least_likely_edges_are_cut_once_half_way() -> None:
    found = watched(Pruner(0.4, 20), 20, Drawn(0.9, 0.2, 0.05, 0.3, 0.01))
    assert [step for step, cut in enumerate(found) if cut is not None] == [10]
    assert found[10] == {("baker", "miller", 1), ("baker", "miller", 0)}


def test_an_edge_is_known_by_its_roles_not_by_its_numbers() -> None:
    swapped = Drawn(0.2, 0.9, 0.3, 0.05, 0.3, agents=AGENTS[::-1])
    pruner = Pruner(0.2, 20)
    watched(pruner, 11, Drawn(0.9, 0.2, 0.05, 0.3, 0.3), swapped)
    assert pruner.seen["baker", "miller", 0] == (pytest.approx(12 * 0.05), 12)
    assert pruner.seen["miller", "decision maker", 0] == (pytest.approx(12 * 0.2), 12)


def test_what_is_as_likely_as_not_stays_whatever_the_rate() -> None:
    assert watched(Pruner(0.99, 20), 11, Drawn(0.9, 0.6, 0.5, 0.51, 0.4))[10] == {("baker", "miller", 1)}


def test_what_was_hardly_seen_is_not_judged() -> None:
    assert watched(Pruner(0.9, 8), 5, Drawn(0.1, 0.1, 0.1, 0.1, 0.1))[4] == frozenset()  # seen in steps 2 to 4


def test_without_a_rate_nothing_is_watched() -> None:
    pruner = Pruner(0.0, 20)
    assert watched(pruner, 20, Drawn(0.1, 0.1, 0.1, 0.1, 0.1)) == [None] * 20 and not pruner.seen


def test_it_is_the_same_after_json() -> None:
    import json

    pruner, again = Pruner(0.4, 20), Pruner(0.4, 20)
    watched(pruner, 8, Drawn(0.9, 0.2, 0.05, 0.3, 0.01))
    again.restore(json.loads(json.dumps(pruner.to_json())))
    assert again.seen == pruner.seen


@pytest.mark.parametrize("rate", [-0.1, 1.0, float("nan")])
def test_a_bad_rate_is_refused(rate: float) -> None:
    with pytest.raises(ConfigError, match="pruning_rate must be from 0"):
        Pruner(rate, 10)
