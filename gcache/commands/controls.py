"""`gcache controls`: a trained graph with its channel cut, blocked or replaced."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from gcache.commands import flags
from gcache.commands.api_flags import add_api_flags, api_of_checkpoint
from gcache.commands.plugin_flags import add_plugin_flag
from gcache.commands.task_flags import add_task_flags, task_if_named
from gcache.errors import CheckpointError, ConfigError, unknown
from gcache.files import write_json
from gcache.llm.cache_budget import Limits

if TYPE_CHECKING:
    from gcache.config import GraphSpec, TaskSpec
    from gcache.evaluation.controls import Controlled
    from gcache.llm.api.client import ApiLLM

EXAMPLES = """examples:
  gcache controls runs/split_facts --limit 200 --json controls.json
  gcache controls runs/gsm8k --task gsm8k --data test.jsonl --only "no transfer,masked,other question"
Where cutting the channel costs nothing, the channel carried nothing. Controls:
  no transfer, masked, zeroed, noise, other question         nothing the agents thought arrives; words on edges
                                                             and answers that marginal chooses from stay
  random latents, identity W_a, random W_a                   latent steps carry nothing, or another map
  all edges, star, chain, layered, debate, random edges      other edges than the learned ones
  same words as text                                         the agents' words in one prompt, no cache
  roles shuffled, copies of the first                        other agents at the learned places
"""


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Its flags."""
    parser.epilog = EXAMPLES
    parser.set_defaults(command=partial(_controls, parser))
    parser.add_argument("checkpoint", help="--out folder of a training run, or a step-* folder")
    add_task_flags(parser, required=False)
    add_plugin_flag(parser)
    parser.add_argument("--only", default="", help="controls, separated by commas (default: all that apply)")
    parser.add_argument("--limit", type=int, default=200, help="questions (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of questions and draws (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything, answer by answer, to this file")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="picture (default: beside --json, as .png)")
    add_api_flags(parser, modes=False)
    flags.add(parser, Limits)


def _controls(parser: argparse.ArgumentParser, args: argparse.Namespace) -> int:
    if args.on_error != "stop":
        raise ConfigError("--on_error must be stop: controls are compared question by question, so none may be missing")
    found = control_checkpoint(
        args.checkpoint, task_if_named(args), [name.strip() for name in args.only.split(",") if name.strip()],
        args.limit, args.seed, args.json, args.plot, limits=flags.make(Limits, args),
        api=api_of_checkpoint(parser, args, args.checkpoint),
    )  # fmt: skip
    print(f"\n{found.table}", end="")
    return 0


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
    from gcache.evaluation.controls import CONTROLS, controls_markdown, run_controls
    from gcache.graph.cache_graph import CacheGraph
    from gcache.inspect.controls_picture import draw_controls
    from gcache.llm.cache_store import tell_of_store
    from gcache.training.checkpoint import load, require_domain

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
    tell_of_store(llm.store)
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
