"""Tables in Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from gcache.evaluation.plain import one_line


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; bars in cells are escaped."""

    def line(row: Sequence[str]) -> str:
        return "| " + " | ".join(one_line(cell).replace("|", "\\|") for cell in row) + " |"

    return "\n".join([line(head), "|---" * len(head) + "|", *map(line, rows)]) + "\n"


def difference(mean: float, low: float, high: float) -> list[str]:
    """A difference of accuracies and its interval, as two cells."""
    return [f"{mean:+.3f}", f"{low:+.3f} to {high:+.3f}"]
