"""Texts that were written once, kept for whoever asks the same again.

A text is known by all that it was drawn from: the model's weights and dtype, every token before it, its latent steps,
its temperature, seed and length limit. Where texts cost hours, baselines share draws, one set of solutions serves
several ways to decide, and a run that was killed goes on, since all that was written is read back.

A text on a cache whose tokens are not known (several agents', say) is never kept.
"""

from __future__ import annotations

import hashlib
import json
import logging
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gcache.cache.kv_cache import KVCache
from gcache.errors import DataError
from gcache.files import append_line
from gcache.llm.requests import GenerateRequest, Generation

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class KeptText:
    """A text; `seconds`: how long it took, its share of the batch that it was written in."""

    text: str
    tokens: tuple[int, ...]
    log_probs: tuple[float, ...]
    finished: bool
    seconds: float

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> KeptText:
        """Raises KeyError, TypeError or ValueError where it is none."""
        tokens, log_probs = tuple(map(int, values["tokens"])), tuple(map(float, values["log_probs"]))
        if not tokens or len(tokens) != len(log_probs) or not isinstance(values["text"], str):
            raise ValueError("a text has as many log-probabilities as tokens, and one at least")
        return cls(values["text"], tokens, log_probs, bool(values["finished"]), float(values["seconds"]))


class KeptTexts:
    """Texts by what they were drawn from.

    Args:
        model: names the weights and the dtype; texts of two models never meet.
        file: where they are kept, a JSON object a line; None for memory alone.
        most_bytes: of slots of kept texts that stay in memory, the latest ones; others are read anew.

    Attributes:
        reused: how many were asked for again; reused_seconds: that writing these took.

    Raises:
        DataError: the file is no such file.
    """

    def __init__(self, model: str, file: Path | None = None, most_bytes: float = 0.0) -> None:
        self.model, self.file, self.most_bytes = model, file, most_bytes
        self._slots: OrderedDict[tuple[str, int], KVCache] = OrderedDict()
        self._bytes = 0
        self.reused, self.reused_seconds = 0, 0.0
        self._lock = threading.Lock()
        self._texts: dict[str, KeptText] = {}
        if file is not None and file.exists():
            self._read(file)

    def __len__(self) -> int:
        return len(self._texts)

    def _read(self, file: Path) -> None:
        lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
        for number, line in enumerate(lines, start=1):
            try:
                values = json.loads(line)
                self._texts[str(values["key"])] = KeptText.from_json(values)
            except (ValueError, KeyError, TypeError) as error:
                if number == len(lines) and not line.endswith("\n"):  # a run was killed while it wrote
                    file.write_text("".join(lines[:-1]), encoding="utf-8")
                    return
                raise DataError(
                    f"{file}, line {number}: not a kept text ({error}); remove the line, or name another file"
                ) from error

    def key(self, request: GenerateRequest) -> str | None:
        """What a request's text is known by; None where not all is known that it depends on, or somebody watches."""
        known = request.past is None or request.past_tokens is not None
        plain = request.embeds is None and not request.stop and request.alignment is None
        watched = request.watch or request.watch_scores or request.watch_latents or request.top_log_probs is not None
        if not known or not plain or watched:
            return None
        named = [
            self.model, [*(request.past_tokens or ())], [*request.tokens], request.latent_steps, request.temperature,
            request.seed if request.temperature else 0, request.max_new_tokens, request.top_p,
        ]  # fmt: skip
        return hashlib.sha256(json.dumps(named).encode()).hexdigest()[:32]

    def get(self, key: str) -> KeptText | None:
        with self._lock:
            found = self._texts.get(key)
            if found is not None:
                self.reused += 1
                self.reused_seconds += found.seconds
        return found

    def slots(self, key: str, owner: int) -> KVCache | None:
        """A text's slots, marked with a number, where they are still in memory."""
        with self._lock:
            found = self._slots.get((key, owner))
            if found is not None:
                self._slots.move_to_end((key, owner))
        return found

    def hold(self, key: str, owner: int, slots: KVCache) -> None:
        """Keep a text's slots in memory, and let go of those that were not asked for the longest."""
        with self._lock:
            if (key, owner) in self._slots or slots.nbytes > self.most_bytes:
                return
            self._slots[key, owner] = slots
            self._bytes += slots.nbytes
            while self._bytes > self.most_bytes:
                self._bytes -= self._slots.popitem(last=False)[1].nbytes

    def put(self, key: str, text: Generation, seconds: float) -> None:
        """Keep a text.

        Raises:
            WriteError: it cannot be written.
        """
        kept = KeptText(text.text, text.tokens, text.log_probs, text.finished, seconds)
        with self._lock:
            if key in self._texts:
                return
            self._texts[key] = kept
            if self.file is not None:
                values = {"key": key, **vars(kept), "log_probs": [round(p, 4) for p in kept.log_probs]}
                append_line(self.file, json.dumps(values))
