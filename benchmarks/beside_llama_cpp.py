"""Decoding and prefill beside llama.cpp: the same GGUF file, prompts, threads and greedy texts.

Decoding: batches of 1, 4 and 16 texts that are all equally long. The time of reading the prompts and
of the first token is measured right before, and subtracted, on both sides. llama.cpp computes with
the packed weights as they are and rounds activations to 8 bits, so its texts part from ours; how
many leading tokens are the same is recorded. Prefill: as many prompts as a batch has, and one long
one; neither side computes logits.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from benchmarks.agreement import leading
from benchmarks.decoding import generate_ours, generate_without_lookup
from benchmarks.llama_cpp_model import LlamaCpp, import_llama_cpp
from benchmarks.long_texts import long_texts, of_length
from benchmarks.setting import Bench
from benchmarks.timing import interleaved, ratios, timed
from gcache.errors import ConfigError
from gcache.llm.load.locate import resolve
from gcache.llm.requests import ThinkRequest

logger = logging.getLogger("benchmarks")

Tokens = tuple[int, ...]
#: Writes so many tokens behind each prompt.
Writer = Callable[[Sequence[Tokens], int], list[Tokens]]

LLAMA, OURS, PLAIN = "llama.cpp", "ours", "ours, without lookup"
#: Texts at once, where `--batch` allows them, and at least so many texts are written for each.
BATCHES = (1, 4, 16)
LEAST_TEXTS = 4
#: Timed tokens of each text, behind its first.
STEPS = 64
#: Prompts that are read: the batch of so many tokens each, and one of so many.
PROMPT, LONG_PROMPT = 100, 512
WARM_UP_TOKENS = 2


@dataclass(frozen=True)
class Written:
    """Seconds of the first tokens and of whole texts, and the texts, of all batches together."""

    first: float
    whole: float
    texts: list[Tokens]

    @property
    def speed(self) -> float:
        """Tokens per second once every prompt is read."""
        return sum(len(text) - 1 for text in self.texts) / (self.whole - self.first)


def obstacle(name: str) -> str | None:
    """Why the section cannot be measured for a model of that name, in one line."""
    source = resolve(name)
    if source.kind != "gguf":
        return f"llama.cpp needs a .gguf file, and {name!r} is none; name one with --models"
    try:
        import_llama_cpp()
    except ConfigError as error:
        return str(error)
    return None


def measure(bench: Bench, library: Any = None) -> dict[str, Any]:
    """Tokens per second of both, and how far their texts agree.

    Args:
        library: the low-level calls of llama-cpp-python; None for the installed ones.

    Raises:
        ConfigError: it is not installed.
        ModelError: llama.cpp cannot load the file.
    """
    library = library or import_llama_cpp()
    source = resolve(bench.name)
    steps = min(STEPS, bench.settings.max_new_tokens - 1)
    if steps < 1:
        raise ConfigError(f"--max_new_tokens must be 2 or more here, got {bench.settings.max_new_tokens}")
    batches = [batch for batch in BATCHES if batch <= bench.settings.batch]
    prompts = long_texts(bench, max(LEAST_TEXTS, batches[-1]), 1 + steps)
    slots = max(LONG_PROMPT, PROMPT, max(map(len, prompts)) + 1 + steps)
    threads = torch.get_num_threads()
    with LlamaCpp(library, source.location, threads, bench.settings.batch, slots) as llama:
        about = llama.about()
        _warn_of_other_instructions(about["has"])
        writers: dict[str, Writer] = {
            LLAMA: llama.write,
            OURS: partial(_ours, bench),
            PLAIN: partial(_without_lookup, bench),
        }
        rounds = {batch: _decode(bench, writers, prompts, batch, steps) for batch in batches}
        prefill = [_prefill(bench, llama, *shape) for shape in ((bench.settings.batch, PROMPT), (1, LONG_PROMPT))]
    return {
        "reference": f"llama.cpp {about['commit']} with {' '.join(about['has'])}",
        "llama_cpp": {**about, "file": Path(source.location).name},
        "prompt_tokens": [len(prompt) for prompt in prompts],
        "steps": steps,
        "decode": [_decoded(batch, found) for batch, found in rounds.items()],
        "prefill": prefill,
        "agreement": asdict(leading(*(rounds[batches[-1]][name][0].texts for name in (LLAMA, OURS)))),
    }


def _ours(bench: Bench, prompts: Sequence[Tokens], longest: int) -> list[Tokens]:
    return generate_ours(bench, prompts, len(prompts), longest)


def _without_lookup(bench: Bench, prompts: Sequence[Tokens], longest: int) -> list[Tokens]:
    return generate_without_lookup(bench, prompts, len(prompts), longest)


def _decode(
    bench: Bench, writers: Mapping[str, Writer], prompts: Sequence[Tokens], batch: int, steps: int
) -> dict[str, list[Written]]:
    """Every writer's rounds with so many texts at once."""
    some = prompts[: max(LEAST_TEXTS, batch)]
    groups = [some[first : first + batch] for first in range(0, len(some), batch)]
    for write in writers.values():
        write(groups[0], WARM_UP_TOKENS)
    total = len(writers) * bench.settings.repeats
    with tqdm(total=total, desc=f"decoding, batch {batch}", unit="run", leave=False) as bar:

        def once(write: Writer) -> Written:
            found = _write(write, groups, steps)
            bar.update()
            return found

        runs = {name: partial(once, write) for name, write in writers.items()}
        timings = interleaved(runs, bench.settings.repeats)
    return {name: [found for _, found in rounds] for name, rounds in timings.items()}


