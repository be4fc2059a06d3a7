"""Rooms import only the rooms below them."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "gcache"
LOWEST = {"cache", "tasks"}
THINKING = {"gnn", "agents", "llm"}
#: Room -> rooms it may import, besides itself. those of `FOR_ALL` are for all.
BELOW: dict[str, set[str]] = {
    "cache": set(),
    "tasks": set(),
    "gnn": LOWEST,
    "agents": LOWEST,
    "llm": LOWEST | {"agents"},
    "links": LOWEST | THINKING,
    "graph": LOWEST | THINKING | {"links"},
    "methods": LOWEST | THINKING | {"links", "graph"},
    "inspect": LOWEST | THINKING | {"links", "graph", "methods"},
    "training": LOWEST | THINKING | {"links", "graph", "methods", "inspect", "build"},
    "serve": LOWEST | THINKING | {"links", "graph", "methods", "inspect", "training", "build", "session", "flags"},
}
FOR_ALL = {"chat_template", "streams", "errors", "files", "processors", "settings", "statistics"}


def imported_rooms(file: Path) -> set[str]:
    """Second words of all `gcache.x` imports, those inside functions included."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            top = node.module == "gcache"  # from gcache import x
            names.update(f"gcache.{alias.name}" if top else node.module for alias in node.names)
        elif isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
    return {name.split(".")[1] for name in names if name.startswith("gcache.")}


@pytest.mark.parametrize("room", sorted(BELOW))
def test_a_room_imports_only_what_is_below_it(room: str) -> None:
    files = sorted((PACKAGE / room).glob("*.py"))
    assert files
    for file in files:
        wrong = imported_rooms(file) - BELOW[room] - FOR_ALL - {room}
        assert not wrong, f"{file.name} imports {sorted(wrong)}"


def test_every_room_is_known() -> None:
    assert {path.parent.name for path in PACKAGE.glob("*/__init__.py")} == set(BELOW)
