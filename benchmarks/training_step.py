"""What learning adds to acting: a whole training step beside its rollouts alone.

REINFORCE needs the rollouts in any case, so they are the reference. What comes on top is the
log-probabilities computed once more with gradient, and the step of the optimizer; with the exact
gradient ("full") the agents also think once more. Texts whose advantages cancel are not replayed,
so how many were stands beside the ratio.
"""

from __future__ import annotations

import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from tqdm import tqdm

from benchmarks.setting import Bench
from benchmarks.timing import ratios
from gcache.build import assemble
from gcache.config import LEARNED, GraphSpec
from gcache.graph.run_config import GraphConfig
from gcache.tasks.registry import make_task
from gcache.training.config import GRADIENTS, TrainConfig
from gcache.training.trainer import Reinforce

TASK = "split_facts"


@dataclass(frozen=True)
class Size:
    """How much is trained.

    Attributes:
        steps: timed ones, per repeat; `warm_up` more come first.
        encoder: of the policy's features.
    """

    questions: int = 16
    rollouts: int = 4
    steps: int = 3
    warm_up: int = 1
    encoder: str = "minilm"


@dataclass(frozen=True)
class StepCost:
    """One gradient's seconds, one figure per timed step.

    Attributes:
        replayed: texts whose log-probability was computed once more, of `written`.
    """

    gradient: str
    written: int
    replayed: list[int]
    rollouts: list[float]
    step: list[float]
    ratio: list[float]


def measure(bench: Bench, size: Size | None = None) -> dict[str, Any]:
    """Seconds of steps and of their rollouts, for both gradients."""
    size = size or Size()
    found: dict[str, list[dict[str, Any]]] = {gradient: [] for gradient in GRADIENTS}
    rounds = [gradient for _ in range(bench.settings.repeats) for gradient in GRADIENTS]
    for gradient in tqdm(rounds, desc="training", unit="run", leave=False):
        found[gradient] += _train(bench, gradient, size)[size.warm_up :]
    costs = [_cost(gradient, metrics) for gradient, metrics in found.items()]
    return {
        "reference": "the rollouts of the same step",
        "size": asdict(size),
        "costs": [{**asdict(cost), "median_ratio": median(cost.ratio)} for cost in costs],
        "metrics": found,
    }


def _train(bench: Bench, gradient: str, size: Size) -> list[dict[str, Any]]:
    """The metrics of a short training run, whose checkpoints are thrown away."""
    task = make_task(TASK)
    spec = GraphSpec(
        llm_name=bench.name,
        domain=task.domain,
        topology=LEARNED,
        encoder=size.encoder,
        seed=bench.settings.seed,
        graph=GraphConfig(latent_steps=0, max_new_tokens=task.max_new_tokens),
    )
    config = TrainConfig(
        iterations=size.warm_up + size.steps,
        batch_size=size.questions,
        rollouts=size.rollouts,
        fuser_gradient=gradient,
        seed=bench.settings.seed,
    )
    built = assemble(spec, bench.llm, bench.loaded.tokenizer, bench.loaded.fingerprint)
    with tempfile.TemporaryDirectory() as folder:
        return Reinforce(built, task, config, Path(folder)).train(progress=False)


def _cost(gradient: str, metrics: list[dict[str, Any]]) -> StepCost:
    rollouts = [float(line["seconds_rollouts"]) for line in metrics]
    steps = [float(line["seconds"]) for line in metrics]
    replayed = [int(line["replayed"]) for line in metrics]
    return StepCost(gradient, int(metrics[0]["rollouts"]), replayed, rollouts, steps, ratios(steps, rollouts))
