from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

import pytest

from gcache.cache.kv_cache import KVCache
from gcache.llm.requests import GenerateRequest, Generation, ThinkRequest
from gcache.llm.scheduler import BatchingLLM

if TYPE_CHECKING:
    from conftest import ScriptedLLM

BAD = 13


def thought(number: int) -> ThinkRequest:
    return ThinkRequest((number,), owner=number)


def text(number: int) -> GenerateRequest:
    return GenerateRequest((number,))


def numbers(batches: Sequence[Sequence[ThinkRequest | GenerateRequest]]) -> list[list[int]]:
    return [[request.tokens[0] for request in batch] for batch in batches]


async def at_once(call: Callable[[Any], Awaitable[Any]], requests: Sequence[Any]) -> list[Any]:
    return list(await asyncio.gather(*(call(request) for request in requests), return_exceptions=True))


def test_concurrent_callers_are_batched_into_one_call(scripted_llm: ScriptedLLM) -> None:
    batching = BatchingLLM(scripted_llm)
    asyncio.run(at_once(batching.think, [thought(n) for n in (3, 1, 2)]))
    assert numbers(scripted_llm.thoughts) == [[3, 1, 2]]


def test_every_caller_gets_its_own_result(scripted_llm: ScriptedLLM) -> None:
    scripted_llm.write = lambda request: f"text {request.tokens[0]}"
    batching = BatchingLLM(scripted_llm)

    async def both() -> tuple[list[KVCache], list[Generation]]:
        return await asyncio.gather(
            at_once(batching.think, [thought(n) for n in (5, 4, 6)]),
            at_once(batching.generate, [text(n) for n in (9, 8)]),
        )

    caches, texts = asyncio.run(both())
    assert [int(cache.owners[0, 0]) for cache in caches] == [5, 4, 6]
    assert [generation.text for generation in texts] == ["text 9", "text 8"]


def test_a_caller_that_comes_a_few_turns_later_joins_the_batch(scripted_llm: ScriptedLLM) -> None:
    batching = BatchingLLM(scripted_llm, patience=4)

    async def late(turns: int) -> None:
        for _ in range(turns):
            await asyncio.sleep(0)
        await batching.think(thought(turns))

    async def together(*turns: int) -> None:
        await asyncio.gather(*(late(n) for n in turns))

    asyncio.run(together(0, 3, 6))  # each new request starts the wait again
    asyncio.run(together(0, 30))
    assert numbers(scripted_llm.thoughts) == [[0, 3, 6], [0], [30]]


def test_callers_that_wait_for_one_another_go_in_turn(scripted_llm: ScriptedLLM) -> None:
    batching = BatchingLLM(scripted_llm)

    async def chain(first: int) -> None:
        for step in range(3):
            await batching.think(thought(first + step))
        await batching.generate(text(first))

    async def together() -> None:
        await asyncio.gather(chain(10), chain(20))

    asyncio.run(together())
    assert numbers(scripted_llm.thoughts) == [[10, 20], [11, 21], [12, 22]]
    assert numbers(scripted_llm.texts) == [[10, 20]]


def test_texts_wait_until_no_thought_is_asked_for(scripted_llm: ScriptedLLM) -> None:
    order: list[str] = []

    def note(request: ThinkRequest | GenerateRequest) -> bool:
        order.append(type(request).__name__)
        return False

    scripted_llm.breaks_on = note
    batching = BatchingLLM(scripted_llm)

    async def short(number: int) -> None:
        await batching.generate(text(number))

    async def long(number: int) -> None:
        await batching.think(thought(number))
        await batching.think(thought(number))
        await batching.generate(text(number))

    async def together() -> None:
        await asyncio.gather(short(1), long(2))

    asyncio.run(together())
    assert numbers(scripted_llm.texts) == [[1, 2]]
    assert order == ["ThinkRequest", "ThinkRequest", "GenerateRequest", "GenerateRequest"]


@pytest.mark.parametrize("requests", [[1, BAD, 2], [BAD, 1], [BAD, BAD, 1], [BAD]])
def test_a_failing_request_fails_alone(scripted_llm: ScriptedLLM, requests: list[int]) -> None:
    scripted_llm.breaks_on = lambda request: request.tokens[0] == BAD
    batching = BatchingLLM(scripted_llm)
    results = asyncio.run(at_once(batching.think, [thought(n) for n in requests]))
    for number, result in zip(requests, results, strict=True):
        if number == BAD:
            assert isinstance(result, RuntimeError) and str(result) == "the model broke"
        else:
            assert isinstance(result, KVCache) and int(result.owners[0, 0]) == number
    again = asyncio.run(at_once(batching.think, [thought(3)]))
    assert isinstance(again[0], KVCache)


def test_a_call_that_returns_too_few_results_raises_and_does_not_hang(scripted_llm: ScriptedLLM) -> None:
    class Forgetful:
        generate = scripted_llm.generate

        def think(self, requests: Sequence[ThinkRequest]) -> list[KVCache]:
            return scripted_llm.think(requests)[:-1]

    async def two() -> list[Any]:
        batching = BatchingLLM(Forgetful())
        return await asyncio.wait_for(at_once(batching.think, [thought(1), thought(2)]), timeout=2)

    results = asyncio.run(two())
    assert isinstance(results[1], Exception)


def test_a_caller_that_gave_up_is_not_computed(scripted_llm: ScriptedLLM) -> None:
    batching = BatchingLLM(scripted_llm)

    async def one_gives_up() -> KVCache:
        waiting = [asyncio.create_task(batching.think(thought(n))) for n in (1, 2)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        return await waiting[1]

    assert int(asyncio.run(one_gives_up()).owners[0, 0]) == 2
    assert numbers(scripted_llm.thoughts) == [[2]]


def test_the_same_callers_are_batched_the_same_way_every_time(scripted_llm: ScriptedLLM) -> None:
    async def walk(batching: BatchingLLM, number: int) -> None:
        for _ in range(number % 3):
            await batching.think(thought(number))
            for _ in range(number):
                await asyncio.sleep(0)
        await batching.generate(text(number))

    async def together() -> None:
        batching = BatchingLLM(scripted_llm)
        await asyncio.gather(*(walk(batching, number) for number in range(12)))

    seen = []
    for _ in range(5):
        scripted_llm.thoughts.clear()
        scripted_llm.texts.clear()
        asyncio.run(together())
        seen.append((numbers(scripted_llm.thoughts), numbers(scripted_llm.texts)))
    assert seen == [seen[0]] * 5
    assert len(seen[0][0]) > 1


def test_one_front_serves_several_event_loops_one_after_another(scripted_llm: ScriptedLLM) -> None:
    batching = BatchingLLM(scripted_llm)
    for number in range(3):
        asyncio.run(at_once(batching.think, [thought(number), thought(10 + number)]))
    assert numbers(scripted_llm.thoughts) == [[0, 10], [1, 11], [2, 12]]


def test_requests_of_a_loop_that_was_left_early_do_not_reach_the_next(scripted_llm: ScriptedLLM) -> None:
    batching = BatchingLLM(scripted_llm)

    async def leave() -> None:
        abandoned = asyncio.create_task(batching.think(thought(1)))
        await asyncio.sleep(0)
        assert not abandoned.done()

    asyncio.run(leave())
    assert scripted_llm.thoughts == []
    results = asyncio.run(asyncio.wait_for(at_once(batching.think, [thought(2)]), timeout=10))
    assert numbers(scripted_llm.thoughts) == [[2]]
    assert isinstance(results[0], KVCache)
