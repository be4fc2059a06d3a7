"""How noisy the gradient is under each baseline, at the weights of a training run or before it.

    python experiments/compare_baselines.py runs/split_facts --batches 20 --json baselines.json
    python experiments/compare_baselines.py runs/split_facts --untrained

The same rollouts of training questions are weighed with every baseline; nothing is trained.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from baseline_noise import Noise, compare_baselines

from gcache.build import build
from gcache.commands.console import guarded, log_to_stderr
from gcache.config import TaskSpec
from gcache.evaluation.tables import markdown
from gcache.files import write_json
from gcache.training import checkpoint as checkpoints
from gcache.training.config import TrainConfig
from gcache.training.trainer import Reinforce


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("run", help="--out folder of a training run, or a step-* folder")
    parser.add_argument("--untrained", action="store_true", help="at the weights that the run began with")
    parser.add_argument("--batches", type=int, default=20, help="(default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1000, help="of questions and rollouts (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="file for the numbers")
    args = parser.parse_args(argv)
    log_to_stderr()
    return guarded(lambda: compare(args))


def compare(args: argparse.Namespace) -> int:
    found = checkpoints.read(args.run)
    task_spec = TaskSpec.from_json(found.task, found.folder)
    task = task_spec.make()
    built = build(found.spec)
    config = replace(TrainConfig.from_json(found.training), seed=args.seed)
    with tempfile.TemporaryDirectory() as nothing:  # nothing is written there
        trainer = Reinforce(built, task, config, Path(nothing))
        if not args.untrained:
            checkpoints.restore(found, built)
        rows = compare_baselines(trainer, list(task.train(config.limit, args.seed)), args.batches)
    print(table(rows), end="")
    if args.json:
        write_json(args.json, {
            "task": found.task, "graph": found.spec.to_json(), "step": 0 if args.untrained else found.step,
            "rollouts": config.rollouts, "batch_size": config.batch_size, "seed": args.seed,
            "rows": [asdict(row) for row in rows],
        })  # fmt: skip
    return 0


def table(rows: Sequence[Noise]) -> str:
    """The rows as a table."""
    head = [
        "part", "baseline", "signal", "noise", "signal to noise", "noise to leave_one_out", "95 % interval", "batches",
    ]  # fmt: skip
    cells = [
        [
            r.part, r.baseline, f"{r.signal:.2e}", f"{r.noise:.2e}", f"{r.to_noise:.3f}", f"{r.ratio:.2f}",
            f"{r.low:.2f} to {r.high:.2f}", str(r.batches),
        ]
        for r in rows
    ]  # fmt: skip
    return markdown(head, cells)


if __name__ == "__main__":
    sys.exit(main())
