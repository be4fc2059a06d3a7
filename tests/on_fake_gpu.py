"""A script: what `benchmarks.gpu_check` measures, on a GPU that is none; it ends with an error if anything is wrong."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

os.environ["TQDM_DISABLE"] = "1"
sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from fake_gpu import DEVICE, WrongDevice, fake_gpu

from benchmarks.gpu_check import (
    answering,
    invariants_caches,
    invariants_fusers,
    invariants_runs,
    invariants_solutions,
    sections,
)
from benchmarks.gpu_check.checks import Check
from benchmarks.gpu_check.setting import Models
from benchmarks.gpu_check.small import Small
from benchmarks.timing import timed


def refused(wrong: Callable[[], object]) -> bool:
    try:
        wrong()
    except WrongDevice:
        return True
    return False


def it_refuses_what_cuda_refuses() -> None:
    there, here = torch.ones(3, 4, device=DEVICE), torch.ones(3, 4)
    assert refused(lambda: there + here)
    assert refused(lambda: torch.cat((there, here)))
    assert refused(lambda: here[torch.zeros(2, dtype=torch.long, device=DEVICE)])
    assert refused(lambda: torch.rand(3, device=DEVICE, generator=torch.Generator()))
    assert (there + torch.tensor(2.0)).sum().item() == 36.0
    assert there[torch.tensor([0, 1])].tolist() == [[1.0] * 4] * 2
    there[0] = torch.zeros(4)
    assert there.sum().item() == 8.0


def invariants_hold() -> None:
    small = Small.of("Qwen3", torch.device(DEVICE))
    checks = [check for ask in (invariants_caches.batching, invariants_caches.positions) for check in ask(small)]
    for name in ("relevance", "weighted_sum"):  # those that compute most by themselves
        checks += [*invariants_fusers.one_cache(small, name), *invariants_fusers.several_caches(small, name)]
    checks += [*invariants_fusers.gradients(small, "relevance"), *invariants_runs.same_seed(small)]
    checks += [check for ask in invariants_solutions.ALL for check in ask(small)]
    failed = [str(check) for check in checks if not check.passed]
    assert checks and not failed, failed


def questions_are_answered() -> None:
    """Beside the published algorithm, too; bytes cannot be looked for there."""
    answering.watched = lambda bench, run: (*timed(run), 1)  # type: ignore[assignment]
    ready = Models(torch.device(DEVICE)).get("tiny")
    parts = [*answering.beside_published(ready), *sections.orchestrating(ready.scale, torch.device(DEVICE))]
    checks = [part for part in parts if isinstance(part, Check)]
    assert len(checks) == 3 and all(check.passed for check in checks)


if __name__ == "__main__":
    with fake_gpu():
        it_refuses_what_cuda_refuses()
        invariants_hold()
        questions_are_answered()
