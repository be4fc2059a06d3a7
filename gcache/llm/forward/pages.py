"""Where a batch keeps its keys and values: pages of a few slots, for any row that needs one.

A row of n slots owns ceil(n / PAGE) pages, so a short row beside a long one costs what it is long,
and a row that leaves makes room for the others. Attention sees a row's pages side by side: they are
copied for one layer at a time, which reads what attention reads anyway.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gcache.runtime.transfers import to_device

#: Slots of a page.
PAGE = 8
#: Nobody's page: what rows of unlike length write behind their ends goes there, and nobody attends to it.
PAD_PAGE = 0


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
        self._heads = torch.arange(heads, device=device)[:, None]

    @property
    def count(self) -> int:
        return int(self.keys[0].shape[0])

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

    def clear(self, pages: Tensor, offsets: Tensor | slice = slice(None)) -> None:
        """Put zeros into places of pages, or into all of them."""
        for pool in (*self.keys, *self.values):
            pool[pages, :, offsets] = 0

    def _empty(self, pages: list[int]) -> None:
        """What a text that was nan left would be nan times a weight of 0 to whoever takes its pages."""
        if not pages:
            return
        self.clear(to_device(pages, self._heads.device))
        self._given_back.difference_update(pages)

    def _remake(self, count: int) -> None:
        """Pools of another size, one layer after another; what is there already stays in its page."""
        self.version += 1
        for pools in (self.keys, self.values):
            for layer, old in enumerate(pools):
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

    def put_slots(self, pages: Tensor, first: int, keys: Tensor, values: Tensor) -> None:
        """Copy keys and values (L, H, T, D) into slots `first` .. of one row's pages (M,)."""
        slots = torch.arange(first, first + keys.shape[2], device=pages.device)
        for layer, (own_keys, own_values) in enumerate(zip(keys, values, strict=True)):
            self.write(layer, pages[slots // PAGE], slots % PAGE, own_keys.transpose(0, 1), own_values.transpose(0, 1))

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

    def slots(self, pages: Tensor, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """A copy of slots start .. stop of one row's pages (M,): keys and values (L, 1, H, T, D)."""
        first = start // PAGE
        pages, start, stop = pages[first : -(-stop // PAGE)], start - first * PAGE, stop - first * PAGE
        places = self.places(pages[None])
        layers = (self.rows(layer, places, 1) for layer in range(len(self.keys)))
        keys, values = zip(*((k[:, :, start:stop], v[:, :, start:stop]) for k, v in layers), strict=True)
        return torch.stack(keys), torch.stack(values)
