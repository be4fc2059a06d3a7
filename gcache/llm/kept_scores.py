"""How likely answers were on caches, kept for whoever asks the same again.

A score is known by the content of the cache, to the bit, and by the tokens behind it. So it is found again where slots
come from files (`gcache.llm.kept_slots`), and only there: what is computed anew differs by rounding.
"""

from __future__ import annotations

import hashlib
import json
import threading
from pathlib import Path

import torch

from gcache.cache.fused_cache import FusedCache
from gcache.errors import DataError
from gcache.files import alone, append_line, whole_lines


class KeptScores:
    """Log-probabilities, and the seconds that each took, by their keys.

    Args:
        file: a JSON list of key, score and seconds a line. Several processes may write to it; each has what was there
            when it began.

    Raises:
        DataError: the file is no such file.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._lock = threading.Lock()
        self._known: dict[str, tuple[float, float]] = {}
        try:
            lines = whole_lines(file)
        except OSError as error:
            raise DataError(f"{file} cannot be read ({error.strerror}); name another file for --texts") from error
        for number, line in enumerate(lines, start=1):
            try:
                key, score, seconds = json.loads(line)
                self._known[str(key)] = float(score), float(seconds)
            except (ValueError, TypeError, RecursionError) as error:
                raise DataError(
                    f"{file}, line {number}: not a kept score ({type(error).__name__}: {str(error)[:80]}); remove the "
                    "line, or the file: scores are computed anew"
                ) from error

    def get(self, key: str) -> tuple[float, float] | None:
        """A score, and the seconds that it took."""
        return self._known.get(key)

    def put(self, key: str, score: float, seconds: float) -> None:
        """Keep a score.

        Raises:
            WriteError: it cannot be written.
        """
        with self._lock:
            if key not in self._known:
                self._known[key] = score, seconds
                with alone(self.file):
                    append_line(self.file, json.dumps([key, score, seconds]))


def content_of(cache: FusedCache) -> str:
    """A hash of all that attention reads of a cache: two of one hash answer alike."""
    found = hashlib.blake2b(digest_size=16)
    for part, bias in zip(cache.parts, cache.biases, strict=True):
        for tensor in (part.keys, part.values, part.positions, part.mask, bias):
            found.update(repr((tuple(tensor.shape), tensor.dtype)).encode())
            found.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return found.hexdigest()
