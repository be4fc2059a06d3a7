"""What the scripts in experiments/ share: flags in, a trained or asked graph, results out.

Beside our own names, those that users of graph frameworks know work: topologies such as
FullConnected, decision methods such as FinalRefer, and models such as hybrid_cache, local_cache or
the name of an API's model.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gcache.agents.decision import DECISIONS as METHODS
from gcache.build import build
from gcache.commands import flags
from gcache.commands.api_flags import add_api_flags, api_if_asked
from gcache.commands.console import OneLineParser, guarded, log_to_stderr
from gcache.commands.graph_flags import add_graph_flags, graph_spec
from gcache.commands.options import options
from gcache.commands.train import print_outcome, train
from gcache.config import LEARNED, GraphSpec, TaskSpec
from gcache.errors import ConfigError, unknown
from gcache.gnn.fixed import TOPOLOGIES
from gcache.llm.api.client import ApiLLM
from gcache.llm.cache_budget import Limits
from gcache.llm.load.locate import EMBEDDED
from gcache.runtime.settings import setting
from gcache.runtime.sharing import watched
from gcache.training.config import TrainConfig

logger = logging.getLogger(__name__)

MODES = {
    "FullConnected": "full", "Random": "random", "Chain": "chain", "Debate": "debate", "Layered": "layered",
    "Star": "star", **{name: name for name in TOPOLOGIES},
}  # fmt: skip
DECISIONS = {"FinalRefer": "refer", "FinalDirect": "direct", "FinalMajorVote": "vote"}
DECISIONS |= {name: name for name in METHODS}
#: `--llm_name` -> the generation mode it stands for; the local model is then the embedded one.
LLM_NAMES = {"hybrid_cache": "hybrid", "local_cache": "local"}


@dataclass(frozen=True)
class Learned:
    """What the scripts have beside our own settings."""

    optimized_spatial: bool = setting(
        True, help="learn the edges; false: keep those of --mode and train the fuser alone", group="script"
    )
    use_cache: bool = setting(True, help="agents hand on caches; false: text alone", group="script")


@dataclass(frozen=True)
class Experiment:
    """One script.

    Attributes:
        task: its name.
        about: the script's docstring.
        generation_mode: unless a flag says otherwise.
    """

    task: str
    about: str
    generation_mode: str = "local"

    def parser(self) -> argparse.ArgumentParser:
        made = OneLineParser(
            description=self.about, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
        )
        made.add_argument("--data", help="data file of the task; without it, the data set comes from the hub")
        made.add_argument("--task_option", nargs="+", default=[], metavar="NAME=VALUE", help="of the task")
        made.add_argument("--accept_last_number", action="store_true", help="see gcache train")
        made.add_argument("--limit", type=int, help="training questions to draw from (default: all)")
        made.add_argument(
            "--question_id", type=int, help="run only the training question of this number; trains nothing"
        )
        made.add_argument("--num_iterations", type=int, default=10, help="optimizer steps (default: %(default)s)")
        made.add_argument("--batch_size", type=int, default=4, help="questions per step (default: %(default)s)")
        made.add_argument("--report", type=int, default=0, help="evaluate on this many held-out questions at the end")
        made.add_argument("--out", type=Path, help=f"folder of the run (default: runs/{self.task}-seedSEED)")
        made.add_argument("--agent_nums", type=int, default=4, help="agents (default: %(default)s)")
        made.add_argument("--mode", default="FullConnected", help=f"a topology: {', '.join(MODES)}")
        made.add_argument("--decision_method", default="FinalRefer", help=", ".join(DECISIONS))
        made.add_argument(
            "--fuse_method", default="concat", help="concat, weighted_sum or first (default: %(default)s)"
        )
        flags.add(made, Learned)
        add_graph_flags(made, "choices")
        add_api_flags(made, generation_mode=self.generation_mode)
        flags.add(made, Limits)
        flags.add(made, TrainConfig, "training", rollouts=2)
        return made

    def main(self, argv: Sequence[str] | None = None) -> int:
        """Returns the exit code."""
        parser = self.parser()
        args = parser.parse_args(argv)
        log_to_stderr()
        with watched():
            return guarded(lambda: self.run(parser, args))

    def run(self, parser: argparse.ArgumentParser, args: argparse.Namespace) -> int:
        task, spec = self.settings(args)
        api = api_if_asked(parser, args, spec)
        if args.question_id is not None:
            return ask(args, task, spec, api)
        if args.report < 0:
            raise ConfigError(f"--report must be 0 or more, got {args.report}")
        config = flags.make(TrainConfig, args, iterations=args.num_iterations)
        out = args.out or Path("runs") / f"{self.task}-seed{args.seed}"
        result = train(task, spec, config, out, args.report, limits=flags.make(Limits, args), api=api)
        for line in result.history:
            print(
                f"step {line['step']}: utility {line['utility']:.3f} ({line['utility_low']:.3f} to "
                f"{line['utility_high']:.3f}), unparsed {line['unparsed']}, unstated {line.get('unstated', 0)}, "
                f"edges {line['edges']:.2f}, "
                f"{line['seconds']:.1f} s"
            )
        print_outcome(args, spec, result, api)
        return 0

    def settings(self, args: argparse.Namespace) -> tuple[TaskSpec, GraphSpec]:
        """The task and the graph the flags describe."""
        if args.mode not in MODES:
            raise unknown("mode", args.mode, MODES)
        if args.decision_method not in DECISIONS:
            raise unknown("decision method", args.decision_method, DECISIONS)
        known_names(args)
        last = {"accept_last_number": True} if args.accept_last_number else {}
        task_spec = TaskSpec(self.task, args.data, {**options(args.task_option), **last})
        task = task_spec.make()
        spec = graph_spec(
            args,
            task.domain,
            task.max_new_tokens,
            topology=LEARNED if args.optimized_spatial else MODES[args.mode],
            fuser=args.fuse_method,
            agent_nums=args.agent_nums,
            decision_method=DECISIONS[args.decision_method],
        )
        return task_spec, spec


def known_names(args: argparse.Namespace) -> None:
    """Turn the model names that early users know into our flags, in place.

    hybrid_cache and local_cache are the modes hybrid and local, with the embedded model; the name of
    an API's model (no folder, no file, no owner before a slash) is that model, told of the caches,
    or, without caches, alone.
    """
    name = args.llm_name
    if name in LLM_NAMES:
        args.llm_name, args.generation_mode = EMBEDDED, LLM_NAMES[name]
    elif name != EMBEDDED and "/" not in name and not name.endswith(".gguf") and not Path(name).exists():
        if args.api_model not in (None, name):
            raise ConfigError(f"--llm_name {name!r} and --api_model {args.api_model!r} name two API models; pass one")
        logger.info(
            "--llm_name %s is no folder, file or owner/name of the hub: taken for the name of an API's model", name
        )
        args.llm_name, args.api_model = EMBEDDED, name
        if not args.use_cache:
            args.generation_mode = "api"
        elif args.generation_mode == "local":
            args.generation_mode = "api_hint"
    if not args.use_cache:
        args.hands = "text"


def ask(args: argparse.Namespace, task_spec: TaskSpec, spec: GraphSpec, api: ApiLLM | None) -> int:
    """Run one question and print what came of it."""
    task = task_spec.make()
    questions = task.train(args.limit, args.seed)
    if not 0 <= args.question_id < len(questions):
        raise ConfigError(f"--question_id must be from 0 to {len(questions) - 1}, got {args.question_id}")
    example = questions[args.question_id]
    result = build(spec, flags.make(Limits, args), api).graph.run(example)
    grade = task.grade(result.answer, example)
    print(f"question: {example.question}\nanswer:   {result.answer}\nexpected: {example.answer} ({grade.outcome})")
    return 0
