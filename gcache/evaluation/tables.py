"""Tables in Markdown."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from gcache.evaluation.intervals import bootstrap_difference, mean_interval
from gcache.evaluation.plain import one_line

logger = logging.getLogger(__name__)


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; bars in cells are escaped."""

    def line(row: Sequence[str]) -> str:
        return "| " + " | ".join(one_line(cell).replace("|", "\\|") for cell in row) + " |"

    return "\n".join([line(head), "|---" * len(head) + "|", *map(line, rows)]) + "\n"


#: Where columns of F1 stand: behind the name, the accuracy and its interval.
BEHIND_ACCURACY = 3


def with_f1(
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    f1s: Sequence[Sequence[float]],
    firsts: Sequence[Sequence[float]] = (),
) -> str:
    """A table that begins with name, accuracy and its interval; where every row has them, with columns of F1 behind.

    Args:
        f1s: of each row, the F1 of each question; () where answers are right or not.
        firsts: of each row, those of the first row over the same questions; where they are given, the difference has
            columns too.
    """
    if not all(f1s) or not f1s:
        return markdown(head, rows)
    head, *rows = (
        [*row[:BEHIND_ACCURACY], *cells, *row[BEHIND_ACCURACY:]]
        for row, cells in zip([head, *rows], score_columns("F1", f1s, firsts), strict=True)
    )
    return markdown(head, rows)


def score_columns(
    name: str, scores: Sequence[Sequence[float]], firsts: Sequence[Sequence[float]] = ()
) -> list[list[str]]:
    """Cells of a score's mean and interval, the head's first.

    Args:
        scores: of each row, of its questions.
        firsts: see `with_f1`.
    """
    found = [[name, "95 % interval", *([f"difference in {name}", "bootstrap interval"] if firsts else [])]]
    for number, values in enumerate(scores):
        mean, low, high = mean_interval(values)
        cells = [f"{mean:.3f}", f"{low:.3f} to {high:.3f}"]
        if firsts:
            cells += difference(*bootstrap_difference(firsts[number], values)) if number else ["", ""]
        found.append(cells)
    return found


#: Share of texts cut off by a length limit above which a table says little.
MOST_CUT = 0.03


def warn_of_cut(name: str, cut: int, texts: int) -> None:
    """Say that too many texts were cut off, and how to mend it."""
    if cut > MOST_CUT * texts:
        logger.warning(
            "%s: %d of %d texts (%.1f %%) were cut off by the length limit, so its accuracy says little; raise "
            "--max_new_tokens, or --reason_tokens where agents' solutions are cut; a checkpoint has the limits that it "
            "was trained with", name, cut, texts, 100 * cut / texts,
        )  # fmt: skip


def difference(mean: float, low: float, high: float) -> list[str]:
    """A difference of accuracies and its interval, as two cells."""
    return [f"{mean:+.3f}", f"{low:+.3f} to {high:+.3f}"]
