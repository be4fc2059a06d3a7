"""What a pass of the compiled code costs on this machine, by its tokens: measured once, when a model is loaded.

How much dearer a pass of many tokens is than one of few differs from machine to machine: where products are fast,
reading the weights is most of the work and more tokens are nearly free; where they are slow, every token counts. Some
of the layers and a part of the head are timed and stand for all.
"""

from __future__ import annotations

import math
import time
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch

from gcache.llm.forward.native.decoder import NativeDecoder
from gcache.llm.forward.native.matrices import NativeLinear
from gcache.llm.forward.pages import PAGE, Pages

#: Tokens of the passes that are timed.
SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
#: Times each is run; the fastest counts, since whatever else the machine does only adds.
TRIES = 3
#: Bytes of weights that are timed, of layers and of the head, at least: more than a processor keeps near, as in a pass.
BYTES = 2**26
#: Tokens of a row, and slots before them, by which attention is timed: multiples of a page.
LONG, LONG_SLOTS = 8, 256


@dataclass(frozen=True)
class PassCost:
    """Seconds of passes of some sizes, which are in order.

    Attributes:
        per_pair: more for each token and slot that it attends to.
    """

    sizes: tuple[int, ...]
    seconds: tuple[float, ...]
    per_pair: float = 0.0

    @classmethod
    def measured(cls, run: Callable[[int], object], sizes: Sequence[int] = SIZES) -> PassCost:
        """Time `run` with so many tokens each; a larger pass never counts as cheaper than a smaller one.

        Sizes are timed in turns: what slows the machine down for a moment would else make one size look dear, and by
        that all larger ones as cheap as it.
        """
        best = dict.fromkeys(sizes, math.inf)
        for turn in range(1 + TRIES):
            for size in sizes:
                start = time.perf_counter()
                run(size)
                if turn:  # the first is to warm up
                    best[size] = min(best[size], time.perf_counter() - start)
        return cls(tuple(sizes), tuple(accumulate((best[size] for size in sizes), max)))

    def __call__(self, tokens: int, slots: float = 0.0) -> float:
        """Of a pass of so many tokens, each of which attends to so many slots: in between by a straight line, beyond in
        proportion."""
        return self._alone(tokens) + self.per_pair * tokens * slots

    def _alone(self, tokens: int) -> float:
        at = bisect_left(self.sizes, tokens)
        if at == len(self.sizes):
            return self.seconds[-1] * tokens / self.sizes[-1]
        if at == 0 or self.sizes[at] == tokens:
            return self.seconds[at]
        share = (tokens - self.sizes[at - 1]) / (self.sizes[at] - self.sizes[at - 1])
        return self.seconds[at - 1] + share * (self.seconds[at] - self.seconds[at - 1])


@torch.no_grad()
def pass_cost(decoder: NativeDecoder, head: NativeLinear, shape: tuple[int, int, int], dtype: torch.dtype) -> PassCost:
    """Of a model's passes, head and all.

    Args:
        shape: (layers, key-value heads, head dimension).
    """
    layers, heads, dim = shape
    few = min(layers, math.ceil(BYTES * layers / decoder.nbytes))
    body = decoder.first_layers(few)
    outputs = head.matrix.first_outputs(math.ceil(BYTES * head.matrix.outputs / head.matrix.nbytes))
    states = torch.ones((max(SIZES), 1, head.weight.shape[1]), dtype=dtype)
    pages = Pages((few, heads, dim), dtype, states.device)
    table = torch.tensor(pages.take(max(SIZES)))[:, None]
    bias, nothing = torch.zeros((max(SIZES), PAGE)), torch.zeros(max(SIZES), dtype=torch.long)

    def run_layers(tokens: int) -> None:
        start = nothing[:tokens]
        body.over_pages(states[:tokens], start[:, None], pages, table[:tokens], bias[:tokens], start, None)

    def run_head(tokens: int) -> None:
        outputs(states[:tokens], torch.get_num_threads())

    def run_long(slots: int) -> None:
        body.over_pages(states[:LONG, 0][None], steps, pages, long_row, long_bias, torch.tensor([slots]), None)

    steps = torch.arange(LONG)[None]
    long_row = torch.tensor(pages.take((LONG_SLOTS + LONG) // PAGE))[None]
    long_bias = torch.zeros((1, LONG_SLOTS + LONG))
    over_few, over_many = PassCost.measured(run_long, (0, LONG_SLOTS)).seconds
    per_pair = (over_many - over_few) * layers / few / (LONG * LONG_SLOTS)
    whole = head.matrix.outputs / outputs.outputs
    parts = (PassCost.measured(run_layers), layers / few), (PassCost.measured(run_head), whole)
    seconds = (sum(cost(size) * times for cost, times in parts) for size in SIZES)
    return PassCost(SIZES, tuple(seconds), per_pair)
