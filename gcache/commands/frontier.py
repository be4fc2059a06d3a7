"""`gcache frontier`: accuracy against generated tokens."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from gcache.commands import flags
from gcache.commands.plugin_flags import add_plugin_flag
from gcache.commands.task_flags import add_task_flags, task_if_named
from gcache.errors import CheckpointError, ConfigError
from gcache.evaluation.methods import MethodSettings
from gcache.files import write_json
from gcache.llm.cache_budget import Limits

if TYPE_CHECKING:
    from gcache.config import TaskSpec
    from gcache.evaluation.compare import Compared
    from gcache.evaluation.frontier import Point
    from gcache.evaluation.method import Method

EXAMPLES = """examples:
  for price in 0 0.03 0.06 0.1 0.15; do
    gcache train --task gsm8k --data train.jsonl --task_option whole_file=true --hands reasoning --latent_steps 0 \\
        --decision_method marginal --fuser trust --fuser_lr 0.01 --lr 0.002 --rollouts 8 --entropy_bonus 0 \\
        --decision_probability 0.6 --agent_probability 0 --edge_price 0 --token_price $price --texts texts.jsonl \\
        --out runs/price$price
  done
  gcache frontier runs/price* --task gsm8k --data test.jsonl --task_option whole_file=true --limit 100 \\
        --texts texts.jsonl --json frontier.json
Each checkpoint is a point, marked with the price it was trained at; self-consistency at 1 to --draws draws is the curve
beside it, and one greedy text a point. Draws are written once for all of them.
"""


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Its flags."""
    parser.epilog = EXAMPLES
    parser.set_defaults(command=_frontier)
    parser.add_argument("checkpoints", nargs="+", help="--out folders of training runs on one model and task")
    add_task_flags(parser, required=False)
    add_plugin_flag(parser)
    parser.add_argument("--limit", type=int, default=200, help="questions (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of questions (default: %(default)s)")
    parser.add_argument("--draws", type=int, default=8, help="the most of self-consistency (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything, answer by answer, to this file")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="picture (default: beside --json, as .png)")
    flags.add(parser, MethodSettings, "sample_temperature")
    flags.add(parser, Limits)


def _frontier(args: argparse.Namespace) -> int:
    found = frontier(
        args.checkpoints, task_if_named(args), args.limit, args.seed, args.draws, args.sample_temperature, args.json,
        args.plot, limits=flags.make(Limits, args),
    )  # fmt: skip
    print(f"\n{found.table}", end="")
    return 0


@dataclass(frozen=True)
class Frontier:
    """What `frontier` found."""

    points: list[Point]
    table: str


def frontier(
    checkpoints: Sequence[str | Path],
    task_spec: TaskSpec | None = None,
    limit: int = 200,
    seed: int = 0,
    draws: int = 8,
    sample_temperature: float = 0.7,
    json_file: Path | None = None,
    plot: Path | None = None,
    progress: bool = True,
    limits: Limits | None = None,
) -> Frontier:
    """Trained graphs, single and self-consistency on the same test questions; see `gcache.evaluation.frontier`.

    Args:
        task_spec: None for the task that the first was trained on.
        draws: self-consistency at 1 to so many.
        json_file: gets everything, anew after each method; plot: the picture, beside `json_file` where that alone is
            named.

    Raises:
        ConfigError: draws below 1, a checkpoint twice, or two that have their model, or its limit, in other ways.
        CheckpointError: one is broken, or they are of different models.
    """
    from gcache.evaluation.compare import compare
    from gcache.evaluation.frontier import DRAWS, GRAPHS, SINGLE, markdown, points
    from gcache.evaluation.method import DeferredMethod
    from gcache.evaluation.methods import make_method
    from gcache.inspect.frontier_picture import draw_frontier
    from gcache.llm.kept_texts import KeptTexts
    from gcache.training import checkpoint as of_training

    if draws < 1:
        raise ConfigError(f"draws must be 1 or more, got {draws}")
    read = [of_training.read(path) for path in checkpoints]
    if len({found.folder.resolve() for found in read}) < len(read):
        raise ConfigError("a checkpoint is named twice; name each once")
    for path, found in zip(checkpoints, read, strict=True):
        of_training.require_beside(path, found.spec, read[0].spec)
        for name, flag in (("max_new_tokens", "max_new_tokens"), ("question_order", "question")):
            own, first = getattr(found.spec.graph, name), getattr(read[0].spec.graph, name)
            if own != first:
                raise ConfigError(
                    f"checkpoint {path} has --{flag} {own}, and {checkpoints[0]} has {first}; single and "
                    "self-consistency have one, so compare graphs of one"
                )
    other = next((found for found in read if found.fingerprint != read[0].fingerprint), None)
    if other is not None:
        raise CheckpointError(f"{other.folder} is of another model than {read[0].folder}; compare graphs of one model")
    built, trained_on = of_training.load(checkpoints[0], limits=limits)
    of_task = task_spec or trained_on
    task = of_task.make()
    for path, found in zip(checkpoints, read, strict=True):
        of_training.require_domain(path, found.spec, task)
    llm = built.llm
    if llm is None:
        raise CheckpointError(f"checkpoint {checkpoints[0]} has no local model to compare on")
    if llm.kept_texts is None:
        llm.kept_texts = KeptTexts(built.fingerprint)
    texts = llm.kept_texts
    settings = MethodSettings(
        domain=task.domain, max_new_tokens=built.spec.graph.max_new_tokens, sample_temperature=sample_temperature,
        template=built.spec.graph.template, question_order=built.spec.graph.question_order,
    )  # fmt: skip
    named: list[tuple[str, float, Method]] = [(SINGLE, 0.0, make_method(SINGLE, llm, llm.tokenizer, settings))]
    for k in range(1, draws + 1):
        made = make_method(DRAWS, llm, llm.tokenizer, replace(settings, samples=k))
        named.append((DRAWS, float(k), DeferredMethod(f"self-consistency, {k}", lambda made=made: made)))  # type: ignore[misc]
    for path, found in zip(checkpoints, read, strict=True):
        last = found.training.get("token_price_end")  # of a price that rises
        price = float(found.training.get("token_price", 0.0) if last is None else last)

        def method(path: str | Path = path) -> Method:
            graph = of_training.load_beside(path, built).graph
            return make_method("gcache", llm, llm.tokenizer, replace(settings, graph=graph))

        name = f"graph, price {price:g} ({Path(path).name})"
        alike = sum(own.name.startswith(name) for *_, own in named)
        named.append((GRAPHS, price, DeferredMethod(f"{name} {alike + 1}" if alike else name, method)))
    kinds = [(curve, setting) for curve, setting, _ in named]
    examples = list(task.test(limit, seed))

    def keep(rows: Sequence[Compared]) -> None:
        if json_file is not None:
            write_json(
                json_file,
                {
                    "task": of_task.to_json(), "limit": limit, "seed": seed, "model": llm.label,
                    "model_fingerprint": built.fingerprint, "sample_temperature": sample_temperature,
                    "points": [
                        {"curve": curve, "setting": setting, "row": row.to_json()}
                        for (curve, setting), row in zip(kinds, rows, strict=False)
                    ],
                },
            )  # fmt: skip

    rows = compare([m for *_, m in named], task, examples, progress, keep, lambda: texts.reused_seconds)
    found_points = points([(*kind, row) for kind, row in zip(kinds, rows, strict=True)])
    plot = plot or (json_file.with_suffix(".png") if json_file else None)
    if plot:
        draw_frontier(found_points, plot, f"{task.name}: accuracy against generated tokens")
    return Frontier(found_points, markdown(found_points))
