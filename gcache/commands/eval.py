"""`gcache eval`: how often a checkpoint, or a method, is right on test questions."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from gcache.commands import compare, flags
from gcache.commands.api_flags import API_FLAGS, add_api_flags, api_of_checkpoint
from gcache.commands.plugin_flags import add_plugin_flag
from gcache.commands.task_flags import add_task_flags, task_if_named
from gcache.errors import ConfigError
from gcache.files import write_json
from gcache.graph.result import MAX_CONCURRENT
from gcache.llm.cache_budget import Limits

if TYPE_CHECKING:
    from gcache.config import GraphSpec, TaskSpec
    from gcache.evaluation.evaluate import Evaluation
    from gcache.llm.api.client import ApiLLM

EXAMPLES = """example:
  gcache eval --checkpoint runs/split_facts --limit 200 --seed 0 --json eval.json
  gcache eval --method latent_mas --task gsm8k --data test.jsonl --limit 50
  gcache eval --topology star --task hotpotqa --data test.jsonl --limit 50 --latent_steps 0
"""


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Its flags."""
    parser.epilog = EXAMPLES
    parser.set_defaults(command=partial(_eval, parser))
    add_task_flags(parser, required=False)
    add_plugin_flag(parser)
    parser.add_argument("--checkpoint", help="--out folder of a training run, or a step-* folder")
    parser.add_argument(
        "--method", help="instead: one of the methods of `gcache compare`, which see (default: gcache, an untrained "
        "graph, where there is no --checkpoint)",
    )  # fmt: skip
    parser.add_argument("--limit", type=int, default=200, help="questions (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of questions (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result, row by row, to this file")
    parser.add_argument(
        "--batch_size", type=int, default=MAX_CONCURRENT, help="questions in flight at once (default: %(default)s)"
    )
    add_api_flags(parser, modes=False)
    compare.add_method_flags(parser)
    flags.add(parser, Limits)


def _eval(parser: argparse.ArgumentParser, args: argparse.Namespace) -> int:
    spec = task_if_named(args)
    if args.method is None and not args.checkpoint and args.task is not None:
        args.method = "gcache"  # an untrained graph
    if args.method:
        if args.task is None:
            raise ConfigError("--method needs --task")
        if args.on_error != "stop":
            raise ConfigError("--on_error must be stop with --method: methods are compared question by question")
        flags.refuse_unused(
            parser, args, [*API_FLAGS, "batch_size"],
            "a method answers with the local model, --max_batch_size texts at once, and asks no API; leave these out, "
            "or evaluate a --checkpoint that was trained with an API",
        )  # fmt: skip
        args.methods = args.method
        return compare.run(parser, args)
    if not args.checkpoint:
        raise ConfigError("nothing to evaluate; name a --checkpoint, or a --task (and a --method, if not gcache)")
    flags.refuse_changed(parser, args, (*compare.OF_A_MODEL, *compare.OF_A_METHOD))
    if args.batch_size < 1:
        raise ConfigError(f"--batch_size must be 1 or more, got {args.batch_size}")
    found = evaluate_checkpoint(
        args.checkpoint, spec, args.limit, args.seed, args.json, args.batch_size, limits=flags.make(Limits, args),
        api=api_of_checkpoint(parser, args, args.checkpoint), on_error=args.on_error,
    )  # fmt: skip
    tokens = ", ".join(f"{v:.1f} {kind}" for kind, v in found.tokens.items() if v or not kind.startswith("api"))
    print(
        f"accuracy    {found.accuracy:.3f}  (95 % interval {found.low:.3f} to {found.high:.3f}, n = {found.n})\n"
        + _f1(found)
        + f"unparsed    {found.unparsed}\n"
        f"unstated    {found.unstated}\n"
        f"cut         {found.cut} of {found.texts} texts\n"
        + (f"failed      {found.failed}, not graded\n" if found.failed else "")
        + (f"stopped     {found.stopped}\n" if found.stopped else "")
        + f"edges kept  {found.edges:.2f} per question, {found.edges_kept:.0%} of the full graph's\n"
        f"tokens      per question: {tokens}\n"
        f"seconds     {found.seconds:.1f}"
    )
    return 0


def _f1(found: Evaluation) -> str:
    """A line of its own, where the task grades by overlap."""
    from gcache.evaluation.intervals import mean_interval

    if not found.f1s:
        return ""
    mean, low, high = mean_interval(found.f1s)
    return f"F1          {mean:.3f}  (95 % interval {low:.3f} to {high:.3f})\n"


def evaluate_checkpoint(
    checkpoint: str | Path,
    task_spec: TaskSpec | None = None,
    limit: int = 200,
    seed: int = 0,
    json_file: Path | None = None,
    max_concurrent: int = MAX_CONCURRENT,
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
    from gcache.evaluation.evaluate import evaluate
    from gcache.llm.cache_store import tell_of_store
    from gcache.training.checkpoint import load, require_domain
    from gcache.training.config import check_on_error

    check_on_error(on_error)
    built, trained_on = load(checkpoint, limits=limits, api=api)
    task = (task_spec or trained_on).make()
    require_domain(checkpoint, built.spec, task)
    found = evaluate(
        built.graph, task, list(task.test(limit, seed)), task.name, max_concurrent=max_concurrent, progress=progress,
        on_error=on_error,
    )  # fmt: skip
    if built.llm is not None:
        tell_of_store(built.llm.store)
    if json_file:
        write_json(json_file, {"checkpoint": str(checkpoint), "limit": limit, "seed": seed, **found.to_json()})
    return found
