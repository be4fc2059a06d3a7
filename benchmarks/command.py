"""How a command of the benchmarks begins: its words, its log, and errors in one line."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Sequence

from gcache.commands.console import guarded, log_to_stderr


def command(
    parser: argparse.ArgumentParser,
    run: Callable[[argparse.Namespace, Sequence[str]], int],
    argv: Sequence[str] | None,
) -> int:
    """Read the words, None for those of this process, and run with them; returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    args = parser.parse_args(words)
    log_to_stderr()
    logging.getLogger("benchmarks").setLevel(logging.INFO)
    return guarded(lambda: run(args, words))
