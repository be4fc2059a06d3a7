"""Learning curves: what the metrics of training runs say, step by step, as a picture."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gcache.errors import DataError
from gcache.inspect.pictures import save, titled
from gcache.runtime.numbers import is_number

#: Panels of the picture: its title and, for each line in it, the field and what it is called.
PANELS: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = (
    ("utility of the rollouts", (("utility", ""),)),
    ("edges per question", (("edges", ""),)),
    ("gradient norm before clipping", (("gradient_norm_policy", "policy"), ("gradient_norm_fuser", "fuser"))),
    ("gradient, signal to noise", (("gradient_snr_policy", "policy"), ("gradient_snr_fuser", "fuser"))),
)
#: Steps that a drawn value is the mean of, itself the last; single steps stand behind it, pale.
SMOOTHED = 5
_DASHES = ("-", "--")


def read_metrics(path: Path) -> list[Mapping[str, Any]]:
    """The steps of a run: its --out folder, or a metrics file. A last line that is being written is left out.

    Raises:
        DataError: there is none, it is empty, or a line of it is no step.
    """
    file = path / "metrics.jsonl" if path.is_dir() else path
    try:
        text = file.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(f"{file}: cannot be read ({reason}); name the --out folder of a training run") from error
    lines = text.split("\n")
    steps: list[Mapping[str, Any]] = []
    for number, line in enumerate(lines, start=1):
        if number == len(lines) and not line:
            break
        try:
            wrong = _not_a_step(step := json.loads(line))
        except (ValueError, RecursionError) as error:
            if number == len(lines):
                break
            wrong = type(error).__name__
        if wrong:
            raise DataError(
                f"{file}, line {number}: no step of a training run ({wrong}); name the metrics.jsonl that it wrote"
            )
        steps.append(step)
    if not steps:
        raise DataError(f"{file}: no step was trained yet; let the run get further, or name another")
    return steps


def _not_a_step(step: Any) -> str:
    """What is wrong with a line; "" where nothing is."""
    if not isinstance(step, dict):
        return f"it is no object but {type(step).__name__}"
    if type(step.get("step")) is not int or step["step"] < 0:
        return f"its step is {step.get('step')!r}"
    if "utility" not in step:
        return "it has no utility"
    numbers = {"utility", "tokens_generated", "seconds", *(field for _, fields in PANELS for field, _ in fields)}
    for name in sorted(numbers & step.keys()):
        if not is_number(step[name]):
            return f"its {name} is {str(step[name])[:80]!r}"
    edges = step.get("learned_edges") or []
    return "" if isinstance(edges, list) and all(map(_is_learned_edge, edges)) else "its learned_edges are none"


def _is_learned_edge(row: Any) -> bool:
    """[source, target, probability, low, high, kept]."""
    ends = isinstance(row, list) and len(row) == 6 and all(isinstance(end, str) for end in row[:2])
    return ends and all(map(is_number, row[2:]))


def smoothed(values: Sequence[float], width: int = SMOOTHED) -> list[float]:
    """The mean of each value and up to `width` - 1 before it.

    >>> smoothed([1.0, 2.0, 6.0], width=2)
    [1.0, 1.5, 4.0]
    """
    return [sum(values[max(0, i + 1 - width) : i + 1]) / min(i + 1, width) for i in range(len(values))]


def draw_curves(runs: Mapping[str, Sequence[Mapping[str, Any]]], path: Path, title: str = "") -> None:
    """One line per run in every panel that any run has values for."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    known = {field for steps in runs.values() for step in steps for field in step}
    panels = [(name, fields) for name, fields in PANELS if any(field in known for field, _ in fields)]
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    figure, grid = plt.subplots(rows, columns, figsize=(5.2 * columns, 3.0 * rows), squeeze=False)
    for axes, (name, fields) in zip(grid.flat, panels, strict=False):
        for number, (run, steps) in enumerate(runs.items()):
            for dash, (field, called) in zip(_DASHES, fields, strict=False):
                found = [(step["step"] + 1, float(step[field])) for step in steps if field in step]
                if found:
                    where, values = zip(*found, strict=True)
                    colour = f"C{number % 10}"
                    axes.plot(where, values, color=colour, alpha=0.2, linewidth=0.8)
                    label = ", ".join(word for word in (run, called) if word)
                    axes.plot(where, smoothed(values), dash, color=colour, label=label, linewidth=1.5)
        axes.set_title(name, fontsize=10)
        axes.set_xlabel("step")
        axes.grid(alpha=0.3)
        if name.startswith("gradient norm"):
            axes.set_yscale("symlog", linthresh=0.01)
        axes.legend(fontsize=7)
    for axes in list(grid.flat)[len(panels) :]:
        axes.axis("off")
    if title:
        figure.suptitle(title, fontsize=11)
    figure.tight_layout()
    save(figure, path, dpi=110)
    plt.close(figure)


def draw_points(curves: Sequence[tuple[str, Sequence[tuple[int, float]]]], path: Path, title: str = "") -> None:
    """A panel per curve of one run: its points, pale, and their mean over `SMOOTHED` steps."""
    from matplotlib.figure import Figure

    columns = min(2, len(curves))
    rows = -(-len(curves) // columns)
    figure = Figure(figsize=(5.2 * columns, 2.6 * rows))
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes, (name, points) in zip(grid.flat, curves, strict=False):
        where, values = zip(*points, strict=True)
        axes.plot(where, values, color="C0", alpha=0.3, linewidth=0.8)
        axes.plot(where, smoothed(values), color="C0", linewidth=1.5)
        axes.set_title(name, fontsize=10)
        axes.set_xlabel("step")
        axes.grid(alpha=0.3)
    for axes in list(grid.flat)[len(curves) :]:
        axes.axis("off")
    figure.suptitle(titled(title, 40 * columns), fontsize=11, parse_math=False)
    figure.tight_layout()
    save(figure, path)
