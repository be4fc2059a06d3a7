"""A topology as a small SVG, for notebooks: no library, no file, readable on light and dark pages."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Protocol

#: Width of the picture, distance of agents, margin above and below, radius of a node.
WIDTH, ROW, MARGIN, RADIUS = 520, 44, 34, 9
#: Of Okabe and Ito's colours: agents, and the decision maker.
AGENT, DECIDES = "#0072b2", "#d55e00"


class Arrow(Protocol):
    """An edge, as far as it is drawn; see `gcache.gnn.topology.Edge`."""

    @property
    def source(self) -> int: ...
    @property
    def target(self) -> int: ...
    @property
    def weight(self) -> float: ...
    @property
    def payload(self) -> str | None: ...
    @property
    def delay(self) -> int: ...


def topology_svg(n: int, edges: Sequence[Arrow], names: Sequence[str]) -> str:
    """Agents in a column, the decision maker on the right, an arrow per edge, as wide as its weight.

    Args:
        n: agents.
        names: of the agents, then of the decision maker.
    """
    height = 2 * MARGIN + max(0, n - 1) * ROW
    place = [(170.0, MARGIN + i * ROW) for i in range(n)] + [(WIDTH - 130.0, height / 2)]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        'font-family="sans-serif" font-size="13" fill="currentColor" role="img" aria-label="topology">',
        '<defs><marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="9" markerHeight="9" orient="auto" '
        'markerUnits="userSpaceOnUse"><path d="M0 0L8 4L0 8z" fill="currentColor"/></marker></defs>',
        *(_arrow(edge, place, names) for edge in edges),
    ]
    for number, (x, y) in enumerate(place):
        decides = number == n
        anchor, shift = ("start", 16) if decides else ("end", -16)
        parts.append(f'<circle cx="{x}" cy="{y}" r="{RADIUS}" fill="{DECIDES if decides else AGENT}"/>')
        parts.append(f'<text x="{x + shift}" y="{y + 4}" text-anchor="{anchor}">{_shown(names[number])}</text>')
    return "".join([*parts, "</svg>"])


def _shown(text: str) -> str:
    """As text of XML, which has no form for most control characters."""
    return escape("".join(c if c.isprintable() else " " for c in text))


def _arrow(edge: Arrow, place: Sequence[tuple[float, float]], names: Sequence[str]) -> str:
    (x0, y0), (x1, y1) = place[edge.source], place[edge.target]
    if x0 == x1:  # among agents: a bow to the right, wider the farther they are; from the round before, to the left
        down = 1 if y1 > y0 else -1
        bow = (18 + abs(y1 - y0) / 4) * (-1 if edge.delay else 1)
        path = f"M{x0} {y0 + down * RADIUS}Q{x0 + bow} {(y0 + y1) / 2} {x1} {y1 - down * (RADIUS + 2)}"
    else:
        length = ((x1 - x0) ** 2 + (y1 - y0) ** 2) ** 0.5
        dx, dy = (x1 - x0) / length, (y1 - y0) / length
        start, end = RADIUS, length - RADIUS - 2
        path = f"M{x0 + start * dx:.1f} {y0 + start * dy:.1f}L{x0 + end * dx:.1f} {y0 + end * dy:.1f}"
    told = f"{names[edge.source]} → {names[edge.target]}: weight {edge.weight:.3f}"
    told += f", {edge.payload}" if edge.payload else ""
    told += ", a round later" if edge.delay else ""
    dashes = ' stroke-dasharray="5 4"' if edge.delay else ""
    return (
        f'<path d="{path}" fill="none" stroke="currentColor" stroke-width="{0.7 + 3.3 * edge.weight:.2f}" '
        f'opacity="{0.3 + 0.7 * edge.weight:.2f}" marker-end="url(#arrow)"{dashes}><title>{_shown(told)}</title></path>'
    )
