"""Rows that join and leave, and how requests are put together."""

from __future__ import annotations

import pytest
import torch

from gcache.cache.fused_cache import FusedCache
from gcache.cache.kv_cache import SlotKind
from gcache.llm.batch_sizes import RequestSize, batches, group_similar_lengths
from gcache.llm.forward import pages as pages_module
from gcache.llm.forward.gradient_pass import GradientPass, last_real
from gcache.llm.forward.native.decoder import NativeDecoder
from gcache.llm.forward.paged_batch import Added
from gcache.llm.forward.pages import PAD_PAGE, PAGE, padded_slots
from gcache.llm.forward.plain_decoder import PlainDecoder
from gcache.llm.local import LocalLLM
from gcache.llm.requests import GenerateRequest, LogProbRequest, ThinkRequest

CLOSE = 1e-4


def reference(llm: LocalLLM, tokens: tuple[int, ...], past: FusedCache | None) -> torch.Tensor:
    """(E,) last state by the pass that writes nothing in place."""
    embeds, lengths = llm.embed([tokens])
    with torch.no_grad():
        return last_real(GradientPass(llm.model.model, past or llm.empty_cache()).feed(embeds, lengths), lengths)[0]


@torch.no_grad()
def test_rows_join_and_leave_and_each_sees_only_itself(tiny_llm: LocalLLM) -> None:
    one = FusedCache.plain(tiny_llm.think([ThinkRequest((5, 9, 8), owner=0)])[0])
    two = FusedCache.plain(tiny_llm.think([ThinkRequest((7, 6), one, owner=1)])[0]).weighted(torch.tensor(-0.4))
    pasts = [None, one, FusedCache.join([one, two])]
    histories: list[tuple[int, ...]] = [(4,), (10, 11, 12), (20, 21)]
    rows = tiny_llm.rows()
    rows.add(pasts, [1, 3, 2])
    embeds, lengths = tiny_llm.embed(histories)
    states = last_real(rows.feed(embeds, lengths), lengths)
    for state, history, past in zip(states, histories, pasts, strict=True):
        torch.testing.assert_close(state, reference(tiny_llm, history, past), atol=CLOSE, rtol=0)

    assert rows.remove([0]) == [(2, 0)]  # the last row takes the place of the first
    pasts, histories = [pasts[2], pasts[1]], [histories[2], histories[1]]
    assert rows.add([two], [2]) == 2
    embeds, lengths = tiny_llm.embed([(33, 34)])
    rows.feed(embeds, lengths, first=2)
    pasts, histories = [*pasts, two], [*histories, (33, 34)]
    for token in range(40, 40 + 2 * 32):  # past the room there was, twice
        states = rows.feed(tiny_llm.embedding(torch.tensor([token % 64] * 3))[:, None])[:, 0]
        histories = [(*history, token % 64) for history in histories]
    for state, history, past in zip(states, histories, pasts, strict=True):
        torch.testing.assert_close(state, reference(tiny_llm, history, past), atol=CLOSE, rtol=0)

    (own,) = rows.slots_of([Added(1, one.slots, 3, owner=9, kind=SlotKind.PROMPT, latents=64)])
    assert own.slots == len(histories[1])
    assert own.kinds[0].tolist() == [int(SlotKind.PROMPT)] * 3 + [int(SlotKind.LATENT)] * 64
    assert own.positions[0].tolist() == list(range(3, 3 + own.slots))
    rows.remove([0, 1, 2])
    assert rows.nbytes == 0


