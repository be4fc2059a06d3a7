"""Timing several things against each other on a machine whose speed drifts."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import torch

T = TypeVar("T")


def synchronize() -> None:
    """Wait until a GPU, where one is used, has done all that it was told to do."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def timed(run: Callable[[], T]) -> tuple[float, T]:
    """Seconds, and what came of it."""
    synchronize()
    started = time.perf_counter()
    result = run()
    synchronize()
    return time.perf_counter() - started, result


def interleaved(runs: Mapping[str, Callable[[], T]], repeats: int) -> dict[str, list[tuple[float, T]]]:
    """Time all runs `repeats` times, round by round, so that those of one round met the same machine.

    Every round starts one further on, so that none is always the first.
    """
    names = list(runs)
    found: dict[str, list[tuple[float, T]]] = {name: [] for name in names}
    for number in range(repeats):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            found[name].append(timed(runs[name]))
    return found


def ratios(values: Sequence[float], references: Sequence[float]) -> list[float]:
    """Each value over the reference of its own round."""
    return [value / reference for value, reference in zip(values, references, strict=True)]
