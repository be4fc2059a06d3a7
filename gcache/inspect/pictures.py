"""Pictures of who hands to whom: an arrow per edge, as wide as it is likely; one, many beside each other, or moving."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from gcache.evaluation.plain import one_line
from gcache.files import write_bytes
from gcache.gnn.summary import LATER
from gcache.gnn.topology import DECISION

#: Of Okabe and Ito's colours, which all eyes can tell apart: agents, and the decision maker.
AGENT, DECIDES = "#0072b2", "#d55e00"
#: Panels beside each other, and how many of a long training there are.
COLUMNS, MOST_PANELS = 4, 12
#: Pictures of an animation, at most.
MOST_MOVING = 40
#: Milliseconds of each picture of an animation.
FRAME_MS = 400
#: Lines of a title, at most.
TITLE_LINES = 4


class Drawn(Protocol):
    """An edge that can be drawn."""

    @property
    def source(self) -> str: ...

    @property
    def target(self) -> str: ...

    @property
    def probability(self) -> float: ...

    @property
    def later(self) -> bool: ...


def topology_figure(edges: Sequence[Drawn], title: str, nodes: Sequence[str] = ()) -> Any:
    """A matplotlib figure of one topology.

    Args:
        nodes: names that are there without an edge as well.
    """
    from matplotlib.figure import Figure  # no pyplot: its figures would have to be closed

    names = _names(edges, nodes)
    figure = Figure(figsize=(7.5, 3.2 + 0.3 * len(names)))
    draw_edges(figure.subplots(), edges, names, title)
    figure.tight_layout()
    return figure


def draw_topology(edges: Sequence[Drawn], path: Path, title: str, nodes: Sequence[str] = ()) -> None:
    """That figure as a file, of the kind that the path's ending says."""
    save(topology_figure(edges, title, nodes), path)


def history_figure(frames: Sequence[tuple[str, Sequence[Drawn]]], title: str) -> Any:
    """Small multiples: a panel per frame (its label and edges), `MOST_PANELS` of them at most, evenly chosen."""
    from matplotlib.figure import Figure

    chosen = [frames[i] for i in evenly(len(frames), MOST_PANELS)]
    names = _names([edge for _, edges in frames for edge in edges])
    columns = min(COLUMNS, len(chosen))
    rows = -(-len(chosen) // columns)
    figure = Figure(figsize=(4.4 * columns, 0.9 + (1.5 + 0.3 * len(names)) * rows))
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes, (label, edges) in zip(grid.flat, chosen, strict=False):
        draw_edges(axes, edges, names, label, small=True)
    for axes in list(grid.flat)[len(chosen) :]:
        axes.axis("off")
    figure.suptitle(titled(title, 40 * columns), fontsize=12, parse_math=False)
    figure.tight_layout()
    return figure


def draw_animation(frames: Sequence[tuple[str, Sequence[Drawn]]], path: Path, title: str) -> None:
    """The frames one after another, as a GIF that stops at the last."""
    from io import BytesIO

    from PIL import Image

    names = _names([edge for _, edges in frames for edge in edges])
    pictures = []
    for label, edges in frames:
        stream = BytesIO()
        topology_figure(edges, f"{title}: {label}", names).savefig(stream, format="png", dpi=80)
        stream.seek(0)
        pictures.append(Image.open(stream).convert("P", palette=Image.Palette.ADAPTIVE))
    durations = [FRAME_MS] * (len(pictures) - 1) + [4 * FRAME_MS]
    stream = BytesIO()
    pictures[0].save(stream, format="GIF", save_all=True, append_images=pictures[1:], duration=durations)
    write_bytes(path, stream.getvalue())


def save(figure: Any, path: Path, dpi: int = 120) -> None:
    """A figure as a file, whole or not at all."""
    from io import BytesIO

    stream = BytesIO()
    figure.savefig(stream, format=path.suffix.removeprefix(".") or "png", dpi=dpi)
    write_bytes(path, stream.getvalue())


def titled(title: str, width: int = 80) -> str:
    """A title, a whole question perhaps, in a few lines of so many characters; whoever draws it lets no part of it be
    a formula, since money has dollars."""
    return "\n".join(textwrap.wrap(one_line(title), width, max_lines=TITLE_LINES, placeholder=" ..."))


def evenly(count: int, most: int) -> list[int]:
    """Up to `most` of `count` places, the first and the last among them.

    >>> evenly(10, 4)
    [0, 3, 6, 9]
    """
    if count <= most:
        return list(range(count))
    return [round(i * (count - 1) / (most - 1)) for i in range(most)]


def _names(edges: Sequence[Drawn], nodes: Sequence[str] = ()) -> list[str]:
    """All nodes, without what says that an edge is from the round before; the decision maker last."""
    found = {*nodes, *(edge.source for edge in edges), *(edge.target.removesuffix(LATER) for edge in edges)}
    return [*sorted(found - {DECISION}), DECISION]


def draw_edges(axes: Any, edges: Sequence[Drawn], names: Sequence[str], title: str, small: bool = False) -> None:
    """One topology: agents in a column on the left, the decision maker on the right.

    Edges of agents to others of their kind cannot be seen in it; edges from the round before are dashed.
    """
    import networkx

    agents = [name for name in names if name != DECISION]
    place = {name: (0.0, -float(i)) for i, name in enumerate(agents)}
    place[DECISION] = (2.0, -(len(agents) - 1) / 2)
    size, text = (250, 8) if small else (600, 11)
    graph = networkx.DiGraph()
    graph.add_nodes_from(place)
    networkx.draw_networkx_nodes(
        graph, place, ax=axes, node_size=size, edgecolors="white",
        node_color=[DECIDES if name == DECISION else AGENT for name in graph],
    )  # fmt: skip
    for name, (x, y) in place.items():
        side = 0.16 if name == DECISION else -0.16
        axes.text(
            x + side, y, one_line(name), ha="right" if side < 0 else "left", va="center", fontsize=text,
            parse_math=False,
        )  # fmt: skip
    for edge in edges:
        target, later = edge.target.removesuffix(LATER), edge.later
        if edge.source == target:
            continue
        graph.add_edge(edge.source, target)
        networkx.draw_networkx_edges(
            graph, place, ax=axes, edgelist=[(edge.source, target)], node_size=size,
            style="dashed" if later else "solid",
            width=(0.4 + 5 * edge.probability) * (0.6 if small else 1), alpha=0.15 + 0.85 * edge.probability,
            arrowsize=(10 + 12 * edge.probability) * (0.6 if small else 1),
            connectionstyle=f"arc3,rad={0.0 if target == DECISION else -0.35 if later else 0.35}",
        )  # fmt: skip
        if target == DECISION:
            (x0, y0), (x1, y1) = place[edge.source], place[target]
            axes.text(
                0.55 * x0 + 0.45 * x1, 0.55 * y0 + 0.45 * y1, f"{edge.probability:.2f}", fontsize=text - 1,
                ha="center", va="center", bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5},
            )  # fmt: skip
    axes.set_title(titled(title, 40 if small else 80), fontsize=9 if small else 11, parse_math=False)
    axes.set_xlim(-1.1, 3.1)
    axes.margins(y=0.2)
    axes.axis("off")
