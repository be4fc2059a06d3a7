"""A number beside the bar that it has to keep."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Check:
    """One thing that must hold.

    Attributes:
        number: of the invariant, in the list that tests/test_invariants_*.py state; 0 for what is none of them.
        what: in words.
        model: which it was measured on.
        measured: the largest error, or another figure.
        bar: what it may be at most, or at least.
        at_least: whether the figure must reach the bar: such a figure shows that the others could have failed.
    """

    number: int
    what: str
    model: str
    measured: float
    bar: float
    at_least: bool = False

    @property
    def passed(self) -> bool:
        """Not a number is no pass."""
        return self.measured >= self.bar if self.at_least else self.measured <= self.bar

    def to_json(self) -> dict[str, Any]:
        known = self.measured if math.isfinite(self.measured) else str(self.measured)
        return {**asdict(self), "measured": known, "passed": self.passed}

    def __str__(self) -> str:
        sign = "at least" if self.at_least else "at most"
        return f"{self.what} ({self.model}): {self.measured:.3g}, {sign} {self.bar:.3g} wanted"


def worst(errors: Iterable[float]) -> float:
    """The largest; not a number where any of them is not."""
    found = list(errors)
    return math.nan if any(math.isnan(error) for error in found) else max(found, default=0.0)
