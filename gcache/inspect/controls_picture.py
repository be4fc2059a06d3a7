"""The picture of a graph and its controls."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gcache.evaluation.controls import AS_IT_IS, CUTS, Controlled
from gcache.inspect.pictures import save


def draw_controls(rows: Sequence[Controlled], path: Path, title: str) -> None:
    """A picture of the accuracies with their intervals; the graph as it is as a line through all."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7.5, 1.0 + 0.34 * len(rows)))
    places = list(range(len(rows), 0, -1))
    for place, row in zip(places, rows, strict=True):
        f = row.found
        colour = "#0072b2" if f.name == AS_IT_IS else "#d55e00" if f.name in CUTS else "#555555"
        spread = [[max(0.0, f.accuracy - f.low)], [max(0.0, f.high - f.accuracy)]]  # rounding may leave -1e-17
        axes.errorbar(f.accuracy, place, xerr=spread, fmt="o", color=colour, capsize=3)
    axes.axvline(rows[0].found.accuracy, color="#0072b2", alpha=0.3, linewidth=1)
    whole = rows[0].found.n
    names = [row.found.name + (f" (n = {row.found.n})" if row.found.n != whole else "") for row in rows]
    axes.set_yticks(places, names)
    axes.set_xlim(-0.02, 1.02)
    axes.set_xlabel(f"accuracy, 95 % interval, n = {whole}")
    axes.set_title(title, fontsize=11)
    axes.grid(axis="x", alpha=0.3)
    figure.tight_layout()
    save(figure, path)
    plt.close(figure)
