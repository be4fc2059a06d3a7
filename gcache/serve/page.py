"""The page that the service shows at its root: ask a question, watch the agents, read the answer."""

from __future__ import annotations

from gcache.inspect.page import template


def page() -> str:
    """The whole page as HTML. It loads nothing from elsewhere, and talks to the server that it came from alone."""
    return template("gcache.serve")
