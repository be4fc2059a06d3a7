"""Do readings of latent thoughts name what was thought of? A table for split_facts, against chance.

    python experiments/measure_readings.py --llm_name smollm2 --latent_steps 4 --limit 200 --json readings.json
    python experiments/measure_readings.py --recount readings.json
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gcache.build import build
from gcache.commands.console import guarded, log_to_stderr
from gcache.config import GraphSpec
from gcache.errors import DataError
from gcache.evaluation.tables import markdown
from gcache.files import write_json
from gcache.graph.cache_graph import CacheGraph
from gcache.graph.run_config import GraphConfig
from gcache.inspect.reading_check import Named, ReadThought, count_named, read_thoughts
from gcache.tasks.registry import make_task


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--llm_name", default="smollm2")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--latent_steps", type=int, default=4, help="(default: %(default)s)")
    parser.add_argument("--limit", type=int, default=200, help="held-out questions (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything, reading by reading")
    parser.add_argument("--recount", type=Path, metavar="FILE", help="count the readings of such a file again")
    args = parser.parse_args(argv)
    log_to_stderr()
    return guarded(lambda: run(args))


def run(args: argparse.Namespace) -> int:
    thoughts, settings = recorded(args.recount) if args.recount else measured(args)
    rows = count_named(thoughts, args.seed)
    print(table(rows), end="")
    file = args.json or args.recount
    if file:
        kept = [asdict(thought) for thought in thoughts]
        write_json(file, {**settings, "rows": [asdict(row) for row in rows], "readings": kept})
    return 0


def measured(args: argparse.Namespace) -> tuple[list[ReadThought], dict[str, Any]]:
    task = make_task("split_facts")
    spec = GraphSpec(
        llm_name=args.llm_name, dtype=args.dtype, domain=task.domain, topology="star",
        graph=GraphConfig(latent_steps=args.latent_steps, max_new_tokens=1),
    )  # fmt: skip
    built = build(spec)
    assert isinstance(built.graph, CacheGraph) and built.llm is not None
    thoughts = read_thoughts(built.graph, built.llm, list(task.test(args.limit, args.seed)))
    settings = {
        "model": built.llm.label, "dtype": str(built.llm.dtype).removeprefix("torch."),
        "latent_steps": args.latent_steps, "limit": args.limit, "seed": args.seed,
    }  # fmt: skip
    return thoughts, settings


def recorded(file: Path) -> tuple[list[ReadThought], dict[str, Any]]:
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        thoughts = [
            ReadThought(r["id"], r["place"], r["value"], tuple(map(tuple, r["steps"])), r["written"])
            for r in record.pop("readings")
        ]
        record.pop("rows", None)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"{file}: no file of readings ({type(error).__name__}); name one that --json wrote") from error
    return thoughts, record


def table(rows: Sequence[Named]) -> str:
    head = ["read", "names the", "share", "95 % interval", "chance", "above chance", "bootstrap interval", "n"]
    cells = [
        [r.read, r.what, f"{r.share:.3f}", f"{r.low:.3f} to {r.high:.3f}", f"{r.chance:.3f}", f"{r.above:+.3f}",
         f"{r.above_low:+.3f} to {r.above_high:+.3f}", str(r.n)]
        for r in rows
    ]  # fmt: skip
    return markdown(head, cells)


if __name__ == "__main__":
    sys.exit(main())
