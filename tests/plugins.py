"""Plug-ins as a stranger has them: the files of docs/extending.md, and packages with entry points."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from gcache.cache.fusers.registry import FUSERS
from gcache.evaluation.methods import METHODS
from gcache.gnn.topologies import TOPOLOGIES
from gcache.links.registry import LINKS
from gcache.runtime import plugin_files, registry
from gcache.tasks.registry import TASKS

PAGE = Path(__file__).parents[1] / "docs" / "extending.md"
REGISTRIES = {"tasks": TASKS, "fusers": FUSERS, "links": LINKS, "topologies": TOPOLOGIES, "methods": METHODS}
#: A task whose answers of a random model are now right and now wrong, so that there is something to learn.
PARITY = '''"""A task: right is any answer of an even number of characters."""

from gcache.tasks.example import Example, Grade


class Parity:
    """Questions that take an answer of even length."""

    name, domain, max_new_tokens = "parity", "maths", 3

    def train(self, limit=None, seed=0):
        return [Example(f"parity-{n}", f"what is {n} + 3 ?", "") for n in range(8)][:limit]

    test = train

    def grade(self, text, example):
        return Grade("right" if len(text) % 2 == 0 else "wrong", text)
'''


def documented() -> dict[str, str]:
    """File name -> text, of the files that docs/extending.md shows."""
    blocks: list[str] = re.findall(r"```(?:python|toml)\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    return {block.splitlines()[0].removeprefix("# "): block for block in blocks}


def write_files(folder: Path) -> Path:
    """All that is documented, and the task `PARITY`."""
    for name, text in {**documented(), "parity.py": PARITY}.items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def forget() -> None:
    """As in a new process: no file was run or allowed, and no package was looked for."""
    plugin_files._run.clear()
    plugin_files._allowed.clear()
    registry._entry_points.cache_clear()
    registry._warn_of_shadow.cache_clear()
    for each in REGISTRIES.values():
        each._made.clear()


@pytest.fixture
def fresh() -> Iterator[None]:
    """A process in which nothing was named, and that names nothing for the tests after it."""
    forget()
    yield
    forget()


def install(
    folder: Path, name: str, points: Mapping[str, Mapping[str, str]], files: Mapping[str, str] | None = None
) -> None:
    """A package as pip leaves it: what its metadata say, and its modules.

    Args:
        points: group -> name -> what is there.
        files: name -> text, of its modules.
    """
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    text = "".join(
        f"[{group}]\n" + "".join(f"{point} = {value}\n" for point, value in named.items())
        for group, named in points.items()
    )
    (info / "entry_points.txt").write_text(text)
    for file, content in (files or {}).items():
        (folder / file).write_text(content)
