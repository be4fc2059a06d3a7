"""What is measured on: the device in words, and the most of its memory that something takes."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any, TypeVar

import torch

from benchmarks.live_bytes import LiveBytes
from benchmarks.records import machine
from benchmarks.setting import Bench
from benchmarks.timing import timed
from gcache.llm.load.device import pick_device

T = TypeVar("T")
#: Of the passes that decode, the gauge of a CPU's memory looks into each so many-th.
LOOK_EVERY = 4


def prepared(name: str) -> torch.device:
    """The device that is measured; it is the current one from here on.

    Raises:
        ConfigError: it is not there.
    """
    device = pick_device(name)
    if device.type == "cuda":
        torch.cuda.set_device(device.index or 0)
        torch.zeros(1, device=device)
    return device


def described(device: torch.device) -> dict[str, Any]:
    """The machine, and its GPU where that is what is measured."""
    found = {**machine(), "device": str(device), "cuda": torch.version.cuda, "name": "CPU"}
    if device.type != "cuda":
        return found
    about = torch.cuda.get_device_properties(device)
    return {
        **found,
        "name": torch.cuda.get_device_name(device),
        "memory": about.total_memory,
        "capability": f"{about.major}.{about.minor}",
        "multiprocessors": about.multi_processor_count,
    }


def free_bytes(device: torch.device) -> int | None:
    """Of a GPU's memory, what nothing is in; None on a CPU."""
    return int(torch.cuda.mem_get_info(device)[0]) if device.type == "cuda" else None


def watched(bench: Bench, run: Callable[[], T], once: bool = False) -> tuple[float, T, int]:
    """Seconds, what came of it, and the most bytes that it took.

    On a GPU these are all bytes that were allocated beyond those before, whatever for. On a CPU they are those of
    caches, looked for in a second run, since looking takes time; `once`: in the only run.
    """
    device = bench.llm.device
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        seconds, result = timed(run)
        return seconds, result, torch.cuda.max_memory_allocated(device) - before
    _, heads, dim = bench.llm.cache_shape
    unwatched = None if once else timed(run)
    with LiveBytes(bench.loaded.model, heads, dim, LOOK_EVERY) as gauge:
        seconds, result = timed(run)
    return *(unwatched or (seconds, result)), gauge.peak.nbytes
