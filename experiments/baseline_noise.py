"""How noisy the gradient is under each baseline, measured on the same rollouts.

A baseline changes the variance of REINFORCE and not its mean (Williams 1992; leave-one-out: Kool et al.
2019). So at one place of training, gradients of many batches are drawn, each under every baseline, and

    noise  = trace of their covariance,      signal = |their mean|^2 - noise / M   (unbiased)

are told apart. Prices and the entropy bonus, which have no noise of this kind, are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm import tqdm

from gcache.errors import ConfigError
from gcache.graph.result import RunResult
from gcache.runtime.streams import resampling
from gcache.tasks.example import Example
from gcache.training.config import BASELINES
from gcache.training.metrics import running_mean
from gcache.training.objective import LossWeights, advantages
from gcache.training.trainer import Reinforce

REFERENCE = "leave_one_out"
RESAMPLES = 2000


@dataclass(frozen=True)
class Noise:
    """One part's gradient under one baseline.

    Attributes:
        signal, noise: see above; signal may come out below 0 where there is next to none.
        to_noise: signal over noise, of one batch.
        ratio: noise over that of `REFERENCE`; low, high: its 95 % bootstrap interval over batches.
        batches: M.
    """

    part: str
    baseline: str
    signal: float
    noise: float
    to_noise: float
    ratio: float
    low: float
    high: float
    batches: int


def compare_baselines(
    trainer: Reinforce, questions: Sequence[Example], batches: int, progress: bool = True
) -> list[Noise]:
    """Gradients at the trainer's present weights, which stay as they are.

    Args:
        questions: drawn from as in training, a batch a step; one batch more than `batches` starts the
            running mean of the baseline "ema".

    Raises:
        ConfigError: fewer than 2 batches, or a trainer with one rollout per question.
    """
    if batches < 2 or trainer.config.rollouts < 2:
        raise ConfigError(f"2 or more batches and rollouts wanted, got {batches} and {trainer.config.rollouts}")
    found: dict[tuple[str, str], list[Tensor]] = {}
    running = 0.0
    for step in tqdm(range(batches + 1), desc="batches", disable=not progress):
        graded = trainer.rollouts.run(step, trainer.rollouts.draw(questions, step))
        if step:
            for baseline in BASELINES:
                advantage = advantages(graded.net, baseline, running)
                for part, gradient in _gradients(trainer, graded.groups, advantage).items():
                    found.setdefault((part, baseline), []).append(gradient)
        running = running_mean(running, float(graded.net.mean()), step)
    return [_noise(part, baseline, found) for part, baseline in found]


def _gradients(trainer: Reinforce, groups: Sequence[Sequence[RunResult]], advantage: Tensor) -> dict[str, Tensor]:
    trainer.optimizer.zero_grad(set_to_none=True)
    trainer.objective.backward(groups, advantage, LossWeights())
    found = {
        name: torch.cat([
            (torch.zeros_like(p) if p.grad is None else p.grad).detach().reshape(-1).cpu() for p in part.parameters()
        ])
        for name, part in trainer.parts.items()
        if list(part.parameters())
    }  # fmt: skip
    trainer.optimizer.zero_grad(set_to_none=True)
    return found


def _noise(part: str, baseline: str, found: dict[tuple[str, str], list[Tensor]]) -> Noise:
    own, reference = (torch.stack(found[part, name]).double() for name in (baseline, REFERENCE))
    products, others = own @ own.T, reference @ reference.T
    count = len(own)
    noise = _trace(products)
    signal = float(products.mean()) - noise / count
    generator = resampling(0)
    ratios = []
    for _ in range(RESAMPLES):
        drawn = torch.randint(count, (count,), generator=generator)
        below = _trace(others[drawn][:, drawn])
        if below > 0:
            ratios.append(_trace(products[drawn][:, drawn]) / below)
    low, high = torch.quantile(torch.tensor(ratios), torch.tensor([0.025, 0.975])).tolist() if ratios else (0.0, 0.0)
    whole = _trace(others)
    return Noise(
        part, baseline, signal, noise, signal / noise if noise else 0.0, noise / whole if whole else 0.0,
        low, high, count,
    )  # fmt: skip


def _trace(products: Tensor) -> float:
    """Of the covariance of vectors, from their products with each other."""
    count = len(products)
    return float(products.diagonal().mean() - products.mean()) * count / (count - 1)
