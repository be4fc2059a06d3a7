"""Safetensors files as we write them: tensors, and words in the header beside them."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

#: Under which a file keeps the hash of its content.
SEAL = "sha256"
#: What reading a damaged file may raise.
BROKEN = (OSError, ValueError, KeyError, TypeError, RecursionError, SafetensorError)


def read_tensor_file(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a file, and the words in its header.

    Raises:
        One of `BROKEN`: it is not there, or no such file.
    """
    content = path.read_bytes()
    tensors = load(content)
    end = 8 + int.from_bytes(content[:8], "little")
    return tensors, json.loads(content[8:end]).get("__metadata__") or {}
