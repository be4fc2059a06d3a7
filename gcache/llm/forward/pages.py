"""Where a batch keeps its keys and values: pages of a few slots, for any row that needs one.

A row of n slots owns ceil(n / PAGE) pages, so a short row beside a long one costs what it is long,
and a row that leaves makes room for the others. Attention sees a row's pages side by side: they are
copied for one layer at a time, which reads what attention reads anyway.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gcache.runtime.transfers import to_device

#: Slots of a page.
PAGE = 8
#: Nobody's page: what rows of unlike length write behind their ends goes there, and nobody attends to it.
PAD_PAGE = 0
#: Slots that go into pages or come out of them stand side by side on the way, so many bytes at once: every layer is an
#: operation or two, whatever the rows.
STAGED_BYTES = 2**25


@dataclass(frozen=True)
class Span:
    """Slots `start` .. `stop` of a row."""

    row: int
    start: int
    stop: int

    @property
    def slots(self) -> int:
        return self.stop - self.start


def padded_slots(slots: int) -> int:
    """Slots that a row of so many takes: whole pages, and one that it may be given ahead of time."""
    return (-(-slots // PAGE) + 1) * PAGE


class Pages:
    """Pages of keys and values, one pool per layer, and which of them are free.

    Args:
        shape: (layers, key-value heads, head dimension).

    Attributes:
        version: of the pools; another one where they lie somewhere else than before.
    """

    def __init__(self, shape: tuple[int, int, int], dtype: torch.dtype, device: torch.device) -> None:
        layers, heads, dim = shape
        # per layer (P, H, PAGE, D)
        self.keys = [torch.empty((0, heads, PAGE, dim), dtype=dtype, device=device) for _ in range(layers)]
        self.values = [torch.empty_like(pool) for pool in self.keys]
        self.version = 0
        self.free: list[int] = []
        self._given_back: set[int] = set()  # of the free ones, those in which something is
        self._slot_bytes = 2 * heads * dim * dtype.itemsize  # of one layer
        self._heads = torch.arange(heads, device=device)[:, None]

    @property
    def count(self) -> int:
        return int(self.values[-1].shape[0])  # the last one that grows: all have so many, even if growing failed

    @property
    def nbytes(self) -> int:
        """Bytes of keys and values, of free pages as well."""
        return sum(pool.nbytes for pool in (*self.keys, *self.values))

    def take(self, wanted: int) -> list[int]:
        """So many pages; the pools grow where they have too few."""
        if wanted > len(self.free):
            before = self.count
            self._remake(before + wanted - len(self.free) + (before == 0))
            self.free += range(max(before, PAD_PAGE + 1), self.count)
        taken, self.free = self.free[:wanted], self.free[wanted:]
        self._empty([page for page in taken if page in self._given_back])
        return taken

    def give_back(self, pages: list[int]) -> None:
        self.free += pages
        self._given_back.update(pages)

    def clear(self, pages: Tensor, offsets: Tensor | None = None) -> None:
        """Put zeros into places of pages, or into all of them."""
        for pool in (*self.keys, *self.values):
            if offsets is None:
                pool.index_fill_(0, pages, 0)
            else:
                pool[pages, :, offsets] = 0

    def _empty(self, pages: list[int]) -> None:
        """What a text that was nan left would be nan times a weight of 0 to whoever takes its pages."""
        if not pages:
            return
        self.clear(to_device(pages, self._heads.device))
        self._given_back.difference_update(pages)

    def _remake(self, count: int) -> None:
        """Larger pools, one layer after another; what is there already stays in its page."""
        self.version += 1
        for pools in (self.keys, self.values):
            for layer, old in enumerate(pools):
                if len(old) >= count:  # a growth that failed has come so far
                    continue
                # zeros: a blocked slot has weight 0, and 0 times whatever memory held may be nan
                pools[layer] = old.new_zeros((count, *old.shape[1:]))
                pools[layer][: len(old)] = old

    def keep_only(self, pages: Tensor) -> None:
        """Forget all but these (n,), which become pages 1 .. n; nothing is left where there are none."""
        self.version += 1
        for pools in (self.keys, self.values):
            for layer, old in enumerate(pools):
                kept = old.new_zeros((len(pages) + 1 if len(pages) else 0, *old.shape[1:]))
                kept[1:] = old[pages]
                pools[layer] = kept
        self.free, self._given_back = [], set()

    def write(self, layer: int, pages: Tensor, offsets: Tensor, keys: Tensor, values: Tensor) -> None:
        """Put a layer's slots (..., H, D) into places (...) of pages (...)."""
        self.keys[layer][pages, :, offsets] = keys
        self.values[layer][pages, :, offsets] = values

    def put_slots(self, table: Tensor, spans: Sequence[Span], keys: Sequence[Tensor], values: Sequence[Tensor]) -> None:
        """Copy keys and values, (L, H, T, D) for each span, into the pages (R, M) of the rows."""
        pages, offsets = slot_places(table, spans)
        together = max(1, STAGED_BYTES // (self._slot_bytes * len(pages)))
        for first in range(0, len(self.keys), together):
            part = slice(first, first + together)
            some = (torch.cat([block[part] for block in blocks], dim=2) for blocks in (keys, values))
            for layer, own in enumerate(zip(*some, strict=True), start=first):
                self.write(layer, pages, offsets, *(block.transpose(0, 1) for block in own))

    def places(self, table: Tensor) -> Tensor:
        """What `rows` reads, of the pages (n, M) of some rows, side by side."""
        return (table[:, None] * len(self._heads) + self._heads).flatten()

    def rows(self, layer: int, places: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Copies of a layer's keys and values of `count` rows, (n, H, M * PAGE, D)."""
        heads, page, dim = self.keys[layer].shape[1:]
        keys, values = (
            pool.view(-1, page * dim).index_select(0, places).view(count, heads, -1, dim)
            for pool in (self.keys[layer], self.values[layer])
        )
        return keys, values

    def slots(self, table: Tensor, spans: Sequence[Span]) -> list[tuple[Tensor, Tensor]]:
        """Copies of slots, of the pages (R, M) of the rows: for each span keys and values (L, 1, H, T, D)."""
        found: list[tuple[Tensor, Tensor]] = []
        for some in self._few_enough(spans):
            pages, offsets = slot_places(table, some)
            sizes = [span.slots for span in some]
            keys, values = (
                torch.stack([pool[pages, :, offsets] for pool in pools]).split(sizes, dim=1)  # (L, T, H, D) each
                for pools in (self.keys, self.values)
            )
            found += [(_apart(k), _apart(v)) for k, v in zip(keys, values, strict=True)]
        return found

    def _few_enough(self, spans: Sequence[Span]) -> Iterator[list[Span]]:
        """Spans in groups of which all layers may be side by side, in order; one at least."""
        most = STAGED_BYTES // (len(self.keys) * self._slot_bytes)
        some: list[Span] = []
        for span in spans:
            if some and sum(other.slots for other in some) + span.slots > most:
                yield some
                some = []
            some.append(span)
        if some:
            yield some


def _apart(slots: Tensor) -> Tensor:
    """(L, 1, H, T, D) of (L, T, H, D), in memory of their own."""
    return slots.transpose(1, 2).clone(memory_format=torch.contiguous_format)[:, None]


def each_slot(spans: Sequence[Span], device: torch.device) -> tuple[Tensor, Tensor]:
    """(T,) the rows, and numbers in them, of the slots of all spans."""
    rows = [span.row for span in spans for _ in range(span.slots)]
    slots = [slot for span in spans for slot in range(span.start, span.stop)]
    at = to_device([rows, slots], device)
    return at[0], at[1]


def slot_places(table: Tensor, spans: Sequence[Span]) -> tuple[Tensor, Tensor]:
    """(T,) the pages, of a table (R, M), and places in them of the slots of all spans."""
    rows, slots = each_slot(spans, table.device)
    return table[rows, slots // PAGE], slots % PAGE
