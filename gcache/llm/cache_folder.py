"""A folder of caches, one sealed safetensors file each, bounded in bytes: those that were asked for last stay.

Files are whole or not there, and each bears a hash of its name, its tensors and the words beside them. So a file that
was cut short, changed or put under another's name is found out, and never used. Several processes may share a folder:
which files there are is asked of the folder anew whenever one is written. Other files in it are nobody's business here.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import fields
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save

from gcache.cache.kv_cache import KVCache
from gcache.errors import ConfigError, DataError
from gcache.files import write_bytes, writing
from gcache.llm.load.fingerprint import tensors_hash
from gcache.llm.load.tensor_file import BROKEN, SEAL

ENDING = ".safetensors"
#: Seconds after which a file under a temporary name is one that a killed process left behind.
ABANDONED = 3600.0
_FIELDS = tuple(field.name for field in fields(KVCache))


class BrokenCacheFile(Exception):
    """A file that is damaged, or not what was written."""


class CacheFolder:
    """Caches by name.

    Args:
        folder: of the files; made when the first is written.
        most_bytes: of the files together.
        instead: the way out where the folder cannot be read.
        names: a regular expression of the names of its files. Nothing else in the folder is counted, or removed.

    Raises:
        DataError: the folder cannot be read.
    """

    def __init__(self, folder: Path, most_bytes: float, instead: str, names: str = "[0-9a-f]{32}") -> None:
        self.folder, self.most_bytes = folder, most_bytes
        ending = re.escape(ENDING)
        self._own = re.compile(rf"{names}{ending}")
        self._unfinished = re.compile(rf"\.{names}{ending}\.[a-z0-9_]{{8}}")  # as `write_bytes` names them
        try:
            for _ in self._files():
                pass
        except OSError as error:
            raise DataError(f"{folder} cannot be read ({error.strerror}); {instead}") from error

    def path(self, name: str) -> Path:
        return self.folder / f"{name}{ENDING}"

    def read(self, name: str) -> tuple[KVCache, dict[str, str]] | None:
        """The cache of a name, memory-mapped, and the words beside it; None where there is none, or one without a seal,
        of an older version.

        Raises:
            BrokenCacheFile: it is damaged, or not what was written.
        """
        path = self.path(name)
        try:
            with safe_open(path, framework="pt") as file:
                said = dict(file.metadata() or {})
                if SEAL not in said:
                    return None
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            if said.pop(SEAL) != tensors_hash(tensors, _sealed(path.name, said)):
                raise ValueError(f"its {SEAL} does not fit")
            cache = KVCache(**{name: tensors[name] for name in _FIELDS})
        except FileNotFoundError:
            return None
        except (*BROKEN, ConfigError) as error:
            raise BrokenCacheFile(f"{type(error).__name__}: {str(error)[:80]}") from error
        self._used(path)
        return cache, said

    def write(self, name: str, cache: KVCache, said: Mapping[str, str]) -> None:
        """Keep a cache, and remove what there is no room for. One that is larger than all the room is not kept.

        Raises:
            WriteError: it cannot be written.
        """
        path = self.path(name)
        tensors = {name: getattr(cache, name).detach().cpu().contiguous() for name in _FIELDS}
        tensors |= {name: tensors[name].clone() for name in _FIELDS[2:]}  # they may be one tensor, which is refused
        content = save(tensors, {**said, SEAL: tensors_hash(tensors, _sealed(path.name, said))})
        if len(content) > self.most_bytes:
            return
        write_bytes(path, content, mode=0o600)
        self._used(path)
        with writing(self.folder):
            self._make_room()

    def drop(self, name: str) -> None:
        """Remove a file, where there is one."""
        path = self.path(name)
        with writing(path):
            path.unlink(missing_ok=True)

    @property
    def nbytes(self) -> int:
        """Of all files."""
        return sum(known.st_size for _, known in self._files())

    def __len__(self) -> int:
        return sum(1 for _ in self._files())

    def _make_room(self) -> None:
        """Remove what was not asked for the longest, and what killed processes left half-written."""
        for path, known in self._matching(self._unfinished):
            if time.time() - known.st_mtime > ABANDONED:
                path.unlink(missing_ok=True)
        found = sorted(self._files(), key=lambda each: each[1].st_mtime_ns)
        size = sum(known.st_size for _, known in found)
        for path, known in found:
            if size <= self.most_bytes:
                return
            path.unlink(missing_ok=True)  # another process may have done so
            size -= known.st_size

    def _files(self) -> Iterator[tuple[Path, os.stat_result]]:
        return self._matching(self._own)

    def _matching(self, names: re.Pattern[str]) -> Iterator[tuple[Path, os.stat_result]]:
        """Regular files of such a name."""
        if not self.folder.exists():
            return
        with os.scandir(self.folder) as entries:
            for entry in entries:
                if names.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                    with suppress(FileNotFoundError):  # another process removed it meanwhile
                        yield Path(entry.path), entry.stat()

    @staticmethod
    def _used(path: Path) -> None:
        """Note that a file was asked for now, in nanoseconds: the clock of file systems is coarser."""
        now = time.time_ns()
        with suppress(OSError):  # it may be of somebody else, or gone
            os.utime(path, ns=(now, now))


def name_of(*named: object) -> str:
    """A short name for what something depends on: 32 hexadecimal digits."""
    return hashlib.sha256(json.dumps(named).encode()).hexdigest()[:32]


def _sealed(name: str, said: Mapping[str, str]) -> str:
    """What a file's seal is of, beside its tensors: so one under another's name is not taken for it."""
    return " ".join((name, *(said[key] for key in sorted(said))))
