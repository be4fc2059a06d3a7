"""Guessing the next tokens of a text from what was said before it.

Text repeats its question and itself, and answers to questions of a kind repeat each other, so what
followed the last place that ended alike is often what comes next (prompt lookup; Saxena 2023). A
step of decoding feeds the guesses behind the latest token. All states come from one pass, which
costs little more than one token's where reading the weights is most of the work; a state counts
only if the token drawn before it is the guess it was made with (as in speculative decoding;
Leviathan et al. 2023). Guesses change no text, greedy or drawn: every token is drawn from the
model's own distribution, with the draw of its place in the text.
"""

from __future__ import annotations

import torch
from torch import Tensor

#: Tokens that are compared: the longest match counts.
LONGEST_MATCH = 4
#: Tokens of texts that have left the batch, which are looked into as well.
REMEMBERED = 8192
#: Guesses of a row, at most; and tokens of a pass, all rows together, up to which more of them cost
#: little. With more the pass is bound by arithmetic.
MOST_GUESSES, MOST_TOKENS = 3, 48
#: Right guesses per row below which they cost more than they save.
LEAST_RIGHT = 0.15
#: The running mean of these at first, the weight of a step in it, and what a step without guesses
#: adds to it, so that guessing is tried again after some tens of steps.
INITIAL, EMA_WEIGHT, RECOVERY = 0.5, 0.1, 0.001


def guessed(history: Tensor, ends: Tensor, others: Tensor, count: int) -> Tensor:
    """The tokens that followed the most similar place.

    That is where most tokens are the same up to it; one more counts for a place in the row's own
    history, and of equals the latest wins, a row's own before others'.

    Args:
        history: (R, W) token ids; what is behind a row's end is not looked at.
        ends: (R,) tokens of each row, at least 1.
        others: (P,) tokens to look into besides.
        count: of guesses.

    Returns (R, count) ids; where nothing matches, some ids.
    """
    rows, width = history.shape
    known = torch.cat((history.flatten(), others))  # (N,)
    places = torch.arange(len(known), device=known.device)
    followed = places < len(known) - 1
    followed[: rows * width] = (places[:width] < ends[:, None] - 1).flatten()
    latest = history.gather(1, ends[:, None] - 1)
    row, place = ((known == latest) & followed).nonzero(as_tuple=True)  # (M,) each: where rows may go on
    alike = torch.ones_like(row, dtype=torch.bool)
    score = torch.ones_like(row)
    for back in range(1, LONGEST_MATCH):
        alike &= known[(place - back).clamp_min(0)] == history[row, (ends[row] - 1 - back).clamp_min(0)]
        score += alike
    own = place // width == row
    key = (2 * (score + own) + own) * len(known) + place
    best = known.new_zeros(rows).scatter_reduce(0, row, key, "amax") % len(known)
    # where a row ends, what was found in it starts anew
    own_row = torch.arange(rows, device=best.device)
    period = torch.where(best // width == own_row, own_row * width + ends - 1 - best, count).clamp_min(1)
    following = best[:, None] + 1 + torch.arange(count, device=best.device) % period[:, None]
    return known[following.clamp_max(len(known) - 1)]


class AcceptanceRate:
    """Whether guesses pay: how many of a row's were right of late."""

    def __init__(self) -> None:
        self.right = INITIAL

    def guesses(self, rows: int) -> int:
        """How many to make for each of so many rows."""
        if self.right < LEAST_RIGHT:
            return 0
        return max(0, min(MOST_GUESSES, MOST_TOKENS // rows - 1))

    def tried(self, rows: int, right: int) -> None:
        self.right += EMA_WEIGHT * (right / rows - self.right)

    def not_tried(self) -> None:
        self.right = min(INITIAL, self.right + RECOVERY)
