"""A GGUF file in llama.cpp, through the low-level calls of llama-cpp-python: token ids in, token ids out.

It is set as llama.cpp is fastest on a CPU: weights repacked for the processor where it can, passes of
up to 512 tokens, keys and values in fp16 and apart for each text, flash attention where it has it,
logits only of tokens that are followed by a new one. The next tokens are found with numpy, which
looks at all logits of a step in a fraction of a millisecond.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.metadata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np

from gcache.errors import ConfigError, ModelError

Tokens = tuple[int, ...]

#: Tokens of a pass at most, of a call (`n_batch`) and of what it is cut into (`n_ubatch`).
PASS = 512
MISSING = (
    "llama-cpp-python is not there ({}); pip install llama-cpp-python, which builds from source in about 15 minutes"
)


def import_llama_cpp() -> Any:
    """The module of low-level calls.

    Raises:
        ConfigError: it is not installed, or broken.
    """
    try:
        return importlib.import_module("llama_cpp.llama_cpp")
    except (ImportError, OSError, RuntimeError) as error:  # the last two where its shared library is not found
        raise ConfigError(MISSING.format(str(error).partition("\n")[0])) from error


@dataclass(frozen=True)
class Entry:
    """A token of a pass.

    Attributes:
        row: the text that it belongs to.
        followed: whether the token behind it is asked for.
    """

    token: int
    position: int
    row: int
    followed: bool


class LlamaCpp:
    """A loaded model, with room for some texts. To be closed, or used in a `with`.

    Args:
        library: the module of low-level calls.
        path: of the GGUF file.
        threads: of every pass.
        rows: texts at once, at most.
        slots: tokens of each of them, at most.

    Raises:
        ModelError: llama.cpp cannot load the file.
    """

    def __init__(self, library: Any, path: str, threads: int, rows: int, slots: int) -> None:
        self._library = library
        self.threads, self.rows, self.slots = threads, rows, slots
        self._log = library.llama_log_callback(lambda level, text, data: None)  # llama.cpp keeps the address only
        library.llama_log_set(self._log, ctypes.c_void_p(0))
        library.llama_backend_init()
        settings = library.llama_model_default_params()
        settings.n_gpu_layers = 0
        self._model = library.llama_model_load_from_file(path.encode(), settings)
        if not self._model:
            raise ModelError(f"llama.cpp cannot load {path!r}; it may be too old for this file")
        self._vocabulary = library.llama_vocab_n_tokens(library.llama_model_get_vocab(self._model))
        self._context = library.llama_init_from_model(self._model, self._context_settings())
        if not self._context:
            library.llama_model_free(self._model)
            raise ModelError(f"llama.cpp has no room for {rows} texts of {slots} tokens of {path!r}")
        self._memory = library.llama_get_memory(self._context)
        self._batch = library.llama_batch_init(PASS, 0, 1)

    def _context_settings(self) -> Any:
        library = self._library
        settings = library.llama_context_default_params()  # keys and values in fp16
        settings.n_ctx = self.rows * self.slots
        settings.n_seq_max = self.rows
        settings.n_batch = settings.n_ubatch = PASS
        settings.n_threads = settings.n_threads_batch = self.threads
        settings.flash_attn_type = library.LLAMA_FLASH_ATTN_TYPE_AUTO
        settings.kv_unified = False
        return settings

    def __enter__(self) -> LlamaCpp:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._library.llama_batch_free(self._batch)
        self._library.llama_free(self._context)
        self._library.llama_model_free(self._model)

    def read(self, prompts: Sequence[Tokens]) -> None:
        """Read prompts, and ask for nothing."""
        self._forget()
        for entries in _passes(prompts, followed=False):
            self._run(entries)
        self._library.llama_synchronize(self._context)

    def write(self, prompts: Sequence[Tokens], longest: int) -> list[Tokens]:
        """`longest` greedy tokens behind each prompt; the end of a text ends nothing."""
        self._forget()
        steps = [[token for entries in _passes(prompts, followed=True) for token in self._run(entries)]]
        for step in range(longest - 1):
            last = steps[-1]
            entries = [Entry(last[row], len(prompt) + step, row, True) for row, prompt in enumerate(prompts)]
            steps.append(self._run(entries))
        return list(zip(*steps, strict=True))

    def about(self) -> dict[str, Any]:
        """What it is and how it is set, for a record."""
        flags = self._library.llama_print_system_info().decode()
        return {
            "llama_cpp_python": _version(),
            "commit": _commit(self._library),
            "system_info": flags,
            "has": has(flags),
            "threads": self.threads,
            "rows": self.rows,
            "slots": self.slots,
            "pass_tokens": PASS,
            "flash_attention": "auto",
            "cache": "fp16, apart for each text",
        }

    def _forget(self) -> None:
        self._library.llama_memory_clear(self._memory, False)

    def _run(self, entries: Sequence[Entry]) -> list[int]:
        """One pass; the greedy tokens that are asked for, in order."""
        batch = self._batch
        for i, entry in enumerate(entries):
            batch.token[i] = entry.token
            batch.pos[i] = entry.position
            batch.n_seq_id[i] = 1
            batch.seq_id[i][0] = entry.row
            batch.logits[i] = entry.followed
        batch.n_tokens = len(entries)
        failed = self._library.llama_decode(self._context, batch)
        if failed:
            raise ModelError(f"llama.cpp cannot run a pass of {len(entries)} tokens (llama_decode gave {failed})")
        asked = sum(entry.followed for entry in entries)
        if not asked:
            return []
        logits = np.ctypeslib.as_array(self._library.llama_get_logits(self._context), (asked, self._vocabulary))
        return [int(token) for token in logits.argmax(axis=1)]


def has(system_info: str) -> list[str]:
    """The instructions and parts that llama.cpp was built with and uses, from its line of them."""
    flags = (flag.partition("=") for flag in system_info.replace(":", "|").split("|"))
    return [name.strip() for name, _, value in flags if value.strip() == "1"]


def _version() -> str:
    try:
        return importlib.metadata.version("llama-cpp-python")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def _commit(library: Any) -> str:
    """Of llama.cpp, as its build wrote it down."""
    try:
        ask = library._lib.ggml_commit  # llama-cpp-python has no function of it
    except AttributeError:
        return "unknown"
    ask.restype = ctypes.c_char_p
    return str(ask().decode())


def _passes(prompts: Sequence[Tokens], followed: bool) -> Iterator[list[Entry]]:
    """Neighbours of one length together as far as they fit, a long prompt in pieces; the last token may be followed.

    Prompts of several lengths are faster apart: llama.cpp would cut a pass of them into pieces that are equally long.
    """
    waiting: list[Entry] = []
    for row, prompt in enumerate(prompts):
        last = len(prompt) - 1
        alike = row > 0 and len(prompts[row - 1]) == len(prompt)
        if waiting and (not alike or len(waiting) + len(prompt) > PASS):
            yield waiting
            waiting = []
        waiting += [Entry(token, place, row, followed and place == last) for place, token in enumerate(prompt)]
        while len(waiting) > PASS:
            yield waiting[:PASS]
            waiting = waiting[PASS:]
    if waiting:
        yield waiting
