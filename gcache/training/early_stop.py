"""When a training ends before its last step: its most likely topology answers what it has not learned from yet.

A step draws topologies and texts. What a trained graph runs is its most likely topology, with greedy texts. So once a
step's own rollouts are right often enough, the step's questions are asked once more in that way, before anything is
learned from them. No held-out question is looked at. The rule reads the lines of metrics.jsonl and nothing else, so a
run that is resumed ends where one that was never stopped does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

#: Share of a step's rollouts that must be right before its questions are asked once more. Below it the most likely
#: topology is hardly right on all of them, and asking costs tokens.
WORTH_ASKING = 0.5
#: What a step's metrics say of it: questions asked once more, and how many answers were right.
ASKED, RIGHT = "likeliest_asked", "likeliest_right"


def is_worth_asking(utility: float) -> bool:
    """Whether a step's questions are asked once more.

    Args:
        utility: the mean of its rollouts.
    """
    return utility >= WORTH_ASKING


def why_done(metrics: Sequence[Mapping[str, Any]], steps: int | None, iterations: int) -> str:
    """Why training ends before its last step, in words; "" where it goes on.

    Args:
        metrics: of all steps so far, in order.
        steps: in how many steps, the last ones, the most likely topology must have been right on all questions; None
            to train to the end.
        iterations: of the whole training.
    """
    if steps is None or not steps <= len(metrics) < iterations:
        return ""
    last = metrics[-steps:]
    if not all(line.get(ASKED) and line[RIGHT] == line[ASKED] for line in last):
        return ""
    return (
        f"training ends after {len(metrics)} of {iterations} steps: the most likely topology answered all "
        f"{sum(line[ASKED] for line in last)} questions of the last {steps} steps right, before it learned from them"
    )
