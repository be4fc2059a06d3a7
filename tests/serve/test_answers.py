"""What is told while a request is worked on, and what is not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from gcache.serve.answers import AskGraph
from gcache.serve.completing import AskModel
from gcache.serve.deltas import Delta, SamplingParams
from gcache.serve.model import ServedModel
from gcache.tasks.example import Example

DRAW = SamplingParams(max_tokens=12, temperature=0.8, seed=3)


def graph_ask(stream: bool, trace: bool = False) -> AskGraph:
    return AskGraph(Example("q", "what is 3 + 2 ?", ""), DRAW, 200, trace, stream)


def model_ask(stream: bool) -> AskModel:
    return AskModel(("what is 3 + 2 ?",), DRAW, stream=stream)


@pytest.fixture
def work(toy: Callable[..., Any]) -> Callable[[Any], tuple[Any, list[Delta]]]:
    served = ServedModel.of(toy(), "toy")

    def run(ask: Any) -> tuple[Any, list[Delta]]:
        told: list[Delta] = []
        return asyncio.run(ask(served, told.append)), told

    return run


@pytest.mark.parametrize("ask", [graph_ask, model_ask])
def test_a_text_that_nobody_reads_yet_is_not_told_piece_by_piece(work: Any, ask: Any) -> None:
    whole, few = work(ask(stream=False))
    streamed, many = work(ask(stream=True))
    assert whole == streamed and whole.written > 2
    assert few == [Delta()]
    assert "".join(told.text for told in many) == whole.text and len(many) > 3


def test_a_trace_without_a_stream_has_its_events_and_no_text(work: Any) -> None:
    answer, told = work(graph_ask(stream=False, trace=True))
    kinds = [one.event["kind"] for one in told if one.event]
    assert kinds[0] == "topology" and kinds[-1] == "done" and "step" in kinds
    assert not any(one.text for one in told) and answer.trace is not None
