"""gcache: language-model agents that answer together by handing each other their KV caches.

Examples:
    >>> from gcache import make_graph
    >>> graph = make_graph("smollm2", topology="chain")            # doctest: +SKIP
    >>> graph.run("What is 17 * 6?").answer                        # doctest: +SKIP
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gcache.build import make_graph
    from gcache.graph.cache_graph import CacheGraph
    from gcache.graph.run_config import GraphConfig
    from gcache.runtime.plugin_files import allow_plugins
    from gcache.tasks.registry import make_task
    from gcache.training.checkpoint import load_graph

__version__ = "0.1.0"
__all__ = ["CacheGraph", "GraphConfig", "__version__", "allow_plugins", "load_graph", "make_graph", "make_task"]

#: Where the names of the package are from; each is imported when it is first used, since torch takes seconds.
_FROM = {
    "CacheGraph": "gcache.graph.cache_graph",
    "GraphConfig": "gcache.graph.run_config",
    "allow_plugins": "gcache.runtime.plugin_files",
    "load_graph": "gcache.training.checkpoint",
    "make_graph": "gcache.build",
    "make_task": "gcache.tasks.registry",
}


def __getattr__(name: str) -> Any:
    if name not in _FROM:
        raise AttributeError(f"module 'gcache' has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(_FROM[name]), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_FROM})
