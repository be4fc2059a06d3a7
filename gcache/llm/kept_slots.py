"""Slots of kept texts, and of questions, each in a file of its own: what was handed on once is read back to the bit.

Reading a text anew to have its slots again takes a model about as long as writing it among many. A file takes
milliseconds.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from contextlib import suppress
from dataclasses import fields
from pathlib import Path

import torch
from safetensors.torch import save

from gcache.cache.kv_cache import KVCache
from gcache.errors import ConfigError, DataError
from gcache.files import write_bytes, writing
from gcache.llm.load.fingerprint import tensors_hash
from gcache.llm.load.tensor_file import BROKEN, SEAL, read_tensor_file

ENDING = ".safetensors"


class KeptSlots:
    """The slots of texts, by the text's key and the node whose mark they bear.

    Args:
        folder: of the files; made when the first is written. Several processes may share it.
        most_bytes: of the files together; those that were not asked for the longest are removed.

    Raises:
        DataError: the folder cannot be read.
    """

    def __init__(self, folder: Path, most_bytes: float) -> None:
        self.folder, self.most_bytes = folder, most_bytes
        self._lock = threading.Lock()
        self._sizes: OrderedDict[str, int] = OrderedDict()  # by when they were last asked for
        try:
            found = [(each.name, each.stat()) for each in folder.iterdir()] if folder.exists() else []
        except OSError as error:
            raise DataError(f"{folder} cannot be read ({error.strerror}); name another file for --texts") from error
        for name, known in sorted(found, key=lambda each: each[1].st_mtime_ns):
            if name.endswith(ENDING) and not name.startswith("."):  # not one that is being written
                self._sizes[name] = known.st_size
        self._bytes = sum(self._sizes.values())

    def get(self, key: str, owner: int, device: torch.device | str, mark: str = "") -> tuple[KVCache, float] | None:
        """A text's slots, if they are here, and the seconds that they took.

        Args:
            mark: of the text (`KeptText.mark`); slots of another one under this key, which a process that wrote at the
                same time may have left, are none.

        Raises:
            DataError: their file is broken, or not what was written.
        """
        path = self._path(key, owner)
        try:
            tensors, said = read_tensor_file(path)
            if SEAL not in said:  # of an older version
                return None
            seconds, whose = float(said["seconds"]), said["text"]
            if said[SEAL] != tensors_hash(tensors, _said(path.name, seconds, whose)):
                raise ValueError(f"its {SEAL} does not fit")
            slots = KVCache(**{field.name: tensors[field.name].to(device) for field in fields(KVCache)})
        except FileNotFoundError:
            return None
        except (*BROKEN, ConfigError) as error:
            raise DataError(
                f"{path} holds no slots of a kept text ({type(error).__name__}: {str(error)[:80]}); remove it, and the "
                "text is read anew"
            ) from error
        if whose != mark:
            return None
        with suppress(OSError):  # it may be read by whom it does not belong to
            os.utime(path)
        with self._lock:
            if path.name in self._sizes:  # else another process wrote it, and counts it
                self._sizes.move_to_end(path.name)
        return slots, seconds

    def put(self, key: str, owner: int, slots: KVCache, seconds: float = 0.0, mark: str = "") -> None:
        """Keep a text's slots, and remove what there is no room for. It is for whoever got none under this key.

        Args:
            seconds: that they took, beside those of writing the text.
            mark: of the text.

        Raises:
            WriteError: they cannot be written.
        """
        path = self._path(key, owner)
        tensors = {field.name: getattr(slots, field.name).cpu().contiguous() for field in fields(KVCache)}
        seconds = round(seconds, 6)
        seal = tensors_hash(tensors, _said(path.name, seconds, mark))
        content = save(tensors, {"seconds": str(seconds), "text": mark, SEAL: seal})
        if len(content) > self.most_bytes:
            return
        write_bytes(path, content)
        with self._lock, writing(self.folder):
            self._bytes += len(content) - self._sizes.pop(path.name, 0)
            self._sizes[path.name] = len(content)
            while self._bytes > self.most_bytes:
                name, size = self._sizes.popitem(last=False)
                (self.folder / name).unlink(missing_ok=True)
                self._bytes -= size

    def _path(self, key: str, owner: int) -> Path:
        return self.folder / f"{key}-{owner}{ENDING}"


def _said(name: str, seconds: float, mark: str) -> str:
    """What a file's seal is of, beside its tensors: so one under another's name is not taken for it."""
    return f"{name} {seconds} {mark}"
