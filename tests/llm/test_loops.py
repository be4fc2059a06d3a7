"""Event loops in one thread or in many: each gets what it gets alone, and none is kept."""

from __future__ import annotations

import asyncio
import gc
import random
import threading
import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from threads import at_once

from gcache.cache.fused_cache import FusedCache
from gcache.cache.kv_cache import KVCache
from gcache.llm.cache_budget import GB, CacheLedger
from gcache.llm.local import LocalLLM
from gcache.llm.requests import GenerateRequest, Generation, LogProbRequest, ThinkRequest
from gcache.llm.scheduler import BatchingLLM

if TYPE_CHECKING:
    from conftest import ScriptedLLM

CALLS = {ThinkRequest: "think", GenerateRequest: "generate", LogProbRequest: "log_prob"}


def requests(llm: LocalLLM, seed: int) -> list[Any]:
    """Nine of all kinds and lengths, some of them on a past."""
    rng = random.Random(seed)

    def words(count: int) -> tuple[int, ...]:
        return tuple(rng.randrange(3, 64) for _ in range(count))

    past = FusedCache.plain(llm.think([ThinkRequest(words(7), latent_steps=1)])[0])
    made: list[Any] = []
    for number in range(3):
        made.append(ThinkRequest(words(2 + 5 * number), past if number % 2 else None, latent_steps=number))
        made.append(GenerateRequest(words(3 + number), past, 4 + 9 * number, temperature=number / 2, seed=seed))
        made.append(LogProbRequest(words(2), words(1 + number), past))
    return made


async def answers(front: BatchingLLM, asked: list[Any]) -> list[Any]:
    return list(await asyncio.gather(*(getattr(front, CALLS[type(request)])(request) for request in asked)))


def assert_equal(one: Any, other: Any) -> None:
    """To the bit: the loop of a thread batches what it batches alone."""
    if isinstance(one, KVCache):
        assert torch.equal(one.keys, other.keys) and torch.equal(one.values, other.values)
    elif isinstance(one, Generation):
        assert one == other
    else:
        assert torch.equal(one, other)


@pytest.mark.parametrize("slots", [None, 40])
def test_threads_that_share_a_front_get_what_each_gets_alone(tiny_llm: LocalLLM, slots: int | None) -> None:
    tiny_llm.stop_tokens = frozenset()
    asked = [requests(tiny_llm, seed) for seed in range(6)]
    alone = [asyncio.run(answers(BatchingLLM(tiny_llm), each)) for each in asked]
    limits = replace(tiny_llm.limits, max_cache_gb=None if slots is None else slots * tiny_llm.slot_bytes / GB)
    llm = LocalLLM(tiny_llm.model, tiny_llm.tokenizer, "shared", limits)
    llm.stop_tokens = frozenset()
    front, second = BatchingLLM(llm), BatchingLLM(llm)  # two graphs around one model have a front each

    def ask(number: int) -> Callable[[], list[Any]]:
        return lambda: asyncio.run(answers(second if number % 3 == 2 else front, asked[number]))

    for found, expected in zip(at_once([ask(number) for number in range(6)]), alone, strict=True):
        assert isinstance(found, list), found
        for one, other in zip(found, expected, strict=True):
            if slots is None:
                assert_equal(one, other)
            elif isinstance(one, Generation):  # what fits depends on what others hold, and sums on what fits
                assert (one.tokens, one.text, one.finished) == (other.tokens, other.text, other.finished)
    del found, one, other
    gc.collect()
    assert llm.ledger.used == 0, "something is kept"


def test_a_second_loop_leaves_the_first_ones_requests_alone(tiny_llm: LocalLLM) -> None:
    """Two loops in turns in one thread: what two threads do, one step at a time."""
    front = BatchingLLM(tiny_llm)
    request = GenerateRequest((5, 9, 4), max_new_tokens=9)
    (expected,) = tiny_llm.generate([request])
    first, second = asyncio.new_event_loop(), asyncio.new_event_loop()

    async def begin() -> asyncio.Task[Generation]:
        task = asyncio.ensure_future(front.generate(request))
        await asyncio.sleep(0)
        return task

    try:
        waiting = first.run_until_complete(begin())
        assert second.run_until_complete(asyncio.wait_for(front.generate(request), 10)) == expected
        assert first.run_until_complete(asyncio.wait_for(waiting, 10)) == expected
    finally:
        first.close()
        second.close()


def test_a_model_is_in_one_thread_at_a_time(scripted_llm: ScriptedLLM) -> None:
    inside, most = 0, 0
    lock = threading.Lock()

    def busy(request: Any) -> bool:
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        threading.Event().wait(0.002)
        with lock:
            inside -= 1
        return False

    scripted_llm.breaks_on = busy
    front = BatchingLLM(scripted_llm)
    asked = [ThinkRequest((3,)), GenerateRequest((4,))]

    def ask() -> int:
        return sum(len(asyncio.run(answers(front, asked))) for _ in range(5))

    assert at_once([ask] * 4) == [10] * 4
    assert most == 1


def test_loops_that_have_ended_are_forgotten(tiny_llm: LocalLLM) -> None:
    front = BatchingLLM(tiny_llm)
    loops: list[weakref.ref[Any]] = []

    async def ask() -> None:
        loops.append(weakref.ref(asyncio.get_running_loop()))
        await answers(front, requests(tiny_llm, 0))

    for _ in range(5):
        asyncio.run(ask())
    gc.collect()
    assert [loop() for loop in loops] == [None] * 5
    assert len(front._loops) == 0


def test_a_ledger_counts_in_all_threads() -> None:
    ledger = CacheLedger(10**9)

    def cache(slots: int) -> KVCache:
        index = torch.arange(slots)[None]
        block = torch.zeros(1, 1, 1, slots, 2)
        return KVCache(block, block, index, torch.ones_like(index).bool(), index, index, index)

    def hold() -> None:
        for number in range(300):
            held = cache(1 + number % 5)
            ledger.hold(held)
            ledger.most_that_fit(3, lambda count: count)
            del held

    assert at_once([hold] * 4) == [None] * 4
    gc.collect()
    assert ledger.held == 0
