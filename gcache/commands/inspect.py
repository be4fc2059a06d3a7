"""`gcache inspect`: look at what a checkpoint learned, or at one question."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from gcache.commands import flags
from gcache.commands.api_flags import add_api_flags, api_of_checkpoint
from gcache.commands.plugin_flags import add_plugin_flag
from gcache.commands.task_flags import add_task_flags, task_if_named
from gcache.errors import CheckpointError, ConfigError, unknown
from gcache.files import write_text
from gcache.llm.cache_budget import Limits

if TYPE_CHECKING:
    from gcache.config import GraphSpec, TaskSpec
    from gcache.gnn.team import Team
    from gcache.inspect.view import View
    from gcache.llm.api.client import ApiLLM
    from gcache.tasks.example import Example, Task
    from gcache.training import checkpoint as checkpoints

EXAMPLES = """examples:
  gcache inspect runs/split_facts
  gcache inspect runs/split_facts --format table html history gif --cuts 100
  gcache inspect runs/gsm8k --question "What is 17 * 6?" --format table html
  gcache inspect runs/split_facts --question split_facts-test-0-3
Without a question: edges by role, averaged over test questions, how they moved in training, and with --cuts what
cutting each costs. With one: that question's topology, every agent's prompt and latent thoughts in words, what went
over each edge, and what the answer attended to. Where agents come with the task's questions, --question is the id or
the words of one of these. Formats: table (to the terminal), json, png, svg, html (one page that works from disk),
graphml, mermaid, dot; of a training also history (small multiples), gif (moving) and curves.
"""
logger = logging.getLogger(__name__)


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Those of `gcache inspect`."""
    from gcache.inspect.format_names import FORMATS

    parser.epilog = EXAMPLES
    parser.set_defaults(command=partial(_inspect, parser))
    parser.add_argument("checkpoint", help="--out folder of a training run, or a step-* folder")
    parser.add_argument("--question", help="look at this one: its words, or the id of one of the task's")
    parser.add_argument(
        "--format", nargs="+", default=["table"], choices=[*FORMATS, "all"], metavar="FORMAT",
        help=f"some of {', '.join(FORMATS)}, or all (default: table)",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, help="folder of the files (default: inspect, in the run's)")
    add_task_flags(parser, required=False)
    add_plugin_flag(parser)
    parser.add_argument("--limit", type=int, default=200, help="questions to average over (default: %(default)s)")
    parser.add_argument(
        "--cuts", type=int, default=0, metavar="N", help="cut every edge on N of them, to see its worth (default: 0)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the choice of questions (default: %(default)s)")
    parser.add_argument(
        "--no_writing", action="store_true", help="with --question: leave out what the model writes of each cache"
    )
    add_api_flags(parser, modes=False)
    flags.add(parser, Limits)


def _inspect(parser: argparse.ArgumentParser, args: argparse.Namespace) -> int:
    from gcache.inspect.format_names import FORMATS
    from gcache.inspect.formats import table

    formats = list(FORMATS) if "all" in args.format else args.format
    if args.question is None and args.no_writing:
        raise ConfigError("--no_writing is about one question; add --question, or leave it out")
    if args.question is not None and args.cuts:
        raise ConfigError("--cuts is about many questions, --question about one; leave out either")
    limits, task = flags.make(Limits, args), task_if_named(args)
    api = api_of_checkpoint(parser, args, args.checkpoint)
    if args.question is None:
        view = look_at(
            args.checkpoint, task, args.limit, args.seed, args.cuts, limits=limits, api=api
        )
    else:
        if "all" in args.format:  # of one question there is no training
            formats = [name for name in formats if name not in ("history", "gif", "curves")]
        view = look_closely(
            args.checkpoint, args.question, task, not args.no_writing, args.seed, limits, api
        )
    written = write_view(view, formats, args.out or run_folder(args.checkpoint) / "inspect")
    if "table" in formats:
        print(table(view), end="")
    for path in written:
        print(path)
    return 0


def load_team(path: str | Path) -> tuple[Team, checkpoints.Checkpoint]:
    """Who hands to whom in a checkpoint, without its language model.

    Raises:
        CheckpointError: missing or broken.
    """
    from gcache.build import team_of
    from gcache.gnn.team import Team
    from gcache.training import checkpoint as checkpoints

    found = checkpoints.read(path)
    team = Team(*team_of(found.spec))
    checkpoints.restore_policy(found, team)
    return team, found


def look_at(
    checkpoint: str | Path,
    task_spec: TaskSpec | None = None,
    limit: int = 200,
    seed: int = 0,
    cuts: int = 0,
    progress: bool = True,
    limits: Limits | None = None,
    api: Callable[[GraphSpec], ApiLLM] | None = None,
) -> View:
    """A checkpoint without a question; see `gcache.inspect.overview`.

    Args:
        task_spec: None for the task it was trained on.
        limit, seed: test questions that edges are averaged over.
        cuts: of these, how many every edge is cut on to see what that costs; 0 for none, and then no language model is
            loaded.
    """
    from gcache.config import TaskSpec
    from gcache.evaluation.cuts import cost_of_edges
    from gcache.inspect.curves import read_metrics
    from gcache.inspect.overview import overview
    from gcache.training.checkpoint import load, require_domain

    if limit < 1 or cuts < 0:
        raise ConfigError(f"the limit must be 1 or more and the cuts 0 or more, got {limit} and {cuts}")
    team, found = load_team(checkpoint)
    task = (task_spec or TaskSpec.from_json(found.task, found.folder)).make()
    require_domain(checkpoint, found.spec, task)
    examples = list(task.test(limit, seed))
    costs = None
    if cuts:
        graph = load(checkpoint, limits=limits, api=api)[0].graph
        costs = cost_of_edges(graph, task, examples[:cuts], progress)[1]
        if not costs:
            logger.warning("--cuts cut nothing: no edge is in the likeliest topology of any of %d questions", cuts)
    run = run_folder(checkpoint)
    metrics = read_metrics(run) if (run / "metrics.jsonl").is_file() else []
    return overview(
        team, examples, title=_title(checkpoint, task), task=task.name, model=_model(found.spec), step=found.step,
        metrics=metrics[: found.step], costs=costs,
    )  # fmt: skip


