"""The flag that names files of plug-ins, and which files a command line lets others name."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from gcache.commands.console import LISTING, NAMING, PLUGINS
from gcache.runtime.plugin_files import allow_plugins, is_reference


def add_plugin_flag(parser: argparse.ArgumentParser) -> None:
    """The flag of files that a checkpoint, or a file of settings, may run."""
    parser.add_argument(
        PLUGINS, nargs="+", default=[], metavar="FILE",
        help="Python files whose classes the checkpoint, or the file of --config, may run; a file that these name is "
        "never run unless it is named here, or by another flag",
    )  # fmt: skip


def allow_named(words: Sequence[str]) -> None:
    """Let checkpoints and files of settings run the Python files that the command line names.

    Args:
        words: of the command line itself; what a file of settings says is not among them.
    """
    flag = ""
    for word in words:
        if word.startswith("--"):
            flag, _, word = word.partition("=")
        if word and flag == PLUGINS:
            allow_plugins(word)
        elif flag.removeprefix("--") in NAMING:
            parts = word.split(",") if flag.removeprefix("--") in LISTING else [word]
            allow_plugins(*(part.strip() for part in parts if is_reference(part.strip())))
