"""Files that say whether they are what was written: a checkpoint's record and its tensors.

A seal is the SHA-256 of a file's content, kept in the file itself: under "sha256" in a record, and in the header of a
safetensors file. It finds what a bad disk or a broken copy did, which shapes and types cannot. A file without a seal
(of an older version, or written by hand) is checked by shapes and types alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor

from gcache.errors import CheckpointError
from gcache.llm.load.fingerprint import tensors_hash
from gcache.llm.load.tensor_file import BROKEN, SEAL, read_tensor_file


def sealed(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record with its seal."""
    return {**record, SEAL: _of_record(record)}


def unsealed(record: Any, what: str) -> dict[str, Any]:
    """A JSON object without its seal, which is checked where there is one.

    Args:
        what: the file, as an error calls it.

    Raises:
        CheckpointError: it is no object, or not the one that was sealed.
    """
    if not isinstance(record, dict):
        raise CheckpointError(f"{what} must be a JSON object, got {type(record).__name__}")
    rest = {name: value for name, value in record.items() if name != SEAL}
    if SEAL in record and record[SEAL] != _of_record(rest):
        raise CheckpointError(
            f"{what} is not what was written: its {SEAL} does not fit; take a whole copy, or, if you edited it, leave "
            f"out its {SEAL}"
        )
    return rest


def read_json(path: Path) -> tuple[Any, str]:
    """The value of a JSON file, and its text.

    Raises:
        CheckpointError: it cannot be read, or is not JSON in UTF-8.
    """
    try:
        text = path.read_bytes().decode("utf-8")
        return json.loads(text), text
    except BROKEN as error:
        raise _unreadable(path, error) from error


def tensor_file(tensors: Mapping[str, Tensor], step: int) -> bytes:
    """A sealed safetensors file of a step."""
    return save(dict(tensors), {SEAL: tensors_hash(tensors, str(step))})


def read_tensors(path: Path, step: int) -> dict[str, Tensor]:
    """The tensors of a file of `tensor_file`, or of one without a seal.

    Raises:
        CheckpointError: it cannot be read, or is not what was written at this step.
    """
    try:
        tensors, said = read_tensor_file(path)
    except BROKEN as error:
        raise _unreadable(path, error) from error
    if said.keys() - {SEAL, "format"}:
        raise CheckpointError(f"{path} has a header of {', '.join(sorted(said))}, not {SEAL}; take a whole copy")
    if SEAL in said and said[SEAL] != tensors_hash(tensors, str(step)):
        raise CheckpointError(
            f"{path} is not what was written after step {step}: its {SEAL} does not fit; take a whole copy, or name "
            "another checkpoint"
        )
    return tensors


def _of_record(record: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def _unreadable(path: Path, error: Exception) -> CheckpointError:
    lines = str(error).splitlines()
    return CheckpointError(
        f"{path} cannot be read ({type(error).__name__}: {lines[0] if lines else ''}); take a whole copy, train again, "
        "or name another checkpoint"
    )
