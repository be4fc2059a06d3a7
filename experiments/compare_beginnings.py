"""How much of an answer crossed that did not cross whole: the share of answers that begin as the right one does.

    python experiments/compare_beginnings.py links-number-64.json links-name-64.json

Reads what compare_links wrote for the task entities, and prints for each of its rows the answers that have the first
1, 2, ... characters of the right one, whatever their case. Chance is the same with the right answers of all other
questions: what answers have in common without anything having crossed.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gcache.commands.console import guarded, log_to_stderr
from gcache.config import TaskSpec
from gcache.errors import ConfigError, DataError
from gcache.evaluation.intervals import wilson
from gcache.evaluation.tables import markdown


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path, help="of compare_links --json")
    parser.add_argument("--lengths", nargs="+", type=int, default=[1, 2, 3], help="characters (default: %(default)s)")
    args = parser.parse_args(argv)
    log_to_stderr()
    return guarded(lambda: run(args.files, args.lengths))


def run(files: Sequence[Path], lengths: Sequence[int]) -> int:
    if min(lengths) < 1:
        raise ConfigError(f"--lengths must be 1 or more, got {min(lengths)}")
    lines = []
    for path in files:
        try:
            written = json.loads(path.read_text(encoding="utf-8"))
            spec, rows = TaskSpec(**written["task"]), written["rows"]
            right = {e.id: e.answer for e in spec.make().test(written["limit"], written["seed"])}
            answers = [(row["name"], _answers(row["found"]["rows"], right)) for row in rows]
            if not all(pairs for _, pairs in answers):
                raise KeyError("answers")
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise DataError(f"{path} is nothing that compare_links wrote ({type(error).__name__}: {error})") from error
        lines += [[path.name, name, str(n), *_share(pairs, n)] for name, pairs in answers for n in lengths]
    print(markdown(["file", "handed over", "characters", "begin right", "by chance"], lines), end="")
    return 0


def _answers(rows: Sequence[dict[str, Any]], right: dict[str, str]) -> list[tuple[str, str]]:
    """(the right answer, the one given) of every question; "" where none was."""
    return [(right[row["id"]].lower(), (row["answer"] or "").lower()) for row in rows]


def _share(pairs: Sequence[tuple[str, str]], length: int) -> tuple[str, str]:
    """Of the answers that begin right, and of those that would by chance."""
    count = sum(given[:length] == right[:length] for right, given in pairs)
    others = sum(
        given[:length] == right[:length]
        for i, (right, _) in enumerate(pairs) for j, (_, given) in enumerate(pairs) if i != j
    )  # fmt: skip
    low, high = wilson(count, len(pairs))
    chance = others / (len(pairs) * max(1, len(pairs) - 1))
    return f"{count / len(pairs):.3f} ({low:.3f} to {high:.3f})", f"{chance:.3f}"


if __name__ == "__main__":
    sys.exit(main())
