"""`gcache train`: train the policy and the fuser of a graph on a task."""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gcache import __version__
from gcache.commands import flags
from gcache.commands.api_flags import add_api_flags, api_if_asked, cost
from gcache.commands.graph_flags import add_graph_flags, graph_spec
from gcache.commands.plugin_flags import add_plugin_flag
from gcache.commands.task_flags import add_task_flags, task_spec
from gcache.config import GraphSpec, TaskSpec
from gcache.errors import ConfigError
from gcache.graph.run_config import GraphConfig
from gcache.llm.api.client import ApiLLM
from gcache.llm.cache_budget import Limits
from gcache.runtime.plugin_files import hashes, label
from gcache.runtime.settings import former_names
from gcache.training.config import COMPARED, TrainConfig

if TYPE_CHECKING:
    from gcache.build import Built
    from gcache.gnn.summary import LearnedEdge
    from gcache.training.costs import PhaseCost

EXAMPLES = """examples:
  gcache train --task split_facts --latent_steps 0 --fuser_gradient decision --stop_when_right 5 --report 200
  gcache train --task split_facts --hops 2 --llm_name MODEL.gguf --latent_steps 0 --report 200
  gcache train --task split_facts --channels cache latents text --latent_choices 0 2 --token_price 0.5
  gcache train --task gsm8k --data train.jsonl --iterations 10 --batch_size 4 --out runs/gsm8k
  gcache train --task split_facts --adversary 1 --task_option gossip=false n_agents=4 --latent_steps 0
A run whose --out holds a checkpoint of the same settings is resumed there.
"""


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Its flags."""
    parser.epilog = EXAMPLES
    parser.set_defaults(command=partial(_train, parser))
    add_task_flags(parser, required=True)
    add_plugin_flag(parser)
    parser.add_argument("--out", type=Path, help="folder of the run (default: runs/TASK-seedSEED)")
    parser.add_argument(
        "--report", type=int, nargs="?", const=200, default=0, metavar="N",
        help="end with a table: accuracy on N test questions (200) beside fixed graphs and text in one prompt",
    )  # fmt: skip
    parser.add_argument("--compare", nargs="*", default=list(COMPARED), help="fixed topologies in the report")
    flags.add(parser, TrainConfig, "steps")
    add_graph_flags(parser, "team", "choices")
    add_api_flags(parser)
    flags.add(parser, Limits)
    flags.add(parser, TrainConfig, "training")
    parser.add_argument(
        "--tensorboard", action="store_true", help="write numbers and topologies for TensorBoard to OUT/tensorboard"
    )


def _train(parser: argparse.ArgumentParser, args: argparse.Namespace) -> int:
    asked = task_spec(args)
    task = asked.make()
    spec = graph_spec(args, task.domain, task.max_new_tokens)
    if args.report < 0:
        raise ConfigError(f"--report must be 0 or more, got {args.report}")
    config = flags.make(TrainConfig, args)
    out = args.out or Path("runs") / f"{label(args.task)}-seed{args.seed}"
    limits = flags.make(Limits, args)
    api = api_if_asked(parser, args, spec)
    result = train(
        asked, spec, config, out, args.report, args.compare, limits=limits, api=api, tensorboard=args.tensorboard
    )
    print_outcome(args, spec, result, api)
    return 0


@dataclass(frozen=True)
class TrainResult:
    """Where a training run ended, and its report's tables where one was asked for.

    Attributes:
        stopped: why it was broken off before its last step, "" where it was not.
        not_trained: parts of the graph that its mode gives no gradient.
        early: why the last steps were not needed, "" where they were; see `gcache.training.early_stop`.
        edges: what was learned, on the report's questions, or on the first training questions without one.
        picture: of these edges; None where the topology is fixed.
        costs: of every phase, also of those before the run was resumed.
    """

    out: Path
    checkpoint: Path
    history: list[dict[str, Any]]
    table: str | None
    stopped: str = ""
    not_trained: tuple[str, ...] = ()
    early: str = ""
    edges: tuple[LearnedEdge, ...] = ()
    picture: Path | None = None
    costs: tuple[PhaseCost, ...] = ()


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
    from gcache.build import build
    from gcache.gnn.fixed import FixedTopology
    from gcache.gnn.summary import learned_edges
    from gcache.inspect.pictures import draw_topology
    from gcache.llm.cache_store import tell_of_store
    from gcache.training import checkpoint as checkpoints
    from gcache.training.costs import of_run
    from gcache.training.kept_rows import KeptRows
    from gcache.training.replay import check_gradient
    from gcache.training.report import Report
    from gcache.training.tensorboard import Board
    from gcache.training.trainer import WATCHED, Reinforce

    for name in compare:
        FixedTopology(name, 1)
    check_gradient(config.fuser_gradient, bool(spec.agent_models))
    task = task_spec.make()
    # reads the data, so that a broken line is named before a model is loaded
    training = list(task.train(config.limit, config.seed))
    questions = list(task.test(report, config.seed)) if report else []
    built = build(_dated_as_before(spec, out), limits, api)
    trainer = Reinforce(built, task, config, out, task_spec.to_json())
    if tensorboard:
        done = checkpoints.read(out).step if checkpoints.has_checkpoint(out) else 0
        trainer.board = Board(out / "tensorboard", done)
    trainer.check()  # before rows are measured, which may take hours
    written = None
    if report:
        kept = KeptRows(out / "report_rows.jsonl", _measured_with(task_spec, built, api, compare))
        written = Report(built, task, questions, compare, progress, kept, config.on_error)
        written.before()
    try:
        history = trainer.train(progress=progress)
    finally:
        if trainer.board:
            trainer.board.close()
    table = None
    before = list(written.rows) if written else []
    reading = written.reading if written else None
    costs = of_run(before, trainer.lines, (), reading)
    if written and not trainer.stopped:
        written.after()
        costs = of_run(before, trainer.lines, written.rows[len(before) :], reading)
        table = written.write(
            out,
            {
                "task": task_spec.to_json(), "graph": spec.to_json(), "n": report, "steps": trainer.done,
                "costs": [cost.to_json() for cost in costs],
            },
        )  # fmt: skip
    if built.llm is not None:
        tell_of_store(built.llm.store)
    edges = written.edges if table and written else learned_edges(built.graph, training[:WATCHED])
    picture = out / "topology.png" if edges else None
    if picture:
        draw_topology(edges, picture, f"{task.name}: mean learned probability of each edge")
    return TrainResult(
        out, checkpoints.read(out).folder, history, table, trainer.stopped, tuple(trainer.not_trained), trainer.early,
        tuple(edges), picture, tuple(costs),
    )


def _dated_as_before(spec: GraphSpec, out: Path) -> GraphSpec:
    """With the date that the prompts of the run in `out` were told, where nothing else is asked for."""
    from gcache.training import checkpoint as checkpoints

    if spec.graph.prompt_date or not checkpoints.has_checkpoint(out):
        return spec
    return replace(spec, graph=replace(spec.graph, prompt_date=checkpoints.read(out).spec.graph.prompt_date))


#: Fields that older versions did not have, and that change nothing at their defaults; of the graph, and of its runs.
NEWER = ("slot_temperature", "slot_scale", "cues", "heard", "hard_edges")
NEWER_OF_RUNS = ("question_order", "reread", "reread_share")


def _of_no_effect(spec: GraphSpec) -> tuple[str, ...]:
    """Fields that older versions did not have, and that change nothing here."""
    usual = GraphSpec()
    unasked = (
        name
        for own, default, names in ((spec, usual, NEWER), (spec.graph, usual.graph, NEWER_OF_RUNS))
        for name in names
        if getattr(own, name) == getattr(default, name)
    )
    reasons = spec.graph.payload.reasons or "reasoning" in spec.channels
    return (*unasked, *(() if reasons else ("reason_tokens", "agent_temperature")))


def _measured_with(
    task_spec: TaskSpec, built: Built, api: ApiLLM | None, compare: Sequence[str]
) -> dict[str, Any]:
    """What the texts of a report depend on, beside the questions and what was learned."""
    from gcache.config import NAMES
    from gcache.evaluation.read_questions import can_be_shared
    from gcache.llm.api.client import ApiSettings

    spec = built.spec
    asked = None
    if spec.generation_mode != "local":
        asked = (api.settings if api else ApiSettings.found(spec.api_model, spec.base_url)).public()
    files = [*spec.link_file, *([spec.route_file] if spec.route_file else [])]
    plugins = hashes([task_spec.name, *compare, *(getattr(spec, name) for name in NAMES)])
    # rows that older versions measured are known by the names that fields had then
    left_out = _of_no_effect(spec)
    running = {name: value for name, value in asdict(spec.graph).items() if name not in left_out}
    settings = {name: value for name, value in spec.to_json().items() if name not in left_out}
    graph = former_names(GraphSpec, {**settings, "graph": former_names(GraphConfig, running)})
    # before questions were read once, texts could round differently
    shared = {"questions": "read once"} if can_be_shared(built.graph) else {}
    return {
        **shared, "version": __version__, "task": task_spec.to_json(), "graph": graph, "api": asked,
        "model_fingerprint": built.fingerprint, "dtype": str(built.llm.dtype) if built.llm else None,
        "files": [hashlib.sha256(Path(file).read_bytes()).hexdigest() for file in files],
        **({"plugins": plugins} if plugins else {}),
    }  # fmt: skip


def print_outcome(args: argparse.Namespace, spec: Any, result: Any, api: Any) -> None:
    """Where a training run ended, what it learned, what it did not train, and what it took."""
    from gcache.training.costs import markdown
    from gcache.training.progress import edges_picture
    from gcache.training.trainer import why_not

    if result.table:
        print(f"\n{result.table}")
    if result.edges:
        print(f"learned edges, likeliest first:\n{edges_picture(result.edges)}\n")
    if result.costs:
        print(markdown(result.costs))
    if result.early:
        print(result.early)
    if result.stopped:
        print(f"{result.stopped}; the same command goes on from there")
    for name in result.not_trained:
        print(f"not trained: the {name} ({why_not(spec)})")
    if api is not None:
        budget = api.budget
        price = cost(args, budget.read, budget.written)
        print(
            f"API:        {budget.requests} requests, {budget.read} tokens read, {budget.written} written"
            + (f", cost {price}" if price else "")
        )
    print(f"checkpoint: {result.checkpoint}\nmetrics:    {result.out / 'metrics.jsonl'}")
    if result.picture:
        print(f"picture:    {result.picture}")
    if result.table:
        print(f"report:     {result.out / 'report.md'}, report.json")
