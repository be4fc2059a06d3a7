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

from collections.abc import Callable

import torch
from torch import Tensor

#: Tokens that are compared: the longest match counts.
LONGEST_MATCH = 4
#: Tokens of texts that have left the batch, which are looked into as well.
REMEMBERED = 8192
#: Guesses of a row, at most, where it is known what a pass costs.
MOST_GUESSES = 8
#: Where it is not: guesses of a row at most; tokens of a pass, all rows together, up to which more of them cost little
#: on a processor with matrix units; and right guesses per row below which they cost more than they save.
FEW_GUESSES, MOST_TOKENS, LEAST_RIGHT = 3, 48, 0.15
#: The chance of a guess at first, the weight of a step in its running mean, and what a step without guesses adds to it,
#: so that guessing is tried again after some tens of steps.
INITIAL, EMA_WEIGHT, RECOVERY = 0.35, 0.1, 0.001


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
    """How many guesses pay, by how many were right of late and by what a pass costs.

    A guess counts where all before it were right. So with a chance p for each, g guesses give p + ... + p^g tokens. As
    many are made as give the most tokens a second. No text depends on it.

    Args:
        seconds: what a pass of so many tokens, each of which attends to so many slots, takes on this machine; None
            where nobody measured it.
    """

    def __init__(self, seconds: Callable[[int, float], float] | None = None) -> None:
        self.seconds = seconds
        self.chance = INITIAL
        self._made = 0

    def guesses(self, rows: int, slots: float = 0.0) -> int:
        """How many to make for each of so many rows, which have so many slots in the mean."""
        self._made = self._few(rows) if self.seconds is None else self._most_per_second(rows, slots, self.seconds)
        return self._made

    def _few(self, rows: int) -> int:
        most = max(0, min(FEW_GUESSES, MOST_TOKENS // rows - 1))
        return most if tokens_of(self.chance, most) >= LEAST_RIGHT else 0

    def _most_per_second(self, rows: int, slots: float, seconds: Callable[[int, float], float]) -> int:
        speeds = [
            (1 + tokens_of(self.chance, more)) / seconds(rows * (1 + more), slots) for more in range(MOST_GUESSES + 1)
        ]
        return max(range(len(speeds)), key=speeds.__getitem__)

    def tried(self, rows: int, right: int) -> None:
        """So many guesses of all rows together counted."""
        found = chance_of(right / rows, self._made)
        self.chance += EMA_WEIGHT * (found - self.chance)

    def not_tried(self) -> None:
        self.chance = max(self.chance, min(INITIAL, self.chance + RECOVERY))


def tokens_of(chance: float, guesses: int) -> float:
    """The tokens that so many guesses give: p + ... + p^g."""
    return sum(chance**place for place in range(1, guesses + 1))


def chance_of(tokens: float, guesses: int) -> float:
    """The p for which g guesses give so many tokens, to a thousandth."""
    low, high = 0.0, 1.0
    while high - low > 1e-3:
        middle = (low + high) / 2
        low, high = (middle, high) if tokens_of(middle, guesses) < tokens else (low, middle)
    return high if tokens >= guesses else low
