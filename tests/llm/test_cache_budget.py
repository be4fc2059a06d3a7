"""The limit of cache bytes: what gives way, in which order, and that answers stay the same."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest
import torch
from exact import CLOSE_IN_DOUBLE, double
from toy import QUESTIONS, toy_built

from gcache.cache.fused_cache import FusedCache
from gcache.cache.kv_cache import KVCache
from gcache.errors import ConfigError, GcacheError
from gcache.graph.hand_over import edge_weights
from gcache.graph.result import RunResult
from gcache.graph.run_config import GraphConfig
from gcache.llm.cache_budget import GB, CacheLedger, Limits
from gcache.llm.local import LocalLLM
from gcache.llm.requests import GenerateRequest, ThinkRequest
from gcache.training.replay import Replay, log_probs


def cache(slots: int) -> KVCache:
    """Of 16 bytes a slot."""
    index = torch.arange(slots)[None]
    block = torch.zeros(1, 1, 1, slots, 2)
    return KVCache(block, block, index, torch.ones_like(index).bool(), index, index, index)


class Finished:
    def __init__(self, size: int) -> None:
        self.size = size
        self.held = cache(size // 16)

    def release(self) -> int:
        freed, self.size = self.size, 0
        del self.held
        return freed


@pytest.mark.parametrize(
    ("bad", "named"),
    [
        ({"max_batch_size": 0}, "max_batch_size must be 1 or more, got 0"),
        ({"max_batch_tokens": -1}, "max_batch_tokens must be 1 or more, got -1"),
        ({"max_gradient_tokens": 0}, "max_gradient_tokens must be 1 or more, got 0"),
        ({"max_cache_gb": 0.0}, "max_cache_gb must be a finite number above 0, got 0"),
        ({"max_cache_gb": float("nan")}, "max_cache_gb must be a finite number above 0, got nan"),
    ],
)
def test_impossible_limits_are_refused(bad: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        Limits(**bad)


def test_a_cache_counts_until_nobody_holds_it() -> None:
    ledger = CacheLedger()
    first, second = cache(3), cache(5)
    ledger.hold(first)
    ledger.hold(second)
    assert ledger.held == ledger.used == 8 * 16
    alias = first
    del first
    assert ledger.held == 8 * 16
    del alias
    gc.collect()
    assert ledger.held == 5 * 16


def test_without_a_limit_everything_fits_and_nothing_is_noted() -> None:
    ledger = CacheLedger()
    assert ledger.most_that_fit(7, lambda n: n * GB) == 7
    assert ledger.peak == 7 * GB and not ledger.events


def test_finished_runs_give_way_first_then_the_batch() -> None:
    ledger = CacheLedger(limit=1000)
    runs = [Finished(160), Finished(320)]
    for run in runs:
        ledger.hold(run.held)
        ledger.finished(run)
    assert ledger.used == 480
    assert ledger.most_that_fit(5, lambda n: 100 * n) == 5  # 980 in all
    assert ledger.most_that_fit(6, lambda n: 100 * n) == 6  # the older run goes, and that is enough
    assert [run.size for run in runs] == [0, 320] and ledger.used == 320
    assert ledger.most_that_fit(16, lambda n: 100 * n) == 8
    assert [run.size for run in runs] == [0, 0] and ledger.used == 0
    assert [event.what for event in ledger.events] == ["released", "released", "cut"]
    assert "a batch of 16 was cut to 8" in ledger.events[-1].text and "max_cache_gb" in ledger.events[-1].text


def test_one_request_always_runs_and_joining_a_running_batch_may_wait() -> None:
    ledger = CacheLedger(limit=100)
    assert ledger.most_that_fit(4, lambda n: 1000 * n) == 1
    assert [event.what for event in ledger.events] == ["over"]
    assert ledger.most_that_fit(4, lambda n: 1000 * n, free=True) == 0


def test_a_long_life_keeps_the_last_events_and_no_run_that_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gcache.llm.cache_budget.EVENTS_KEPT", 3)
    ledger = CacheLedger(limit=100)
    for size in range(101, 106):
        before = ledger.noted
        ledger.most_that_fit(1, lambda n, size=size: size * n * GB)  # type: ignore[misc]
        assert [event.what for event in ledger.events_since(before)] == ["over"]
        assert ledger.events_since(ledger.noted) == []
        ledger.finished(Finished(1))  # nobody else holds it
    assert ledger.noted == 5 and len(ledger.events_since(0)) == len(ledger.events) == 3
    assert len(ledger._finished) == 1


def limited(llm: LocalLLM, slots: int) -> LocalLLM:
    """The same model with room for so many slots."""
    made = LocalLLM(llm.model, llm.tokenizer, llm.label, Limits(max_cache_gb=(slots * llm.slot_bytes + 1) / GB))
    made.stop_tokens = llm.stop_tokens
    return made


@pytest.mark.parametrize("slots", [1, 60, 200])
def test_answers_do_not_depend_on_the_limit(tiny_llm: LocalLLM, slots: int) -> None:
    llm = double(tiny_llm)
    llm.stop_tokens = frozenset(range(6))
    little = limited(llm, slots)
    past = FusedCache.plain(llm.think([ThinkRequest((5, 9, 8, 7))])[0])
    thoughts = [ThinkRequest(tuple(range(3, 6 + n)), past, latent_steps=2) for n in range(9)]
    for one, other in zip(llm.think(thoughts), little.think(thoughts), strict=True):
        torch.testing.assert_close(one.keys, other.keys, atol=CLOSE_IN_DOUBLE, rtol=0)
    texts = [GenerateRequest(tuple(range(3, 6 + n)), past, max_new_tokens=10) for n in range(9)]
    assert [g.tokens for g in little.generate(texts)] == [g.tokens for g in llm.generate(texts)]
    assert little.ledger.events and {event.what for event in little.ledger.events} <= {"cut", "over"}


@pytest.mark.parametrize("latent_steps", [0, 2])
def test_a_graph_stays_under_its_limit_and_its_trace_says_what_gave_way(
    tiny_llm: LocalLLM, tiny_tokenizer: Any, latent_steps: int
) -> None:
    config = GraphConfig(latent_steps=latent_steps, max_new_tokens=6)
    free = toy_built(tiny_llm, tiny_tokenizer, graph=config, topology="full").graph
    expected = free.run_all(free_questions(), keep_caches=True)
    everything = tiny_llm.ledger.peak
    llm = LocalLLM(tiny_llm.model, tiny_llm.tokenizer, tiny_llm.label, Limits(max_cache_gb=everything / 3 / GB))
    graph = toy_built(llm, tiny_tokenizer, graph=config, topology="full").graph
    results = graph.run_all(free_questions(), max_concurrent=2, keep_caches=True)
    assert [r.answer for r in results] == [r.answer for r in expected]
    assert 0 < llm.ledger.peak <= everything / 3 + 1
    assert any(r.kept.released for r in results) and not results[-1].kept.released
    notes = [step.note for r in results for step in r.trace if step.what == "memory"]
    assert any("released" in note for note in notes)
    gone = next(r for r in results if r.kept.released)
    with pytest.raises(GcacheError, match="under max_cache_gb"):
        _ = gone.caches


def free_questions() -> list[Any]:
    return [*QUESTIONS, *QUESTIONS[::-1]]


@pytest.mark.parametrize("gradient", ["decision", "full"])
@pytest.mark.parametrize("transfer", ["own", "latent", "context"])
def test_a_run_whose_caches_were_released_is_learned_from_all_the_same(
    tiny_llm: LocalLLM, tiny_tokenizer: Any, gradient: str, transfer: str
) -> None:
    config = GraphConfig(latent_steps=2, max_new_tokens=4, transfer=transfer, num_rounds=2)
    graph = toy_built(tiny_llm, tiny_tokenizer, graph=config, topology="full").graph

    def asked() -> list[RunResult]:
        return [graph.run(question, temperature=1.0, seed=3) for question in QUESTIONS[:3]]

    def gradients(results: list[RunResult]) -> list[torch.Tensor]:
        leaves = [
            {(e.source, e.target): torch.tensor(0.7, requires_grad=True) for e in r.topology.edges} for r in results
        ]
        replays = [Replay(r, weights) for r, weights in zip(results, leaves, strict=True)]
        graph.fuser.zero_grad()
        torch.stack(log_probs(graph, tiny_llm, replays, gradient)).sum().backward()
        of_edges = [w.grad if w.grad is not None else torch.zeros(()) for ws in leaves for w in ws.values()]
        return [torch.stack(of_edges), *(p.grad.clone() for p in graph.fuser.parameters() if p.grad is not None)]

    whole, released = asked(), asked()
    for result in (released[0], released[2]):
        assert result.kept.release() > 0
    for kept, again in zip(gradients(whole), gradients(released), strict=True):
        assert float((again - kept).norm()) <= 1e-3 * float(kept.norm()) + 1e-6


def test_caches_that_are_needed_stay_while_others_are_thought_again(tiny_llm: LocalLLM, tiny_tokenizer: Any) -> None:
    """What is thought again takes room, and what gives way first are the caches of finished runs."""
    llm = LocalLLM(tiny_llm.model, tiny_llm.tokenizer, tiny_llm.label, Limits(max_cache_gb=1))
    config = GraphConfig(latent_steps=2, max_new_tokens=4)
    graph = toy_built(llm, tiny_tokenizer, graph=config, topology="full").graph
    results = [graph.run(question, temperature=1.0, seed=3) for question in QUESTIONS[:3]]
    assert results[0].kept.release() > 0
    llm.ledger.limit = llm.ledger.used + 1
    replays = [Replay(result, edge_weights(result.topology)) for result in results]
    for again, result in zip(log_probs(graph, llm, replays), results, strict=True):
        assert float(again) == pytest.approx(result.text_log_prob, abs=1e-3)
    assert any(event.what == "released" for event in llm.ledger.events)


def test_caches_go_as_soon_as_nobody_reads_them(tiny_llm: LocalLLM, tiny_tokenizer: Any) -> None:
    """What is not kept is not there while the text is written."""
    config = GraphConfig(latent_steps=1, max_new_tokens=30)
    graph = toy_built(tiny_llm, tiny_tokenizer, graph=config, topology="full").graph
    tiny_llm.stop_tokens = frozenset()
    held: list[int] = []

    async def watched() -> RunResult:
        running = asyncio.create_task(graph.arun(QUESTIONS[0], keep_caches=False))
        while not running.done():
            await asyncio.sleep(0)
            held.append(tiny_llm.ledger.held)
        return await running

    result = asyncio.run(watched())
    assert max(held) > 0 and held[-1] == 0
    assert held.count(0) > 25, "while the text is written, only the batch holds slots"
    assert result.kept.released and result.edge_bytes
    with pytest.raises(GcacheError, match="keep_caches=False"):
        _ = result.shared
