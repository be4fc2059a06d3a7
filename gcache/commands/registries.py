"""`gcache tasks`, `fusers`, `links`, `topologies` and `methods`: what there is by name, plug-ins included."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from importlib import import_module

from gcache.runtime.registry import Registry

#: Command -> the module and the name of its registry.
REGISTRIES: Mapping[str, tuple[str, str]] = {
    "tasks": ("gcache.tasks.registry", "TASKS"),
    "fusers": ("gcache.cache.fusers.registry", "FUSERS"),
    "links": ("gcache.links.registry", "LINKS"),
    "topologies": ("gcache.gnn.topologies", "TOPOLOGIES"),
    "methods": ("gcache.evaluation.methods", "METHODS"),
}
EXAMPLES = """examples:
  gcache {name}
  gcache {name} --json
A class of your own is named as path/to/file.py:ClassName, or by a package with an entry point in
the group gcache.{name}; docs/extending.md shows both.
"""


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Those of the command that the parser is of."""
    name = parser.prog.split()[-1]
    parser.epilog = EXAMPLES.format(name=name)
    parser.set_defaults(command=partial(_list, name))
    parser.add_argument("--json", action="store_true", help="print a JSON list of name, text, origin and usable")


def _list(name: str, args: argparse.Namespace) -> int:
    module, attribute = REGISTRIES[name]
    registry: Registry[object] = getattr(import_module(module), attribute)
    rows = registry.listed()
    if args.json:
        print(json.dumps([asdict(row) for row in rows], indent=1, ensure_ascii=False))
        return 0
    names, origins = (max(map(len, column)) for column in zip(*((row.name, row.origin) for row in rows), strict=True))
    for row in rows:
        print(f"{row.name:{names}}  {row.origin:{origins}}  {row.text}".rstrip())
    return 0
