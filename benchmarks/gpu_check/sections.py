"""The sections, and the order in which they come: first what must hold, then shape by shape how fast it is."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial

import torch

from benchmarks import orchestration
from benchmarks.gpu_check import (
    answering,
    invariants_caches,
    invariants_fusers,
    invariants_runs,
    invariants_solutions,
    memory,
    speed,
)
from benchmarks.gpu_check.runner import Part, Section
from benchmarks.gpu_check.setting import Models, Ready, Scale
from benchmarks.gpu_check.small import FAMILIES, Small, full_precision

#: Seconds that each would take on a large GPU, by which the time is shared out.
SHARES = {"invariants": 75, "orchestration": 15, "memory": 30, "speed": 50, "end_to_end": 40, "concurrency": 30}


def planned(shapes: Sequence[str], device: torch.device, only: Collection[str]) -> list[Section]:
    """What is to be run, in order."""
    models, scale, first = Models(device), Scale.of(shapes[0], device), shapes[0]
    every = [
        Section("invariants", None, SHARES["invariants"], partial(invariants, device)),
        Section("orchestration", None, SHARES["orchestration"], partial(orchestrating, scale, device)),
        Section("memory", first, SHARES["memory"], partial(_of_shape, memory.bound, models, first)),
    ]
    for shape in shapes:
        answers = partial(_of_shape, answering.beside_published, models, shape)
        in_hand = partial(_of_shape, answering.in_hand, models, shape)
        every += [
            Section("speed", shape, SHARES["speed"], partial(speed.beside, models, shape)),
            Section("end_to_end", shape, SHARES["end_to_end"], answers),
            Section("concurrency", shape, SHARES["concurrency"], in_hand),
        ]
    return [section for section in every if section.name in only]


def invariants(device: torch.device) -> Iterator[Part]:
    """Of the family of the shapes all of them, of the other one those of its own passes."""
    known, *others = reversed(FAMILIES)
    with full_precision():
        small = Small.of(known, device)
        of_runs = (*invariants_runs.ALL, *invariants_solutions.ALL)
        for check in (*invariants_caches.ALL, invariants_fusers.fusers, *of_runs):
            yield from check(small)
        for family in others:
            small = Small.of(family, device)
            for check in invariants_caches.ALL:
                yield from check(small)


def orchestrating(scale: Scale, device: torch.device) -> Iterator[Part]:
    yield orchestration.measure(1, scale.load, str(device))


def _of_shape(measure: Callable[[Ready], Iterator[Part]], models: Models, shape: str) -> Iterator[Part]:
    """A section that needs the model of a shape; it is made when the section's time runs."""
    return measure(models.get(shape))
