"""Files of learned parts between models: safetensors, whose header says what they are and whether they are whole."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from gcache.errors import DataError
from gcache.files import write_bytes
from gcache.llm.load.fingerprint import tensors_hash
from gcache.llm.load.tensor_file import BROKEN, SEAL, read_tensor_file

FORMAT = 1


def write_sealed(path: Path, key: str, header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Write a file in one step.

    Args:
        key: under which the header stands in the file.
    """
    flat = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    said = {"format": FORMAT, **header}
    write_bytes(path, save(flat, {key: json.dumps(said), SEAL: _seal(said, flat)}))


def read_sealed(path: Path, key: str, what: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the header of a file of `write_sealed`, or of an older one, which does not say if it is whole.

    Args:
        what: how an error calls it.

    Raises:
        DataError: it is broken, of another format, or not what was written.
    """
    try:
        tensors, kept = read_tensor_file(path)
        header = json.loads(kept[key])
        if not isinstance(header, dict):
            raise TypeError(f"its header is a {type(header).__name__}")
        if header["format"] != FORMAT:
            raise DataError(f"{what} {path} has format {header['format']}, not {FORMAT}; make it anew")
    except DataError:
        raise
    except BROKEN as error:
        why = f"{type(error).__name__}: {error}".splitlines()[0]
        raise DataError(f"{what} {path} cannot be read ({why}); make it anew") from error
    if kept.keys() - {key, SEAL} or kept.get(SEAL, "") not in ("", _seal(header, tensors)):
        raise DataError(f"{what} {path} is not what was written; take a whole copy, or make it anew")
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise DataError(f"{what} {path} cannot be used: {name} is not finite; make it anew")
    return tensors, header


def is_there(path: Path) -> bool:
    """Whether a path is a file's; False also of what can be no path."""
    return os.path.isfile(path)


def _seal(header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    return tensors_hash(tensors, json.dumps(header, sort_keys=True))
