"""The names of what `gcache inspect` writes; apart from the writing, since the command line knows them before torch."""

from __future__ import annotations

#: "table" goes to the terminal, the others are files.
FORMATS = ("table", "json", "png", "svg", "html", "graphml", "mermaid", "dot", "history", "gif", "curves")
