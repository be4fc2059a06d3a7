"""What stands for the content of a model's weights, so that two models can be told apart, or be found to be one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError, safe_open

from gcache.llm.load.gguf import file_sha256, gguf_sha256
from gcache.llm.load.locate import ModelSource, resolve

if TYPE_CHECKING:
    from torch import Tensor

#: Bytes that are read at the beginning and in the middle of each tensor of a folder's weights.
_SAMPLE_BYTES = 4096


def fingerprint(source: ModelSource, commit: str | None) -> str:
    """``gguf:<sha256>``, ``hub:<id>@<commit>`` or ``weights:<hash>`` of a folder.

    Of a folder's weights a part of every tensor is read: all of 15 GB would take too long, and a model that was
    trained on from another may share whole megabytes with it.
    """
    if source.kind == "hub":
        return f"hub:{source.location}@{commit or 'unknown'}"
    if source.kind == "gguf":
        return f"gguf:{gguf_sha256(Path(source.location))}"
    return f"weights:{_folder(Path(source.location))}"


def every_byte(name: str) -> str:
    """A hash of all files in a model's folder: its weights, tokenizer and settings. "" where the model is no folder:
    there its fingerprint is of all.

    Seconds for a small model, and about one per GB.
    """
    source = resolve(name)
    if source.kind != "folder":
        return ""
    digest = hashlib.sha256()
    for path in sorted(Path(source.location).iterdir()):
        if path.is_file() and not path.name.startswith("."):
            digest.update(f"{path.name} {file_sha256(path)}\n".encode())
    return digest.hexdigest()


def quantized(mark: str, quantization: str) -> str:
    """The fingerprint of a model that is quantized on loading: its weights are others then."""
    return mark if quantization == "none" else f"{mark}/{quantization}"


def tensors_hash(tensors: Mapping[str, Tensor], said: str = "") -> str:
    """SHA-256 of tensors with their names, types and shapes, and of what else is said."""
    import torch

    digest = hashlib.sha256(f"{said}\n".encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def comparable(mark: str) -> bool:
    """Whether a fingerprint is of a kind that is still made: one of a folder once was not told from that of a model
    trained on from it."""
    return not any(part.startswith("folder:") for part in mark.split("+"))


def _folder(folder: Path) -> str:
    digest = hashlib.sha256((folder / "config.json").read_bytes())
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, framework="pt"):  # checks the header
                pass
        except SafetensorError:  # the model was loaded, so this file is no part of it
            continue
        with path.open("rb") as file:
            start = int.from_bytes(file.read(8), "little")
            tensors = json.loads(file.read(start))
            for name in sorted(tensors.keys() - {"__metadata__"}):
                tensor = tensors[name]
                begin, end = tensor["data_offsets"]
                digest.update(f"{name} {tensor['dtype']} {tensor['shape']}\n".encode())
                for at in (begin, (begin + end) // 2):
                    file.seek(8 + start + at)
                    digest.update(file.read(min(_SAMPLE_BYTES, end - at)))
    return digest.hexdigest()
