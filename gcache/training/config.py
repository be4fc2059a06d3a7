"""How training goes: the settings of a run, checked before anything is loaded."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from gcache.errors import ConfigError, unknown
from gcache.links.perceiver_config import PerceiverConfig

#: The fixed topologies a report compares with unless it is told others.
COMPARED = ("none", "full")
#: What may become of a run whose API fails for good.
ON_ERROR = ("stop", "skip")


def check_on_error(value: str) -> None:
    """Raise ConfigError for what is not one of `ON_ERROR`."""
    if value not in ON_ERROR:
        raise unknown("way to go on after an error", value, ON_ERROR)


@dataclass(frozen=True)
class TrainConfig:
    """How training goes.

    Attributes:
        iterations: optimizer steps.
        batch_size: questions per step (Q).
        rollouts: runs per question (K).
        lr: of the policy, decaying linearly to 0; fuser_lr: of the fuser, likewise.
        weight_decay: of the policy (AdamW).
        edge_price, entropy_bonus: lambda and beta of the objective.
        token_price, mib_price: taken off a rollout's utility per 1,000 tokens of texts and latent steps
            (the agents', the decision maker's, an API's) and per MiB of caches that went over its edges.
        anchor, anchor_strength: a fixed topology that the edges are pulled to, and alpha of the objective.
        temperature: of the sampled answers; above 0.
        temperature_end, entropy_bonus_end: what these come to at the last step, in equal steps; None
            for no change.
        baseline: "leave_one_out", "ema" or "none"; see `gcache.training.objective`.
        gradient: "decision" or "full", see `gcache.training.replay`; "auto" for the exact one where it can be
            had, see `gcache.training.fuser_gradient`.
        clip: the most the norm of each part's gradient may be.
        pruning_rate: the share of the edges that is cut half way; see `gcache.training.pruning`.
        train_limit: how many training questions there are to draw from; None for all.
        checkpoint_every: steps between checkpoints; None for one after every step, but at most one in half a
            minute. There is one at the end too, also of a run that is stopped or fails, unless it is killed.
        on_error: what becomes of a run whose API, grader or context fails for good: "stop" ends the training, "skip"
            leaves the run's question out of its step. It is never graded.
        seed: of everything that is drawn.
    """

    iterations: int = 40
    batch_size: int = 16
    rollouts: int = 4
    lr: float = 5e-3
    fuser_lr: float = 1e-3
    weight_decay: float = 0.1
    edge_price: float = 0.01
    entropy_bonus: float = 0.01
    token_price: float = 0.0
    mib_price: float = 0.0
    anchor: str | None = None
    anchor_strength: float = 0.0
    temperature: float = 1.0
    temperature_end: float | None = None
    entropy_bonus_end: float | None = None
    baseline: str = "leave_one_out"
    gradient: str = "auto"
    clip: float = 1.0
    pruning_rate: float = 0.0
    train_limit: int | None = None
    checkpoint_every: int | None = None
    on_error: str = "stop"
    seed: int = 0

    def __post_init__(self) -> None:
        # not at the head: the command line reads the defaults from here before torch is there
        from gcache.gnn.fixed import FixedTopology
        from gcache.training.objective import check_baseline
        from gcache.training.pruning import check_pruning_rate
        from gcache.training.replay import check_gradient

        check_baseline(self.baseline, self.rollouts)
        check_on_error(self.on_error)
        check_pruning_rate(self.pruning_rate)
        check_gradient(self.gradient)
        for name in ("iterations", "batch_size", "checkpoint_every"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} must be 1 or more, got {value}")
        for name in ("lr", "fuser_lr", "temperature", "temperature_end", "clip"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ConfigError(f"{name} must be a finite number above 0, got {value}")
        for name in (
            "weight_decay", "edge_price", "entropy_bonus", "entropy_bonus_end", "token_price", "mib_price",
            "anchor_strength",
        ):  # fmt: skip
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise ConfigError(f"{name} must be a finite number of 0 or more, got {value}")
        if self.anchor is not None:
            FixedTopology(self.anchor, 1)
        if (self.anchor is None) != (self.anchor_strength == 0):
            raise ConfigError(
                f"anchor is {self.anchor!r} and anchor_strength {self.anchor_strength}; pass both, or neither"
            )

    def scheduled(self, name: str, step: int) -> float:
        """What `temperature` or `entropy_bonus` is at a step: a line from its value to its end."""
        start, end = float(getattr(self, name)), getattr(self, f"{name}_end")
        if end is None or self.iterations == 1:
            return start
        return start + (float(end) - start) * step / (self.iterations - 1)


@dataclass(frozen=True)
class FitConfig:
    """How a perceiver is fitted.

    Attributes:
        shape: see `PerceiverConfig`.
        steps: of the optimizer; batch_size: questions of each.
        lr: at its highest, after `warmup` of the steps; it falls to 0 along a cosine.
        clip: the most the gradient's norm may be.
        held_out: training questions of which the loss is watched and nothing is learned.

    Raises:
        ConfigError: a value that is not allowed.
    """

    shape: PerceiverConfig = field(default_factory=PerceiverConfig)
    steps: int = 600
    batch_size: int = 8
    lr: float = 1e-3
    warmup: float = 0.05
    weight_decay: float = 0.01
    clip: float = 1.0
    held_out: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("steps", 1), ("batch_size", 1), ("held_out", 0), ("seed", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name} must be {least} or more, got {getattr(self, name)}")
        for name in ("lr", "clip"):
            if not 0 < getattr(self, name) < math.inf:
                raise ConfigError(f"{name} must be above 0, got {getattr(self, name)}")
        if not 0 <= self.warmup < 1:
            raise ConfigError(f"warmup must be from 0 to below 1, got {self.warmup}")

    def rate(self, step: int) -> float:
        """The learning rate's share of `lr`."""
        warm = self.warmup * self.steps
        if step < warm:
            return (step + 1) / (warm + 1)
        return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1.0, self.steps - warm)))
