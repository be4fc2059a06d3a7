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
    size = len(known)
    narrow, places = known.int(), torch.arange(size, dtype=torch.int32, device=known.device)
    inside = places[:width] < ends[:, None] - 1  # (R, W)
    followed = torch.cat((inside.flatten(), places[rows * width :] < size - 1))
    # Every row against every place: shapes do not depend on what is found, so that the host need not know. By integers,
    # of which a CPU compares none faster than it makes differences of them.
    tails = ends[:, None] - 1 - torch.arange(LONGEST_MATCH, device=known.device)
    latest = history.gather(1, tails.clamp_min(0)).int()  # (R, LONGEST_MATCH), the last token first
    unlike = (narrow ^ latest[:, :1]).bitwise_or_((~followed).int())  # (R, N) 0 where the last token is the same
    misses, differs = unlike.clamp(max=1), torch.empty_like(unlike)
    for back in range(1, LONGEST_MATCH):
        before = torch.cat((narrow[:1].expand(min(back, size)), narrow[:-back]))
        unlike |= torch.bitwise_xor(before, latest[:, back : back + 1], out=differs)
        misses += torch.clamp(unlike, max=1, out=differs)
    # what is least comes first: two for a token that differs, and three less for a row's own
    nothing = 2 * LONGEST_MATCH
    misses *= 2
    own = misses[:, : rows * width].view(rows, rows, width).diagonal()  # (W, R)
    own -= 3 * (own < nothing)
    found = misses.mul_(size).sub_(places).amin(dim=1).long()  # of equals the latest
    best = torch.where(found > (nothing - 1) * size, 0, -found % size)
    own_row = torch.arange(rows, device=known.device)
    # where a row ends, what was found in it starts anew
    period = torch.where(best // width == own_row, own_row * width + ends - 1 - best, count).clamp_min(1)
    following = best[:, None] + 1 + torch.arange(count, device=best.device) % period[:, None]
    return known[following.clamp_max(size - 1)]


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
