"""What `gcache doctor` says of one thing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

#: "ok": it works. "note": a graph runs without it, or as it is. "no": what needs it cannot run.
State = Literal["ok", "note", "no"]


@dataclass(frozen=True)
class Finding:
    """One line.

    Attributes:
        state: see `State`.
        subject: what was looked at.
        text: what was found.
        fix: what to do, where it is not "ok".
    """

    state: State
    subject: str
    text: str
    fix: str = ""

    def line(self) -> str:
        return f"{self.state:<4}  {self.subject}: " + "; ".join(filter(None, (self.text, self.fix)))
