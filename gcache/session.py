"""What the command line and the experiments do, as functions: train, evaluate, ask."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Any

from gcache import __version__
from gcache.build import Built, GraphSpec, build
from gcache.errors import CheckpointError, ConfigError, unknown
from gcache.evaluation.compare import Compared, compare, markdown
from gcache.evaluation.controls import CONTROLS, Controlled, controls_markdown, draw_controls, run_controls
from gcache.evaluation.evaluate import Evaluation, evaluate
from gcache.evaluation.method import Method
from gcache.evaluation.methods import METHODS, MethodSettings, make_method
from gcache.evaluation.quantized import AtQuantization, OneAtATime
from gcache.files import write_json
from gcache.gnn.fixed import FixedTopology
from gcache.graph.agent_graph import AgentGraph
from gcache.graph.cache_graph import CacheGraph
from gcache.graph.result import IN_FLIGHT
from gcache.llm.api.client import ApiLLM, ApiSettings
from gcache.llm.cache_budget import Limits
from gcache.llm.load.device import pick_dtype, quantization_config
from gcache.llm.local import LocalLLM
from gcache.tasks.example import Task
from gcache.tasks.registry import make_task
from gcache.training import checkpoint as checkpoints
from gcache.training.config import COMPARED, TrainConfig, check_on_error
from gcache.training.kept_rows import KeptRows
from gcache.training.replay import check_gradient
from gcache.training.report import Report
from gcache.training.tensorboard import Board
from gcache.training.trainer import Reinforce

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

    @classmethod
    def from_json(cls, values: Mapping[str, Any], where: object) -> TaskSpec:
        """The inverse of `to_json`.

        Args:
            where: what it was read from, for the error.

        Raises:
            CheckpointError: it names no task, or has fields of other kinds.
        """
        name, data, options = values.get("name"), values.get("data"), values.get("options", {})
        fits = isinstance(name, str) and isinstance(data, str | None) and isinstance(options, dict)
        if not fits or values.keys() - {"name", "data", "options"}:
            raise CheckpointError(
                f"{where} does not say which task it was trained on: name, data and options must be a text, a text or "
                f"null, and an object, got {repr(dict(values))[:200]}; name the task, or take a whole copy"
            )
        return cls(str(name), data, options)


@dataclass(frozen=True)
class TrainResult:
    """Where a training run ended, and its report's tables where one was asked for.

    Attributes:
        stopped: why it ended before its last step, "" where it did not.
        not_trained: parts of the graph that its mode gives no gradient.
    """

    out: Path
    checkpoint: Path
    history: list[dict[str, Any]]
    table: str | None
    stopped: str = ""
    not_trained: tuple[str, ...] = ()


def train(
    task_spec: TaskSpec,
    spec: GraphSpec,
    config: TrainConfig,
    out: Path,
    report: int = 0,
    compare: Sequence[str] = COMPARED,
    progress: bool = True,
    limits: Limits | None = None,
    api: ApiLLM | None = None,
    tensorboard: bool = False,
) -> TrainResult:
    """Train a graph on a task.

    Args:
        out: folder of the run; if it holds a checkpoint of the same run, training goes on there.
        report: evaluate on this many test questions before and after; 0 for no report.
        compare: fixed topologies in the report. Its rows are kept as they are measured, and taken up by a run that is
            started again.
        limits: how much the model may take at once.
        api: see `build`.
        tensorboard: write event files to `out`/tensorboard as well.

    Raises:
        GcacheError: anything a user can mend. Nothing is written before all settings are checked.
    """
    for name in compare:
        FixedTopology(name, 1)
    check_gradient(config.gradient, bool(spec.agent_models))
    task = task_spec.make()
    # reads the data, so that a broken line is named before a model is loaded
    task.train(config.train_limit, config.seed)
    questions = list(task.test(report, config.seed)) if report else []
    built = build(_dated_as_before(spec, out), limits, api)
    trainer = Reinforce(built, task, config, out, task_spec.to_json())
    if tensorboard:
        done = checkpoints.read(out).step if checkpoints.has_checkpoint(out) else 0
        trainer.board = Board(out / "tensorboard", done)
    trainer.check()  # before rows are measured, which may take hours
    written = None
    if report:
        kept = KeptRows(out / "report_rows.jsonl", _measured_with(task_spec, built, api))
        written = Report(built, task, questions, compare, progress, kept, config.on_error)
        written.before()
    try:
        history = trainer.train(progress=progress)
    finally:
        if trainer.board:
            trainer.board.close()
    table = None
    if written and not trainer.stopped:
        written.after()
        table = written.write(out, {"task": task_spec.to_json(), "graph": spec.to_json(), "n": report})
    return TrainResult(out, checkpoints.read(out).folder, history, table, trainer.stopped, tuple(trainer.not_trained))


def _dated_as_before(spec: GraphSpec, out: Path) -> GraphSpec:
    """With the date that the prompts of the run in `out` were told, where nothing else is asked for."""
    if spec.graph.prompt_date or not checkpoints.has_checkpoint(out):
        return spec
    return replace(spec, graph=replace(spec.graph, prompt_date=checkpoints.read(out).spec.graph.prompt_date))


def _measured_with(task_spec: TaskSpec, built: Built, api: ApiLLM | None) -> dict[str, Any]:
    """What the texts of a report depend on, beside the questions and what was learned."""
    spec = built.spec
    asked = None
    if spec.generation_mode != "local":
        asked = (api.settings if api else ApiSettings.found(spec.api_model, spec.base_url)).public()
    files = [*spec.link_files, *([spec.route_file] if spec.route_file else [])]
    return {
        "version": __version__, "task": task_spec.to_json(), "graph": spec.to_json(), "api": asked,
        "model_fingerprint": built.fingerprint, "dtype": str(built.llm.dtype) if built.llm else None,
        "files": [hashlib.sha256(Path(file).read_bytes()).hexdigest() for file in files],
    }  # fmt: skip


def load(
    path: str | Path,
    llm_name: str | None = None,
    device: str | None = None,
    limits: Limits | None = None,
    api: Callable[[GraphSpec], ApiLLM] | None = None,
    dtype: str | None = None,
) -> tuple[Built, TaskSpec]:
    """A trained graph and the task it was trained on, from a checkpoint.

    Args:
        llm_name, device: override where the same model is to be found or put.
        limits: how much the model may take at once.
        api: makes what is asked where the checkpoint's mode asks an API; None for one of its own
            and the environment's settings.
        dtype: of the model, where it is not to be the one it was trained with.

    Raises:
        CheckpointError: missing, broken, or made for another model.
    """
    found = checkpoints.read(path)
    task_spec = TaskSpec.from_json(found.task, found.folder)
    values = found.spec.to_json()
    instead = {"llm_name": llm_name, "device": device, "dtype": dtype}
    values.update({k: v for k, v in instead.items() if v is not None})
    spec = GraphSpec.from_json(values)
    built = build(spec, limits, api(spec) if api and spec.generation_mode != "local" else None)
    checkpoints.restore(found, built)
    return built, task_spec


def load_graph(
    path: str | Path, limits: Limits | None = None, api: Callable[[GraphSpec], ApiLLM] | None = None
) -> AgentGraph:
    """The trained graph of a checkpoint, ready to `run`."""
    return load(path, limits=limits, api=api)[0].graph


def make_graph(llm_name: str = "smollm2", topology: str = "chain", **settings: Any) -> AgentGraph:
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
    api: Callable[[GraphSpec], ApiLLM] | None = None,
    on_error: str = "stop",
) -> Evaluation:
    """Accuracy of a checkpoint on test questions; written to `json_file` where one is named.

    Args:
        api: see `load`.
        on_error: see `evaluate`.

    Raises:
        CheckpointError: missing or broken, or of a domain whose agents do not fit the task.
    """
    check_on_error(on_error)
    built, trained_on = load(checkpoint, limits=limits, api=api)
    task = (task_spec or trained_on).make()
    require_domain(checkpoint, built.spec, task)
    found = evaluate(
        built.graph, task, list(task.test(limit, seed)), task.name, in_flight=in_flight, progress=progress,
        on_error=on_error,
    )  # fmt: skip
    if json_file:
        write_json(json_file, {"checkpoint": str(checkpoint), "limit": limit, "seed": seed, **found.to_json()})
    return found


@dataclass(frozen=True)
class Controls:
    """What `control_checkpoint` found."""

    rows: list[Controlled]
    table: str


def control_checkpoint(
    checkpoint: str | Path,
    task_spec: TaskSpec | None = None,
    names: Sequence[str] = (),
    limit: int = 200,
    seed: int = 0,
    json_file: Path | None = None,
    plot: Path | None = None,
    progress: bool = True,
    limits: Limits | None = None,
    api: Callable[[GraphSpec], ApiLLM] | None = None,
) -> Controls:
    """A trained graph under each control, on the same test questions; see `gcache.evaluation.controls`.

    Args:
        task_spec: None for the task it was trained on.
        names: of the controls; all that can change something where none is named.
        json_file: gets everything, answer by answer.
        plot: gets the picture; beside `json_file` where that alone is named.
        api: see `load`.

    Raises:
        CheckpointError: missing or broken, or of a graph whose agents hand on no caches.
    """
    for name in names:
        if name not in CONTROLS:
            raise unknown("control", name, CONTROLS)
    built, trained_on = load(checkpoint, limits=limits, api=api)
    graph, llm, of_task = built.graph, built.llm, task_spec or trained_on
    if not isinstance(graph, CacheGraph) or llm is None:
        raise CheckpointError(f"the agents of checkpoint {checkpoint} hand on text alone; controls change caches")
    task = of_task.make()
    require_domain(checkpoint, built.spec, task)
    rows = run_controls(graph, llm, task, list(task.test(limit, seed)), names, seed, progress)
    if json_file:
        write_json(
            json_file,
            {
                "checkpoint": str(checkpoint), "task": of_task.to_json(), "graph": built.spec.to_json(),
                "model_fingerprint": built.fingerprint, "limit": limit, "seed": seed,
                "rows": [row.to_json() for row in rows],
            },
        )  # fmt: skip
        plot = plot or json_file.with_suffix(".png")
    if plot:
        draw_controls(rows, plot, f"{task.name}: the trained graph and its controls")
    return Controls(rows, controls_markdown(rows))


def require_domain(checkpoint: str | Path, spec: GraphSpec, task: Task) -> None:
    """Raise CheckpointError where a checkpoint's agents are not those of the task's domain."""
    if task.domain != spec.domain:
        raise CheckpointError(
            f"checkpoint {checkpoint} has agents for {spec.domain}, the task {task.name!r} needs {task.domain}"
        )


@dataclass(frozen=True)
class Comparison:
    """What `compare_methods` found."""

    rows: list[Compared]
    table: str


def compare_methods(
    names: Sequence[str],
    task_spec: TaskSpec,
    spec: GraphSpec,
    settings: MethodSettings,
    limit: int = 200,
    seed: int = 0,
    checkpoint: str | Path | None = None,
    json_file: Path | None = None,
    progress: bool = True,
    limits: Limits | None = None,
    dtype: str | None = None,
    quantizations: Sequence[str] = (),
) -> Comparison:
    """Several methods on the same test questions and the same model.

    Args:
        names: see `gcache.evaluation.methods`.
        task_spec: without a checkpoint nothing was learned, so a data file is used whole, as
            if it were a test set; with one, its held-out part, unless `whole_file` says otherwise.
        spec: the model, and the graph of gcache and gdesigner where there is no checkpoint.
        settings: of the methods; its `graph` and `template` are filled in here.
        checkpoint: a trained graph for gcache and gdesigner, whose model all methods use.
        json_file: gets everything, answer by answer, anew after each method.
        dtype: of a checkpoint's model, where it is not to be its own: in float32 what is computed in another
            order comes to the same text.
        quantizations: of the model; every method is compared in each, and paired with the first method in the first.

    Raises:
        GcacheError: anything a user can mend, before a model is loaded where that is possible.
    """
    for name in names:
        if name not in METHODS:
            raise unknown("method", name, METHODS)
    if task_spec.data is not None and checkpoint is None:
        task_spec = replace(task_spec, options={"whole_file": True, **task_spec.options})
    task = task_spec.make()
    examples = list(task.test(limit, seed))
    if any(example.notes for example in examples):
        raise ConfigError(
            f"the task {task.name!r} deals out what agents know, which these methods do not hand round; compare on "
            "another task, or use the report of `gcache train`"
        )
    if quantizations and checkpoint is not None:
        raise ConfigError("a checkpoint has a model of its own quantization; compare quantizations without one")
    for quantization in quantizations:  # before hours of work
        quantization_config(quantization, pick_dtype(spec.dtype, spec.device))
    if len(set(quantizations)) != len(quantizations):
        raise ConfigError(f"quantizations to compare must each be named once, got {', '.join(quantizations)}")
    if not spec.graph.prompt_date:  # one day for all models
        spec = replace(spec, graph=replace(spec.graph, prompt_date=date.today().isoformat()))
    models = OneAtATime(lambda q: build(replace(spec, quantization=q), limits), lambda b: _weights(b.llm))
    if checkpoint is not None:
        built, _ = load(checkpoint, limits=limits, dtype=dtype)
        require_domain(checkpoint, built.spec, task)
    else:
        built = models.get(quantizations[0]) if quantizations else build(spec, limits)
    llm = built.llm
    if llm is None:
        raise ConfigError(f"checkpoint {checkpoint} has no local model to compare methods on; name one that has")
    used = str(llm.dtype).removeprefix("torch.")
    described = {"model": llm.label, "model_fingerprint": built.fingerprint, "dtype": used}
    graph, batch = built.spec.to_json(), llm.limits.max_batch_size
    methods: list[Method]
    if quantizations:
        del built, llm  # held by `models` alone, which lets it go before the next is loaded
        methods = [
            AtQuantization(name, q, lambda name=name, q=q: _method(name, models.get(q), settings))  # type: ignore[misc]
            for q in quantizations for name in names
        ]  # fmt: skip
    else:
        methods = [_method(name, built, settings) for name in names]

    def keep(rows: Sequence[Compared]) -> None:
        if json_file is None:
            return
        kept = {name: value for name, value in vars(settings).items() if name not in ("graph", "template")}
        write_json(
            json_file,
            {
                "task": task_spec.to_json(), "limit": limit, "seed": seed, **described,
                "graph": graph, "checkpoint": None if checkpoint is None else str(checkpoint),
                "settings": kept, "max_batch_size": batch, "questions": [e.meta for e in examples],
                "weights_bytes": models.nbytes, "rows": [row.to_json() for row in rows],
            },
        )  # fmt: skip

    rows = compare(methods, task, examples, progress, keep)
    weights = "".join(f"\nweights, {name}: {size / 2**20:,.0f} MiB" for name, size in models.nbytes.items())
    return Comparison(rows, markdown(rows) + (f"{weights}\n" if weights else ""))


def _method(name: str, built: Built, settings: MethodSettings) -> Method:
    """A method on a graph's model."""
    assert built.llm is not None
    of_graph = replace(settings, graph=built.graph, template=built.spec.graph.template)
    return make_method(name, built.llm, built.llm.tokenizer, of_graph)


def _weights(llm: LocalLLM | None) -> int:
    """Bytes of a model's weights and buffers, quantized ones as they are."""
    if llm is None:
        return 0
    tensors = {t.data_ptr(): t for t in (*llm.model.parameters(), *llm.model.buffers())}  # tied ones once
    return sum(t.nelement() * t.element_size() for t in tensors.values())


__all__ = [
    "Comparison", "Controls", "TaskSpec", "TrainResult", "compare_methods", "control_checkpoint",
    "evaluate_checkpoint", "load", "load_graph", "make_graph", "train",
]  # fmt: skip
