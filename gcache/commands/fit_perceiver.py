"""`gcache fit-perceiver`: a learned link between two models, fitted on a task."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from gcache.commands import flags
from gcache.commands.graph_flags import add_graph_flags, graph_spec
from gcache.commands.task_flags import add_task_flags, task_spec
from gcache.errors import ConfigError
from gcache.links.perceiver_config import PerceiverConfig
from gcache.llm.cache_budget import Limits
from gcache.runtime.streams import derive
from gcache.training.config import FitConfig

EXAMPLES = """example:
  gcache fit-perceiver --llm_name smollm2 --agent_models MODEL.gguf --task banking77 --data train.csv \\
      --out bank.safetensors
  python experiments/compare_links.py --llm_name smollm2 --agent_models MODEL.gguf --task banking77 --data test.csv \\
      --task_option whole_file=true --links perceiver text --link_file bank.safetensors
Agents think with --agent_models (one model), the decision maker with --llm_name; both stay frozen. What is learned are
--queries soft tokens that read an agent's thoughts, from how likely they make the right answer.
"""


def add_flags(fit: argparse.ArgumentParser) -> None:
    """Its flags."""
    fit.epilog = EXAMPLES
    fit.set_defaults(command=_fit)
    add_task_flags(fit, required=True)
    fit.add_argument("--out", type=Path, required=True, help="file of the link, .safetensors; metrics go beside it")
    fit.add_argument("--limit", type=int, help="training questions to learn from (default: all)")
    fit.add_argument(
        "--start", type=Path, metavar="FILE",
        help="fitted for these two models before, on this task or another: goes on from it",
    )  # fmt: skip
    flags.add(fit, FitConfig)
    flags.add(fit, PerceiverConfig, "fitting")
    flags.group(fit, "fitting").add_argument(
        "--queries", type=int, nargs="+", default=[PerceiverConfig().queries],
        help="soft tokens that cross; several are fitted one after another on the same thoughts, each to a file of its "
        "own (default: %(default)s)",
    )  # fmt: skip
    add_graph_flags(fit)
    flags.add(fit, Limits)


def _fit(args: argparse.Namespace) -> int:
    import torch

    from gcache.build import build
    from gcache.graph.cache_graph import CacheGraph
    from gcache.links.perceiver import Perceiver, embedding_statistics
    from gcache.training.fit_perceiver import PerceiverFit, Seen, ends_of

    shapes = [flags.make(PerceiverConfig, args, queries=queries) for queries in dict.fromkeys(args.queries)]
    configs = [flags.make(FitConfig, args, shape=shape) for shape in shapes]
    if args.link_file or args.route != "none" or args.link not in ("auto", "perceiver"):
        raise ConfigError(
            "--link, --link_file and --route say which link a graph uses; this command makes one: leave them out"
        )
    if args.out.suffix != ".safetensors":
        raise ConfigError(f"--out is a .safetensors file, got {args.out}")
    if len(set(args.agent_models)) != 1:
        raise ConfigError("a perceiver is fitted from one model: name it by --agent_models")
    task = task_spec(args).make()
    examples = list(task.train(args.limit, args.seed))
    spec = graph_spec(args, task.domain, task.max_new_tokens, topology="star", link="text")
    graph = build(spec, flags.make(Limits, args)).graph
    assert isinstance(graph, CacheGraph)
    sender, receiver = ends_of(graph)
    started = None if args.start is None else Perceiver.load(args.start, sender, receiver)
    if started is not None:
        if shapes != [PerceiverConfig()] and shapes != [started.config]:
            raise ConfigError(
                f"--start {args.start} is a {started.config}; leave out --queries, --width, --heads and --blocks"
            )
        configs = [replace(configs[0], shape=started.config)]
    seen: list[Seen] = []
    for config in configs:
        out = args.out if len(configs) == 1 else args.out.with_stem(f"{args.out.stem}-{config.shape.queries}")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive("perceiver", config.seed))
            perceiver = started or Perceiver(config.shape, sender.w_in.shape[1], embedding_statistics(receiver))
        fit = PerceiverFit(graph, perceiver, config)
        seen = seen or fit.see(examples)
        history = fit.fit(seen, out.with_suffix(".jsonl"))
        perceiver.save(out, sender.fingerprint, receiver.fingerprint)
        first, last = history[0], history[-1]
        held = f", held out {last['held_out_loss']:.3f}" if "held_out_loss" in last else ""
        print(f"loss:       {first['loss']:.3f} at first, {last['loss']:.3f} at last{held} (nats a token)")
        print(f"link:       {out}; pass it by --link perceiver --link_file {out}")
    return 0
