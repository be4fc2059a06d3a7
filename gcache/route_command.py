"""`gcache fit-router`: which questions go over the perceiver, learned from tasks that are known to be for it or not."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gcache.errors import ConfigError

EXAMPLES = """example:
  gcache fit-router --classification banking77=train.csv --reasoning gsm8k=train.jsonl split_facts \\
      --out router.safetensors
  gcache run --llm_name smollm2 --agent_models MODEL.gguf --link text --link_file bank.safetensors \\
      --route auto --route_file router.safetensors "What is 17 * 6?"
Questions of each task's training split are learned from, those of its test split are counted in the table.
"""


def add_fit_router(command: Callable[..., Any]) -> None:
    """Add the command to a parser; see `gcache.cli`."""
    from gcache.gnn.features import ENCODERS

    fit = command("fit-router", _fit, "Fit the classifier behind --route auto.", EXAMPLES)
    for route, text in (("classification", "that ask for one of some labels"), ("reasoning", "that take reasoning")):
        fit.add_argument(
            f"--{route}", nargs="+", required=True, metavar="TASK[=DATA]", help=f"tasks of questions {text}"
        )
    fit.add_argument("--limit", type=int, default=500, help="questions of each split of a task (default: %(default)s)")
    fit.add_argument("--seed", type=int, default=0, help="of their choice (default: %(default)s)")
    fit.add_argument("--encoder", default="minilm", help=f"of questions: {', '.join(ENCODERS)} (default: %(default)s)")
    fit.add_argument("--out", type=Path, required=True, help="file of the router, .safetensors")
    fit.add_argument("--json", type=Path, metavar="FILE", help="write the table to this file")


def _fit(args: argparse.Namespace) -> int:
    from gcache.files import write_json
    from gcache.links.router import ROUTES, confusion, fit_router

    if args.out.suffix != ".safetensors":
        raise ConfigError(f"--out is a .safetensors file, got {args.out}")
    found = {route: _questions(getattr(args, route), args.limit, args.seed) for route in ROUTES}
    router = fit_router({route: train for route, (train, _) in found.items()}, args.encoder)
    table = confusion(router, {route: test for route, (_, test) in found.items()})
    router.save(args.out)
    if args.json:
        counts = {route: {"train": len(train), "test": len(test)} for route, (train, test) in found.items()}
        write_json(args.json, {"encoder": args.encoder, "seed": args.seed, "questions": counts, "confusion": table})
    print("| it is | " + " | ".join(f"routed as {route}" for route in ROUTES) + " |")
    print("|---" * (len(ROUTES) + 1) + "|")
    for actual, row in table.items():
        print(f"| {actual} | " + " | ".join(str(row[route]) for route in ROUTES) + " |")
    print(f"\nrouter:     {args.out}; pass it by --route auto --route_file {args.out}")
    return 0


def _questions(tasks: Sequence[str], limit: int, seed: int) -> tuple[list[str], list[str]]:
    """Of the training and of the test splits of tasks, in words."""
    from gcache.tasks.registry import make_task

    splits: tuple[list[str], list[str]] = ([], [])
    for named in tasks:
        name, _, data = named.partition("=")
        task = make_task(name, data or None)
        splits[0].extend(example.question for example in task.train(limit, seed))
        splits[1].extend(example.question for example in task.test(limit, seed))
    return splits
