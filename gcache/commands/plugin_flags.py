"""The flag that names files of plug-ins, and which files a command line lets others name."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from gcache.commands.console import PLUGINS
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
    named_here = False
    for word in words:
        if word.startswith("--"):
            flag, _, value = word.partition("=")
            named_here = flag == PLUGINS
            word = value
        if word and named_here:
            allow_plugins(word)
        else:
            allow_plugins(*(part.strip() for part in word.split(",") if is_reference(part.strip())))
