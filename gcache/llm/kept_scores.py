"""How likely answers were on caches, kept for whoever asks the same again.

A score is known by the content of the cache, to the bit, and by the tokens behind it. So it is found again where slots
come from files (`gcache.llm.kept_slots`), and only there: what is computed anew differs by rounding.
"""

from __future__ import annotations

import hashlib
import json
import math
import threading
from pathlib import Path
from typing import Any

import torch

from gcache.cache.fused_cache import FusedCache
from gcache.files import append_line_alone, parsed_lines


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
        lines = parsed_lines(
            file, _kept, "a kept score", "name another file for --texts",
            "remove the line, or the file: scores are computed anew",
        )  # fmt: skip
        self._known: dict[str, tuple[float, float]] = dict(reversed(lines))  # the first of each key

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
                append_line_alone(self.file, json.dumps([key, score, seconds]))


def _kept(values: Any) -> tuple[str, tuple[float, float]]:
    key, score, seconds = values
    if {type(score), type(seconds)} - {float, int}:
        raise TypeError("a score and its seconds are numbers")
    if not -math.inf < score <= 0 <= seconds < math.inf:
        raise ValueError("a score is 0 at most, and its seconds are 0 or more")
    return str(key), (float(score), float(seconds))


def content_of(cache: FusedCache) -> str:
    """A hash of all that attention reads of a cache: two of one hash answer alike."""
    found = hashlib.blake2b(digest_size=16)
    for part, bias in zip(cache.parts, cache.biases, strict=True):
        for tensor in (part.keys, part.values, part.positions, part.mask, bias):
            found.update(repr((tuple(tensor.shape), tensor.dtype)).encode())
            found.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return found.hexdigest()
