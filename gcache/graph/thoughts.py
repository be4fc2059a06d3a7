"""What the rollouts of one question share."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Any


class Thoughts:
    """What the rollouts of one question have in common, computed once.

    A thought is known by everything it depends on: its agent, its round, and the thoughts and
    weights that came in. Rollouts that share a `Thoughts` must share the question, its agents and
    the graph.
    """

    def __init__(self) -> None:
        self._known: dict[Hashable, asyncio.Future[Any]] = {}
        self._names: dict[Hashable, int] = {}

    def name(self, inputs: Hashable) -> int:
        """A short name for what a thought depends on, the same for the same inputs."""
        return self._names.setdefault(inputs, len(self._names))

    async def once(self, key: Hashable, make: Callable[[], Awaitable[Any]]) -> tuple[Any, bool]:
        """The value behind a key, and whether this call had to make it."""
        fresh = key not in self._known
        if fresh:
            self._known[key] = asyncio.ensure_future(make())
        # shielded: a run that is cancelled must not cancel what others wait for
        return await asyncio.shield(self._known[key]), fresh
