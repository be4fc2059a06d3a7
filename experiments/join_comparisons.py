"""Files of `gcache compare` on the same questions as one table, and as one small file per comparison.

    python experiments/join_comparisons.py seed0.json seed1.json seed2.json --out docs/results/consult

Every row is paired, question by question, with the first row of the first file (`single`, say, which is the same
whatever was trained, so one run of it will do for all seeds). A file may have fewer questions than the first, as long
as they are the first ones of it: its rows are paired over these. The small files keep what was answered, not the text
it stood in.

    python experiments/join_comparisons.py alone.json trained0.json trained1.json --to self_consistency \
        --pool trained0.json trained1.json --out docs/results/reasoning

pairs with another row of the first file, and adds the mean over files of several seeds, paired question by question.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gcache.commands.console import guarded
from gcache.errors import DataError
from gcache.evaluation.intervals import bootstrap_difference, mean_interval, paired_difference
from gcache.evaluation.tables import markdown
from gcache.files import without_folders, write_text

#: What must be alike for answers to be of the same questions and the same model.
ALIKE = ("task", "seed", "model", "model_fingerprint", "dtype")


#: What a row says of its costs: tokens per question, and seconds in all.
COSTS = ("generated", "prefilled", "seconds")
#: Scores of each question that a row may have, and their titles.
SCORES = {"f1s": "F1", "document_f1s": "F1 of documents"}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path, help="--json files of `gcache compare`")
    parser.add_argument("--out", type=Path, required=True, help="folder for the small files")
    parser.add_argument("--to", metavar="ROW", help="row of the first file to pair with (default: its first)")
    parser.add_argument(
        "--pool", nargs="+", type=Path, default=[], metavar="FILE",
        help="those of the files whose last rows are one method at several seeds: a row has their mean",
    )  # fmt: skip
    args = parser.parse_args(argv)
    return guarded(lambda: join(args.files, args.out, args.to, args.pool))


def join(files: Sequence[Path], out: Path, to: str | None = None, pool: Sequence[Path] = ()) -> int:
    found = [_read(path) for path in files]
    rows = found[0]["rows"]
    beside = rows[0] if to is None else next((row for row in rows if row["name"] == to), None)
    if beside is None:
        raise DataError(f"{files[0]} has no row {to!r}; it has {', '.join(row['name'] for row in rows)}")
    for what, names in (("files", [path.name for path in files]), ("--pool", [str(path) for path in pool])):
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise DataError(f"{what} has {', '.join(twice)} twice; pass each once, and files of different names")
    if strangers := [str(path) for path in pool if path not in files]:
        raise DataError(f"--pool names {', '.join(strangers)}, which is not among the files; pass it there, too")
    for path, comparison in zip(files[1:], found[1:], strict=True):
        unlike = [name for name in ALIKE if comparison[name] != found[0][name]]
        if unlike or _ids(comparison) != _ids(found[0])[: len(_ids(comparison))]:
            raise DataError(
                f"{path} cannot be paired with {files[0]}: {', '.join(unlike) or 'the questions'} differ; compare on "
                "the same questions, with the same model"
            )
    for path, comparison in zip(files, found, strict=True):
        write_text(out / path.name, json.dumps(_small(comparison), separators=(",", ":")) + "\n")
    first = _right(beside)
    scored = [name for name in SCORES if all(row.get(name) for comparison in found for row in comparison["rows"])]
    lines = []
    for path, comparison in zip(files, found, strict=True):
        for row in comparison["rows"]:
            right = _right(row)
            paired = first[: len(right)]
            difference, low, high = paired_difference(paired, right)
            lost = sum(a and not b for a, b in zip(paired, right, strict=True))
            gained = sum(b and not a for a, b in zip(paired, right, strict=True))
            lines.append([
                f"{row['name']}, {path.stem}", str(len(right)), _accuracy(row),
                f"{difference:+.3f} ({low:+.3f} to {high:+.3f})", f"{lost} / {gained}", str(row["unparsed"]),
                str(row.get("unstated", "")), _cut(row), *(f"{row.get(name, 0):.0f}" for name in COSTS),
                *(cell for name in scored for cell in _scored(beside[name], row[name])),
            ])  # fmt: skip
    if pool:
        lines.append(_pooled(first, beside, scored, [found[files.index(path)]["rows"][-1] for path in pool]))
    head = [
        "method", "n", "accuracy", f"difference to {beside['name']}",
        f"right in {beside['name']} alone / in the row alone", "unparsed", "unstated", "cut", *COSTS,
        *(title for name in scored for title in (SCORES[name], f"difference in {SCORES[name]}")),
    ]  # fmt: skip
    print(markdown(head, lines), end="")
    return 0


def _scored(beside: Sequence[float], own: Sequence[float]) -> tuple[str, str]:
    """A score's mean, and its difference to another row's on the same questions, each with its interval."""
    mean, least, most = mean_interval(own)
    difference, low, high = bootstrap_difference(beside[: len(own)], own)
    return f"{mean:.3f} ({least:.3f} to {most:.3f})", f"{difference:+.3f} ({low:+.3f} to {high:+.3f})"


def _pooled(
    first: Sequence[bool], beside: dict[str, Any], scored: Sequence[str], rows: Sequence[dict[str, Any]]
) -> list[str]:
    """The mean of one method's rows at several seeds; intervals are bootstrapped over the questions.

    Args:
        first: which answers of the row that is compared with, `beside`, are right.
        scored: of `SCORES`, those that all rows have.
    """
    if len(names := {row["name"] for row in rows}) > 1:
        raise DataError(f"--pool has files whose last rows are {', '.join(sorted(names))}; pass those of one method")
    outcomes = [_right(row) for row in rows]
    if len({len(right) for right in outcomes}) > 1:
        raise DataError("--pool names files of different numbers of questions; pass those of the same ones")
    mean = _mean(outcomes)
    accuracy, low, high = bootstrap_difference([0.0] * len(mean), mean)
    difference, worst, best = bootstrap_difference([float(right) for right in first[: len(mean)]], mean)

    def total(name: str) -> float:
        return float(sum(row.get(name, 0) for row in rows)) / len(rows)

    return [
        f"{rows[0]['name']}, mean of {len(rows)} seeds", str(len(mean)), f"{accuracy:.3f} ({low:.3f} to {high:.3f})",
        f"{difference:+.3f} ({worst:+.3f} to {best:+.3f})", "", f"{total('unparsed'):.1f}", f"{total('unstated'):.1f}",
        f"{total('cut') / total('texts'):.3f}" if total("texts") else f"{total('cut'):.1f}",
        *(f"{total(name):.0f}" for name in COSTS),
        *(cell for name in scored for cell in _scored(beside[name], _mean([row[name] for row in rows]))),
    ]  # fmt: skip


def _mean(scores: Sequence[Sequence[float]]) -> list[float]:
    """Of each question, over seeds."""
    return [sum(each) / len(scores) for each in zip(*scores, strict=True)]


def _read(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if not all(row["answers"] for row in found["rows"]) or not found["rows"]:
            raise KeyError("answers")
        found = {**dict.fromkeys(ALIKE), **found}
        _small(found)
        _ids(found)
        for row in found["rows"]:
            _accuracy(row)
            if not row.keys() >= {"name", "unparsed"} or len(_right(row)) != len(_ids(found)):
                raise ValueError("a row has no name, or other questions than the first")
        return found
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        why = f"{type(error).__name__}: {error}"
        raise DataError(f"no comparison in {path} ({why}); pass --json files of `gcache compare`") from error


def _cut(row: dict[str, Any]) -> str:
    """The share of its texts that were cut off; of an older file the number, of answers alone."""
    return f"{row['cut'] / row['texts']:.3f}" if row.get("texts") else str(row.get("cut", ""))


def _accuracy(row: dict[str, Any]) -> str:
    return f"{row['accuracy']:.3f} ({row['low']:.3f} to {row['high']:.3f})"


def _ids(comparison: dict[str, Any]) -> list[str]:
    return [answer[0] for answer in comparison["rows"][0]["answers"]]


def _right(row: dict[str, Any]) -> list[bool]:
    return [answer[1] == "right" for answer in row["answers"]]


def _small(comparison: dict[str, Any]) -> dict[str, Any]:
    """Without texts, questions, and the ways to data, model and checkpoint: [id, outcome, answer] per question."""
    rows = [{**row, "answers": [answer[:3] for answer in row["answers"]]} for row in comparison["rows"]]
    small = {name: value for name, value in without_folders(comparison).items() if name != "questions"}
    return {**small, "rows": rows}


if __name__ == "__main__":
    sys.exit(main())
