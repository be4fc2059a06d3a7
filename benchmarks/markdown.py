"""Markdown tables, and a document that holds them between two markers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import median

from gcache.errors import DataError
from gcache.evaluation.tables import markdown
from gcache.files import write_text

BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; cells are text."""
    return markdown(head, rows).rstrip("\n")


def number(value: float) -> str:
    """Three significant digits, or all digits before the point."""
    size = abs(value)
    if size >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if size >= 10 else f"{value:.2f}" if size >= 0.1 or size == 0 else f"{value:.2g}"


def spread(values: Sequence[float], ending: str = "") -> str:
    """The median, and from where to where the values went if there are several."""
    middle = f"{number(median(values))}{ending}"
    if len(values) == 1:
        return middle
    return f"{middle} ({number(min(values))}{ending} to {number(max(values))}{ending})"


def put_between_markers(path: Path, text: str, begin: str = BEGIN, end: str = END) -> None:
    """Replace what stands between the markers of a document.

    Raises:
        DataError: there is no such document, or it does not have the two markers once each.
    """
    try:
        document = path.read_text(encoding="utf-8")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); pass an existing document") from error
    if document.count(begin) != 1 or document.count(end) != 1 or document.index(end) < document.index(begin):
        raise DataError(f"{path}: expected {begin} and, after it, {end}, once each; put them where the tables go")
    before, _, rest = document.partition(begin)
    after = rest.partition(end)[2]
    write_text(path, f"{before}{begin}\n{text.strip()}\n{end}{after}")
