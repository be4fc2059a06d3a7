"""The picture of a frontier: accuracy against generated tokens."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gcache.evaluation.frontier import DRAWS, GRAPHS, SINGLE, Point
from gcache.inspect.pictures import save

#: Curve -> its colour, its mark, and what it is called.
_LOOKS = {
    SINGLE: ("#555555", "s", "one greedy text"),
    DRAWS: ("#d55e00", "o", "self-consistency, k draws"),
    GRAPHS: ("#0072b2", "D", "trained graphs, at their prices"),
}


def draw_frontier(points: Sequence[Point], path: Path, title: str) -> None:
    """A picture of the points with their intervals, those of a curve joined in the order of their tokens."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7.5, 4.5))
    for curve, (colour, mark, name) in _LOOKS.items():
        own = sorted((p for p in points if p.curve == curve), key=lambda p: p.row.generated)
        if not own:
            continue
        tokens, accuracy = [p.row.generated for p in own], [p.row.accuracy for p in own]
        spread = [
            [max(0.0, p.row.accuracy - p.row.low) for p in own], [max(0.0, p.row.high - p.row.accuracy) for p in own]
        ]  # fmt: skip
        axes.errorbar(tokens, accuracy, yerr=spread, fmt=f"{mark}-", color=colour, capsize=3, alpha=0.8, label=name)
        for point in own if curve != SINGLE else ():
            axes.annotate(f"{point.setting:g}", (point.row.generated, point.row.accuracy), (4, 4),
                          textcoords="offset points", fontsize=8, color=colour)  # fmt: skip
    axes.set_xlabel("generated tokens per question")
    axes.set_ylabel(f"accuracy, 95 % interval, n = {points[0].row.n}")
    axes.set_title(title, fontsize=11)
    axes.legend(loc="lower right", fontsize=9)
    axes.grid(alpha=0.3)
    figure.tight_layout()
    save(figure, path)
    plt.close(figure)
