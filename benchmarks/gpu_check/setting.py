"""How much is measured, and the models that it is measured on, one at a time."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch

from benchmarks.end_to_end import AGENTS
from benchmarks.gpu_check.checks import Check
from benchmarks.gpu_check.invariants_caches import exact_paths
from benchmarks.gpu_check.questions import asked
from benchmarks.gpu_check.shapes import load_shape, narrowed
from benchmarks.machine_speed import Sizes
from benchmarks.orchestration import Load
from benchmarks.setting import Bench, Settings
from benchmarks.timing import timed
from gcache.llm.cache_budget import CacheLedger, Limits
from gcache.llm.load.loading import LoadedModel


@dataclass(frozen=True)
class Scale:
    """How much of everything.

    Attributes:
        settings: of the sections that compare with something.
        precise: prompts, and tokens of each, that are written in float32 by both sides.
        machine: how large the operations of the floor are.
        load: of graphs without a model.
        rounds: of the floor.
        in_memory: questions when memory is watched, and how many of them at once.
        levels: numbers of questions in hand.
        agents, answer: of those questions, and tokens of each answer.
    """

    settings: Settings
    precise: tuple[int, int]
    machine: Sizes
    load: Load
    rounds: int
    in_memory: tuple[int, int]
    levels: tuple[int, ...]
    agents: int
    answer: int

    @classmethod
    def of(cls, shape: str, device: torch.device) -> Scale:
        """Little for the tiny shape, which nobody wants to know about; its levels of concurrency are the same."""
        levels = (1, 4, 16, 64, 256)
        if shape == "tiny":
            few = Settings(questions=4, batch=2, latent_steps=2, max_new_tokens=6)
            return cls(few, (2, 8), Sizes(256, 2**20), Load(4, 2, 2, (2, 3)), 1, (8, 2), levels, 2, 2)
        return cls(
            Settings(questions=32, batch=16, latent_steps=10, max_new_tokens=64), (4, 32), Sizes.of(device),
            Load(200, 4, 50, (4, 16)), 5, (48, 8), levels, AGENTS, 32,
        )  # fmt: skip


@dataclass(frozen=True)
class Ready:
    """A model that is measured.

    Attributes:
        bench: as other benchmarks have it, without guesses: random weights write the same token over and over, and
            every guess would be right. No text ends before its last token.
        seconds: to make it, and to make ours of it.
        exactness: how exact our passes through it are.
    """

    bench: Bench
    scale: Scale
    seconds: tuple[float, float]
    exactness: tuple[Check, ...]

    @property
    def about(self) -> dict[str, Any]:
        model = self.bench.loaded.model
        return {
            "label": self.bench.loaded.label,
            "dtype": str(model.dtype).removeprefix("torch."),
            "parameters": model.num_parameters(),
            "device": str(self.bench.llm.device),
            "cache_shape": list(self.bench.llm.cache_shape),
            "attention": model.config._attn_implementation,
            "recorded_passes": self.bench.llm.records_passes,
            "seconds_weights": self.seconds[0],
            "seconds_ours": self.seconds[1],
        }


class Models:
    """Holds the model that was asked for last."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._kept: tuple[str, Ready] | None = None

    def get(self, shape: str) -> Ready:
        """That of a shape.

        Raises:
            ModelError: our passes through it are not exact.
        """
        if self._kept is None or self._kept[0] != shape:
            self._kept = None
            gc.collect()
            scale = Scale.of(shape, self.device)
            seconds, loaded = timed(lambda: load_shape(shape, self.device, torch.bfloat16))
            more, (bench, checks) = timed(lambda: bench_of(loaded, shape, scale.settings))
            self._kept = shape, Ready(bench, scale, (seconds, more), tuple(checks))
        return self._kept[1]

    def in_fp32(self, shape: str) -> Bench:
        """The same weights in float32; not kept."""
        loaded = load_shape(shape, self.device, torch.bfloat16)
        narrowed(loaded.model, torch.float32)
        return bench_of(loaded, shape, Scale.of(shape, self.device).settings)[0]


def bench_of(loaded: LoadedModel, name: str, settings: Settings) -> tuple[Bench, list[Check]]:
    llm, checks = exact_paths(loaded.model, loaded.label)
    llm.limits = replace(llm.limits, max_batch_size=settings.batch, prompt_lookup=False)
    llm.stop_tokens = frozenset({loaded.model.config.vocab_size})  # no token has this id, so no text ends
    return Bench(settings, asked(settings), name, loaded, llm), checks


@contextmanager
def limited(bench: Bench, limits: Limits) -> Iterator[CacheLedger]:
    """Within it the model has other limits, and counts its bytes anew."""
    llm = bench.llm
    before, ledger = llm.limits, llm.ledger
    llm.limits, llm.ledger = limits, CacheLedger(limits.max_cache_bytes)
    llm.kept.clear()
    try:
        yield llm.ledger
    finally:
        llm.limits, llm.ledger = before, ledger
        llm.kept.clear()
