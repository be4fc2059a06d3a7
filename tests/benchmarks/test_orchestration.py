"""What costs nothing must still be a graph: every agent is called, every edge is there."""

from __future__ import annotations

import pytest

from benchmarks.orchestration import Load, cost, measure


@pytest.mark.parametrize(("topology", "edges"), [("star", 3), ("chain", 3), ("full", 6)])
def test_calls_and_edges(topology: str, edges: int) -> None:
    found = cost(topology, agents=3, in_flight=4, repeats=2)
    assert found.calls == 4 * (1 + 3 + 1)  # the question, three agents, the answer
    assert found.edges == edges
    assert len(found.total_ms) == len(found.ratio) == 2
    assert all(ms > 0 for ms in (*found.total_ms, *found.bare_call_ms))


def test_growth() -> None:
    measured = measure(1, Load(in_flight=3, agents=2, growth_in_flight=2, growth=(2, 3)))
    assert [row["agents"] for row in measured["in_flight"]] == [2, 2, 2]
    assert [row["agents"] for row in measured["growth"]] == [2, 3] * 3
