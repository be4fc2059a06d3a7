"""The command: runs the sections, writes the record after each part, renders the table."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.command import command
from gcache.commands.console import OneLineParser
from gcache.errors import ConfigError, DataError
from gcache.files import write_json

if TYPE_CHECKING:
    from benchmarks.gpu_check.runner import Outcome

logger = logging.getLogger("benchmarks.gpu_check")

NOTHING = "none"
NAMES = ("invariants", "orchestration", "memory", "speed", "end_to_end", "concurrency")
SHAPES = ("tiny", "0.6b", "4b", "8b")
#: Exit codes.
FAILED, UNFINISHED = 1, 3

EXPLAINED = """sections, in this order; the last three are run for every shape:
  invariants     batching, concurrency, positions, weights 1 and 0, gradients, seeds, exact passes,
                 every fuser: small models in float32 and float64, each error beside its bar
  orchestration  what a graph costs beside its model, with caches on the device
  memory         the most memory under a limit of cache bytes, beside what the limit promises
                 (the first shape)
  speed          prefill and decoding beside transformers' generate and the device's floor
  end_to_end     our graphs beside the published algorithm, on generated questions
  concurrency    questions per second with 1, 4, 16, 64 and 256 in hand

A section that fails, or runs out of its share of the time, does not stop the others. The record is
written after every part of a section, so what is cut off leaves what it had.
exit code: 0 all passed, 1 some failed, 2 a wrong command, 3 none failed but some were cut off or skipped

Models are of Qwen3's shapes with random weights in bfloat16, the tokenizer and the questions are
made on the spot: nothing is fetched. What they write means nothing.

on a machine without a network:
  The script runs in a checkout, without gcache being installed. Beside it, it needs torch,
  transformers and torch-geometric with what these bring along (numpy, safetensors, tokenizers, tqdm,
  jinja2), and nothing else of what setup.cfg lists: not accelerate, gguf, httpx2, math-verify,
  matplotlib, python-dotenv or reasoning-gym. What is missing there all the same can be carried:
    pip download -d wheels --only-binary=:all: PACKAGE...          where there is a network
    pip install --no-index --find-links wheels PACKAGE...          there

examples:
  python -m benchmarks.gpu_check --out runs/gpu_check/result.json
  python -m benchmarks.gpu_check --shapes 0.6b --only speed concurrency --out runs/gpu_check/speed.json
  python -m benchmarks.gpu_check --shapes tiny --device cpu
  python -m benchmarks.gpu_check --only none --out result.json --table docs/performance.md
"""


def parser() -> argparse.ArgumentParser:
    made = OneLineParser(
        prog="python -m benchmarks.gpu_check",
        description="All that a GPU is wanted for, in one command of a few minutes.",
        epilog=EXPLAINED,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--shapes", nargs="+", choices=SHAPES, default=["0.6b", "4b", "8b"], metavar="SHAPE",
                      help=f"some of {', '.join(SHAPES)}; tiny is for a CPU (default: 0.6b 4b 8b)")  # fmt: skip
    made.add_argument("--budget", type=float, default=480.0, metavar="SECONDS",
                      help="for everything; what is to come then is skipped (default: %(default).0f)")  # fmt: skip
    made.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, or auto: a GPU if there is one (default)")
    made.add_argument("--only", nargs="+", choices=(*NAMES, NOTHING), default=list(NAMES), metavar="SECTION",
                      help=f"some of {', '.join(NAMES)}, or {NOTHING} to render a record (default: all)")  # fmt: skip
    made.add_argument("--out", type=Path, default=Path("runs/gpu_check/result.json"), metavar="FILE",
                      help="the record; an earlier one is replaced (default: %(default)s)")  # fmt: skip
    made.add_argument("--table", type=Path, metavar="FILE", help="write the tables between the markers of this file")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    return command(parser(), run, argv)


def run(args: argparse.Namespace, argv: Sequence[str]) -> int:
    """Measure what was asked for, then print the tables."""
    from benchmarks.gpu_check.table import BEGIN, END, render
    from benchmarks.markdown import put_between_markers

    code = 0
    if NOTHING not in args.only:
        code = measured(args, argv)
    elif len(args.only) > 1:
        raise ConfigError(f"--only {NOTHING} measures nothing; leave it out, or the others")
    text = render(read(args.out))
    if args.table:
        put_between_markers(args.table, text, BEGIN, END)
    print(text, end="")
    return code


def measured(args: argparse.Namespace, argv: Sequence[str]) -> int:
    """Run the sections; the record stands in `--out`. Returns the exit code."""
    if not args.budget > 0:
        raise ConfigError(f"--budget must be above 0 seconds, got {args.budget:g}")
    os.environ.setdefault("TQDM_DISABLE", "1")  # bars would stand between the lines of the log
    from benchmarks.gpu_check.device import described, prepared
    from benchmarks.gpu_check.runner import CUT, SKIPPED, run_all
    from benchmarks.gpu_check.runner import FAILED as FAILED_SECTION
    from benchmarks.gpu_check.sections import planned

    device = prepared(args.device)
    if device.type == "cpu" and args.device == "auto" and set(args.shapes) - {"tiny"}:
        raise ConfigError(
            f"there is no GPU here, and --shapes {' '.join(args.shapes)} would take hours on a CPU; pass --shapes tiny "
            "to see whether the check runs, or --device cpu to have it so"
        )
    words = [Path(word).name if os.path.isabs(word) else word for word in argv]
    record: dict[str, Any] = {
        "command": " ".join(["python -m benchmarks.gpu_check", *words]),
        "machine": described(device),
        "shapes": args.shapes,
        "budget": args.budget,
    }

    def tell(outcomes: list[Outcome]) -> None:
        date = datetime.now(timezone.utc).isoformat(timespec="seconds")
        write_json(args.out, {**record, "date": date, "sections": [outcome.to_json() for outcome in outcomes]})

    sections = planned(list(dict.fromkeys(args.shapes)), device, args.only)
    statuses = {outcome.status for outcome in run_all(sections, args.budget, device, tell)}
    if FAILED_SECTION in statuses:
        return FAILED
    return UNFINISHED if statuses & {CUT, SKIPPED} else 0


def read(path: Path) -> dict[str, Any]:
    """A record.

    Raises:
        DataError: there is none, or it is none.
    """
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict) or "sections" not in found or "machine" not in found:
            raise ValueError("it has no sections")
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is no record of this check ({error}); measure, or name another --out") from error
    return found


if __name__ == "__main__":
    sys.exit(main())
