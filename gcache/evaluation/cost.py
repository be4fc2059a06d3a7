"""What cutting an edge costs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Cost:
    """What cutting an edge costs: accuracy without it less accuracy with it, over the same questions.

    Attributes:
        difference: below 0 where the edge helps; low, high: its 95 % bootstrap interval.
        n: questions; used: of these, those whose topology has the edge.
    """

    difference: float
    low: float
    high: float
    n: int
    used: int