def _write(write: Writer, groups: Sequence[Sequence[Tokens]], steps: int) -> Written:
    first = whole = 0.0
    texts: list[Tokens] = []
    for prompts in groups:
        first += timed(partial(write, prompts, 1))[0]
        seconds, written = timed(partial(write, prompts, 1 + steps))
        whole, texts = whole + seconds, texts + written
    return Written(first, whole, texts)


def _decoded(batch: int, found: Mapping[str, Sequence[Written]]) -> dict[str, Any]:
    speeds = {name: [one.speed for one in rounds] for name, rounds in found.items()}
    return {
        "batch": batch,
        "texts": len(found[LLAMA][0].texts),
        "seconds": {name: [one.whole for one in rounds] for name, rounds in found.items()},
        "seconds_first_token": {name: [one.first for one in rounds] for name, rounds in found.items()},
        "generated": {name: [sum(map(len, one.texts)) for one in rounds] for name, rounds in found.items()},
        "tokens_per_second": speeds,
        "ratio": ratios(speeds[OURS], speeds[LLAMA]),
        "ratio_without_lookup": ratios(speeds[PLAIN], speeds[LLAMA]),
    }


def _prefill(bench: Bench, llama: LlamaCpp, count: int, length: int) -> dict[str, Any]:
    """Tokens per second of reading `count` prompts of `length` tokens."""
    prompts = of_length(bench.prompts(), count, length)
    requests = [ThinkRequest(prompt) for prompt in prompts]
    runs: dict[str, Callable[[], object]] = {
        LLAMA: lambda: llama.read(prompts),
        OURS: lambda: bench.llm.think(requests),
    }
    for run in runs.values():
        run()
    timings = interleaved(runs, bench.settings.repeats)
    speeds = {name: [count * length / seconds for seconds, _ in rounds] for name, rounds in timings.items()}
    return {
        "prompts": count,
        "length": length,
        "seconds": {name: [seconds for seconds, _ in rounds] for name, rounds in timings.items()},
        "tokens_per_second": speeds,
        "ratio": ratios(speeds[OURS], speeds[LLAMA]),
    }


def _warn_of_other_instructions(has: Sequence[str]) -> None:
    ours = torch.backends.cpu.get_cpu_capability()
    if ours in ("AVX2", "AVX512") and ("AVX512" in has) != (ours == "AVX512"):
        logger.warning("torch uses %s and llama.cpp was built with %s; the comparison is not fair", ours, " ".join(has))
