"""Recorded passes, with a recording that calls the pass again on the same buffers: what a replay would do on a GPU."""

from __future__ import annotations

import gc
import logging
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from gcache.cache.fused_cache import FusedCache
from gcache.llm import frozen_model
from gcache.llm.cache_budget import CacheLedger, Limits
from gcache.llm.decode.decoding import Decoding
from gcache.llm.forward.native.decoder import NativeDecoder
from gcache.llm.forward.paged_batch import PagedBatch
from gcache.llm.forward.pages import Span
from gcache.llm.forward.pass_graphs import (
    MOST_RECORDED,
    MOST_WIDTH,
    RECORDED_AT,
    PassGraphs,
    Recording,
    padded_pages,
    padded_rows,
    why_without_graphs,
)
from gcache.llm.forward.plain_decoder import PlainDecoder
from gcache.llm.local import LocalLLM
from gcache.llm.requests import GenerateRequest, Generation, LogProbRequest, ThinkRequest

CLOSE = 1e-4
PROMPT = (5, 9, 17, 5, 9, 30)


class Recorder:
    """Records on a CPU.

    Attributes:
        recorded, replayed: how often.
    """

    def __init__(self) -> None:
        self.recorded = self.replayed = 0

    def capture(self, run: Callable[[], Tensor]) -> Recording:
        self.recorded += 1
        output = run().clone()

        def replay() -> None:
            self.replayed += 1
            output.copy_(run())

        return Recording(replay, output)


@pytest.fixture(autouse=True)
def through_torch(tiny_llm: LocalLLM) -> None:
    """Compiled passes are for the CPU, and are not recorded."""
    if isinstance(tiny_llm.decoder, NativeDecoder):
        tiny_llm.decoder, tiny_llm.pass_seconds = PlainDecoder(tiny_llm.base), None
        tiny_llm.head = tiny_llm.model.get_output_embeddings()


class Refuses:
    def capture(self, run: Callable[[], Tensor]) -> Recording:
        raise RuntimeError("operation not permitted when stream is capturing\nand more lines")


def with_graphs(rows: PagedBatch, capture: Any, kept: float = math.inf) -> PassGraphs:
    rows.graphs = PassGraphs(lambda: capture, kept)
    return rows.graphs


@torch.no_grad()
def fed(llm: LocalLLM, rows: PagedBatch, prompts: list[tuple[int, ...]]) -> None:
    first = rows.add([None] * len(prompts), [len(prompt) + 40 for prompt in prompts])
    embeds, lengths = llm.embed(prompts)
    rows.feed(embeds, lengths, first)


@torch.no_grad()
def test_replays_give_what_passes_give_while_rows_come_and_go(tiny_llm: LocalLLM) -> None:
    recorder, plain, recorded = Recorder(), tiny_llm.rows(), tiny_llm.rows()
    with_graphs(recorded, recorder)
    generator = torch.Generator().manual_seed(0)
    for turn in range(40):
        if turn % 7 == 0:
            prompts = [tuple(range(3, 5 + n)) for n in range(1 + turn % 3)]
            for rows in (plain, recorded):
                fed(tiny_llm, rows, prompts)
        if turn % 10 == 9:
            for rows in (plain, recorded):
                rows.remove([0, 2])
        width = 1 + turn % 2
        ids = torch.randint(64, (plain.count, width), generator=generator)
        expected, found = (rows.feed(tiny_llm.embedding(ids)) for rows in (plain, recorded))
        torch.testing.assert_close(found, expected, atol=CLOSE, rtol=0)
        if turn % 3 == 0 and width == 2:
            less = torch.arange(plain.count) % 2
            for rows in (plain, recorded):
                rows.take_back(less, less.tolist())
    assert recorder.replayed > 10 and plain.used == recorded.used
    for row, used in enumerate(plain.used):  # and nothing that others wrote is among a row's slots
        spans = [Span(row, 0, used)]
        expected, found = (torch.stack(each.pages.slots(each._table, spans)[0]) for each in (plain, recorded))
        torch.testing.assert_close(found, expected, atol=CLOSE, rtol=0)


