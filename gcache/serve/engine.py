"""The thread that a graph runs in, with an event loop of its own.

Forward passes run in the thread of the loop that asks for them, so they must not run in the loop that
answers HTTP. All questions share this one thread and loop, and therefore batches.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

logger = logging.getLogger(__name__)

T = TypeVar("T")
#: Seconds that the thread may take to end its runs.
ENDING_SECONDS = 10.0


class Stopped(RuntimeError):
    """A run was ended because the engine was stopped."""


def post(loop: asyncio.AbstractEventLoop, call: Callable[..., Any], *args: Any) -> None:
    """Call something in another thread's loop, if that is still there."""
    try:
        loop.call_soon_threadsafe(call, *args)
    except RuntimeError:  # the loop is closed: nobody is left to be told
        logger.debug("a call came after its loop had closed")


class Engine:
    """Runs coroutines in a thread of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._ending: asyncio.Task[None] | None = None
        self._thread = threading.Thread(target=self._serve, name="gcache-engine", daemon=True)

    @property
    def running(self) -> int:
        """How many coroutines are in it."""
        return len(self._tasks)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End all runs and the thread; what waits for them gets `Stopped`."""
        if self._thread.is_alive():
            post(self._loop, self._cancel_all)
            self._thread.join(ENDING_SECONDS)
        if self._thread.is_alive():
            logger.warning("the engine is still in a forward pass; it ends with the process")

    async def run(self, make: Callable[[], Coroutine[Any, Any, T]], ended: Callable[[], None] = lambda: None) -> T:
        """Run a coroutine in the engine's loop; whoever is cancelled here cancels it there.

        Args:
            make: makes the coroutine, in the engine's thread.
            ended: called in this loop once nothing of it is left in the engine, which may be after this call
                was cancelled.
        """
        here = asyncio.get_running_loop()
        outcome: asyncio.Future[T] = here.create_future()
        job = _Job(make)

        def settle() -> None:
            ended()
            if outcome.done():
                job.failure()  # fetched, so that nobody complains that it never was
            elif (error := job.failure()) is not None:
                outcome.set_exception(error)
            else:
                outcome.set_result(job.result())

        def begin() -> None:
            task = job.begin()
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            task.add_done_callback(lambda _: post(here, settle))

        self._loop.call_soon_threadsafe(begin)
        try:
            return await outcome
        except asyncio.CancelledError:
            post(self._loop, job.cancel)
            raise

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            self._loop.run_until_complete(_end_all())
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.close()

    def _cancel_all(self) -> None:
        for task in self._tasks:
            task.cancel()
        self._ending = asyncio.ensure_future(self._end(list(self._tasks)))

    async def _end(self, tasks: list[asyncio.Task[Any]]) -> None:
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)  # the outcomes are told first
        self._loop.stop()


async def _end_all() -> None:
    """Cancel what the runs left behind in this loop, such as the server of a model's queue."""
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)


class _Job:
    """A coroutine on its way through the engine."""

    def __init__(self, make: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        self._make = make
        self._task: asyncio.Task[Any] | None = None

    def begin(self) -> asyncio.Task[Any]:
        self._task = asyncio.ensure_future(self._started())
        return self._task

    async def _started(self) -> Any:
        return await self._make()

    def cancel(self) -> None:
        """In the engine's thread, where calls come in order: it has begun by now."""
        if self._task is not None:
            self._task.cancel()

    def failure(self) -> BaseException | None:
        assert self._task is not None
        return Stopped("the run was ended") if self._task.cancelled() else self._task.exception()

    def result(self) -> Any:
        assert self._task is not None
        return self._task.result()
