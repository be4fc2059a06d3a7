"""What the rollouts of one question share."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Hashable
from typing import Any

from gcache.graph.loops import cancel_all

#: The question's cache of the decision maker's model, in a memo.
QUESTION = ("question", 0)


class RolloutMemo:
    """What the rollouts of one question have in common, computed once.

    A thought is known by everything it depends on: its agent, its round, and the thoughts and
    weights that came in. Rollouts that share a `RolloutMemo` must share the question, its agents and
    the graph. What is known is known in every event loop; what is being made is made in each loop that asks.
    """

    def __init__(self) -> None:
        self._known: dict[Hashable, _Outcome] = {}
        self._making: dict[tuple[asyncio.AbstractEventLoop, Hashable], _Making] = {}
        self._names: dict[Hashable, int] = {}
        self._numbers = itertools.count()

    def name(self, inputs: Hashable) -> int:
        """A short name for what a thought depends on, the same for the same inputs."""
        return self._names.setdefault(inputs, next(self._numbers))

    async def once(self, key: Hashable, make: Callable[[], Awaitable[Any]]) -> tuple[Any, bool]:
        """The value behind a key, and whether this call had to make it.

        Runs that are cancelled do not cancel what others wait for; what nobody waits for any more is given up.
        """
        if key in self._known:
            return self._known[key].get(), False
        place = (asyncio.get_running_loop(), key)
        fresh = place not in self._making
        if fresh:
            self._making[place] = _Making(asyncio.ensure_future(make()))
        making = self._making[place]
        making.waiting += 1
        try:
            await asyncio.wait((making.task,))
        finally:
            making.waiting -= 1
            if self._making.get(place) is making and (making.task.done() or not making.waiting):
                del self._making[place]
                self._made(key, making.task)
        return self._known[key].get() if key in self._known else making.task.result(), fresh

    def _made(self, key: Hashable, task: asyncio.Future[Any]) -> None:
        """Remember what came of a task, or end it where nothing has."""
        if not task.done():
            cancel_all((task,))
        elif not task.cancelled():
            self._known.setdefault(key, _Outcome(task))


class QuestionMemo(RolloutMemo):
    """What runs of one question share that differ in topology and fuser: the question as it was read, and no thought.

    For agents that all think with one model.
    """

    async def once(self, key: Hashable, make: Callable[[], Awaitable[Any]]) -> tuple[Any, bool]:
        """See `RolloutMemo.once`; what is not the question is made anew each time."""
        return await super().once(key, make) if key == QUESTION else (await make(), True)


class _Making:
    """A value on its way, and how many wait for it."""

    def __init__(self, task: asyncio.Future[Any]) -> None:
        self.task = task
        self.waiting = 0


class _Outcome:
    """What came of a task, without its loop."""

    def __init__(self, task: asyncio.Future[Any]) -> None:
        self.error = task.exception()
        self.at = None if self.error is None else self.error.__traceback__
        self.value = task.result() if self.error is None else None

    def get(self) -> Any:
        """The value. Raises what went wrong."""
        if self.error is not None:
            raise self.error.with_traceback(self.at)
        return self.value
