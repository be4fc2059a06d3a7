"""Texts that were written once, kept for whoever asks the same again.

A text is known by all that it was drawn from: the model's weights and dtype, every token before it, its latent steps,
its temperature, seed and length limit. Where texts cost hours, baselines share draws, one set of solutions serves
several ways to decide, and a run that was killed goes on, since all that was written is read back.

A text on a cache whose tokens are not known (several agents', say) is never kept.
"""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gcache.cache.kv_cache import SlotKind
from gcache.errors import DataError
from gcache.files import append_line_alone, parsed_lines
from gcache.llm.cache_folder import name_of
from gcache.llm.kept_scores import KeptScores
from gcache.llm.kept_slots import KeptSlots
from gcache.llm.requests import GenerateRequest, Generation, ThinkRequest


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
        tokens, log_probs = tuple(values["tokens"]), tuple(values["log_probs"])
        text, finished, seconds = values["text"], values["finished"], float(values["seconds"])
        if not tokens or len(tokens) != len(log_probs):
            raise ValueError("a text has as many log-probabilities as tokens, and one at least")
        if not isinstance(text, str) or not isinstance(finished, bool):
            raise ValueError("a text is a string, and finished or not")
        if not all(type(token) is int and token >= 0 for token in tokens):
            raise ValueError("a token is a whole number")
        if not all(isinstance(p, int | float) and p <= 0 for p in log_probs):  # not nan either
            raise ValueError("a log-probability is 0 at most")
        if not 0 <= seconds < math.inf:
            raise ValueError("seconds are 0 or more")
        return cls(text, tokens, tuple(map(float, log_probs)), finished, seconds)

    @property
    def mark(self) -> str:
        """A hash of its tokens, which its slots bear too."""
        return name_of(self.tokens)


class KeptTexts:
    """Texts by what they were drawn from.

    Args:
        model: names the weights, where texts end, and the dtype; texts of two models never meet. Passes that round
            otherwise (another device, `--native false`) do meet: what was written first serves all.
        file: where they are kept, a JSON object a line; None for memory alone. Several processes may write to it; each
            has what was there when it began.
        latents: names what latent steps feed back, which texts behind them depend on.
        texts: what the file has, where it was read already; models may share it, for no two have a key in common.
        slots: where slots of texts and of questions are kept; None for nowhere: they are read anew.
        scores: where it is kept how likely answers are on such slots; None for nowhere.
        vocabulary: tokens of the model; None for any.

    Attributes:
        reused: how often something that was kept was asked for; reused_seconds: that making it had taken.

    Raises:
        DataError: the file is no such file.
    """

    def __init__(
        self,
        model: str,
        file: Path | None = None,
        latents: str = "",
        texts: dict[str, KeptText] | None = None,
        slots: KeptSlots | None = None,
        scores: KeptScores | None = None,
        vocabulary: int | None = None,
    ) -> None:
        self.model, self.file, self.latents, self.slots, self.scores = model, file, latents, slots, scores
        self.vocabulary = vocabulary
        self.reused, self.reused_seconds = 0, 0.0
        self._lock = threading.Lock()
        self.texts = texts if texts is not None else {} if file is None else read_texts(file)

    def __len__(self) -> int:
        return len(self.texts)

    def key(self, request: GenerateRequest) -> str | None:
        """What a request's text is known by; None where not all is known that it depends on, or somebody watches."""
        known = request.past is None or request.past_tokens is not None
        plain = request.embeds is None and not request.stop and request.alignment is None
        watched = request.watch or request.watch_scores or request.watch_latents or request.top_log_probs is not None
        if not known or not plain or watched:
            return None
        return name_of(
            self.model, request.past_tokens or (), request.tokens, self._latents_of(request),
            request.temperature, request.seed if request.temperature else 0, request.max_new_tokens, request.top_p,
        )  # fmt: skip

    def _latents_of(self, request: GenerateRequest) -> object:
        """What a text depends on of its latent steps."""
        return [request.latent_steps, self.latents] if request.latent_steps else 0

    def key_of_question(self, request: ThinkRequest) -> str | None:
        """What the slots of a question are known by; None where they are not to be kept, or it is no question."""
        plain = request.past is None and request.embeds is None and not request.latent_steps and not request.text
        watched = request.watch or request.watch_prompt or request.layers
        if self.slots is None or request.kind != SlotKind.PREFIX or not plain or watched:
            return None
        return name_of(self.model, "question", request.tokens)

    def key_of_score(self, cache: str, prompt: tuple[int, ...], answer: tuple[int, ...]) -> str:
        """What the score of an answer is known by, behind a prompt and a cache of that content."""
        return name_of(self.model, "score", cache, prompt, answer)

    def get(self, key: str) -> KeptText | None:
        """The text under a key.

        Raises:
            DataError: it has tokens that the model has not.
        """
        found = self.texts.get(key)
        if found is not None:
            if self.vocabulary is not None and max(found.tokens) >= self.vocabulary:
                raise DataError(
                    f"{self.file} has under {key} a text with token {max(found.tokens)}, and the model has "
                    f"{self.vocabulary} tokens; remove the line, or name another file"
                )
            self.count(found.seconds)
        return found

    def count(self, seconds: float) -> None:
        """Something that was kept is used again."""
        with self._lock:
            self.reused += 1
            self.reused_seconds += seconds

    def put(self, key: str, text: Generation, seconds: float) -> KeptText:
        """Keep a text; returns what is kept under its key, the first one.

        Raises:
            WriteError: it cannot be written.
        """
        kept = KeptText(text.text, text.tokens, text.log_probs, text.finished, seconds)
        with self._lock:
            if key in self.texts:
                return self.texts[key]
            self.texts[key] = kept
            if self.file is not None:
                append_line_alone(self.file, json.dumps({"key": key, **vars(kept)}))
        return kept


def read_texts(file: Path) -> dict[str, KeptText]:
    """The texts of a file by their keys, the first of each; none where it does not exist. A line without an end, at
    which a run was killed or another one is writing, is none.

    Raises:
        DataError: it cannot be read, or is no such file.
    """
    lines = parsed_lines(
        file, lambda values: (str(values["key"]), KeptText.from_json(values)), "a kept text",
        "name a file for --texts, or a new one", "remove the line, or name another file",
    )  # fmt: skip
    return dict(reversed(lines))  # two processes may have written at once; slots are those of the first
