"""Train, or ask, a graph of agents on GSM8K.

    python experiments/run_gsm8k.py --data train.jsonl --limit 16 --num_iterations 2
    python experiments/run_gsm8k.py --data train.jsonl --question_id 3

Flags in, results out: the work is done by the functions behind the `gcache` command.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gcache import flags, session
from gcache.build import LEARNED, build
from gcache.cli import guarded, log_to_stderr
from gcache.errors import ConfigError, unknown
from gcache.graph.fixed import TOPOLOGIES
from gcache.training.trainer import TrainConfig

#: Names of topologies and decision methods that users of graph frameworks know, beside our own.
MODES = {
    "FullConnected": "full", "Random": "random", "Chain": "chain", "Debate": "debate", "Layered": "layered",
    "Star": "star", **{name: name for name in TOPOLOGIES},
}  # fmt: skip
DECISIONS = {"FinalRefer": "refer", "FinalDirect": "direct", "FinalMajorVote": "vote"}
DECISIONS |= {name: name for name in DECISIONS.values()}


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    made.add_argument("--data", help="official JSONL; without it, the data set comes from the hub")
    made.add_argument("--limit", type=int, help="training questions to draw from (default: all)")
    made.add_argument("--question_id", type=int, help="run only the training question of this number; trains nothing")
    made.add_argument("--num_iterations", type=int, default=10, help="optimizer steps (default: %(default)s)")
    made.add_argument("--batch_size", type=int, default=4, help="questions per step (default: %(default)s)")
    made.add_argument("--report", type=int, default=0, help="evaluate on this many held-out questions at the end")
    made.add_argument("--out", type=Path, help="folder of the run (default: runs/gsm8k-seedSEED)")
    made.add_argument("--agent_nums", type=int, default=4, help="agents (default: %(default)s)")
    made.add_argument("--num_rounds", type=int, default=1, help="rounds of thinking (default: %(default)s)")
    made.add_argument("--mode", default="FullConnected", help=f"a topology: {', '.join(MODES)}")
    made.add_argument("--decision_method", default="FinalRefer", help=", ".join(DECISIONS))
    made.add_argument("--fuse_method", default="concat", help="concat, weighted_sum or first (default: %(default)s)")
    flags.add_boolean(
        made, "--optimized_spatial", True, "learn the edges; false: keep those of --mode and train the fuser alone"
    )
    flags.add_boolean(made, "--use_cache", True, "agents hand on caches (text on the edges is not offered yet)")
    flags.add_model_flags(made)
    flags.add_graph_flags(made)
    flags.add_limit_flags(made)
    flags.add_train_flags(made, TrainConfig(rollouts=2))
    return made


def settings(args: argparse.Namespace) -> tuple[session.TaskSpec, Any]:
    """The task and the graph the flags describe."""
    if not args.use_cache:
        raise ConfigError("--use_cache false asks for text on the edges, which is not offered yet; pass --use_cache")
    if args.mode not in MODES:
        raise unknown("mode", args.mode, MODES)
    if args.decision_method not in DECISIONS:
        raise unknown("decision method", args.decision_method, DECISIONS)
    task = session.TaskSpec("gsm8k", args.data)
    spec = flags.graph_spec(
        args,
        "maths",
        flags.graph_config(args, task.make().max_new_tokens, args.num_rounds),
        topology=LEARNED if args.optimized_spatial else MODES[args.mode],
        fuser=args.fuse_method,
        agent_nums=args.agent_nums,
        decision_method=DECISIONS[args.decision_method],
    )
    return task, spec


def ask(args: argparse.Namespace, task_spec: session.TaskSpec, spec: Any) -> int:
    """Run one question and print what came of it."""
    task = task_spec.make()
    questions = task.train(args.limit, args.seed)
    if not 0 <= args.question_id < len(questions):
        raise ConfigError(f"--question_id must be from 0 to {len(questions) - 1}, got {args.question_id}")
    example = questions[args.question_id]
    result = build(spec, flags.limits(args)).graph.run(example)
    grade = task.grade(result.answer, example)
    print(f"question: {example.question}\nanswer:   {result.answer}\nexpected: {example.answer} ({grade.outcome})")
    return 0


def run(args: argparse.Namespace) -> int:
    task_spec, spec = settings(args)
    if args.question_id is not None:
        return ask(args, task_spec, spec)
    if args.report < 0:
        raise ConfigError(f"--report must be 0 or more, got {args.report}")
    config = flags.train_config(args, args.num_iterations, args.batch_size, args.limit)
    out = args.out or Path("runs") / f"gsm8k-seed{args.seed}"
    result = session.train(task_spec, spec, config, out, args.report, limits=flags.limits(args))
    for line in result.history:
        print(
            f"step {line['step']}: utility {line['utility']:.3f} ({line['utility_low']:.3f} to "
            f"{line['utility_high']:.3f}), unparsed {line['unparsed']}, edges {line['edges']:.2f}, "
            f"{line['seconds']:.1f} s"
        )
    if result.table:
        print(f"\n{result.table}")
    print(f"checkpoint: {result.checkpoint}\nmetrics:    {out / 'metrics.jsonl'}")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    args = parser().parse_args(argv)
    log_to_stderr()
    return guarded(lambda: run(args))


if __name__ == "__main__":
    sys.exit(main())
