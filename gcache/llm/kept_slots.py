"""Slots of kept texts, and of questions, each in a file of its own: what was handed on once is read back to the bit.

Reading a text anew to have its slots again takes a model about as long as writing it among many. A file takes
milliseconds.
"""

from __future__ import annotations

from pathlib import Path

import torch

from gcache.cache.kv_cache import KVCache
from gcache.errors import DataError
from gcache.llm.cache_folder import BrokenCacheFile, CacheFolder


class KeptSlots:
    """The slots of texts, by the text's key and the node whose mark they bear.

    Args:
        folder: of the files; made when the first is written. Several processes may share it.
        most_bytes: of the files together; those that were not asked for the longest are removed.

    Raises:
        DataError: the folder cannot be read.
    """

    def __init__(self, folder: Path, most_bytes: float) -> None:
        self._files = CacheFolder(folder, most_bytes, "name another file for --texts", "[0-9a-f]{32}--?[0-9]+")

    def get(self, key: str, owner: int, device: torch.device | str, mark: str = "") -> tuple[KVCache, float] | None:
        """A text's slots, if they are here, and the seconds that they took.

        Args:
            mark: of the text (`KeptText.mark`); slots of another one under this key, which a process that wrote at the
                same time may have left, are none.

        Raises:
            DataError: their file is broken, or not what was written.
        """
        name = _name(key, owner)
        try:
            found = self._files.read(name)
            if found is None:
                return None
            slots, said = found
            seconds, whose = float(said["seconds"]), said["text"]
        except (BrokenCacheFile, KeyError, ValueError) as error:
            raise DataError(
                f"{self._files.path(name)} holds no slots of a kept text ({error}); remove it, and the text is read "
                "anew"
            ) from error
        return (slots.to(torch.device(device)), seconds) if whose == mark else None

    def put(self, key: str, owner: int, slots: KVCache, seconds: float = 0.0, mark: str = "") -> None:
        """Keep a text's slots, and remove what there is no room for. It is for whoever got none under this key.

        Args:
            seconds: that they took, beside those of writing the text.
            mark: of the text.

        Raises:
            WriteError: they cannot be written.
        """
        self._files.write(_name(key, owner), slots, {"seconds": str(round(seconds, 6)), "text": mark})


def _name(key: str, owner: int) -> str:
    return f"{key}-{owner}"
