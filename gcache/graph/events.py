"""What a run says of itself while it goes on: who takes a turn, what came of it, the answer as it grows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from gcache.gnn.topology import Topology
from gcache.graph.records import Step
from gcache.llm.requests import TokenScore

#: "topology" (it was chosen), "turn" (an agent, or the decision maker, begins), "step" (a line of the
#: trace), "text" (the answer so far; only where the local model writes one text), "scores" (how likely its tokens
#: were, right before the "text"; only where scores are asked for).
KINDS = ("topology", "turn", "step", "text", "scores")


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
        scores: of "scores", all so far.
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


def watch_text(watch: Watch | None) -> Callable[[tuple[int, ...]], None] | None:
    """Tells a run's watcher of its answer; None where nobody watches."""
    return None if watch is None else lambda tokens: watch(Event("text", tokens=tokens))


def watch_scores(watch: Watch | None) -> Callable[[tuple[TokenScore, ...]], None] | None:
    """Tells a run's watcher how likely the answer's tokens were."""
    return None if watch is None else lambda scores: watch(Event("scores", scores=scores))