@torch.no_grad()
def test_rows_that_left_write_nowhere(tiny_llm: LocalLLM) -> None:
    """A recording for four rows is replayed for three: the fourth row's page may have another owner by then."""
    recorder, rows = Recorder(), tiny_llm.rows()
    with_graphs(rows, recorder)
    fed(tiny_llm, rows, [PROMPT] * 4)
    for _ in range(RECORDED_AT):
        rows.feed(tiny_llm.embedding(torch.full((4, 1), 7)))
    assert recorder.recorded == 1
    page = rows._owned[3][1]
    rows.remove([3])
    rows.pages.clear(torch.tensor([page]))
    rows.feed(tiny_llm.embedding(torch.full((3, 1), 7)))
    assert recorder.replayed == 2 and recorder.recorded == 1
    assert not any(pool[page].any() for pool in (*rows.pages.keys, *rows.pages.values))


@torch.no_grad()
def test_a_result_is_kept_when_the_next_pass_is_replayed(tiny_llm: LocalLLM) -> None:
    rows = tiny_llm.rows()
    with_graphs(rows, Recorder())
    fed(tiny_llm, rows, [PROMPT])
    states = [rows.feed(tiny_llm.embedding(torch.tensor([[token]]))) for token in range(3, 12)]
    assert len({tuple(state.flatten().tolist()) for state in states}) == len(states)


@torch.no_grad()
def test_pools_that_move_are_recorded_anew(tiny_llm: LocalLLM) -> None:
    recorder, rows = Recorder(), tiny_llm.rows()
    with_graphs(rows, recorder)
    fed(tiny_llm, rows, [PROMPT] * 2)

    def step() -> None:
        rows.feed(tiny_llm.embedding(torch.full((2, 1), 7)))

    for _ in range(RECORDED_AT + 2):
        step()
    assert (recorder.recorded, recorder.replayed) == (1, 3)
    version = rows.pages.version
    fed(tiny_llm, rows, [PROMPT])
    assert rows.pages.version > version
    rows.remove([2])
    assert rows.pages.free  # what it had is kept: the pools stay where they are
    step()
    assert (recorder.recorded, recorder.replayed) == (2, 4)


@torch.no_grad()
def test_an_empty_batch_keeps_its_pools_only_where_it_may(tiny_llm: LocalLLM) -> None:
    for kept in (math.inf, 0):
        rows = tiny_llm.rows()
        with_graphs(rows, Recorder(), kept)
        for _ in range(2):
            fed(tiny_llm, rows, [PROMPT] * 2)
            for _ in range(3):
                rows.feed(tiny_llm.embedding(torch.full((2, 1), 7)))
            held = rows.nbytes
            rows.remove([0, 1])
            assert rows.nbytes == (held if kept else 0)


def test_texts_are_the_same_with_recorded_passes(tiny_llm: LocalLLM) -> None:
    tiny_llm.stop_tokens = frozenset()
    past = FusedCache.plain(tiny_llm.think([ThinkRequest(PROMPT, latent_steps=2)])[0])
    asked = [
        GenerateRequest(PROMPT[: 2 + n % 4], past if n % 3 == 0 else None, 8 + 3 * n, n % 2, seed=n, context=PROMPT)
        for n in range(9)
    ]
    expected = tiny_llm.generate(asked)
    tiny_llm.limits = Limits(max_batch_size=5)
    decoding: Decoding[int] = tiny_llm.decoding()
    recorder = Recorder()
    with_graphs(decoding.rows, recorder)
    for _ in range(2):  # the second time in the pools of the first
        recorded, found, waiting = recorder.recorded, dict[int, Generation](), list(range(len(asked)))
        while waiting or len(decoding):
            count = decoding.admits([asked[n] for n in waiting])
            joining, waiting = waiting[:count], waiting[count:]
            done = decoding.join(joining, [asked[n] for n in joining]) if joining else decoding.step()
            found.update(decoding.notify(done))  # type: ignore[arg-type]
        for number, text in enumerate(expected):
            assert found[number].tokens == text.tokens
            assert found[number].log_probs == pytest.approx(text.log_probs, abs=CLOSE)
    assert recorder.replayed > 20 and recorder.recorded >= recorded > 0


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    """Records the passes of all models of this test."""
    made = Recorder()
    monkeypatch.setattr(frozen_model, "why_without_graphs", lambda decoder, device: "")
    monkeypatch.setattr(frozen_model, "CudaCapture", lambda device: made)
    return made


