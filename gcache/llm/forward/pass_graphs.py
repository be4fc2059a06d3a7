"""Passes of a decoding step that are recorded once per shape and replayed: a step of a small model is bound by the
host, which starts some hundred kernels, and not by the GPU, which runs them.

A recorded pass reads and writes the same addresses each time. So what changes from step to step is copied into buffers
of its own, the result is copied out of one, and shapes are rounded up to a few:

    rows     1, 2, 4, 8, then multiples of 8, then of 32; rows that nobody has write to a page that nobody reads
    width    as it is: the latest token and its guesses
    pages    of the longest row, rounded up to at most a quarter more

Keys and values are read and written in the pools of `gcache.llm.forward.pages` where they lie. A pool that was made
anew lies somewhere else, so all recordings are dropped then.
"""

from __future__ import annotations

import logging
import math
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Protocol

import torch
from torch import Tensor

from gcache.llm.forward.plain_decoder import PlainDecoder

logger = logging.getLogger(__name__)

#: A wider pass is bound by arithmetic. It is not recorded.
MOST_WIDTH = 8
#: A shape is recorded when it comes for this time: a recording costs some passes.
RECORDED_AT = 4
#: Recordings that are kept; the one that was not replayed for longest goes first.
MOST_RECORDED = 64
#: Pages are rounded up to multiples of this, at least.
FEWEST_PAGES = 8


@dataclass(frozen=True)
class PassInputs:
    """What a pass reads beside the weights and the pools, of n rows, S inputs each.

    Attributes:
        embeds: (n, S, E). bias: (n, T) log-weights of slots. table: (n, T / PAGE) the pages that are read.
        ends: (n,) slots of each row before. positions: (n,) of the first input.
    """

    embeds: Tensor
    bias: Tensor
    table: Tensor
    ends: Tensor
    positions: Tensor


Run = Callable[[PassInputs], Tensor]


@dataclass(frozen=True)
class Recording:
    """A pass that was recorded: how it is run again, and where its result is then."""

    replay: Callable[[], None]
    output: Tensor


class GraphCapture(Protocol):
    """How a pass is recorded."""

    def capture(self, run: Callable[[], Tensor]) -> Recording:
        """Record what is started by `run`, which may be called several times; nothing of it need have been run."""
        ...


class CudaCapture:
    """CUDA graphs; all of one capture share their memory, since only one of them runs at a time."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.pool = torch.cuda.graph_pool_handle()

    def capture(self, run: Callable[[], Tensor]) -> Recording:
        with torch.cuda.device(self.device):
            beside = torch.cuda.Stream()
            beside.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(beside):
                run()  # what libraries make at their first call must not be made while it is recorded
            torch.cuda.current_stream().wait_stream(beside)
            graph = torch.cuda.CUDAGraph()
            # of this thread alone: others may allocate meanwhile
            with torch.cuda.graph(graph, pool=self.pool, capture_error_mode="thread_local"):
                output = run()
        return Recording(graph.replay, output)


class PassGraphs:
    """The recordings of one batch in flight.

    Args:
        make_capture: how passes are recorded; asked anew for each set of pools.
        kept_bytes: of pools, that the batch may keep while nobody is in it.
    """

    def __init__(self, make_capture: Callable[[], GraphCapture], kept_bytes: float = math.inf) -> None:
        self.make_capture = make_capture
        self.kept_bytes = kept_bytes
        self.on = True
        self._capture: GraphCapture | None = None
        self._version = -1
        self._seen: Counter[tuple[int, ...]] = Counter()
        self._recorded: OrderedDict[tuple[int, ...], tuple[PassInputs, Recording]] = OrderedDict()

    @property
    def recorded(self) -> int:
        """How many passes are recorded now."""
        return len(self._recorded)

    def takes(self, width: int) -> bool:
        """Whether passes of so many inputs a row are recorded."""
        return self.on and width <= MOST_WIDTH

    def __call__(self, inputs: PassInputs, run: Run, version: int, spare: int) -> Tensor:
        """(n, S, E) what `run` gives for the inputs.

        Args:
            version: of the pools. spare: a page for rows that nobody has.
        """
        if version != self._version:
            self._recorded.clear()
            self._capture, self._version = None, version
        rows, width, _ = inputs.embeds.shape
        key = (padded_rows(rows), width, inputs.table.shape[1])
        if key not in self._recorded:
            self._seen[key] += 1
            if self._seen[key] < RECORDED_AT or not self._record(key, inputs, run, spare):
                return run(inputs)
        self._recorded.move_to_end(key)
        buffers, recording = self._recorded[key]
        self._fill(buffers, inputs, spare)
        recording.replay()
        return recording.output[:rows].clone()  # the next replay writes over it

    def _record(self, key: tuple[int, ...], inputs: PassInputs, run: Run, spare: int) -> bool:
        """Whether the pass could be recorded; from the first that could not be, none is any more."""
        sizes = ((key[0], *getattr(inputs, field.name).shape[1:]) for field in fields(inputs))
        buffers = PassInputs(*(getattr(inputs, field.name).new_zeros(size)
                               for field, size in zip(fields(inputs), sizes, strict=True)))  # fmt: skip
        self._fill(buffers, inputs, spare)
        self._capture = self._capture or self.make_capture()
        try:
            recording = self._capture.capture(lambda: run(buffers))
        except RuntimeError as error:
            self.on = False
            self._recorded.clear()
            first = str(error).strip().partition("\n")[0]
            logger.warning("cuda_graphs has no effect from here on: a pass could not be recorded (%s)", first)
            return False
        self._recorded[key] = (buffers, recording)
        if len(self._recorded) > MOST_RECORDED:
            self._recorded.popitem(last=False)
        return True

    def _fill(self, buffers: PassInputs, inputs: PassInputs, spare: int) -> None:
        """Copy inputs into buffers. Rows beyond them had others' pages, and must not write there again: they see one
        slot of nobody's."""
        rows = len(inputs.embeds)
        for field in fields(inputs):
            getattr(buffers, field.name)[:rows].copy_(getattr(inputs, field.name))
        if rows == len(buffers.embeds):
            return
        for field in fields(inputs):
            getattr(buffers, field.name)[rows:].fill_(spare if field.name == "table" else 0)


def padded_rows(rows: int) -> int:
    """Rows of a recorded pass that has so many of its own."""
    if rows <= 8:
        return 1 << (rows - 1).bit_length()
    step = 8 if rows <= 64 else 32
    return -(-rows // step) * step


def padded_pages(pages: int) -> int:
    """Pages of a recorded pass whose longest row has so many: at most a quarter more, but for the first few."""
    step = max(FEWEST_PAGES, 1 << max(0, (pages - 1).bit_length() - 3))
    return -(-pages // step) * step


def why_without_graphs(decoder: Any, device: torch.device) -> str:
    """Why passes cannot be recorded; empty where they can."""
    if device.type != "cuda":
        return f"the model is on {device.type}, not on a GPU"
    if not isinstance(decoder, PlainDecoder):
        return "the model's passes go through transformers, which may look at numbers on the way"
    return ""
