"""Do readings of latent thoughts name what was thought of? A table for split_facts, against chance.

    python experiments/measure_readings.py --llm_name smollm2 --latent_steps 4 --limit 200 --json readings.json
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from gcache.build import GraphSpec, build
from gcache.cli import guarded, log_to_stderr
from gcache.errors import ConfigError
from gcache.files import write_json
from gcache.graph.cache_graph import CacheGraph
from gcache.graph.records import GraphConfig
from gcache.inspect.formats import markdown
from gcache.inspect.reading_check import check_readings, named_json
from gcache.tasks.registry import make_task


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--llm_name", default="smollm2")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--latent_steps", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=10, help="of each latent step that count (default: %(default)s)")
    parser.add_argument("--limit", type=int, default=200, help="held-out questions (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything, reading by reading")
    args = parser.parse_args(argv)
    log_to_stderr()
    return guarded(lambda: run(args))


def run(args: argparse.Namespace) -> int:
    if args.tokens < 1:
        raise ConfigError(f"--tokens must be 1 or more, got {args.tokens}")
    task = make_task("split_facts")
    spec = GraphSpec(
        llm_name=args.llm_name, dtype=args.dtype, domain=task.domain, topology="star",
        graph=GraphConfig(latent_steps=args.latent_steps, max_new_tokens=1),
    )  # fmt: skip
    built = build(spec)
    assert isinstance(built.graph, CacheGraph) and built.llm is not None
    examples = list(task.test(args.limit, args.seed))
    rows, read = check_readings(built.graph, built.llm, examples, args.tokens, args.seed)
    head = ["read", "names the", "share", "95 % interval", "chance", "above chance", "bootstrap interval", "n"]
    cells = [
        [r.read, r.what, f"{r.share:.3f}", f"{r.low:.3f} to {r.high:.3f}", f"{r.chance:.3f}", f"{r.above:+.3f}",
         f"{r.above_low:+.3f} to {r.above_high:+.3f}", str(r.n)]
        for r in rows
    ]  # fmt: skip
    print(markdown(head, cells), end="")
    if args.json:
        settings = {"model": built.llm.label, "latent_steps": args.latent_steps, "tokens": args.tokens,
                    "limit": args.limit, "seed": args.seed, "dtype": str(built.llm.dtype)}  # fmt: skip
        write_json(args.json, {**settings, "rows": named_json(rows), "readings": read})
    return 0


if __name__ == "__main__":
    sys.exit(main())
