"""`gcache run`: answer one question."""

from __future__ import annotations

import argparse
import logging
import math
from functools import partial
from typing import Any

from gcache.commands import flags
from gcache.commands.api_flags import add_api_flags, api_if_asked, api_of_checkpoint
from gcache.commands.graph_flags import OF_A_GRAPH, add_graph_flags, graph_spec
from gcache.commands.plugin_flags import add_plugin_flag
from gcache.errors import ConfigError
from gcache.llm.cache_budget import Limits

logger = logging.getLogger(__name__)

EXAMPLES = """examples:
  gcache run "Ann has 3 boxes of 12 eggs and breaks 5 eggs. How many are whole?"
  gcache run --topology star --trace "What is 17 * 6?"
  gcache run --topology star --hands reasoning --latent_steps 0 --decision_method marginal --trace "What is 17 * 6?"
  gcache run --checkpoint runs/gsm8k "What is 17 * 6?"
"""


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Its flags."""
    parser.epilog = EXAMPLES
    parser.set_defaults(command=partial(_run, parser))
    parser.add_argument("words", metavar="question")
    parser.add_argument("--checkpoint", help="a trained graph; without it, an untrained one is put together")
    add_plugin_flag(parser)
    parser.add_argument(
        "--temperature", type=float, default=0.0, help="of the answer; 0 is greedy (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn (default: %(default)s)")
    parser.add_argument("--trace", action="store_true", help="print who did what, when, and what went over the edges")
    add_graph_flags(parser, "topology", "decision_method", "fuser", topology="chain")
    add_api_flags(parser)
    flags.add(parser, Limits)


def _run(parser: argparse.ArgumentParser, args: argparse.Namespace) -> int:
    from gcache.build import build
    from gcache.llm.cache_store import tell_of_store
    from gcache.training.checkpoint import load

    if not args.words.strip():
        raise ConfigError("the question is empty; pass it as one quoted argument")
    if not 0 <= args.temperature < math.inf:
        raise ConfigError(f"--temperature must be 0 (greedy) or more, got {args.temperature}")
    limits = flags.make(Limits, args)
    if args.checkpoint:
        flags.refuse_changed(parser, args, OF_A_GRAPH)
        built, _ = load(args.checkpoint, limits=limits, api=api_of_checkpoint(parser, args, args.checkpoint))
    else:
        spec = graph_spec(args, "maths", 256)
        built = build(spec, limits, api_if_asked(parser, args, spec))
    result = built.graph.run(args.words, temperature=args.temperature, seed=args.seed)
    if built.llm is not None:
        tell_of_store(built.llm.store)
    print(result.answer)
    if result.cut:
        logger.warning(
            "the answer was cut off after %d tokens; raise --max_new_tokens, or try another --topology",
            built.graph.config.max_new_tokens,
        )
    if args.trace:
        _print_trace(result)
    return 0


def _print_trace(result: Any) -> None:
    from gcache.gnn.topology import DECISION

    print("\n  start    end  who              what     prefilled stored latent generated received")
    for s in result.trace:
        print(
            f"{s.started:7.2f} {s.ended:6.2f}  {s.role:16.16} {s.what:8} {s.prefilled:9} {s.stored:6} {s.latent:6} "
            f"{s.generated:9} {s.received:8}  {s.note}".rstrip()
        )
    names = [agent.role for agent in result.agents] + [DECISION]
    for (round_, agent), solution in sorted(result.solutions.items()):
        print(f"\n{names[agent]} wrote{f' in round {round_}' if round_ else ''}"
              f"{'' if solution.finished else ' (cut off)'}: {solution.text.strip()}")  # fmt: skip
    if result.ballot is not None:
        print()
        for option, probability in zip(result.ballot.options, result.ballot.probabilities, strict=True):
            print(f"{probability:.3f} {option.answer}")
    for (source, target), size in sorted(result.edge_bytes.items()):
        print(f"{names[source]} -> {names[target]}: {size / 2**20:.2f} MiB")
