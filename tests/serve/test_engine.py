"""Runs in the engine's thread, asked for from another loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from gcache.serve.engine import Engine, Stopped


@pytest.fixture
def engine() -> Iterator[Engine]:
    made = Engine()
    made.start()
    yield made
    made.stop()


async def test_a_run_is_in_another_thread_and_its_result_comes_back(engine: Engine) -> None:
    async def where() -> str:
        return threading.current_thread().name

    assert await engine.run(where) == "gcache-engine" != threading.current_thread().name


async def test_an_error_comes_back_as_it_was(engine: Engine) -> None:
    async def fails() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await engine.run(fails)


async def test_who_is_cancelled_here_is_cancelled_there_and_ends_once(engine: Engine) -> None:
    began, cancelled = threading.Event(), threading.Event()
    ended = asyncio.Event()
    ends: list[int] = []

    async def forever() -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    def end() -> None:
        ends.append(engine.running)
        ended.set()

    asking = asyncio.create_task(engine.run(forever, end))
    await asyncio.to_thread(began.wait, 10)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await asyncio.wait_for(ended.wait(), 10)
    assert cancelled.is_set() and ends == [0]


async def test_cancelled_at_once_it_still_ends(engine: Engine) -> None:
    ended = asyncio.Event()

    async def quick() -> int:
        return 1

    asking = asyncio.create_task(engine.run(quick, ended.set))
    await asyncio.sleep(0)
    asking.cancel()
    await asyncio.wait_for(ended.wait(), 10)


async def test_runs_go_on_side_by_side(engine: Engine) -> None:
    met = {"here": 0}

    async def meets() -> int:
        met["here"] += 1
        while met["here"] < 2:
            await asyncio.sleep(0)
        return met["here"]

    assert await asyncio.gather(engine.run(meets), engine.run(meets)) == [2, 2]


async def test_a_stopped_engine_tells_who_waits() -> None:
    engine = Engine()
    engine.start()
    began = threading.Event()

    async def forever() -> None:
        began.set()
        await asyncio.Event().wait()

    asking = asyncio.create_task(engine.run(forever))
    await asyncio.to_thread(began.wait, 10)
    await asyncio.to_thread(engine.stop)
    with pytest.raises(Stopped):
        await asking
