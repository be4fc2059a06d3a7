"""How training goes: the settings of a run, checked before anything is loaded."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gcache.errors import ConfigError, unknown
from gcache.gnn.fixed import TOPOLOGIES
from gcache.links.perceiver_config import PerceiverConfig
from gcache.runtime.plugin_files import permitted
from gcache.runtime.settings import Settings, current_names, setting
from gcache.runtime.typed import mistyped

#: The fixed topologies a report compares with unless it is told others.
COMPARED = ("none", "full")
#: What may become of a run whose API fails for good.
ON_ERROR = ("stop", "skip")
#: What is subtracted from a rollout's utility: the mean of its question's other rollouts; a running mean
#: over steps; nothing, as in the published loss.
BASELINES = ("leave_one_out", "ema", "none")
#: How far the gradient of log pi goes back (`gcache.training.replay`), and to choose the exact one where it can be had.
GRADIENTS, AUTO = ("decision", "full"), "auto"


def check_on_error(value: str) -> None:
    """Raise ConfigError for what is not one of `ON_ERROR`."""
    if value not in ON_ERROR:
        raise unknown("way to go on after an error", value, ON_ERROR)


@dataclass(frozen=True)
class TrainConfig(Settings):
    """How training goes. Each field says in its help text what it is.

    Raises:
        ConfigError: a value that is not allowed, or two that do not go together.
    """

    iterations: int = setting(40, help="steps of the optimizer", group="steps", at_least=1)
    batch_size: int = setting(16, help="questions per step (Q)", group="steps", at_least=1)
    rollouts: int = setting(4, help="runs per question (K)", group="training", at_least=1)
    lr: float = setting(5e-3, help="of the policy, falling in a line to 0", group="training", above=0)
    fuser_lr: float = setting(1e-3, help="of the fuser, likewise", group="training", above=0)
    weight_decay: float = setting(0.1, help="of the policy (AdamW)", group="training", at_least=0)
    edge_price: float = setting(0.01, help="lambda of the objective", group="training", at_least=0)
    entropy_bonus: float = setting(0.01, help="beta of the objective", group="training", at_least=0)
    token_price: float = setting(
        0.0, help="off the utility per 1,000 tokens of texts and latent steps", group="training", at_least=0
    )
    token_price_end: float | None = setting(
        None, help="what it comes to at the last step, in equal steps: from 0, whom to believe is learned before "
        "agents cost anything",
        group="training", at_least=0, unset="the same",
    )
    mib_price: float = setting(0.0, help="off the utility per MiB of caches handed over", group="training", at_least=0)
    anchor: str | None = setting(
        None, help="a fixed topology that the edges are pulled to, as a prior", group="training", what="topology",
        choices=TOPOLOGIES, unset="no anchor",
    )
    anchor_strength: float = setting(
        0.0, help="alpha of the objective, of the squared distance to the anchor", group="training", at_least=0
    )
    temperature: float = setting(1.0, help="of sampled answers", group="training", above=0)
    temperature_end: float | None = setting(
        None, help="what it comes to at the last step, in equal steps", group="training", above=0, unset="the same"
    )
    entropy_bonus_end: float | None = setting(
        None, help="likewise of --entropy_bonus", group="training", at_least=0, unset="the same"
    )
    baseline: str = setting(
        "leave_one_out", help="what a rollout's utility is compared with", group="training", choices=BASELINES
    )
    fuser_gradient: str = setting(
        AUTO, help="full: every hop and latent step, exact; decision: the last hop, exact where no agent that is heard "
        "has received a cache; auto: decision where it is exact, else full if all agents share one model and a run "
        "fits into --max_gradient_tokens, else decision; the log says which",
        group="training", was="gradient", choices=GRADIENTS, also=(AUTO,),
    )
    clip: float = setting(1.0, help="the most the norm of each part's gradient may be", group="training", above=0)
    pruning_rate: float = setting(
        0.0, help="share of the edges between roles, the least likely ones, that is cut half way", group="training",
        at_least=0, below=1,
    )
    limit: int | None = setting(
        None, help="training questions to draw from", group="steps", was="train_limit", unset="all"
    )
    stop_when_right: int | None = setting(
        None, help="end training once the most likely topology has answered all questions of so many steps in a row "
        "right, each before it was learned from; it is asked from half of the rollouts right on",
        group="steps", metavar="STEPS", at_least=1, unset="all steps are trained",
    )
    checkpoint_every: int | None = setting(
        None, help="steps between checkpoints; a run that is stopped keeps its last whole step", group="training",
        metavar="STEPS", at_least=1, unset="one after every step, but at most one in 30 seconds",
    )
    on_error: str = setting(
        "stop", help="when a question fails for good (its API or grader, or it is too long): stop, or skip it; it is "
        "never graded; an answer that is filtered, refused or broken off is such a failure",
        group="errors", what="way to go on after an error", choices=ON_ERROR,
    )
    seed: int = setting(0, help="of everything drawn", group="training")
    words_seed: int = setting(
        0, help="with --hands reasoning, of the solutions of agents that hear nobody, and of the decision maker's text "
        "where it hears nobody: these depend on nothing that is learned, so all rollouts of a question have the same, "
        "and runs of other seeds too",
        group="training", at_least=0,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.baseline == "leave_one_out" and self.rollouts < 2:
            raise ConfigError(
                f"the leave_one_out baseline needs rollouts of 2 or more, got {self.rollouts}; raise --rollouts, or "
                "pass --baseline none"
            )
        if (self.anchor is None) != (self.anchor_strength == 0):
            raise ConfigError(
                f"anchor is {self.anchor!r} and anchor_strength {self.anchor_strength}; pass both, or neither"
            )

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> TrainConfig:
        """What a run wrote down; fields may stand under the names that they had before.

        A file that it names is run only if the user named it too.

        Raises:
            ConfigError: unknown fields, or values that are not allowed.
            PluginError: a plug-in that cannot be used, or must not be run.
        """
        values = current_names(cls, values)
        if isinstance(values.get("anchor"), str):
            values["anchor"] = permitted(values["anchor"], "the checkpoint")
        try:
            made = cls(**values)
        except TypeError as error:
            raise ConfigError(f"not the settings of a training: {error}") from error
        wrong = mistyped(made)
        if wrong:
            raise ConfigError(f"not the settings of a training: {wrong}")
        return made

    def scheduled(self, name: str, step: int) -> float:
        """What `temperature`, `entropy_bonus` or `token_price` is at a step: a line from its value to its end."""
        start, end = float(getattr(self, name)), getattr(self, f"{name}_end")
        if end is None or self.iterations == 1:
            return start
        return start + (float(end) - start) * step / (self.iterations - 1)


@dataclass(frozen=True)
class FitConfig(Settings):
    """How a perceiver is fitted; the learning rate rises to `lr`, and falls to 0 along a cosine.

    Raises:
        ConfigError: a value that is not allowed.
    """

    shape: PerceiverConfig = field(default_factory=PerceiverConfig)
    steps: int = setting(600, help="of the optimizer", group="fitting", at_least=1)
    batch_size: int = setting(8, help="questions of a step", group="fitting", at_least=1)
    lr: float = setting(1e-3, help="at its highest", group="fitting", above=0)
    warmup: float = setting(0.05, help="share of the steps in which it rises", group="fitting", at_least=0, below=1)
    weight_decay: float = setting(0.01, help="of AdamW", group="fitting")
    clip: float = setting(1.0, help="the most the gradient's norm may be", group="fitting", above=0)
    held_out: int = setting(
        64, help="training questions of which the loss is only watched", group="fitting", at_least=0
    )
    seed: int = setting(0, help="of what is drawn", group="fitting", at_least=0)

    def rate(self, step: int) -> float:
        """The learning rate's share of `lr`."""
        warm = self.warmup * self.steps
        if step < warm:
            return (step + 1) / (warm + 1)
        return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1.0, self.steps - warm)))
