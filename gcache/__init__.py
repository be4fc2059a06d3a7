"""gcache: language-model agents that answer together by handing each other their KV caches.

>>> from gcache import make_graph
>>> graph = make_graph("smollm2", topology="chain")            # doctest: +SKIP
>>> graph.run("What is 17 * 6?").answer                        # doctest: +SKIP
"""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"
__all__ = ["CacheGraph", "load_graph", "make_graph", "make_task"]


def __getattr__(name: str) -> Any:
    """The names of `__all__`, imported when they are first used: torch takes seconds."""
    if name == "CacheGraph":
        from gcache.graph.cache_graph import CacheGraph

        return CacheGraph
    if name in ("load_graph", "make_graph"):
        from gcache import session

        return getattr(session, name)
    if name == "make_task":
        from gcache.tasks.registry import make_task

        return make_task
    raise AttributeError(f"module 'gcache' has no attribute {name!r}")
