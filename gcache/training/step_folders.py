"""The step folders of a training run: found, put in place, and let go.

A folder is whole or not there. One that is replaced stands aside as ``.old-step-*`` between the two renames, and is
read there where a kill came between them.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gcache.errors import CheckpointError
from gcache.files import sync_folder

logger = logging.getLogger(__name__)

RECORD = "checkpoint.json"
POINTER = "latest"
#: How a folder is called while it is written, and where it stands aside.
WRITING, ASIDE = ".writing-", ".old-"
_STEP = re.compile(r"step-([0-9]{6,})")


def name_of(step: int) -> str:
    """A step's folder."""
    return f"step-{step:06d}"


def step_of(name: str) -> int | None:
    """The inverse of `name_of`, also of a folder that stands aside; None for any other name."""
    found = _STEP.fullmatch(name.removeprefix(ASIDE))
    step = None if found is None else int(found[1])
    return step if step is not None and name.removeprefix(ASIDE) == name_of(step) else None


def has_checkpoint(out: Path) -> bool:
    """Whether a training run left a checkpoint in this folder, be it broken.

    Raises:
        CheckpointError: the folder cannot be read.
    """
    root = out / "checkpoints"
    with _reading(out):
        return os.path.lexists(root / POINTER) or bool(_whole(root))


def find(path: Path) -> Path:
    """The folder of a checkpoint: its own, or the latest of the --out folder of a training run.

    Raises:
        CheckpointError: there is none, or `latest` does not say which.
    """
    root = path / "checkpoints"
    with _reading(path):
        if (path / RECORD).is_file():
            return path
        if os.path.lexists(root / POINTER):
            return _named(root)
        whole = _whole(root)
    if not whole:
        raise CheckpointError(
            f"no checkpoint in {str(path)!r}; pass the --out folder of a `gcache train` run, or one of its "
            "checkpoints/step-* folders"
        )
    newest = root / name_of(max(whole))
    logger.warning("%s is missing; taken for the latest checkpoint: %s", root / POINTER, newest.name)
    return newest


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CheckpointError(
            f"{str(path)[:200]!r} cannot be read ({error.strerror}); pass the --out folder of a `gcache train` run"
        ) from error


def _named(root: Path) -> Path:
    """The folder that `latest` names."""
    pointer = root / POINTER
    there = ", ".join(name_of(step) for step in _whole(root)) or "no whole checkpoint"
    way_out = f"write the name of a folder beside it into it (there: {there})"
    try:
        name = pointer.read_bytes().decode("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{pointer} cannot be read ({type(error).__name__}: {error}); {way_out}") from error
    if step_of(name) is None or name.startswith(ASIDE):
        raise CheckpointError(
            f"{pointer} must name a folder beside it, such as {name_of(10)}, got {name[:80]!r}; {way_out}"
        )
    for folder in (root / name, root / f"{ASIDE}{name}"):
        if (folder / RECORD).is_file():
            return folder
    raise CheckpointError(f"{pointer} names {name}, which is not there or has no {RECORD}; {way_out}")


def _whole(root: Path) -> list[int]:
    """The steps that have a checkpoint, in order."""
    if not root.is_dir():
        return []
    steps = {step_of(child.name): child for child in root.iterdir() if not child.name.startswith(ASIDE)}
    return sorted(step for step, child in steps.items() if step is not None and (child / RECORD).is_file())


def put(temporary: Path, folder: Path) -> None:
    """Move a folder that was written whole to its place, whatever is there."""
    root = folder.parent
    if os.path.lexists(folder):
        aside = root / f"{ASIDE}{folder.name}"
        _remove(aside)
        os.replace(folder, aside)
        try:
            os.replace(temporary, folder)
        except BaseException:
            os.replace(aside, folder)
            raise
    else:
        os.replace(temporary, folder)
    sync_folder(root)


def tidy(root: Path, step: int, keep: int) -> None:
    """Remove the checkpoints before a step, all but the last `keep` with its own, and what kills left behind.

    Those after it stay: somebody went back to an earlier one.
    """
    before = [each for each in _whole(root) if each < step]
    for each in before[: max(0, len(before) - (keep - 1))]:
        aside = root / f"{ASIDE}{name_of(each)}"
        _remove(aside)
        os.replace(root / name_of(each), aside)
    for child in root.iterdir():
        if child.name.startswith((WRITING, ASIDE, f".{POINTER}.")):
            _remove(child)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
