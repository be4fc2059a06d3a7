"""Prompt embeddings as they come from strangers: base64 of a saved tensor.

A saved tensor is a zip archive with a pickle in it. What comes is not loaded as it came. The archive is read here,
its pickle is looked through without being run and may name nothing but a tensor and its storage, and only then
an archive of the very bytes that were looked at is loaded, as weights alone. The storage must be exactly as long as
its bytes: a pickle can claim more, and what it claims would be read from beyond them.
"""

from __future__ import annotations

import io
import pickletools
import zipfile

import torch
from torch import Tensor

from gcache.serve.refusals import Refused

#: What the pickle of one dense tensor names, as (module, name).
NAMES = {
    ("collections", "OrderedDict"),
    ("torch._utils", "_rebuild_tensor_v2"),
    *(("torch", f"{kind}Storage") for kind in ("Float", "Double", "Half", "BFloat16")),
}
#: Opcodes that name something to import, beside GLOBAL; no saved tensor has them.
FOREIGN = {"STACK_GLOBAL", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "BUILD", "EXT1", "EXT2", "EXT4", "PERSID"}
DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
#: Entries of the archive, and bytes of its pickle, at most.
MOST_ENTRIES, MOST_PICKLE = 16, 4096


def decoded(raw: bytes, width: int, most: int, dtype: torch.dtype) -> Tensor:
    """(S, E) embeddings in the model's dtype, a copy of their own.

    Args:
        raw: a tensor as `torch.save` writes it.
        width: E, the model's.
        most: rows.

    Raises:
        Refused: anything but a dense, finite float tensor of this width.
    """
    archive, size = _checked(raw)
    try:
        tensor = torch.load(io.BytesIO(archive), weights_only=True, map_location="cpu")
    except Exception as error:  # whatever its reader says of bytes that are no tensor
        raise _refused(f"it cannot be loaded as a tensor ({type(error).__name__})") from error
    if type(tensor) is not Tensor or tensor.layout is not torch.strided or tensor.dtype not in DTYPES:
        raise _refused("it must be one dense tensor of float32, float64, float16 or bfloat16")
    if tensor.dim() != 2 or tensor.shape[1] != width or not 1 <= tensor.shape[0] <= most:
        raise _refused(f"its shape must be (1 to {most}, {width}), got {tuple(tensor.shape)}")
    if tensor.untyped_storage().nbytes() != size or tensor.numel() * tensor.element_size() != size:
        raise _refused("its storage must hold the tensor and nothing else; save a contiguous copy of its own")
    if tensor.storage_offset() or not tensor.is_contiguous():
        raise _refused("it must be contiguous; save tensor.contiguous().clone()")
    own = tensor.detach().clone().to(dtype)
    if not bool(torch.isfinite(own).all()):
        raise _refused(f"it has values that are not finite in the model's {str(dtype).removeprefix('torch.')}")
    return own


def _checked(raw: bytes) -> tuple[bytes, int]:
    """An archive of the entries that were looked at, and the bytes of the one storage among them."""
    try:
        with zipfile.ZipFile(io.BytesIO(raw)) as came:
            entries = came.infolist()
            if len(entries) > MOST_ENTRIES or sum(entry.file_size for entry in entries) > len(raw):
                raise _refused("its archive holds more than one tensor")
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
                raise _refused("its archive is compressed")
            read = {entry.filename.partition("/")[2]: came.read(entry) for entry in entries}
    except (zipfile.BadZipFile, EOFError, OSError, NotImplementedError, RuntimeError, ValueError) as error:
        raise _refused(f"it is not what torch.save writes ({type(error).__name__})") from error
    pickled, storage = read.get("data.pkl", b""), read.get("data/0")
    if storage is None or [name for name in read if name.startswith("data/")] != ["data/0"]:
        raise _refused("its archive must hold one storage")
    if read.get("byteorder", b"little") != b"little":
        raise _refused("its byte order must be little")
    _look_through(pickled)
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_STORED) as archive:
        kept = {"data.pkl": pickled, "byteorder": b"little", "data/0": storage, "version": b"3\n"}
        for name, content in kept.items():
            archive.writestr(f"archive/{name}", content)
    return made.getvalue(), len(storage)


def _look_through(pickled: bytes) -> None:
    """Refuse a pickle that names anything but a tensor; nothing of it is run."""
    if not 0 < len(pickled) <= MOST_PICKLE:
        raise _refused("it holds more than one tensor")
    try:
        opcodes = [(opcode.name, argument) for opcode, argument, _ in pickletools.genops(pickled)]
    except Exception as error:  # whatever the reader stumbles over
        raise _refused("its pickle is broken") from error
    for name, argument in opcodes:
        known = name == "GLOBAL" and tuple(str(argument).split(" ", 1)) in NAMES
        if name in FOREIGN or (name == "GLOBAL" and not known):
            raise _refused("its pickle names more than a tensor")


def _refused(why: str) -> Refused:
    return Refused(400, f"prompt_embeds is refused: {why}", "prompt_embeds")
