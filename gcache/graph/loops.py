"""Event loops for code that has none."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, TypeVar

from gcache.errors import LoopError

T = TypeVar("T")


def run_to_end(make: Callable[[], Coroutine[Any, Any, T]], name: str, instead: str) -> T:
    """The result of a coroutine, run in an event loop of its own.

    Args:
        make: makes the coroutine.
        name: of the function that is called.
        instead: what to write where an event loop runs already.

    Raises:
        LoopError: an event loop runs in this thread.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:  # there is none
        return asyncio.run(make())
    raise LoopError(
        f"{name} starts an event loop of its own, but one runs in this thread already (as in a notebook or a server); "
        f"write `{instead}`"
    )


def cancel_all(futures: Iterable[asyncio.Future[Any]]) -> None:
    """Cancel what is not done. Of a loop that was closed nothing goes on, and nothing can be cancelled: what waited in
    it ends when nobody holds it any more."""
    for future in futures:
        if not future.get_loop().is_closed():
            future.cancel()