def look_closely(
    checkpoint: str | Path,
    question: str,
    task_spec: TaskSpec | None = None,
    write: bool = True,
    seed: int = 0,
    limits: Limits | None = None,
    api: Callable[[GraphSpec], ApiLLM] | None = None,
) -> View:
    """A checkpoint on one question; see `gcache.inspect.close_up`.

    Args:
        question: its words; where agents come with the task's questions, one of these by its id or its words.
        write: whether the model writes of each agent's cache as well.

    Raises:
        CheckpointError: missing or broken, or of a graph whose agents hand on no caches.
    """
    from gcache.build import team_of
    from gcache.config import TaskSpec
    from gcache.gnn.team import Team
    from gcache.graph.cache_graph import CacheGraph
    from gcache.inspect.close_up import close_up, view_of
    from gcache.training import checkpoint as checkpoints
    from gcache.training.checkpoint import load, require_domain

    found = checkpoints.read(checkpoint)
    task = (task_spec or TaskSpec.from_json(found.task, found.folder)).make()
    require_domain(checkpoint, found.spec, task)
    team = Team(*team_of(found.spec))
    example = _asked(team, task, question, seed)
    built, _ = load(checkpoint, limits=limits, api=api)
    if not isinstance(built.graph, CacheGraph) or built.llm is None:
        raise CheckpointError(f"the agents of checkpoint {checkpoint} hand on text alone: no cache to look into")
    if built.graph.is_mixed:
        raise CheckpointError(
            f"the agents of checkpoint {checkpoint} think with several models, and one question is looked at in the "
            "slots and words of one; leave out the question to see what was learned"
        )
    close = close_up(built.graph, built.llm, example, write=write, seed=seed)
    return view_of(
        close, built.graph, title=_title(checkpoint, task), task=task.name, model=_model(found.spec), step=found.step
    )


def run_folder(checkpoint: str | Path) -> Path:
    """The --out folder of a checkpoint's training run.

    Raises:
        CheckpointError: missing or broken.
    """
    from gcache.training import checkpoint as checkpoints

    folder = checkpoints.read(checkpoint).folder.resolve()
    # one that was copied out of its run has the folder that it lies in
    return folder.parents[1] if folder.parent.name == "checkpoints" else folder.parent


def _asked(team: Team, task: Task, question: str, seed: int) -> Example:
    """A question in words, where the graph has agents of its own; else one of the task's."""
    from gcache.inspect.close_up import find_example
    from gcache.tasks.example import Example

    if not question.strip():
        raise ConfigError("the question is empty; pass it as one quoted argument")
    return Example("question", question, "") if team.agents else find_example(list(task.test(None, seed)), question)


def _title(checkpoint: str | Path, task: Task) -> str:
    run = Path(checkpoint).resolve().name
    return run if run == task.name else f"{task.name}: {run}"


def _model(spec: GraphSpec) -> str:
    return Path(spec.llm_name).name


def write_view(view: View, formats: Sequence[str], out: Path) -> list[Path]:
    """A view in some formats, as files in a folder; those that it has nothing for are left out, with a warning.

    Raises:
        ConfigError: an unknown format.
    """
    from gcache.inspect.format_names import FORMATS

    for name in formats:
        if name not in FORMATS:
            raise unknown("format", name, FORMATS)
    written = [_write(view, name, out) for name in dict.fromkeys(formats) if name != "table"]
    return [path for path in written if path is not None]


def _write(view: View, name: str, out: Path) -> Path | None:
    from gcache.inspect import pictures
    from gcache.inspect.curves import draw_points
    from gcache.inspect.formats import LIKELY, TEXTS
    from gcache.inspect.page import page

    if name in TEXTS:
        ending, make = TEXTS[name]
        path = out / f"topology.{ending}"
        write_text(path, make(view))
    elif name == "html":
        path = out / "topology.html"
        write_text(path, page(view.to_json()))
    elif name in ("png", "svg"):
        path = out / f"topology.{name}"
        edges = [edge for edge in view.edges if edge.probability >= LIKELY]
        pictures.draw_topology(edges, path, view.question or view.title, [node.id for node in view.nodes])
    elif name == "curves":
        if not view.curves:
            logger.warning("there are no curves of %s: name the --out folder of its training run", view.title)
            return None
        path = out / "curves.png"
        draw_points([(curve.name, curve.points) for curve in view.curves], path, view.title)
    else:
        if len(view.frames) < 2:
            logger.warning("%s: no step before is known of %s, so nothing moves", name, view.title)
            return None
        frames = [(frame.label, frame.edges) for frame in view.frames]
        path = out / ("history.png" if name == "history" else "history.gif")
        if name == "history":
            pictures.save(pictures.history_figure(frames, view.title), path, dpi=90)
        else:
            chosen = [frames[i] for i in pictures.evenly(len(frames), pictures.MOST_MOVING)]
            pictures.draw_animation(chosen, path, view.title)
    return path
