"""Several runs' reports, or their controls, as one table, and as one small file per run.

    python experiments/collect_reports.py runs/seed0 runs/seed1 runs/seed2 --out docs/results/split_facts
    python experiments/collect_reports.py seed0-controls.json seed1-controls.json --out docs/results/split_facts

Each row keeps what was answered, not the text it stood in.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gcache.commands.console import guarded
from gcache.errors import DataError
from gcache.evaluation.tables import markdown
from gcache.files import without_folders, write_text


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "runs", nargs="+", type=Path,
        help="--out folders of `gcache train --report` runs, or --json files of `gcache controls`",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, required=True, help="folder for the small files")
    args = parser.parse_args(argv)
    return guarded(lambda: collect(args.runs, args.out))


def collect(runs: Sequence[Path], out: Path) -> int:
    reports = [_report(run) for run in runs]
    for run, report in zip(runs, reports, strict=True):
        write_text(out / f"{_name(run)}.json", json.dumps(_small(report), separators=(",", ":")) + "\n")
        if run.is_dir():
            shutil.copyfile(run / "metrics.jsonl", out / f"{run.name}-metrics.jsonl")
    names = list(dict.fromkeys(row["name"] for report in reports for row in report["rows"]))
    rows = [[name, *(_cell(report, name) for report in reports)] for name in names]
    print(markdown(["condition", *map(_name, runs)], rows), end="")
    return 0


def _name(run: Path) -> str:
    return run.name if run.is_dir() else run.stem


def _report(run: Path) -> dict[str, Any]:
    """Its rows are alike whatever it is of, and have all that is made of them."""
    try:
        report: dict[str, Any] = json.loads((run / "report.json" if run.is_dir() else run).read_text(encoding="utf-8"))
        rows = [{**row.pop("found"), "to_itself": row} if "found" in row else row for row in report["rows"]]
        report = {**report, "rows": rows}
        _small(report)
        for row in rows:
            _cell(report, row["name"])
        if run.is_dir() and not (run / "metrics.jsonl").is_file():
            raise FileNotFoundError(f"no metrics.jsonl beside {run / 'report.json'}")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(
            f"no report in {run} ({type(error).__name__}: {error}); pass the --out folder of a --report run, or a file "
            "of `gcache controls`"
        ) from error
    return report


def _small(report: dict[str, Any]) -> dict[str, Any]:
    """Without the texts and the way to checkpoint, model and data: [id, outcome, answer, edges] per question."""
    rows = [
        {**row, "rows": [[r["id"], r["outcome"], r["answer"], r["edges"]] for r in row["rows"]]}
        for row in report["rows"]
    ]
    return {**without_folders(report), "rows": rows}


def _cell(report: dict[str, Any], name: str) -> str:
    found = [row for row in report["rows"] if row["name"] == name]
    if not found:
        return ""
    row = found[0]
    accuracy = f"{row['accuracy']:.3f} ({row['low']:.3f} to {row['high']:.3f})"
    if "to_itself" not in row:
        return f"{accuracy}, {row['edges']:.2f} edges"
    change = row["to_itself"]
    return f"{accuracy}; {change['difference']:+.3f} ({change['low']:+.3f} to {change['high']:+.3f})"


if __name__ == "__main__":
    sys.exit(main())
