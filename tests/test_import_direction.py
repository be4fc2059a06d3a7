"""Imports go down only, file by file: rooms import what is below them, and no files import each other in a circle."""

from __future__ import annotations

import ast
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "gcache"
#: The rooms and the modules at the top, from the lowest on. Those of one level may import each other.
LEVELS = (
    ("errors", "files"), ("runtime", "environment"), ("cache", "tasks"), ("agents", "llm"), ("gnn",), ("links",),
    ("graph",), ("config",), ("build",), ("evaluation",), ("inspect",), ("training",), ("serve",), ("commands",),
)  # fmt: skip
LEVEL = {room: number for number, rooms in enumerate(LEVELS) for room in rooms}
MOST_AT_THE_TOP = 6

Imports = Mapping[str, frozenset[str]]


def imports_of(package: Path) -> Imports:
    """Dotted name of each module -> those it imports, inside functions and for type checkers alone included."""
    files = {_name(file, package): file for file in package.rglob("*.py")}
    return {name: frozenset(_imported(file, files.keys(), package)) - {name} for name, file in files.items()}


def _name(file: Path, package: Path) -> str:
    parts = file.relative_to(package.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imported(file: Path, known: object, package: Path) -> Iterator[str]:
    assert hasattr(known, "__contains__")
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            above = _name(file, package).split(".")
            above = above if file.name == "__init__.py" else above[:-1]  # the package that a leading dot stands for
            before = above[: len(above) - node.level + 1] if node.level else []
            module = ".".join([*before, *filter(None, [node.module])])
            for alias in node.names:
                inner = f"{module}.{alias.name}"
                yield from {inner if inner in known else module} & set(known)  # type: ignore[call-overload]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            yield from (a.value for a in node.args if isinstance(a, ast.Constant) and a.value in known)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)


def upwards(imports: Imports) -> list[str]:
    """Imports of a room that is above."""
    return [
        f"{name} imports {other}"
        for name, others in imports.items()
        for other in others
        if "." in name and "." in other and LEVEL[other.split(".")[1]] > LEVEL[name.split(".")[1]]
    ]


def circles(imports: Imports) -> list[str]:
    """Modules that come back to themselves."""
    found = []
    for name in imports:
        reached: set[str] = set()
        frontier = set(imports[name])
        while frontier:
            reached |= frontier
            frontier = {further for other in frontier for further in imports[other]} - reached
        if name in reached:
            found.append(name)
    return sorted(found)


def test_rooms_import_only_what_is_below_them() -> None:
    assert not upwards(imports_of(PACKAGE))


def test_no_files_import_each_other_in_a_circle() -> None:
    assert not circles(imports_of(PACKAGE))


def test_every_room_has_its_level() -> None:
    rooms = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    modules = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__"}
    assert rooms | modules == set(LEVEL)
    assert len(modules) < MOST_AT_THE_TOP  # and __init__ itself


@pytest.mark.parametrize(
    ("planted", "where", "seen"),
    [
        ("from gcache.graph.run import Run", "cache/rope.py", (upwards, circles)),
        ("def late():\n    from gcache.commands import main", "build.py", (upwards, circles)),
        ("if TYPE_CHECKING:\n    from gcache.graph.cache_graph import CacheGraph", "graph/run.py", (circles,)),
        ("import gcache.gnn.topology", "gnn/svg.py", (circles,)),
        ("from .run import Run", "graph/begin.py", (circles,)),
        ("from . import run", "graph/begin.py", (circles,)),
        ("from ..commands import main", "cache/rope.py", (upwards, circles)),
        ("import importlib\nimportlib.import_module('gcache.commands.main')", "cache/rope.py", (upwards, circles)),
    ],
)
def test_what_is_planted_is_found(tmp_path: Path, planted: str, where: str, seen: tuple[object, ...]) -> None:
    copy = tmp_path / "gcache"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    with (copy / where).open("a", encoding="utf-8") as file:
        file.write(f"\n{planted}\n")
    imports = imports_of(copy)
    for check in (upwards, circles):
        assert bool(check(imports)) == (check in seen), check.__name__
