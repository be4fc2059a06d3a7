"""Guessing the next tokens of a text from what was said before it.

Text repeats its question and itself, so what followed the last place that ended alike is often
what comes next (prompt lookup; Saxena 2023). A step of decoding feeds the guesses behind the latest
token. All states come from one pass, which costs little more than one token's where reading the
weights is most of the work; a state counts only if the token drawn before it is the guess it was
made with (as in speculative decoding; Leviathan et al. 2023). Guesses change no text, greedy or
drawn: every token is drawn from the model's own distribution, with the draw of its place in the text.
"""

from __future__ import annotations

import torch
from torch import Tensor

#: Tokens that are compared: the longest match counts, and of those the latest.
LONGEST_MATCH = 4
#: Guesses of a row, at most; and tokens of a pass, all rows together, up to which more of them cost
#: little. With more the pass is bound by arithmetic.
MOST_GUESSES, MOST_TOKENS = 3, 48
#: Right guesses per row below which they cost more than they save.
LEAST_RIGHT = 0.15
#: Weight of a step in the running mean of these; and what a step without guesses adds to the mean,
#: so that guessing is tried again after some tens of steps.
MEMORY, REGAINED = 0.1, 0.001


def guessed(history: Tensor, ends: Tensor, count: int) -> Tensor:
    """The tokens that followed the most similar place.

    Args:
        history: (R, W) token ids; what is behind a row's end is not compared.
        ends: (R,) tokens of each row, at least 1.
        count: of guesses.

    Returns (R, count) ids; where nothing matches, some ids.
    """
    width = history.shape[1]
    places = torch.arange(width, device=history.device)
    alike = places < ends[:, None] - 1  # (R, W): places that something follows
    score = torch.zeros_like(history)
    for back in range(min(LONGEST_MATCH, width)):
        last = history.gather(1, (ends - 1 - back).clamp_min(0)[:, None])
        alike[:, back:] &= history[:, : width - back] == last
        alike[:, :back] = False
        score += alike
    best = (score * width + places).argmax(dim=1, keepdim=True)
    period = (ends[:, None] - 1 - best).clamp_min(1)  # where the text ends, what was found starts anew
    following = best + 1 + torch.arange(count, device=history.device) % period
    return history.gather(1, following.clamp_max(width - 1))


class Luck:
    """Whether guesses pay: how many of a row's were right of late."""

    def __init__(self) -> None:
        self.right = 0.5

    def guesses(self, rows: int) -> int:
        """How many to make for each of so many rows."""
        if self.right < LEAST_RIGHT:
            return 0
        return max(0, min(MOST_GUESSES, MOST_TOKENS // rows - 1))

    def tried(self, rows: int, right: int) -> None:
        self.right += MEMORY * (right / rows - self.right)

    def not_tried(self) -> None:
        self.right += REGAINED
