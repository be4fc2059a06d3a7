"""What a run says of itself while it goes on: who takes a turn, what came of it, the answer as it grows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from gcache.gnn.topology import Topology
from gcache.graph.result import Step
from gcache.llm.requests import TokenScore

#: "topology" (it was chosen), "turn" (an agent, or the decision maker, begins), "step" (a line of the
#: trace), "text" (the answer so far; only where the local model writes one text).
KINDS = ("topology", "turn", "step", "text")


@dataclass(frozen=True)
class Event:
    """One thing that happened in a run.

    Attributes:
        kind: one of `KINDS`.
        topology: of a "topology", the one that is run.
        round, agent: of a "turn", whose it is; N is the decision maker.
        step: of a "step".
        states: of a "step", the (S, E) hidden states of its latent steps, where they are kept.
        tokens: of a "text", all that was written so far.
        scores: of a "text", how likely its tokens were, where that is asked for.
    """

    kind: str
    topology: Topology | None = None
    round: int = 0
    agent: int = 0
    step: Step | None = None
    states: Tensor | None = None
    tokens: tuple[int, ...] = ()
    scores: tuple[TokenScore, ...] = ()


#: Called in the thread of the run, which waits for it; what it raises ends the run.
Watch = Callable[[Event], None]


class TextWatch:
    """Tells a run's watcher of its answer.

    Args:
        watch: the run's.
    """

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._scores: tuple[TokenScore, ...] = ()

    @classmethod
    def of(cls, watch: Watch | None, texts: int) -> TextWatch | None:
        """None where nobody watches, or several texts are written."""
        return cls(watch) if watch is not None and texts == 1 else None

    def scored(self, scores: tuple[TokenScore, ...]) -> None:
        """All scores so far; the text comes next."""
        self._scores = scores

    def written(self, tokens: tuple[int, ...]) -> None:
        """All tokens so far."""
        self._watch(Event("text", tokens=tokens, scores=self._scores))
