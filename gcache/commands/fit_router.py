"""`gcache fit-router`: which questions go over the perceiver, learned from tasks that are known to be for it or not."""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from gcache.errors import ConfigError
from gcache.runtime.streams import shuffler
from gcache.tasks.splits import Split, check_limit

if TYPE_CHECKING:
    from gcache.tasks.classification import Classification

EXAMPLES = """example:
  gcache fit-router --classification banking77=train.csv --reasoning gsm8k=train.jsonl split_facts \\
      --out router.safetensors
  gcache run --llm_name smollm2 --agent_models MODEL.gguf --link text --link_file bank.safetensors \\
      --route auto --route_file router.safetensors "What is 17 * 6?"
Questions of each task's training split are learned from, those of its test split are counted in the table. A
classification asks one question of all its texts, so it is asked with some of its labels, drawn anew each time.
"""


def add_flags(fit: argparse.ArgumentParser) -> None:
    """Its flags."""
    from gcache.gnn.features import ENCODERS

    fit.epilog = EXAMPLES
    fit.set_defaults(command=_fit)
    for route, text in (("classification", "that ask for one of some labels"), ("reasoning", "that take reasoning")):
        fit.add_argument(
            f"--{route}", nargs="+", required=True, metavar="TASK[=DATA]", help=f"tasks of questions {text}"
        )
        fit.add_argument(
            f"--unseen_{route}", nargs="+", default=[], metavar="TASK[=DATA]",
            help="likewise, but only counted, each in a row of its own: nothing is learned from them",
        )  # fmt: skip
    fit.add_argument("--limit", type=int, default=500, help="questions of each split of a task (default: %(default)s)")
    fit.add_argument("--seed", type=int, default=0, help="of their choice (default: %(default)s)")
    fit.add_argument("--encoder", default="minilm", help=f"of questions: {', '.join(ENCODERS)} (default: %(default)s)")
    fit.add_argument("--out", type=Path, required=True, help="file of the router, .safetensors")
    fit.add_argument("--json", type=Path, metavar="FILE", help="write the table to this file")


def _fit(args: argparse.Namespace) -> int:
    from gcache.evaluation.tables import markdown
    from gcache.files import write_json
    from gcache.links.router import ROUTES, confusion, fit_router

    if args.out.suffix != ".safetensors":
        raise ConfigError(f"--out is a .safetensors file, got {args.out}")
    found = {route: _questions(getattr(args, route), args.limit, args.seed) for route in ROUTES}
    unseen = {
        f"{task.partition('=')[0]} (unseen {route})": [*chain(*_questions([task], args.limit, args.seed))]
        for route in ROUTES
        for task in getattr(args, f"unseen_{route}")
    }
    router = fit_router({route: train for route, (train, _) in found.items()}, args.encoder)
    table = confusion(router, {**{route: test for route, (_, test) in found.items()}, **unseen})
    router.save(args.out)
    if args.json:
        counts = {route: {"train": len(set(train)), "test": len(set(test))} for route, (train, test) in found.items()}
        write_json(args.json, {"encoder": args.encoder, "seed": args.seed, "questions": counts, "confusion": table})
    head = ["it is", *(f"routed as {route}" for route in ROUTES)]
    print(markdown(head, [[actual, *(str(row[route]) for route in ROUTES)] for actual, row in table.items()]))
    print(f"router:     {args.out}; pass it by --route auto --route_file {args.out}")
    return 0


def _questions(tasks: Sequence[str], limit: int, seed: int) -> tuple[list[str], list[str]]:
    """To learn from, and to count: of the training and of the test splits of tasks, none in both."""
    from gcache.tasks.classification import Classification
    from gcache.tasks.registry import make_task

    check_limit(limit, seed)
    splits: tuple[list[str], list[str]] = ([], [])
    for named in tasks:
        name, _, data = named.partition("=")
        task = make_task(name, data or None)
        if isinstance(task, Classification):
            for split, questions in zip(get_args(Split), splits, strict=True):
                rng = shuffler(name, split, seed)
                questions.extend(_with_some_labels(task, task.labels(split), limit, rng))
            continue
        splits[0].extend(example.question for example in task.train(limit, seed))
        splits[1].extend(example.question for example in task.test(limit, seed))
    known = set(splits[0])
    return splits[0], [question for question in splits[1] if question not in known]


def _with_some_labels(task: Classification, labels: Sequence[str], limit: int, rng: random.Random) -> list[str]:
    """The question of a classification with two or more of its labels, by name: `limit` draws."""
    drawn = (rng.sample(labels, rng.randint(2, len(labels))) for _ in range(limit))
    return [task.question(sorted(some)) for some in drawn]
