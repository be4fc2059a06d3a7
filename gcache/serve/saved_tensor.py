"""A tensor that `torch.save` wrote, read without running anything of it.

A saved tensor is bytes of numbers and a pickle that says how they lie. A pickle is a program: it is not run here, by
no unpickler. Its opcodes are read one by one into plain records, of which only those of one dense tensor are known,
and the tensor is laid over the bytes that came, within their bounds, by this module's own code.

    archive     (since torch 1.6) a zip of data.pkl, data/KEY, byteorder and more
    old format  five pickles in a row (magic number, version, the writer's machine, tensor, keys of the storages),
                then the count and the bytes of each storage
"""

from __future__ import annotations

import io
import math
import pickletools
import zipfile
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

#: Names of storages -> what they hold, all of floating point.
STORAGES = {
    "torch FloatStorage": torch.float32, "torch DoubleStorage": torch.float64, "torch HalfStorage": torch.float16,
    "torch BFloat16Storage": torch.bfloat16,
}  # fmt: skip
#: Likewise for tensors whose storage is of bytes, and which name their dtype.
DTYPES = {f"torch {name}": getattr(torch, name) for name in ("float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz",
          "float8_e5m2fnuz")}  # fmt: skip
WITH_STORAGE, WITH_BYTES = "torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_tensor_v3"
PARAMETER = "torch._utils _rebuild_parameter"
#: Of the old format.
MAGIC, VERSION = 0x1950A86A20F9469CFC6C, 1001
#: Entries of an archive, bytes of its pickle and opcodes of any pickle, at most.
MOST_ENTRIES, MOST_PICKLE, MOST_OPCODES = 16, 4096, 512
PUSHED = {"GLOBAL", "BININT", "BININT1", "BININT2", "LONG1", "BINUNICODE"}
CONSTANTS = {"NEWTRUE": True, "NEWFALSE": False, "NONE": None}
TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class NoTensorError(ValueError):
    """What came is not one saved tensor; the message says what it is instead."""


@dataclass(frozen=True)
class Saved:
    """One dense tensor of floating point, whose numbers lie within its bytes.

    Attributes:
        size, stride, offset: in numbers, as torch has them.
    """

    dtype: torch.dtype
    size: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int
    content: bytes

    def tensor(self) -> Tensor:
        """A contiguous tensor with memory of its own."""
        if 0 in self.size:
            return torch.empty(self.size, dtype=self.dtype)
        numbers = torch.frombuffer(bytearray(self.content), dtype=self.dtype)
        return numbers.as_strided(self.size, self.stride, self.offset).clone(memory_format=torch.contiguous_format)


@dataclass(frozen=True)
class _Call:
    """What a pickle would call; a storage's place is one to `persistent`."""

    name: Any
    given: Any


def read_saved(raw: bytes) -> Saved:
    """The tensor in a file of `torch.save`, in either format.

    Raises:
        NoTensorError: it is anything but one dense tensor of floating point.
    """
    return _from_archive(raw) if raw[:2] == b"PK" else _from_old_format(raw)


def _from_archive(raw: bytes) -> Saved:
    try:
        with zipfile.ZipFile(io.BytesIO(raw)) as came:
            entries = came.infolist()
            if len(entries) > MOST_ENTRIES or sum(entry.file_size for entry in entries) > len(raw):
                raise NoTensorError("its archive holds more than one tensor")
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
                raise NoTensorError("its archive is compressed")
            read = {entry.filename.partition("/")[2]: came.read(entry) for entry in entries}
    except NoTensorError:
        raise
    except (zipfile.BadZipFile, EOFError, OSError, NotImplementedError, RuntimeError, ValueError) as error:
        raise NoTensorError(f"it is not what torch.save writes ({type(error).__name__})") from error
    pickled = read.get("data.pkl", b"")
    if not 0 < len(pickled) <= MOST_PICKLE:
        raise NoTensorError("it holds more than one tensor, or none")
    if read.get("byteorder", b"little") != b"little":
        raise NoTensorError("its byte order must be little")
    return _laid_out(_said(io.BytesIO(pickled)), {name[5:]: read[name] for name in read if name.startswith("data/")})


def _from_old_format(raw: bytes) -> Saved:
    file = io.BytesIO(raw)
    if _said(file) != MAGIC or _said(file) != VERSION:
        raise NoTensorError("it is not what torch.save writes")
    machine, made, keys = _said(file), _said(file), _said(file)
    if not isinstance(machine, dict) or machine.get("little_endian") is not True:
        raise NoTensorError("its byte order must be little")
    if not isinstance(keys, list) or len(keys) != 1:
        raise NoTensorError("it must hold one storage")
    file.seek(8, io.SEEK_CUR)  # how many numbers; how many bytes are left says the same
    return _laid_out(made, {str(keys[0]): file.read()})


