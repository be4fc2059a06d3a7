"""Accuracy against generated tokens: trained graphs beside draws of one prompt.

    single              one greedy text
    self-consistency    the majority of k draws, k = 1, 2, ...
    graphs              each trained graph, at the price per token that it was trained with

What a graph is worth is how far it stands above the curve of self-consistency at the tokens that it takes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from gcache.evaluation import tables
from gcache.evaluation.compare import Compared
from gcache.evaluation.intervals import paired_difference

SINGLE, DRAWS, GRAPHS = "single", "self_consistency", "graph"


@dataclass(frozen=True)
class Point:
    """One method.

    Attributes:
        curve: one of the three above.
        setting: k of self-consistency, the price per 1,000 tokens of a graph, 0 of single.
        row: what was measured.
        draws: k of the smallest self-consistency that takes as many tokens or more, or the largest there is.
        difference: of accuracies to that one's, paired; low, high: its 95 % interval.
    """

    curve: str
    setting: float
    row: Compared
    draws: int
    difference: float
    low: float
    high: float

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def points(rows: Sequence[tuple[str, float, Compared]]) -> list[Point]:
    """The points of methods on the same questions, as (curve, setting, row), each beside self-consistency."""
    draws = sorted((setting, row) for curve, setting, row in rows if curve == DRAWS)
    found = []
    for curve, setting, row in rows:
        own = next((each for each in draws if each[1].generated >= row.generated), draws[-1])
        found.append(Point(curve, setting, row, int(own[0]), *paired_difference(_right(own[1]), _right(row))))
    return found


def _right(row: Compared) -> list[bool]:
    return [outcome == "right" for _, outcome, *_ in row.answers]


def markdown(found: Sequence[Point]) -> str:
    """The points as a Markdown table."""
    head = [
        "method", "accuracy", "95 % interval", "generated", "to self-consistency at", "difference", "95 % interval",
        "cut",
    ]  # fmt: skip
    return tables.markdown(head, [_cells(point) for point in found])


def _cells(point: Point) -> list[str]:
    row = point.row
    itself = point.curve == DRAWS
    beside = ["", "", ""] if itself else [f"{point.draws}", *tables.difference(point.difference, point.low, point.high)]
    return [
        row.name, f"{row.accuracy:.3f}", f"{row.low:.3f} to {row.high:.3f}", f"{row.generated:.0f}", *beside,
        f"{row.cut_share:.3f}",
    ]  # fmt: skip
