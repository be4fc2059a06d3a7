"""The command line: which commands there are, and from words to the one that runs.

A command is a file of this folder. It is imported when it is called, so that `gcache --help` comes at once.
"""

from __future__ import annotations

import argparse
import io
import logging
import sys
from collections.abc import Collection, Sequence
from contextlib import nullcontext
from importlib import import_module
from typing import NamedTuple

from gcache import __version__
from gcache.commands.console import OneLineParser, guarded, log_to_stderr
from gcache.commands.plugin_flags import allow_named
from gcache.environment import limit_threads
from gcache.runtime.sharing import watched


class Command(NamedTuple):
    """A command: the module of this folder that holds it, what it does in one line, and whether it computes."""

    module: str
    text: str
    computes: bool = True


COMMANDS = {
    "train": Command("train", "Train a graph's topology policy and fuser on a task."),
    "eval": Command("eval", "Accuracy of a checkpoint, or of a method, on test questions."),
    "compare": Command("compare", "Several methods on the same questions."),
    "frontier": Command("frontier", "Accuracy against generated tokens, as a curve."),
    "controls": Command("controls", "A trained graph with its channel cut, blocked or replaced."),
    "curves": Command("curves", "Learning curves of training runs, as a picture."),
    "inspect": Command("inspect", "Look at what a checkpoint learned, or at one question."),
    "compare-topologies": Command("compare_topologies", "Where two checkpoints disagree on who hands to whom."),
    "fit-perceiver": Command("fit_perceiver", "Fit a learned link between two models on a task."),
    "fit-router": Command("fit_router", "Fit the classifier behind --route auto."),
    "read": Command("read", "Read documents once, and keep their caches."),
    "run": Command("run", "Answer one question."),
    "serve": Command("serve", "Serve a graph over HTTP, as OpenAI's API."),
    "tasks": Command("registries", "List the tasks there are, plug-ins included.", False),
    "fusers": Command("registries", "List the fusers there are, plug-ins included.", False),
    "links": Command("registries", "List the links between models there are, plug-ins included.", False),
    "topologies": Command("registries", "List the fixed topologies there are, plug-ins included.", False),
    "methods": Command("registries", "List the methods to compare there are, plug-ins included.", False),
    "doctor": Command("doctor", "What is here, what is missing, and whether a graph can be run.", False),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code: 0, or 2 for anything the user can mend."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # texts of models and servers hold whatever they hold
        sys.stdout.reconfigure(errors="backslashreplace")
    return guarded(lambda: _dispatch(sys.argv[1:] if argv is None else argv))


def _dispatch(argv: Sequence[str]) -> int:
    named = next((word for word in argv if not word.startswith("-")), "")
    allow_named(argv)
    args = parser([named]).parse_args(argv)
    log_to_stderr(logging.DEBUG if args.verbose else logging.INFO)
    cores = limit_threads()  # before anything imports torch
    if cores is not None:
        logging.getLogger(__name__).debug("this process is given %d processors, and uses as many threads", cores)
    with watched() if COMMANDS[named].computes else nullcontext():
        code: int = args.command(args)
    return code


def parser(named: Collection[str] = tuple(COMMANDS)) -> argparse.ArgumentParser:
    """The parser of the command line.

    Args:
        named: commands whose flags are added; the others are there by name alone.
    """
    made = OneLineParser(prog="gcache", description="Agents that hand each other KV caches along a graph.")
    made.add_argument("--version", action="version", version=f"gcache {__version__}")
    made.add_argument("--verbose", action="store_true", help="log more")
    commands = made.add_subparsers(required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        its_own = commands.add_parser(
            name, help=command.text, description=command.text, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        if name in named:
            import_module(f"gcache.commands.{command.module}").add_flags(its_own)
    return made


if __name__ == "__main__":
    sys.exit(main())
