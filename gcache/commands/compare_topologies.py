"""`gcache compare-topologies`: where two checkpoints disagree on who hands to whom."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from gcache.commands.inspect import load_team
from gcache.commands.plugin_flags import add_plugin_flag
from gcache.commands.task_flags import add_task_flags, task_if_named
from gcache.errors import ConfigError
from gcache.files import write_json

if TYPE_CHECKING:
    from gcache.config import TaskSpec
    from gcache.evaluation.disagreement import Disagreement

EXAMPLES = """example:
  gcache compare-topologies runs/seed0 runs/seed1 --limit 200 --json apart.json
"""


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Its flags."""
    parser.epilog = EXAMPLES
    parser.set_defaults(command=_compare)
    parser.add_argument("first", help="--out folder of a training run, or a step-* folder")
    parser.add_argument("second", help="another one with the same roles")
    add_task_flags(parser, required=False)
    add_plugin_flag(parser)
    parser.add_argument("--limit", type=int, default=200, help="questions (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of questions and resamples (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything to this file")


def _compare(args: argparse.Namespace) -> int:
    _, table = compare_topologies(
        args.first, args.second, task_if_named(args), args.limit, args.seed, args.json
    )
    print(table, end="")
    return 0


def compare_topologies(
    first: str | Path,
    second: str | Path,
    task_spec: TaskSpec | None = None,
    limit: int = 200,
    seed: int = 0,
    json_file: Path | None = None,
) -> tuple[Disagreement, str]:
    """Where two checkpoints disagree on who hands to whom, and that as a table; no language model is loaded.

    Args:
        task_spec: None for the first one's.

    Raises:
        CheckpointError: one is missing or broken, or its agents do not fit the task.
    """
    from gcache.config import TaskSpec
    from gcache.evaluation.disagreement import disagreement, disagreement_table
    from gcache.training.checkpoint import require_domain

    if limit < 1:
        raise ConfigError(f"the limit must be 1 or more, got {limit}")
    (one, found), (two, other) = load_team(first), load_team(second)
    task = (task_spec or TaskSpec.from_json(found.task, found.folder)).make()
    for path, each in ((first, found), (second, other)):
        require_domain(path, each.spec, task)
    names = [Path(first).resolve().name, Path(second).resolve().name]
    if names[0] == names[1]:
        names = [str(first), str(second)]
    result = disagreement(one, two, list(task.test(limit, seed)), seed)
    if json_file:
        write_json(json_file, {"first": str(first), "second": str(second), "seed": seed, **result.to_json()})
    return result, disagreement_table(result, *names)