def _laid_out(made: Any, storages: dict[str, bytes]) -> Saved:
    """The tensor that a pickle describes, once everything it claims holds of the bytes."""
    if isinstance(made, _Call) and made.name == PARAMETER and isinstance(made.given, tuple) and made.given:
        made = made.given[0]
    named = isinstance(made, _Call) and made.name in (WITH_STORAGE, WITH_BYTES)
    if not named or not isinstance(made.given, tuple) or len(made.given) < 6:
        raise NoTensorError("it must be one dense tensor, and nothing else")
    place, offset, size, stride, *more = made.given
    given = place.given if isinstance(place, _Call) and place.name == "persistent" else None
    if not isinstance(given, tuple) or len(given) < 5 or given[0] != "storage" or not isinstance(given[2], str):
        raise NoTensorError("it must hold one storage")
    dtypes, name = (STORAGES, given[1]) if made.name == WITH_STORAGE else (DTYPES, more[2:3][0] if more[2:3] else None)
    dtype = dtypes.get(name) if isinstance(name, str) else None
    if dtype is None:
        raise NoTensorError("its numbers must be of floating point (float32, float64, float16, bfloat16 or float8)")
    content = storages.get(given[2])
    if content is None or len(content) % dtype.itemsize:
        raise NoTensorError("it must hold one storage")
    _check_bounds(offset, size, stride, len(content) // dtype.itemsize)
    return Saved(dtype, size, stride, offset, content)


def _check_bounds(offset: Any, size: Any, stride: Any, numbers: int) -> None:
    """Raises NoTensorError where a tensor would have other numbers than those that came, or more of them."""
    if not isinstance(size, tuple) or not isinstance(stride, tuple) or len(size) != len(stride):
        raise NoTensorError("its shape is broken")
    if any(type(n) is not int or not 0 <= n < 2**48 for n in (offset, *size, *stride)):
        raise NoTensorError("its shape is broken")
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    # an expanded tensor has one number many times over, so that a few bytes could claim any amount of memory
    if 0 not in size and (last >= numbers or math.prod(size) > numbers):
        raise NoTensorError("it claims more numbers than its storage holds; save a contiguous copy")


def _said(file: io.BytesIO) -> Any:
    """What the next pickle says, as plain values and `_Call`s; nothing is imported, called or built.

    Raises:
        NoTensorError: it is broken, or has an opcode that no saved tensor has.
    """
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(file)):
            if opcode.name == "STOP":
                (made,) = stack
                return made
            if count > MOST_OPCODES:
                raise NoTensorError("it holds more than one tensor")
            _take(opcode.name, argument, stack, marks, memo)
    except NoTensorError:
        raise
    except Exception as error:  # pickletools raises whatever it stumbles over, and a broken stack is one that is short
        raise NoTensorError("it is not what torch.save writes: its pickle is broken") from error
    raise NoTensorError("it is not what torch.save writes: its pickle does not end")


def _take(name: str, argument: Any, stack: list[Any], marks: list[int], memo: dict[int, Any]) -> None:
    """Do with the stack what an opcode does, without doing what it says."""
    if name in PUSHED:
        stack.append(argument)
    elif name in CONSTANTS:
        stack.append(CONSTANTS[name])
    elif name in TUPLES:
        stack.append(tuple(_popped(stack, len(stack) - TUPLES[name])))
    elif name in ("BINPUT", "LONG_BINPUT"):
        memo[argument] = stack[-1]
    elif name in ("BINGET", "LONG_BINGET"):
        stack.append(memo[argument])
    elif name == "MARK":
        marks.append(len(stack))
    elif name == "TUPLE":
        stack.append(tuple(_popped(stack, marks.pop())))
    elif name == "BINPERSID":
        stack.append(_Call("persistent", stack.pop()))
    elif name == "REDUCE":
        given = stack.pop()
        stack.append(_Call(stack.pop(), given))
    elif name in ("EMPTY_DICT", "EMPTY_LIST"):
        stack.append({} if name == "EMPTY_DICT" else [])
    elif name in ("SETITEM", "SETITEMS"):
        items = _popped(stack, marks.pop() if name == "SETITEMS" else len(stack) - 2)
        stack[-1].update(zip(items[::2], items[1::2], strict=True))
    elif name in ("APPEND", "APPENDS"):
        items = _popped(stack, marks.pop() if name == "APPENDS" else len(stack) - 1)
        stack[-1].extend(items)
    elif name != "PROTO":
        raise NoTensorError("its pickle holds more than a tensor")


def _popped(stack: list[Any], start: int) -> list[Any]:
    if not 0 <= start <= len(stack):
        raise NoTensorError("it is not what torch.save writes: its pickle is broken")
    found = stack[start:]
    del stack[start:]
    return found
