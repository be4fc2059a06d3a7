"""What the command line and the experiments do, as functions: train, evaluate, ask."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gcache.build import Built, GraphSpec, build
from gcache.errors import CheckpointError, ConfigError
from gcache.files import write_json
from gcache.graph.cache_graph import IN_FLIGHT, CacheGraph
from gcache.graph.fixed import FixedTopology
from gcache.llm.memory import Limits
from gcache.tasks.example import Task
from gcache.tasks.registry import make_task
from gcache.training import checkpoint as checkpoints
from gcache.training.evaluate import Evaluation, evaluate
from gcache.training.report import COMPARED, Report
from gcache.training.trainer import Reinforce, TrainConfig

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TaskSpec:
    """How to make a task: its name, a data file, its options."""

    name: str = "split_facts"
    data: str | None = None
    options: dict[str, Any] = field(default_factory=dict)

    def make(self) -> Task:
        return make_task(self.name, self.data, **self.options)

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "data": self.data, "options": dict(self.options)}


@dataclass(frozen=True)
class TrainResult:
    """Where a training run ended, and its report's tables where one was asked for."""

    out: Path
    checkpoint: Path
    history: list[dict[str, Any]]
    table: str | None


def train(
    task_spec: TaskSpec,
    spec: GraphSpec,
    config: TrainConfig,
    out: Path,
    report: int = 0,
    compare: Sequence[str] = COMPARED,
    progress: bool = True,
    limits: Limits | None = None,
) -> TrainResult:
    """Train a graph on a task.

    Args:
        out: folder of the run; if it holds a checkpoint of the same run, training goes on there.
        report: evaluate on this many test questions before and after; 0 for no report.
        compare: fixed topologies in the report.
        limits: how much the model may take at once.

    Raises:
        GcacheError: anything a user can mend. Nothing is written before all settings are checked.
    """
    for name in compare:
        FixedTopology(name, 1)
    task = task_spec.make()
    # reads the data, so that a broken line is named before a model is loaded
    task.train(config.train_limit, config.seed)
    questions = list(task.test(report, config.seed)) if report else []
    built = build(spec, limits)
    trainer = Reinforce(built, task, config, out, task_spec.to_json())
    written = Report(built, task, questions, compare, progress) if report else None
    if written:
        written.before()
    history = trainer.train(progress=progress)
    table = None
    if written:
        written.after()
        table = written.write(out, {"task": task_spec.to_json(), "graph": spec.to_json(), "n": report})
    return TrainResult(out, checkpoints.read(out).folder, history, table)


def load(
    path: str | Path, llm_name: str | None = None, device: str | None = None, limits: Limits | None = None
) -> tuple[Built, TaskSpec]:
    """A trained graph and the task it was trained on, from a checkpoint.

    Args:
        llm_name, device: override where the same model is to be found or put.
        limits: how much the model may take at once.

    Raises:
        CheckpointError: missing, broken, or made for another model.
    """
    found = checkpoints.read(path)
    values = found.spec.to_json()
    values.update({k: v for k, v in {"llm_name": llm_name, "device": device}.items() if v is not None})
    built = build(GraphSpec.from_json(values), limits)
    checkpoints.restore(found, built)
    return built, TaskSpec(**found.task)


def load_graph(path: str | Path, limits: Limits | None = None) -> CacheGraph:
    """The trained graph of a checkpoint, ready to `run`."""
    return load(path, limits=limits)[0].graph


def make_graph(llm_name: str = "smollm2", topology: str = "chain", **settings: Any) -> CacheGraph:
    """An untrained graph: a model by name and a topology by name.

    Args:
        settings: fields of `GraphSpec`, for example `domain="maths"`.
    """
    try:
        spec = GraphSpec(llm_name=llm_name, topology=topology, **settings)
    except TypeError as error:
        raise ConfigError(f"not a setting of a graph: {error}") from error
    return build(spec).graph


def evaluate_checkpoint(
    checkpoint: str | Path,
    task_spec: TaskSpec | None = None,
    limit: int = 200,
    seed: int = 0,
    json_file: Path | None = None,
    in_flight: int = IN_FLIGHT,
    progress: bool = True,
    limits: Limits | None = None,
) -> Evaluation:
    """Accuracy of a checkpoint on test questions; written to `json_file` where one is named.

    Raises:
        CheckpointError: missing or broken, or of a domain whose agents do not fit the task.
    """
    built, trained_on = load(checkpoint, limits=limits)
    task = (task_spec or trained_on).make()
    if task.domain != built.spec.domain:
        raise CheckpointError(
            f"checkpoint {checkpoint} has agents for {built.spec.domain}, the task {task.name!r} needs {task.domain}"
        )
    found = evaluate(
        built.graph, task, list(task.test(limit, seed)), task.name, in_flight=in_flight, progress=progress
    )
    if json_file:
        write_json(json_file, {"checkpoint": str(checkpoint), "limit": limit, "seed": seed, **found.to_json()})
    return found


__all__ = ["TaskSpec", "TrainResult", "evaluate_checkpoint", "load", "load_graph", "make_graph", "train"]