def test_latent_steps_are_recorded_and_their_batch_is_used_again(tiny_llm: LocalLLM, recorder: Recorder) -> None:
    past = FusedCache.plain(tiny_llm.think([ThinkRequest(PROMPT, latent_steps=2)])[0])
    asked = [ThinkRequest(PROMPT[: 2 + n % 4], past if n % 2 else None, 9, owner=n) for n in range(5)]
    tiny_llm.limits = Limits(cuda_graphs=False)
    expected, text = tiny_llm.think(asked), tiny_llm.generate([GenerateRequest(PROMPT, past, 12)])
    tiny_llm.limits = Limits()
    recorded = recorder.recorded
    for _ in range(3):
        for own, plain in zip(tiny_llm.think(asked), expected, strict=True):
            for name in ("keys", "values"):
                torch.testing.assert_close(getattr(own, name), getattr(plain, name), atol=CLOSE, rtol=0)
            for name in ("positions", "mask", "kinds", "owners", "ordinals"):
                assert torch.equal(getattr(own, name), getattr(plain, name))
    assert recorder.recorded == recorded + 1 and recorder.replayed > 2 * 8
    (kept,) = tiny_llm.kept
    assert not kept.count and kept.nbytes
    assert tiny_llm.generate([GenerateRequest(PROMPT, past, 12)])[0].tokens == text[0].tokens
    assert tiny_llm.kept == [kept]


