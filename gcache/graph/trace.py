"""What a run writes down: its steps, when each began and ended, told to whoever watches."""

from __future__ import annotations

import time

from torch import Tensor

from gcache.graph.events import Event, Watch
from gcache.graph.result import Step


class Trace:
    """The steps of one run, on a clock that begins with it.

    Args:
        watch: told of every event; None for nobody.
        keep_states: whether a step's event holds the states of its latent steps.
    """

    def __init__(self, watch: Watch | None, keep_states: bool = False) -> None:
        self.watch = watch
        self.steps: list[Step] = []
        self._keep_states = keep_states
        self._began = time.perf_counter()

    def now(self) -> float:
        """Seconds since the run began."""
        return time.perf_counter() - self._began

    def tell(self, event: Event) -> None:
        if self.watch is not None:
            self.watch(event)

    def turn(self, round_: int, agent: int) -> float:
        """Somebody's turn begins; returns when."""
        self.tell(Event("turn", round=round_, agent=agent))
        return self.now()

    def note(self, step: Step, states: Tensor | None = None) -> None:
        """Another step; `states` (S, E) of its latent steps."""
        self.steps.append(step)
        self.tell(Event("step", step=step, states=states if self._keep_states else None))
