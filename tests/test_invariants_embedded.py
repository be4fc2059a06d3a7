"""The first three invariants on a model that means something: the embedded one, in fp32."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import torch
from test_invariants_cache import in_flight_at, some_tokens

from gcache.build import assemble
from gcache.config import GraphSpec
from gcache.graph.result import RunResult
from gcache.graph.run_config import GraphConfig
from gcache.llm.local import LocalLLM
from gcache.llm.requests import LogProbRequest, ThinkRequest
from gcache.tasks.split_facts import SplitFacts

pytestmark = [pytest.mark.embedded, pytest.mark.slow]


def graph_of(llm: LocalLLM, **config: Any) -> Any:
    spec = GraphSpec(domain="split_facts", encoder="hash", agent_probability=0.3, graph=GraphConfig(**config))
    return assemble(spec, llm, llm.tokenizer).graph


def test_concurrent_runs_equal_sequential_runs_in_the_embedded_model(embedded_llm: LocalLLM) -> None:
    graph = graph_of(embedded_llm, latent_steps=2, max_new_tokens=6)
    asked = SplitFacts().train(3, seed=5)

    async def together() -> list[RunResult]:
        return list(await asyncio.gather(*(graph.arun(e, sample=True, seed=i) for i, e in enumerate(asked))))

    for seed, (example, at_once) in enumerate(zip(asked, asyncio.run(together()), strict=True)):
        alone = graph.run(example, sample=True, seed=seed)
        assert at_once.topology == alone.topology
        assert at_once.answer == alone.answer
        assert at_once.text_log_prob == pytest.approx(alone.text_log_prob, abs=1e-3)


@pytest.mark.parametrize("n", [7, 150])
def test_shifting_equals_computing_later_in_the_embedded_model(embedded_llm: LocalLLM, n: int) -> None:
    """Relative to the largest key: they reach 50 here, against 5 in the tiny models."""
    tokens = some_tokens(embedded_llm, 6)
    cache = embedded_llm.think([ThinkRequest(tokens, latent_steps=2)])[0]
    keys, values = in_flight_at(embedded_llm, tokens, first=n, steps=2)
    scale = float(keys.abs().max())
    moved = cache.shift(n, embedded_llm.rope)
    torch.testing.assert_close(moved.keys / scale, keys / scale, atol=1e-4, rtol=0)
    torch.testing.assert_close(moved.values, values, atol=1e-3, rtol=0)
    assert float((cache.keys - keys).abs().max()) > 1.0


def test_permuting_predecessors_changes_nothing_in_the_embedded_model(embedded_llm: LocalLLM) -> None:
    graph = graph_of(embedded_llm, latent_steps=0, max_new_tokens=6)
    (example,) = SplitFacts().train(1, seed=6)
    (shared,) = embedded_llm.think([ThinkRequest(graph.layout.question(example.question))])
    past = graph.models[0].fuse(shared, [], {})
    own = [graph.layout.agent(note.text, False, example.question) for note in example.notes]
    words = [ThinkRequest(tokens, past, owner=i) for i, tokens in enumerate(own)]
    notes = embedded_llm.think(words)
    weights = {(i, 5): torch.tensor(0.2 + 0.1 * i) for i in range(5)}
    orders = ([0, 1, 2, 3, 4], [4, 2, 0, 3, 1], [1, 0, 4, 3, 2])
    fused = [graph.models[0].fuse(shared, [(notes[i], (i, 5)) for i in order], weights) for order in orders]
    completion = embedded_llm.tokenizer(" 481").input_ids
    asked = graph.decision_tokens(example.question)
    scores = embedded_llm.log_prob([LogProbRequest(asked, tuple(completion), f) for f in fused])
    for score in scores[1:]:
        torch.testing.assert_close(score, scores[0], atol=1e-4, rtol=0)
