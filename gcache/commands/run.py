"""`gcache run`: answer one question."""

from __future__ import annotations

import argparse
import dataclasses
import math
from functools import partial
from typing import Any

from gcache.commands import flags
from gcache.errors import ConfigError

EXAMPLES = """examples:
  gcache run "Ann has 3 boxes of 12 eggs and breaks 5 eggs. How many are whole?"
  gcache run --topology star --trace "What is 17 * 6?"
  gcache run --checkpoint runs/gsm8k "What is 17 * 6?"
"""


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Its flags."""
    parser.epilog = EXAMPLES
    parser.set_defaults(command=partial(_run, parser))
    parser.add_argument("question")
    parser.add_argument("--checkpoint", help="a trained graph; without it, an untrained one is put together")
    flags.add_plugin_flag(parser)
    parser.add_argument("--topology", default="chain", help="without a checkpoint (default: %(default)s)")
    parser.add_argument("--fuser", default="concat", help="without a checkpoint (default: %(default)s)")
    parser.add_argument(
        "--temperature", type=float, default=0.0, help="of the answer; 0 is greedy (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn (default: %(default)s)")
    parser.add_argument("--trace", action="store_true", help="print who did what, when, and what went over the edges")
    for add in (
        flags.add_model_flags, flags.add_mixture_flags, flags.add_graph_flags, flags.add_api_flags,
        flags.add_limit_flags,
    ):  # fmt: skip
        add(parser)


def _run(parser: argparse.ArgumentParser, args: argparse.Namespace) -> int:
    from gcache.build import build
    from gcache.training.checkpoint import load_graph

    if not args.question.strip():
        raise ConfigError("the question is empty; pass it as one quoted argument")
    if not 0 <= args.temperature < math.inf:
        raise ConfigError(f"--temperature must be 0 (greedy) or more, got {args.temperature}")
    if args.checkpoint:
        _require_only_its_own(parser, args)
        graph = load_graph(
            args.checkpoint, flags.limits(args), lambda made: flags.api(args, made.api_model, made.base_url)
        )
    else:
        spec = flags.graph_spec(
            args, "maths", flags.graph_config(args, 256), topology=args.topology, fuser=args.fuser
        )  # fmt: skip
        api = flags.api_if_asked(args, spec)
        graph = build(spec, flags.limits(args), api).graph
    result = graph.run(args.question, temperature=args.temperature, seed=args.seed)
    print(result.answer)
    if args.trace:
        _print_trace(result)
    return 0


def _require_only_its_own(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Refuse flags of the model and the graph beside a checkpoint, which has its own.

    Raises:
        ConfigError: naming them.
    """
    from gcache.llm.cache_budget import Limits

    own = {"question", "checkpoint", "plugins", "trace", "verbose", "on_error", "temperature", "seed"}
    allowed = own | {field.name for field in dataclasses.fields(Limits)} | set(flags.api_flags())
    flags.refuse_changed(parser, args, [name for name in vars(args) if name not in allowed and name != "command"])


def _print_trace(result: Any) -> None:
    from gcache.gnn.topology import DECISION

    print("\n  start    end  who              what     prefilled latent generated received")
    for s in result.trace:
        print(
            f"{s.started:7.2f} {s.ended:6.2f}  {s.role:16.16} {s.what:8} {s.prefilled:9} {s.latent:6} "
            f"{s.generated:9} {s.received:8}  {s.note}".rstrip()
        )
    names = [agent.role for agent in result.agents] + [DECISION]
    for (source, target), size in sorted(result.edge_bytes.items()):
        print(f"{names[source]} -> {names[target]}: {size / 2**20:.2f} MiB")
