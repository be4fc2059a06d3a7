"""Sequences that a decoder continues side by side, without gradient: the caches of a batch.

Every row is a sequence of slots without a gap: what it received, its prompt, what it thought or
wrote. Rows of any lengths stand in one batch, each from the left; what lies beyond a row's end is
never attended to and is written over later. So rows join a running batch and leave it, and
batching changes nothing: a row sees its own slots at its own positions.

A row takes as many pages (`gcache.llm.forward.pages`) as its own slots need, whatever the others' lengths.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gcache.cache.fused_cache import FusedCache
from gcache.cache.kv_cache import KVCache, SlotKind
from gcache.llm.forward.hf_decoder import TransformersCache, TransformersDecoder, lowest
from gcache.llm.forward.native.decoder import NativeDecoder
from gcache.llm.forward.native.pages import NativePages
from gcache.llm.forward.pages import PAD_PAGE, PAGE, Pages, Span, each_slot
from gcache.llm.forward.pass_graphs import PassGraphs, PassInputs, padded_pages
from gcache.llm.forward.plain_decoder import PlainDecoder
from gcache.runtime.transfers import to_device

Decoder = PlainDecoder | TransformersDecoder


@dataclass(frozen=True)
class Added:
    """What a row added to what it received: slots from `start` on, `prompt` of them of a kind, then latents, then text.

    Attributes:
        latents, text: how many.
    """

    row: int
    start: int
    prompt: int
    owner: int
    kind: SlotKind
    latents: int = 0
    text: int = 0

    @property
    def span(self) -> Span:
        """Where they stand."""
        return Span(self.row, self.start, self.start + self.prompt + self.latents + self.text)

    def kind_of(self, number: int) -> SlotKind:
        """Of a slot by its number among them."""
        if number < self.prompt:
            return self.kind
        return SlotKind.LATENT if number < self.prompt + self.latents else SlotKind.TEXT


class PagedBatch(TransformersCache):
    """A batch in flight, in the form in which transformers asks for a cache.

    Args:
        decoder: runs a pass.
        shape: (layers, key-value heads, head dimension).

    Attributes:
        graphs: recorded passes, where narrow passes are to be recorded; see `gcache.llm.forward.pass_graphs`.
    """

    def __init__(self, decoder: Decoder, shape: tuple[int, int, int], dtype: torch.dtype, device: torch.device) -> None:
        self.decoder = decoder
        self.dtype = dtype
        self.pages = Pages(shape, dtype, device)
        if isinstance(decoder, NativeDecoder):
            self.pages = NativePages(decoder.library, shape, dtype)
        self.graphs: PassGraphs | None = None
        self._spare: list[int] = []  # a page for rows of a recorded pass that nobody has
        self.used: list[int] = []  # slots of each row
        self._owned: list[list[int]] = []  # pages of each row, in order
        # the same for the device, in rows that may be more than there are now
        self._table = torch.zeros((0, 0), dtype=torch.long, device=device)  # (R, M) pages
        self._bias = torch.zeros((0, 0), device=device)  # (R, M * PAGE), added to the logits of each slot
        self._ends = torch.zeros(0, dtype=torch.long, device=device)  # (R,) slots
        self.positions = torch.zeros(0, dtype=torch.long, device=device)  # (R,) of each row's next slot
        # of the pass going on: pages and places in them of the fresh slots (n, S), what attention reads, n
        self._at: tuple[Tensor, Tensor, Tensor, int] | None = None
        self._padding: Tensor | None = None  # (n, 1, S, 1) of the pass going on

    @property
    def count(self) -> int:
        return len(self.used)

    @property
    def nbytes(self) -> int:
        """Bytes of keys and values, of unused room as well."""
        return self.pages.nbytes

    # -- joining and leaving ------------------------------------------------------------------

    def add(self, pasts: Sequence[FusedCache | None], room: Sequence[int]) -> int:
        """New rows behind the others, each with room for so many slots; returns the first one's number."""
        first, slots = self.count, [0 if past is None else past.slots for past in pasts]
        self.used += slots
        self._owned += [[] for _ in pasts]
        self._grow_tables(self.count, 0)
        self._reserve(first, [length + more for length, more in zip(slots, room, strict=True)])
        if not pasts:
            return first
        rows = slice(first, self.count)
        nowhere = self.positions.new_zeros(1)
        self._ends[rows] = to_device(slots, self._ends.device)
        self.positions[rows] = torch.cat([nowhere if past is None else past.next_positions for past in pasts])
        self._bias[rows] = 0.0
        self._copy_in(first, pasts)
        return first

    def _copy_in(self, first: int, pasts: Sequence[FusedCache | None]) -> None:
        """What rows from `first` on received, with its log-weights."""
        parts: list[tuple[Span, KVCache, Tensor]] = []
        for row, past in enumerate(pasts, start=first):
            start = 0
            for part, bias in zip(past.parts, past.biases, strict=True) if past is not None else ():
                if part.slots:
                    parts.append((Span(row, start, start + part.slots), part, bias[0]))
                    start += part.slots
        if not parts:
            return
        spans = [span for span, _, _ in parts]
        blocked = lowest(self.dtype)
        mask = torch.cat([part.mask[0] for _, part, _ in parts])
        bias = torch.cat([bias for _, _, bias in parts]).clamp_min(blocked).masked_fill(~mask, blocked)
        self._bias[each_slot(spans, self._bias.device)] = bias.to(self._bias.dtype)
        keys, values = ([getattr(part, name)[:, 0] for _, part, _ in parts] for name in ("keys", "values"))
        self.pages.put_slots(self._table, spans, keys, values)

    def _reserve(self, first: int, slots: Sequence[int], ahead: int = 0) -> None:
        """Pages for rows from `first` on, so that each has room for so many slots in all; if one has not, then for
        `ahead` more, so that the next steps need none."""
        if all(-(-n // PAGE) <= len(owned) for n, owned in zip(slots, self._owned[first:], strict=False)):
            return
        wanted = [max(0, -(-(n + ahead) // PAGE) - len(owned))
                  for n, owned in zip(slots, self._owned[first:], strict=False)]  # fmt: skip
        taken = self.pages.take(sum(wanted))
        self._grow_tables(0, max(len(owned) + more for owned, more in zip(self._owned[first:], wanted, strict=False)))
        rows: list[int] = []
        columns: list[int] = []
        for row, more in enumerate(wanted, start=first):
            owned = self._owned[row]
            rows += [row] * more
            columns += range(len(owned), len(owned) + more)
            owned += taken[len(rows) - more : len(rows)]
        at = to_device([rows, columns, taken], self._table.device)
        self._table[at[0], at[1]] = at[2]

    def _grow_tables(self, rows: int, pages: int) -> None:
        """Room for so many rows of so many pages; whatever is there stays."""
        rows, pages = max(rows, len(self._ends)), max(pages, self._table.shape[1])
        if (rows, pages) != self._table.shape:
            self._table = grown(self._table, (rows, pages))  # what is new is PAD_PAGE
            self._bias = grown(self._bias, (rows, pages * PAGE))
            self._ends = grown(self._ends, (rows,))
            self.positions = grown(self.positions, (rows,))

    def remove(self, gone: Sequence[int]) -> list[tuple[int, int]]:
        """Let rows leave; the last rows move into their places.

        Returns the moves made, (from, to), in order: whoever keeps something per row follows them.
        """
        moves: list[tuple[int, int]] = []
        if len(set(gone)) == self.count:  # nothing moves
            self.pages.give_back([page for owned in self._owned for page in owned])
            self._table.fill_(PAD_PAGE)
            self.used, self._owned, gone = [], [], ()
        for row in sorted(gone, reverse=True):
            self.pages.give_back(self._owned[row])
            last = self.count - 1
            if row != last:
                moves.append((last, row))
                self.used[row], self._owned[row] = self.used[last], self._owned[last]
                for per_row in (self._table, self._bias, self._ends, self.positions):
                    per_row[row] = per_row[last]
            self._table[last] = PAD_PAGE
            del self.used[last], self._owned[last]
        if self._is_wasteful():
            self._compact()
        return moves

    def _is_wasteful(self) -> bool:
        """Whether free pages should go. Recorded passes need the pools where they are."""
        if self.graphs is not None:
            return not self.count and self.nbytes > self.graphs.kept_bytes
        return len(self.pages.free) > self.count or not self.count

    def _compact(self) -> None:
        """Give free pages back to the machine."""
        self._spare = []
        kept = [page for owned in self._owned for page in owned]
        self.pages.keep_only(to_device(kept, self._table.device))
        number, widest = 1, max(map(len, self._owned), default=0)
        self._table = torch.zeros_like(self._table[: self.count, :widest])
        for row, owned in enumerate(self._owned):
            self._owned[row] = list(range(number, number + len(owned)))
            self._table[row, : len(owned)] = torch.arange(number, number + len(owned), device=self._table.device)
            number += len(owned)
        self._bias = self._bias[: self.count, : widest * PAGE].clone()
        self._ends, self.positions = self._ends[: self.count].clone(), self.positions[: self.count].clone()

    # -- one pass -----------------------------------------------------------------------------

    def feed(
        self, embeds: Tensor, lengths: Tensor | None = None, first: int = 0, slots_only: bool = False
    ) -> Tensor:
        """Continue rows first .. first + n by a chunk (n, S, E), padded at the end.

        Args:
            lengths: (n,) real inputs of each row; None where all are real.
            slots_only: nobody looks at the states, which may be anything.

        Returns (n, S, E) hidden states after the final norm. A pass that fails leaves the rows as
        they were.
        """
        count, width, _ = embeds.shape
        rows = slice(first, first + count)
        added = [width] * count if lengths is None else lengths.tolist()
        ends = [used + more for used, more in zip(self.used[rows], added, strict=True)]
        self._reserve(first, ends, ahead=PAGE if lengths is None else 0)
        # padded inputs write behind their row's end, where nothing is yet, or to nobody's page
        reach = -(-(max(self.used[rows]) + width) // PAGE)
        graphs = self.graphs if lengths is None and self.graphs is not None and self.graphs.takes(width) else None
        reach = reach if graphs is None else padded_pages(reach)
        self._grow_tables(0, reach)
        if isinstance(self.decoder, NativeDecoder):
            table, bias, before = self._table[rows], self._bias[rows], self._ends[rows]
            where = self.positions[rows, None] + torch.arange(width)  # (n, S)
            hidden = self.decoder.over_pages(embeds, where, self.pages, table, bias, before, lengths, slots_only)
        else:
            inputs = PassInputs(
                embeds, self._bias[rows, : reach * PAGE], self._table[rows, :reach], self._ends[rows],
                self.positions[rows],
            )  # fmt: skip
            hidden = self._run(inputs, lengths) if graphs is None else self._replayed(inputs, graphs)
        self.used[rows] = ends
        self._ends[rows] += hidden.shape[1] if lengths is None else lengths
        self.positions[rows] += hidden.shape[1] if lengths is None else lengths
        return hidden

    def _replayed(self, inputs: PassInputs, graphs: PassGraphs) -> Tensor:
        self._spare = self._spare or self.pages.take(1)
        return graphs(inputs, self._run, self.pages.version, self._spare[0])

    def _run(self, inputs: PassInputs, lengths: Tensor | None = None) -> Tensor:
        """(n, S, E) hidden states after the final norm; fresh slots are written."""
        rows, width, _ = inputs.embeds.shape
        steps = torch.arange(width, device=inputs.embeds.device)
        slots = inputs.ends[:, None] + steps  # (n, S)
        pages = inputs.table.gather(1, slots // PAGE)
        self._at = (pages, slots % PAGE, self.pages.places(inputs.table), rows)
        self._padding = None if lengths is None else (steps >= lengths[:, None])[:, None, :, None]
        mask = masked_beyond(slots, inputs.bias, self.dtype)
        return self.decoder(inputs.embeds, mask, inputs.positions[:, None] + steps, self)

    def take_back(self, slots: Tensor, counts: Sequence[int]) -> None:
        """Forget so many of each row's last slots, as if they had not been fed: (count,) on the device, and the same
        numbers on the host."""
        self._ends[: self.count] -= slots
        self.positions[: self.count] -= slots
        self.used = [used - less for used, less in zip(self.used, counts, strict=True)]

    def forget(self, slots: int) -> None:
        """Take back so many slots of every row, and leave nothing of them: nan times a weight of 0 is nan."""
        self.take_back(torch.full_like(self._ends[: self.count], slots), [slots] * self.count)
        places = [(owned[slot // PAGE], slot % PAGE) for used, owned in zip(self.used, self._owned, strict=True)
                  for slot in range(used, len(owned) * PAGE)]  # fmt: skip
        if places:
            pages, offsets = to_device(places, self._table.device).T
            self.pages.clear(pages, offsets)

    # -- what transformers asks of a cache ----------------------------------------------------

    def update(self, keys: Tensor, values: Tensor, layer_idx: int, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Write a layer's fresh (n, H, S, D) at their slots; returns the rows' slots so far."""
        assert self._at is not None
        pages, offsets, places, count = self._at
        if self._padding is not None:  # of a text that is nan it would be nan, and be read, though blocked, by others
            keys, values = keys.masked_fill(self._padding, 0), values.masked_fill(self._padding, 0)
        self.pages.write(layer_idx, pages, offsets, keys.transpose(1, 2), values.transpose(1, 2))
        return self.pages.rows(layer_idx, places, count)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return max(self.used, default=0)

    # -- what was added -----------------------------------------------------------------------

    def slots_of(self, added: Sequence[Added]) -> list[KVCache]:
        """Copies of what rows added, as a cache for each."""
        spans = [own.span for own in added]
        sizes = [span.slots for span in spans]
        each = [(own, span, number) for own, span in zip(added, spans, strict=True) for number in range(span.slots)]
        rows, ordinals, back, kinds, owners = to_device([
            [own.row for own, _, _ in each],
            [number for _, _, number in each],
            [span.start + number - self.used[own.row] for own, span, number in each],
            [int(own.kind_of(number)) for own, _, number in each],
            [own.owner for own, _, _ in each],
        ], self._ends.device)  # fmt: skip
        numbers = torch.stack((self.positions[rows] + back, kinds, owners, ordinals))[:, None]  # (4, 1, T)
        found = []
        for (keys, values), own in zip(self.pages.slots(self._table, spans), numbers.split(sizes, dim=2), strict=True):
            positions, *names = own.clone()  # a view would keep, and save, all caches' numbers with each
            found.append(KVCache(keys, values, positions, torch.ones_like(positions, dtype=torch.bool), *names))
        return found


def masked_beyond(slots: Tensor, bias: Tensor, dtype: torch.dtype) -> Tensor:
    """(n, 1, S, T) additive, of queries' own slots (n, S): each slot's bias (n, T) up to there, blocked beyond."""
    seen = torch.arange(bias.shape[1], device=slots.device) <= slots[:, :, None]  # (n, S, T)
    return torch.where(seen, bias[:, None], lowest(dtype)).to(dtype)[:, None]


def grown(old: Tensor, shape: tuple[int, ...]) -> Tensor:
    """A copy in a block of another shape; what is new in it is 0."""
    new = old.new_zeros(shape)
    corner = tuple(slice(0, min(a, b)) for a, b in zip(old.shape, shape, strict=True))
    new[corner] = old[corner]
    return new