@torch.no_grad()
def test_a_pass_that_breaks_leaves_the_rows_as_they_were(
    tiny_llm: LocalLLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = tiny_llm.rows()
    rows.add([None, None], [2, 2])
    embeds, lengths = tiny_llm.embed([(4, 5), (6, 7)])
    rows.feed(embeds, lengths)
    if isinstance(rows.decoder, NativeDecoder):
        rows.decoder = PlainDecoder(tiny_llm.base)  # compiled code does not break in the middle
    update = rows.update

    def breaks(keys: torch.Tensor, values: torch.Tensor, layer_idx: int) -> object:
        if layer_idx == 1:
            raise RuntimeError("in the middle")
        return update(keys, values, layer_idx)

    monkeypatch.setattr(rows, "update", breaks)
    with pytest.raises(RuntimeError, match="in the middle"):
        rows.feed(tiny_llm.embedding(torch.tensor([8, 9]))[:, None])
    monkeypatch.setattr(rows, "update", update)
    states = rows.feed(tiny_llm.embedding(torch.tensor([10, 11]))[:, None])[:, 0]
    for state, history in zip(states, [(4, 5, 10), (6, 7, 11)], strict=True):
        torch.testing.assert_close(state, reference(tiny_llm, history, None), atol=CLOSE, rtol=0)


@torch.no_grad()
def test_a_row_costs_what_it_is_long_and_leaves_its_room_to_others(tiny_llm: LocalLLM) -> None:
    lengths = [3, 120, 17, 64]
    rows = tiny_llm.rows()
    rows.add([None] * 4, lengths)
    embeds, sizes = tiny_llm.embed([tuple(range(1, 2)) * n for n in lengths])
    rows.feed(embeds, sizes)

    def most(used: list[int]) -> int:
        return (sum(map(padded_slots, used)) + PAGE) * tiny_llm.slot_bytes  # nobody's page, too

    assert rows.nbytes <= most(lengths) < 4 * 120 * tiny_llm.slot_bytes
    for _ in range(2 * PAGE):
        rows.feed(tiny_llm.embedding(torch.full((4, 1), 5)))
    assert rows.nbytes <= most([n + 2 * PAGE for n in lengths])
    rows.remove([1])  # the longest
    left = [length + 2 * PAGE for length in (3, 17, 64)]
    assert sorted(rows.used) == left and rows.nbytes <= most(left)
    held = rows.nbytes
    rows.remove([rows.used.index(left[0])])
    rows.add([None], [left[0]])
    assert rows.nbytes <= held


@torch.no_grad()
def test_no_page_has_two_owners_and_none_is_lost(tiny_llm: LocalLLM) -> None:
    rows, generator = tiny_llm.rows(), torch.Generator().manual_seed(0)

    def any_of(n: int) -> int:
        return int(torch.randint(n, (1,), generator=generator))

    for _ in range(60):
        if rows.count > 5 or (rows.count and any_of(3) == 0):
            rows.remove(sorted({any_of(rows.count) for _ in range(1 + any_of(3))}))
        else:
            lengths = [1 + any_of(30) for _ in range(1 + any_of(3))]
            first = rows.add([None] * len(lengths), lengths)
            embeds, sizes = tiny_llm.embed([(7,) * n for n in lengths])
            rows.feed(embeds, sizes, first)
        for _ in range(any_of(12)):
            if rows.count:
                rows.feed(tiny_llm.embedding(torch.full((rows.count, 1), 5)))
        owned = [page for pages in rows._owned for page in pages]
        assert sorted([*owned, *rows.pages.free]) == list(range(1, rows.pages.count))
        for row, pages in enumerate(rows._owned):
            assert len(pages) * PAGE >= rows.used[row]
            assert rows._table[row].tolist() == pages + [PAD_PAGE] * (rows._table.shape[1] - len(pages))


def test_fusing_copies_no_slot(tiny_llm: LocalLLM) -> None:
    shared = tiny_llm.think([ThinkRequest((5, 9, 8), owner=-1)])[0]
    own = tiny_llm.think([ThinkRequest((7, 6), FusedCache.plain(shared))])[0]
    fused = FusedCache.join([shared, FusedCache.plain(own).weighted(torch.tensor(-1.0))])
    assert fused.parts[0] is shared and fused.parts[1] is own
    again = FusedCache.join([fused, own])
    assert [part is cache for part, cache in zip(again.parts, (shared, own, own), strict=True)] == [True] * 3


@pytest.mark.parametrize(
    ("lengths", "expected"),
    [
        ([], []),
        ([5], [(0, 1)]),
        ([5, 6, 7, 9], [(0, 4)]),  # a little padding is cheaper than a pass
        ([100, 110, 120, 400, 410], [(0, 3), (3, 5)]),
        ([10, 700, 700], [(0, 1), (1, 3)]),
    ],
)
def test_prompts_of_like_length_are_read_together(lengths: list[int], expected: list[tuple[int, int]]) -> None:
    assert [(part.start, part.stop) for part in group_similar_lengths(lengths)] == expected


def test_batches_keep_to_their_limits_and_their_keys() -> None:
    sizes = [RequestSize(read, past, 2) for read, past in ((10, 0), (3, 30), (12, 0), (4, 0), (100, 0))]
    found = list(batches(sizes, [0, 0, 1, 0, 0], most_slots=80, most_rows=2))
    assert found == [[1, 3], [0], [4], [2]]  # by prompt, two rows at most, 80 slots at most, one alone over it
    assert sorted(index for batch in found for index in batch) == list(range(5))


def test_sizes() -> None:
    assert RequestSize.of(ThinkRequest((1, 2), None, 3)) == RequestSize(2, 0, 3)
    assert RequestSize.of(GenerateRequest((1, 2), None, 7)).total == 9
    assert RequestSize.of(LogProbRequest((1, 2), (3, 4, 5))) == RequestSize(4, 0, 0)


@torch.no_grad()
def test_slots_go_in_and_out_in_groups_of_any_size(tiny_llm: LocalLLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """A layer at a time and a row at a time, where more would be too many bytes; each cache has memory of its own."""
    thoughts = tiny_llm.think([ThinkRequest(tuple(range(3, 6 + 4 * n)), owner=n) for n in range(3)])
    pasts = [FusedCache.plain(thoughts[0]), FusedCache.join(thoughts[1:]), FusedCache.join(thoughts)]
    found = []
    for staged in (2**25, 1):
        monkeypatch.setattr(pages_module, "STAGED_BYTES", staged)
        rows = tiny_llm.rows()
        # in torch, for both models
        rows.pages = pages_module.Pages(tiny_llm.cache_shape, tiny_llm.dtype, tiny_llm.device)
        rows.add(pasts, [1] * len(pasts))
        whole_rows = [Added(row, 0, 2, row, SlotKind.PROMPT, past.slots - 2) for row, past in enumerate(pasts)]
        found.append(rows.slots_of(whole_rows))
    for whole, single, past in zip(*found, pasts, strict=True):
        for name in ("keys", "values"):
            assert torch.equal(getattr(whole, name), getattr(past, name))
            assert torch.equal(getattr(single, name), getattr(past, name))
            assert getattr(whole, name).untyped_storage().nbytes() == getattr(whole, name).nbytes
        assert whole.positions.untyped_storage().nbytes() == 4 * whole.positions.nbytes  # with kinds, owners, ordinals


@torch.no_grad()
def test_pages_of_rows_that_left_belong_to_nobody(tiny_llm: LocalLLM) -> None:
    rows = tiny_llm.rows()
    rows.add([None, None], [20, 20])
    rows.feed(*tiny_llm.embed([(4, 5, 6), (7, 8, 9)]))
    rows.remove([1, 0])
    assert not rows._table.any() and not rows.used


def test_a_growth_that_fails_can_be_tried_again(tiny_llm: LocalLLM, monkeypatch: pytest.MonkeyPatch) -> None:
    made, left = pages_module.Pages(tiny_llm.cache_shape, tiny_llm.dtype, tiny_llm.device), [1]

    class Scarce(torch.Tensor):
        def new_zeros(self, *shape: object, **more: object) -> torch.Tensor:
            if not left:
                raise RuntimeError("out of memory")
            left.pop()
            return torch.zeros(*shape)  # type: ignore[call-overload, no-any-return]

    made.keys = [pool.as_subclass(Scarce) for pool in made.keys]
    with pytest.raises(RuntimeError, match="out of memory"):
        made.take(40)
    assert made.count == 0 and not made.free
    left += [1] * 20
    assert sorted(made.take(40)) == list(range(1, 41)) and {len(pool) for pool in (*made.keys, *made.values)} == {41}
