"""What a pass of the compiled code costs on this machine, by its tokens: measured once, when a model is loaded.

How much dearer a pass of many tokens is than one of few differs from machine to machine: where products are fast,
reading the weights is most of the work and more tokens are nearly free; where they are slow, every token counts. Some
of the layers and a part of the head are timed and stand for all.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from gcache.llm.forward.native.decoder import NativeDecoder
from gcache.llm.forward.native.matrices import NativeLinear
from gcache.llm.forward.pages import PAGE, Pages

#: Tokens of the passes that are timed.
SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
#: Times each is run; the fastest counts, since whatever else the machine does only adds.
TRIES = 3


#: Layers that are timed, and outputs of the head.
LAYERS, OUTPUTS = 2, 8192


@dataclass(frozen=True)
class PassCost:
    """Seconds of passes of some sizes, which are in order."""

    sizes: tuple[int, ...]
    seconds: tuple[float, ...]

    @classmethod
    def measured(cls, run: Callable[[int], object], sizes: Sequence[int] = SIZES) -> PassCost:
        """Time `run` with so many tokens each; a larger pass never counts as cheaper than a smaller one."""
        seconds: list[float] = []
        for size in sizes:
            run(size)
            taken = []
            for _ in range(TRIES):
                start = time.perf_counter()
                run(size)
                taken.append(time.perf_counter() - start)
            seconds.append(max(min(taken), *seconds[-1:]) if seconds else min(taken))
        return cls(tuple(sizes), tuple(seconds))

    def __call__(self, tokens: int) -> float:
        """Of a pass of so many tokens: in between by a straight line, beyond in proportion."""
        at = bisect_left(self.sizes, tokens)
        if at == len(self.sizes):
            return self.seconds[-1] * tokens / self.sizes[-1]
        if at == 0 or self.sizes[at] == tokens:
            return self.seconds[at]
        share = (tokens - self.sizes[at - 1]) / (self.sizes[at] - self.sizes[at - 1])
        return self.seconds[at - 1] + share * (self.seconds[at] - self.seconds[at - 1])


@torch.no_grad()
def pass_cost(decoder: NativeDecoder, head: NativeLinear, shape: tuple[int, int, int], dtype: torch.dtype) -> PassCost:
    """Of a model's passes, head and all, over caches of a few slots.

    Args:
        shape: (layers, key-value heads, head dimension).
    """
    layers, heads, dim = shape
    few = min(LAYERS, layers)
    body, outputs = decoder.first_layers(few), head.matrix.first_outputs(OUTPUTS)
    states = torch.ones((max(SIZES), 1, head.weight.shape[1]), dtype=dtype)
    pages = Pages((few, heads, dim), dtype, states.device)
    table = torch.tensor(pages.take(max(SIZES)))[:, None]
    bias, nothing = torch.zeros((max(SIZES), PAGE)), torch.zeros(max(SIZES), dtype=torch.long)

    def run_layers(tokens: int) -> None:
        start = nothing[:tokens]
        body.over_pages(states[:tokens], start[:, None], pages, table[:tokens], bias[:tokens], start, None)

    def run_head(tokens: int) -> None:
        outputs(states[:tokens], torch.get_num_threads())

    whole = head.matrix.outputs / outputs.outputs
    parts = (PassCost.measured(run_layers), layers / few), (PassCost.measured(run_head), whole)
    seconds = (sum(cost(size) * times for cost, times in parts) for size in SIZES)
    return PassCost(SIZES, tuple(seconds))