def test_the_batch_of_a_call_that_fails_is_not_kept(
    tiny_llm: LocalLLM, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = tiny_llm.think([ThinkRequest(PROMPT, latent_steps=3)])[0]
    with monkeypatch.context() as patch:
        patch.setattr(PagedBatch, "slots_of", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            tiny_llm.think([ThinkRequest(PROMPT[:3], latent_steps=3)] * 2)
    assert not tiny_llm.kept
    found = tiny_llm.think([ThinkRequest(PROMPT, latent_steps=3)])[0]
    torch.testing.assert_close(found.keys, expected.keys, atol=CLOSE, rtol=0)


def test_one_batch_is_kept_and_none_without_recordings(
    tiny_llm: LocalLLM, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = [ThinkRequest(PROMPT, latent_steps=6)]
    inside, watch = list[int](), GenerateRequest(PROMPT, max_new_tokens=3, watch=lambda _: inside.append(think()))

    def think() -> int:
        tiny_llm.think(asked)  # while the kept batch is somebody's
        return len(tiny_llm.kept)

    tiny_llm.stop_tokens = frozenset()
    tiny_llm.generate([watch])
    assert set(inside) == {1} and len(tiny_llm.kept) == 1
    used = tiny_llm.ledger.used
    assert used == tiny_llm.kept[0].nbytes
    tiny_llm.limits = Limits(cuda_graphs=False)
    tiny_llm.think(asked)
    gc.collect()  # what stands for a recording here holds the batch, which holds it
    assert not tiny_llm.kept and not tiny_llm.ledger.used
    tiny_llm.limits = Limits()
    monkeypatch.setattr(frozen_model, "CudaCapture", lambda device: Refuses())
    tiny_llm.think(asked)
    assert not tiny_llm.kept  # nothing of it is recorded, so it is of no use


def test_what_is_kept_is_taken_off_for_thoughts_alone(
    tiny_llm: LocalLLM, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_llm.think([ThinkRequest(PROMPT, latent_steps=6)] * 2)
    asked, fits = list[int](), tiny_llm.ledger.most_that_fit
    monkeypatch.setattr(
        tiny_llm.ledger, "most_that_fit", lambda n, size, *more: (asked.append(size(n)), fits(n, size, *more))[1]
    )
    kept = tiny_llm.kept[0].nbytes
    tiny_llm.think([ThinkRequest(PROMPT, latent_steps=6)] * 4)
    tiny_llm.kept.clear()
    tiny_llm.think([ThinkRequest(PROMPT, latent_steps=6)] * 4)
    assert asked[1] - asked[0] == kept
    scored = [LogProbRequest(PROMPT, (3, 4))]
    for _ in range(2):
        tiny_llm.log_prob(scored)
        tiny_llm.kept.clear()
    assert asked[2] == asked[3]


def test_a_limit_of_bytes_leaves_an_eighth_to_batches_that_nobody_is_in(
    tiny_llm: LocalLLM, recorder: Recorder
) -> None:
    asked = [ThinkRequest(PROMPT, latent_steps=6)] * 4
    for limit, stays in ((10_000_000, True), (100_000, False)):
        tiny_llm.ledger = CacheLedger(limit)
        tiny_llm.kept.clear()
        tiny_llm.think(asked)
        (kept,) = tiny_llm.kept
        assert bool(kept.nbytes) is stays and kept.nbytes <= limit / 8
        assert tiny_llm.ledger.used == kept.nbytes  # it is counted, and its thoughts are gone


@torch.no_grad()
def test_what_cannot_be_recorded_runs_as_it_is(tiny_llm: LocalLLM, caplog: pytest.LogCaptureFixture) -> None:
    plain, rows = tiny_llm.rows(), tiny_llm.rows()
    graphs = with_graphs(rows, Refuses())
    for each in (plain, rows):
        fed(tiny_llm, each, [PROMPT])
    with caplog.at_level(logging.WARNING):
        for token in range(3, 4 + 2 * RECORDED_AT):
            expected, found = (each.feed(tiny_llm.embedding(torch.tensor([[token]]))) for each in (plain, rows))
            torch.testing.assert_close(found, expected, atol=CLOSE, rtol=0)
    assert not graphs.on
    assert [record.getMessage() for record in caplog.records] == [
        "cuda_graphs has no effect from here on: a pass could not be recorded "
        "(operation not permitted when stream is capturing)"
    ]


@torch.no_grad()
def test_wide_passes_and_prompts_are_not_recorded(tiny_llm: LocalLLM) -> None:
    recorder, rows = Recorder(), tiny_llm.rows()
    with_graphs(rows, recorder)
    rows.add([None], [400])
    for _ in range(2 * RECORDED_AT):
        rows.feed(tiny_llm.embedding(torch.full((1, MOST_WIDTH + 1), 7)))
        rows.feed(tiny_llm.embedding(torch.full((1, 2), 7)), torch.tensor([2]))
    assert not recorder.recorded


def test_shapes_are_rounded_up_to_a_few() -> None:
    assert [padded_rows(n) for n in (1, 2, 3, 5, 8, 9, 17, 64, 65, 200)] == [1, 2, 4, 8, 8, 16, 24, 64, 96, 224]
    assert [padded_pages(n) for n in (1, 8, 9, 60, 64, 65, 200)] == [8, 8, 16, 64, 64, 80, 224]
    assert all(n <= padded_pages(n) <= max(8 * -(-n // 8), 1.25 * n + 1) for n in range(1, 3000))
    assert len({padded_pages(n) for n in range(1, 513)}) <= 24
    assert len({padded_rows(n) for n in range(1, 65)}) < MOST_RECORDED


def test_on_a_cpu_it_has_no_effect(
    tiny_llm: LocalLLM, other_llm: LocalLLM, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        made = LocalLLM(tiny_llm.model, tiny_llm.tokenizer, "tiny", Limits(cuda_graphs=True, native=False))
    assert not caplog.records  # it is the default, everywhere
    assert made.decoding().rows.graphs is None
    assert made.generate([GenerateRequest(PROMPT, max_new_tokens=3)]) == tiny_llm.generate(
        [GenerateRequest(PROMPT, max_new_tokens=3)]
    )
    cuda = torch.device("cuda")
    assert not why_without_graphs(tiny_llm.decoder, cuda)
    assert "go through transformers" in why_without_graphs(other_llm.decoder, cuda)
