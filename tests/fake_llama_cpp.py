"""llama-cpp-python's low-level calls around a model that counts: the next token is a sum of what stands before."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

VOCABULARY = 11


def next_token(tokens: list[int]) -> int:
    """It depends on every token before, on their order, and on nothing of another text."""
    return sum(place * token for place, token in enumerate(tokens, 1)) % VOCABULARY


@dataclass
class FakeLlamaCpp:
    """Remembers what each text has read, and every pass as (token, position, row, followed)."""

    LLAMA_FLASH_ATTN_TYPE_AUTO = -1
    loads: bool = True
    fails: int = 0
    rows: dict[int, list[int]] = field(default_factory=dict)
    passes: list[list[tuple[int, int, int, bool]]] = field(default_factory=list)
    settings: Any = None
    freed: list[str] = field(default_factory=list)
    logits: Any = None

    def llama_log_callback(self, call: Any) -> Any:
        return call

    def llama_log_set(self, call: Any, data: Any) -> None:
        call(0, b"loaded", data)

    def llama_backend_init(self) -> None:
        pass

    def llama_model_default_params(self) -> Any:
        return SimpleNamespace()

    def llama_model_load_from_file(self, path: bytes, settings: Any) -> str | None:
        return "model" if self.loads else None

    def llama_model_get_vocab(self, model: str) -> str:
        return "vocabulary"

    def llama_vocab_n_tokens(self, vocabulary: str) -> int:
        return VOCABULARY

    def llama_context_default_params(self) -> Any:
        return SimpleNamespace()

    def llama_init_from_model(self, model: str, settings: Any) -> str:
        self.settings = settings
        return "context"

    def llama_get_memory(self, context: str) -> str:
        return "memory"

    def llama_memory_clear(self, memory: str, data: bool) -> None:
        self.rows.clear()

    def llama_batch_init(self, tokens: int, embeddings: int, rows: int) -> Any:
        arrays = {name: [0] * tokens for name in ("token", "pos", "n_seq_id", "logits")}
        return SimpleNamespace(**arrays, seq_id=[[0] for _ in range(tokens)], n_tokens=0)

    def llama_decode(self, context: str, batch: Any) -> int:
        if self.fails:
            return self.fails
        entries, logits = [], []
        for i in range(batch.n_tokens):
            row = batch.seq_id[i][0]
            read = self.rows.setdefault(row, [])
            assert batch.pos[i] == len(read) and batch.n_seq_id[i] == 1 and row < self.settings.n_seq_max
            read.append(batch.token[i])
            entries.append((batch.token[i], batch.pos[i], row, bool(batch.logits[i])))
            if batch.logits[i]:
                logits += [float(token == next_token(read)) for token in range(VOCABULARY)]
        self.passes.append(entries)
        self.logits = (ctypes.c_float * len(logits))(*logits)
        return 0

    def llama_get_logits(self, context: str) -> Any:
        return ctypes.cast(self.logits, ctypes.POINTER(ctypes.c_float))

    def llama_synchronize(self, context: str) -> None:
        pass

    def llama_print_system_info(self) -> bytes:
        return b"CPU : SSE3 = 1 | AVX2 = 1 | AVX512 = 0 | REPACK = 1 | "

    def llama_batch_free(self, batch: Any) -> None:
        self.freed.append("batch")

    def llama_free(self, context: str) -> None:
        self.freed.append(context)

    def llama_model_free(self, model: str) -> None:
        self.freed.append(model)
