"""`gcache curves`: learning curves of training runs, as a picture."""

from __future__ import annotations

import argparse
from pathlib import Path

EXAMPLES = """example:
  gcache curves runs/seed0 runs/seed1 --out curves.png
Pale lines are single steps, strong ones the mean of five.
"""


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Its flags."""
    parser.epilog = EXAMPLES
    parser.set_defaults(command=_curves)
    parser.add_argument("runs", nargs="+", type=Path, help="--out folders of training runs, or metrics files")
    parser.add_argument("--out", type=Path, default=Path("curves.png"), help="picture (default: %(default)s)")
    parser.add_argument("--title", default="", help="above the picture")


def _curves(args: argparse.Namespace) -> int:
    from gcache.inspect.curves import draw_curves, read_metrics

    names = [path.stem if path.is_file() else path.name for path in args.runs]
    if len(set(names)) < len(names):
        names = [str(path) for path in args.runs]
    draw_curves({name: read_metrics(path) for name, path in zip(names, args.runs, strict=True)}, args.out, args.title)
    print(args.out)
    return 0
