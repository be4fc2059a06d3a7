"""What checkpoint.json says, checked before anything is made of it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gcache.config import GraphSpec
from gcache.errors import CheckpointError, ConfigError, PluginError
from gcache.gnn.providers import RoleEdge
from gcache.runtime.numbers import is_number, is_whole
from gcache.training.sealed import read_json, unsealed
from gcache.training.step_folders import RECORD, step_of

logger = logging.getLogger(__name__)

FORMAT = 1


@dataclass(frozen=True)
class Record:
    """Everything of a checkpoint but its tensors; the fields of `gcache.training.checkpoint.Checkpoint`.

    Attributes:
        plugins: name, as it was given -> SHA-256, of each plug-in that is a file.
    """

    step: int
    spec: GraphSpec
    task: dict[str, Any]
    training: dict[str, Any]
    running: float
    pruned: tuple[RoleEdge, ...]
    watched: list[Any]
    fingerprint: str
    moments: frozenset[str] | None
    plugins: dict[str, str]


def read_record(folder: Path) -> Record:
    """A step folder's record.

    Raises:
        CheckpointError: it cannot be read, or a field is missing or is not what it has to be.
        PluginError: it names a plug-in that cannot be used, or must not be run.
    """
    path = folder / RECORD
    record, text = read_json(path)
    if not isinstance(record, dict):
        raise CheckpointError(f"{path} must be a JSON object, got {type(record).__name__}; take a whole copy")
    if record.get("format") != FORMAT:
        raise CheckpointError(
            f"{path} has format {record.get('format')!r}, this version reads {FORMAT}; read it with the one that wrote "
            "it, or train again"
        )
    found = {name: _checked(path, record, name) for name in _FIELDS}
    unknown = record.keys() - _FIELDS.keys() - {"format", "sha256"}
    if unknown:
        raise CheckpointError(
            f"{path} has fields that this version does not know: {', '.join(sorted(unknown))}; take a whole copy, or "
            "read it with the version that wrote it"
        )
    if "\n" in text.strip():
        unsealed(record, str(path))
    else:  # a bad disk breaks no layout, so this was a program's edit
        logger.warning("%s was written anew, on one line, so it is not checked to be what training wrote", path)
    step, named = found["step"], step_of(folder.name)
    if named not in (None, step):
        raise CheckpointError(f"{path} is of step {step}, but its folder is {folder.name}; take a whole copy")
    iterations = found["training"].get("iterations", step)
    if isinstance(iterations, int) and step > iterations:
        raise CheckpointError(f"{path} is of step {step}, but its training has {iterations} steps; take a whole copy")
    try:
        spec = GraphSpec.from_json(found["graph"])
    except PluginError:  # nothing is wrong with the checkpoint
        raise
    except (ConfigError, ValueError) as error:
        raise CheckpointError(f"{path}: graph: {error}; take a whole copy, or name another checkpoint") from error
    return Record(
        step, spec, found["task"], found["training"], float(found["running_utility"]),
        tuple((source, target, delay) for source, target, delay in found["pruned"]), found["watched_edges"],
        found["model_fingerprint"], None if found["moments"] is None else frozenset(found["moments"]),
        found["plugins"],
    )  # fmt: skip


def _is_count(value: Any) -> bool:
    return is_whole(value) and value >= 0


def _is_edge(row: Any, more: int) -> bool:
    """[source, target, delay], and so much more."""
    ends = isinstance(row, list) and len(row) == 3 + more and all(isinstance(end, str) for end in row[:2])
    return ends and _is_count(row[2])


def _is_watched(row: Any) -> bool:
    return _is_edge(row, 2) and is_number(row[3]) and _is_count(row[4])


def _is_list(value: Any, each: Callable[[Any], bool]) -> bool:
    return isinstance(value, list) and all(map(each, value))


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


#: Of each field: whether a value is allowed, what is allowed in words, and what a record of an older version means.
_FIELDS: Mapping[str, tuple[Callable[[Any], bool], str, Any]] = {
    "step": (_is_count, "a whole number of 0 or more", ...),
    "graph": (_is_object, "an object", ...),
    "task": (_is_object, "an object", ...),
    "training": (_is_object, "an object", ...),
    "running_utility": (is_number, "a finite number", 0.0),
    "pruned": (
        lambda rows: _is_list(rows, lambda row: _is_edge(row, 0)), "a list of [source, target, delay]", [],
    ),
    "watched_edges": (
        lambda rows: _is_list(rows, _is_watched), "a list of [source, target, delay, total, count]", [],
    ),
    "model_fingerprint": (_is_text, "a text", ...),
    "plugins": (
        lambda names: _is_object(names) and all(map(_is_text, names.values())), "an object of names and SHA-256", {},
    ),
    "moments": (lambda names: names is None or _is_list(names, _is_text), "a list of names", None),
}  # fmt: skip


def _checked(path: Path, record: Mapping[str, Any], name: str) -> Any:
    allowed, words, otherwise = _FIELDS[name]
    value = record.get(name, otherwise)
    if value is ...:
        raise CheckpointError(f"{path} lacks {name}; take a whole copy, or name another checkpoint")
    if not allowed(value):
        raise CheckpointError(f"{path}: {name} must be {words}, got {repr(value)[:200]}; take a whole copy")
    return value
