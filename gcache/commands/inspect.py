"""The commands `gcache inspect` and `gcache compare-topologies`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from gcache.errors import ConfigError

if TYPE_CHECKING:
    from gcache.build import GraphSpec
    from gcache.llm.api.client import ApiLLM

INSPECT_EXAMPLES = """examples:
  gcache inspect runs/split_facts
  gcache inspect runs/split_facts --format table html history gif --cuts 100
  gcache inspect runs/gsm8k --question "What is 17 * 6?" --format table html
  gcache inspect runs/split_facts --question split_facts-test-0-3
Without a question: edges by role, averaged over test questions, how they moved in training, and with --cuts what
cutting each costs. With one: that question's topology, every agent's prompt and latent thoughts in words, what went
over each edge, and what the answer attended to. Where agents come with the task's questions, --question is the id or
the words of one of these. Formats: table (to the terminal), json, png, svg, html (one page that works from disk),
graphml, mermaid, dot; of a training also history (small multiples), gif (moving) and curves.
"""
COMPARE_EXAMPLES = """example:
  gcache compare-topologies runs/seed0 runs/seed1 --limit 200 --json apart.json
"""


class AddCommand(Protocol):
    """Adds a subcommand's parser."""

    def __call__(self, name: str, run: Any, text: str, examples: str) -> Any: ...


def add_inspect(command: AddCommand, add_task_flags: Any) -> None:
    """Both commands' flags."""
    from gcache.commands.flags import add_api_flags, add_limit_flags
    from gcache.inspect.format_names import FORMATS

    inspect = command("inspect", _inspect, "Look at what a checkpoint learned, or at one question.", INSPECT_EXAMPLES)
    inspect.add_argument("checkpoint", help="--out folder of a training run, or a step-* folder")
    inspect.add_argument("--question", help="look at this one: its words, or the id of one of the task's")
    inspect.add_argument(
        "--format", nargs="+", default=["table"], choices=[*FORMATS, "all"], metavar="FORMAT",
        help=f"some of {', '.join(FORMATS)}, or all (default: table)",
    )  # fmt: skip
    inspect.add_argument("--out", type=Path, help="folder of the files (default: inspect, in the run's)")
    add_task_flags(inspect, required=False)
    inspect.add_argument("--limit", type=int, default=200, help="questions to average over (default: %(default)s)")
    inspect.add_argument(
        "--cuts", type=int, default=0, metavar="N", help="cut every edge on N of them, to see its worth (default: 0)"
    )
    inspect.add_argument("--seed", type=int, default=0, help="of the choice of questions (default: %(default)s)")
    inspect.add_argument(
        "--no_writing", action="store_true", help="with --question: leave out what the model writes of each cache"
    )
    add_api_flags(inspect, modes=False)
    add_limit_flags(inspect)

    compare = command(
        "compare-topologies", _compare, "Where two checkpoints disagree on who hands to whom.", COMPARE_EXAMPLES
    )
    compare.add_argument("first", help="--out folder of a training run, or a step-* folder")
    compare.add_argument("second", help="another one with the same roles")
    add_task_flags(compare, required=False)
    compare.add_argument("--limit", type=int, default=200, help="questions (default: %(default)s)")
    compare.add_argument("--seed", type=int, default=0, help="of questions and resamples (default: %(default)s)")
    compare.add_argument("--json", type=Path, metavar="FILE", help="write everything to this file")


def _inspect(args: argparse.Namespace) -> int:
    from gcache import inspection
    from gcache.commands import flags
    from gcache.commands.main import task_if_named
    from gcache.inspect.format_names import FORMATS
    from gcache.inspect.formats import table

    formats = list(FORMATS) if "all" in args.format else args.format
    if args.question is None and args.no_writing:
        raise ConfigError("--no_writing is about one question; add --question, or leave it out")
    if args.question is not None and args.cuts:
        raise ConfigError("--cuts is about many questions, --question about one; leave out either")
    limits, task = flags.limits(args), task_if_named(args)

    def api(made: GraphSpec) -> ApiLLM:
        return flags.api(args, made.api_model, made.base_url)

    if args.question is None:
        view = inspection.look_at(
            args.checkpoint, task, args.limit, args.seed, args.cuts, limits=limits, api=api
        )
    else:
        if "all" in args.format:  # of one question there is no training
            formats = [name for name in formats if name not in ("history", "gif", "curves")]
        view = inspection.look_closely(
            args.checkpoint, args.question, task, not args.no_writing, args.seed, limits, api
        )
    written = inspection.write_view(view, formats, args.out or inspection.run_folder(args.checkpoint) / "inspect")
    if "table" in formats:
        print(table(view), end="")
    for path in written:
        print(path)
    return 0


def _compare(args: argparse.Namespace) -> int:
    from gcache import inspection
    from gcache.commands.main import task_if_named

    _, table = inspection.compare_topologies(
        args.first, args.second, task_if_named(args), args.limit, args.seed, args.json
    )
    print(table, end="")
    return 0
