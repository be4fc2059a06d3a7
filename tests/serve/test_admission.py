"""The bounded queue."""

from __future__ import annotations

import asyncio

import pytest

from gcache.serve.admission import AdmissionQueue
from gcache.serve.refusals import Refused


async def waiters(places: AdmissionQueue, count: int) -> list[asyncio.Task[None]]:
    tasks = [asyncio.create_task(places.take()) for _ in range(count)]
    await asyncio.sleep(0)
    return tasks


async def test_places_are_handed_on_in_the_order_of_arrival() -> None:
    places = AdmissionQueue(1, 2)
    await places.take()
    first, second = await waiters(places, 2)
    assert (places.running, places.waiting) == (1, 2)
    places.give_back()
    await first
    assert not second.done() and (places.running, places.waiting) == (1, 1)
    places.give_back()
    await second
    places.give_back()
    assert (places.running, places.waiting) == (0, 0)


async def test_past_the_limit_it_says_when_to_come_back() -> None:
    places = AdmissionQueue(1, 1)
    await places.take()
    (waiting,) = await waiters(places, 1)
    with pytest.raises(Refused) as refused:
        await places.take()
    assert refused.value.status == 429 and int(refused.value.headers["Retry-After"]) >= 1
    assert places.refused == 1
    waiting.cancel()


async def test_a_newcomer_does_not_overtake() -> None:
    places = AdmissionQueue(1, 2)
    await places.take()
    (waiting,) = await waiters(places, 1)
    places.give_back()  # passed on to who waits, who has not run yet
    (late,) = await waiters(places, 1)
    assert waiting.done() and not late.done()
    late.cancel()


async def test_who_gives_up_leaves_the_queue() -> None:
    places = AdmissionQueue(1, 2)
    await places.take()
    first, second = await waiters(places, 2)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    assert places.waiting == 1
    places.give_back()
    await second
    assert places.running == 1


async def test_a_place_that_came_as_its_taker_went_is_passed_on() -> None:
    places = AdmissionQueue(1, 2)
    await places.take()
    first, second = await waiters(places, 2)
    places.give_back()  # to the first
    first.cancel()  # before it can take it
    await asyncio.gather(first, return_exceptions=True)
    await second
    places.give_back()
    assert (places.running, places.waiting) == (0, 0)


async def test_slow_runs_make_it_ask_for_more_patience() -> None:
    places = AdmissionQueue(1, 1)
    before = places.retry_after
    for _ in range(20):
        await places.take()
        places.give_back(30.0)
    assert before < places.retry_after <= 60
