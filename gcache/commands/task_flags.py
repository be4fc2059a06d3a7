"""The flags that say what is asked: a task, its data and its options."""

from __future__ import annotations

import argparse
from typing import Any

from gcache.commands import flags
from gcache.commands.options import PAIR, options
from gcache.config import TaskSpec
from gcache.errors import ConfigError


def add_task_flags(
    parser: argparse.ArgumentParser, required: bool, unset: str = "the one it was trained on"
) -> None:
    """Those of the task.

    Args:
        required: whether it must be named. unset: what it is where it is not.
    """
    own = flags.Default(None, unset)
    flags.add(parser, TaskSpec, required=["task"] if required else (), task=own)
    parser.add_argument("--hops", type=int, help="facts in a row that an answer of split_facts takes: 1 or 2")
    parser.add_argument("--adversary", type=int, metavar="N", help="agents that push a wrong answer (dealt-out tasks)")
    parser.add_argument(
        "--accept_last_number", action="store_true",
        help="grade a number that merely stands last as if it were stated (tasks with numbers; counted as unstated)",
    )
    parser.add_argument(
        "--task_option", nargs="+", default=[], metavar=PAIR,
        help="for example n_agents=4 for split_facts, whole_file=true for any task with --data",
    )


def task_spec(args: argparse.Namespace) -> TaskSpec:
    """The task of the flags, where one has to be named."""
    return TaskSpec(args.task, args.data, task_options(args))


def task_if_named(args: argparse.Namespace) -> TaskSpec | None:
    """The task of the flags; None for the one that a checkpoint was trained on."""
    named = task_options(args)
    if args.task is None and (args.data or named):
        raise ConfigError("--data, --hops, --adversary, --accept_last_number and --task_option need --task")
    return TaskSpec(args.task, args.data, named) if args.task else None


def task_options(args: argparse.Namespace) -> dict[str, Any]:
    """The options of the task, by flags of their own or by --task_option."""
    named = {name: getattr(args, name) for name in ("hops", "adversary") if getattr(args, name) is not None}
    if args.accept_last_number:
        named["accept_last_number"] = True
    return {**options(args.task_option), **named}
