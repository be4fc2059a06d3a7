"""Where the time of a call goes, by torch operator."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.timing import synchronize

MOST = 8
OUTSIDE = "outside operators"


@dataclass(frozen=True)
class Share:
    """One operator's own time, without that of operators it calls, as a share of the whole."""

    operator: str
    share: float


def operator_seconds(run: Callable[[], object], device: torch.device | None = None) -> dict[str, float]:
    """Own seconds of every operator during a call, and the rest of its wall time as `OUTSIDE`.

    On a GPU the seconds are those that it works for the operator, and there is no rest: looking takes the processor
    so long that the wall time would be another one.
    """
    from torch.profiler import ProfilerActivity, profile, record_function

    if device is not None and device.type == "cuda":
        with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
            run()
            synchronize()
        called = [event for event in profiler.key_averages() if _is_called(event)]
        return {event.key: event.self_device_time_total / 1e6 for event in called if event.self_device_time_total > 0}
    with profile(activities=[ProfilerActivity.CPU]) as profiler, record_function(OUTSIDE):
        run()
    return {event.key: event.self_cpu_time_total / 1e6 for event in profiler.key_averages()}


def _is_called(event: Any) -> bool:
    """Whether an event is a call by the processor, to which the GPU's time is counted, and not a kernel itself."""
    return bool(event.device_type == torch.autograd.DeviceType.CPU)


def busy_seconds(seconds: Mapping[str, float]) -> float:
    """Of `operator_seconds`, those of operators."""
    return sum(value for name, value in seconds.items() if name != OUTSIDE)


def top_shares(seconds: Mapping[str, float], less: Mapping[str, float] | None = None) -> list[Share]:
    """The operators with the most time of their own, greatest first.

    Args:
        less: the seconds of a shorter call that are not to count, operator by operator.
    """
    rest = {name: max(0.0, value - (less or {}).get(name, 0.0)) for name, value in seconds.items()}
    total = sum(rest.values()) or 1.0
    ranked = sorted(rest.items(), key=lambda item: -item[1])[:MOST]
    return [Share(name, value / total) for name, value in ranked]
