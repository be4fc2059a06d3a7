"""What a step is measured by."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from gcache.evaluation.intervals import mean_interval
from gcache.graph.result import TOKENS
from gcache.training.early_stop import ASKED, RIGHT
from gcache.training.rollouts import Graded

logger = logging.getLogger(__name__)

#: Of the running mean of utilities, the share that a step keeps.
EMA = 0.9
#: After how many steps in which nothing was learned from answers a run warns.
IDLE = 5


def running_mean(before: float, mean: float, step: int) -> float:
    """The running mean of utilities after a step of this mean."""
    return EMA * before + (1 - EMA) * mean if step else mean


def of_rollouts(step: int, graded: Graded) -> dict[str, Any]:
    """How often a step's rollouts were right, and how many edges they had."""
    mean, low, high = mean_interval(graded.utilities.mean(dim=1).tolist())
    runs = [r for group in graded.groups for r in group]
    return {
        "step": step,
        "utility": mean,
        "utility_low": low,
        "utility_high": high,
        "rollouts": len(runs),
        "unparsed": sum(g.outcome == "unparsed" for row in graded.grades for g in row),
        "unstated": sum(g.unstated for row in graded.grades for g in row),
        "cut": sum(sum(r.texts) for r in runs),
        "texts": sum(len(r.texts) for r in runs),
        "failed": graded.failed,
        "edges": sum(len(r.topology.edges) for r in runs) / len(runs),
    }


def of_tokens(graded: Graded) -> dict[str, int]:
    """What they took to compute, by kind."""
    runs = [r for group in graded.groups for r in group]
    return {f"tokens_{kind}": sum(r.tokens[kind] for r in runs) for kind in TOKENS}


def of_likeliest(graded: Graded) -> dict[str, Any]:
    """How the most likely topology answered a step's questions, and what that took; empty where it was not asked."""
    asked = graded.likeliest
    if not asked:
        return {}
    tokens = {f"likeliest_tokens_{kind}": sum(r.tokens[kind] for r in asked) for kind in TOKENS}
    return {ASKED: len(asked), RIGHT: graded.right, **tokens, "seconds_likeliest": graded.seconds}


class Idleness:
    """Counts steps in a row in which no rollout was worth more than another of its question."""

    def __init__(self) -> None:
        self.steps = 0

    def mixed_groups(self, net: Tensor) -> float:
        """The share of questions of which one rollout was worth more than another; warns where there are none."""
        share = float((net.amax(dim=1) > net.amin(dim=1)).float().mean())
        self.steps = 0 if share else self.steps + 1
        if self.steps == IDLE and net.shape[1] > 1:
            logger.warning(
                "in the last %d steps all rollouts of a question were worth the same (mean %.3f), so nothing was "
                "learned from answers; try other --decision_probability and --agent_probability, a lower --lr, "
                "more --rollouts, or an easier task", IDLE, float(net.mean()),
            )  # fmt: skip
        return share


def signal_to_noise(optimizer: torch.optim.AdamW, names: Iterable[str]) -> dict[str, float]:
    """|m|^2 / |v| of each part, of Adam's moments without their bias towards 0: the squared mean of
    the last gradients (about ten, clipped) over their mean square. Gradients that are all alike give 1,
    pure noise gives (1 - b1) / (1 + b1), which is 0.05."""
    found: dict[str, float] = {}
    for group, name in zip(optimizer.param_groups, names, strict=True):
        first, second = group["betas"]
        signal = power = 0.0
        for parameter in group["params"]:
            state = optimizer.state.get(parameter)
            if state:
                steps = float(state["step"])
                signal += float((state["exp_avg"] / (1 - first**steps)).square().sum())
                power += float((state["exp_avg_sq"] / (1 - second**steps)).sum())
        found[f"gradient_snr_{name}"] = signal / power if power else 0.0
    return found
