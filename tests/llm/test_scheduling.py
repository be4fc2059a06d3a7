"""The scheduler on a real decoder: whatever is asked for together is what it is alone."""

from __future__ import annotations

import asyncio
import gc
import random
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from exact import CLOSE_AS_KEPT, CLOSE_IN_DOUBLE, double

from gcache.cache.fused_cache import FusedCache
from gcache.cache.kv_cache import KVCache
from gcache.llm.cache_budget import Limits
from gcache.llm.forward.gradient_pass import GradientPass
from gcache.llm.forward.native.decoder import NativeDecoder
from gcache.llm.forward.plain_decoder import PlainDecoder
from gcache.llm.local import LocalLLM
from gcache.llm.request_queue import RequestQueue
from gcache.llm.requests import GenerateRequest, Generation, LogProbRequest, ThinkRequest
from gcache.llm.scheduler import BatchingLLM

CLOSE = 1e-4
Request = ThinkRequest | GenerateRequest | LogProbRequest
CALLS = {ThinkRequest: "think", GenerateRequest: "generate", LogProbRequest: "log_prob"}


def words(rng: random.Random, count: int) -> tuple[int, ...]:
    return tuple(rng.randrange(3, 64) for _ in range(count))


def mixed_requests(llm: LocalLLM, count: int = 64) -> list[Request]:
    """RolloutMemo, texts and log-probabilities in no order; 5 to 700 slots each, about half of them
    carried by a past of two parts at different weights."""
    rng = random.Random(0)
    requests: list[Request] = []
    for number in range(count):
        length = round(5 * 140 ** (number / (count - 1)))
        prompt, past = length, None
        if number % 2 and length > 8:
            prompt = rng.randrange(1, length - 4)
            first = FusedCache.plain(llm.think([ThinkRequest(words(rng, (length - prompt) // 2))])[0])
            more = llm.think([ThinkRequest(words(rng, length - prompt - first.slots), first, owner=1)])[0]
            past = FusedCache.join([first, FusedCache.plain(more).weighted(torch.tensor(-0.7))])
            assert past.slots + prompt == length
        tokens = words(rng, prompt)
        if number % 3 == 0:
            requests.append(ThinkRequest(tokens, past, latent_steps=number % 4, owner=2))
        elif number % 3 == 1:
            warm = 0.8 if number % 4 == 0 else 0.0
            requests.append(GenerateRequest(tokens, past, 1 + number % 9, temperature=warm, seed=number))
        else:
            requests.append(LogProbRequest(tokens, words(rng, 1 + number % 5), past))
    rng.shuffle(requests)
    return requests


def assert_same(together: Any, alone: Any, close: float = CLOSE) -> None:
    if isinstance(alone, KVCache):
        for name in ("positions", "mask", "kinds", "owners", "ordinals"):
            assert torch.equal(getattr(together, name), getattr(alone, name)), name
        torch.testing.assert_close(together.keys, alone.keys, atol=close, rtol=0)
        torch.testing.assert_close(together.values, alone.values, atol=close, rtol=0)
    elif isinstance(alone, Generation):
        assert (together.tokens, together.finished, together.text) == (alone.tokens, alone.finished, alone.text)
        assert together.log_probs == pytest.approx(alone.log_probs, abs=max(close, CLOSE_AS_KEPT))
    else:
        torch.testing.assert_close(together, alone, atol=close, rtol=0)


def through(scheduler: BatchingLLM, requests: list[Request]) -> list[Any]:
    """All requests by callers of their own, who come at different turns of the loop."""

    async def ask(number: int, request: Request) -> Any:
        for _ in range(number % 5 * 7):
            await asyncio.sleep(0)
        return await getattr(scheduler, CALLS[type(request)])(request)

    async def everyone() -> list[Any]:
        asked = (ask(number, request) for number, request in enumerate(requests))
        return list(await asyncio.gather(*asked, return_exceptions=True))

    return asyncio.run(everyone())


def test_64_mixed_requests_give_what_they_give_one_by_one(
    tiny_llm: LocalLLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    llm = double(tiny_llm)
    llm.model.config.max_position_embeddings = 1024  # of the copy; some requests are longer than 512
    requests = mixed_requests(llm)
    lengths = [len(r.tokens) + (r.past.slots if r.past else 0) for r in requests]
    assert (min(lengths), max(lengths)) == (5, 700) and len({type(r) for r in requests}) == 3
    llm.limits = Limits(max_batch_size=7, max_batch_tokens=5000)
    passes: list[int] = []
    before_each_pass(monkeypatch, lambda embeds: passes.append(len(embeds)))
    together = through(BatchingLLM(llm), requests)
    in_common = len(passes)
    for request, outcome in zip(requests, together, strict=True):
        assert_same(outcome, getattr(llm, CALLS[type(request)])([request])[0], CLOSE_IN_DOUBLE)
    assert in_common < 0.5 * (len(passes) - in_common)  # and they were run together


def before_each_pass(monkeypatch: pytest.MonkeyPatch, look: Callable[[torch.Tensor], object]) -> None:
    """Call `look` with the (B, S, E) embeddings of every pass, with gradient and without."""
    plain, native, with_gradient = PlainDecoder.__call__, NativeDecoder.over_pages, GradientPass.feed

    def decode(self: PlainDecoder, embeds: torch.Tensor, *rest: Any) -> torch.Tensor:
        look(embeds)
        return plain(self, embeds, *rest)

    def over_pages(self: NativeDecoder, embeds: torch.Tensor, *rest: Any) -> torch.Tensor:
        look(embeds)
        return native(self, embeds, *rest)

    def feed(self: GradientPass, embeds: torch.Tensor, *rest: Any) -> torch.Tensor:
        look(embeds)
        return with_gradient(self, embeds, *rest)

    monkeypatch.setattr(PlainDecoder, "__call__", decode)
    monkeypatch.setattr(NativeDecoder, "over_pages", over_pages)
    monkeypatch.setattr(GradientPass, "feed", feed)


def broken_for(llm: LocalLLM, marked: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every pass that is fed the token `marked` breaks."""
    vector = llm.embedding(torch.tensor(marked))

    def look(embeds: torch.Tensor) -> None:
        if bool((embeds == vector).all(dim=-1).any()):
            raise RuntimeError("the pass broke")

    before_each_pass(monkeypatch, look)


def expected_to_break(outcome: Any, request: Request, marked: int) -> bool:
    """Whether a request feeds the marked token to the model: in its prompt, or as it goes on."""
    fed = (*request.tokens, *getattr(request, "completion", ())[:-1])
    return marked in fed or (isinstance(outcome, Generation) and marked in outcome.tokens[:-1])


def check_that_only_the_broken_break(
    llm: LocalLLM, requests: list[Request], marked: int, monkeypatch: pytest.MonkeyPatch
) -> int:
    """Returns how many broke."""
    alone = [getattr(llm, CALLS[type(r)])([r])[0] for r in requests]
    breaks = [expected_to_break(a, r, marked) for a, r in zip(alone, requests, strict=True)]
    broken_for(llm, marked, monkeypatch)
    outcomes = through(BatchingLLM(llm), requests)
    for outcome, expected, broke in zip(outcomes, alone, breaks, strict=True):
        if broke:
            assert isinstance(outcome, RuntimeError) and str(outcome) == "the pass broke"
        else:
            assert_same(outcome, expected)
    return sum(breaks)


def test_a_request_that_breaks_its_pass_fails_alone(tiny_llm: LocalLLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of each kind holds a token over which every pass breaks; all others get their answers."""
    rng, marked = random.Random(3), 63
    plain = [tuple(3 + word % 59 for word in words(rng, 4 + number)) for number in range(12)]
    requests: list[Request] = []
    for number, tokens in enumerate(plain):
        asked = (*tokens, marked) if number in (4, 5, 6) else tokens
        write, score = GenerateRequest(asked, max_new_tokens=1), LogProbRequest(asked, (5, 9))
        requests.append((ThinkRequest(asked, latent_steps=2), write, score)[number % 3])
    assert check_that_only_the_broken_break(tiny_llm, requests, marked, monkeypatch) == 3


def test_a_row_that_breaks_while_writing_fails_alone(tiny_llm: LocalLLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some texts come upon the token in their middle; the other rows go on to their ends."""
    rng = random.Random(1)
    tiny_llm.stop_tokens = frozenset()
    requests: list[Request] = [
        GenerateRequest(words(rng, 4 + n), max_new_tokens=12 - n % 4, temperature=1.0, seed=n) for n in range(9)
    ]
    texts = [(r, tiny_llm.generate([r])[0]) for r in requests if isinstance(r, GenerateRequest)]
    marked = next(
        token
        for token in range(3, 64)
        if 1 <= sum(expected_to_break(text, request, token) for request, text in texts) <= 4
        and any(token in text.tokens[2:-1] and token not in request.tokens for request, text in texts)
    )
    assert 1 <= check_that_only_the_broken_break(tiny_llm, requests, marked, monkeypatch) <= 4


def test_a_text_nobody_waits_for_leaves_the_batch(tiny_llm: LocalLLM, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_llm.stop_tokens = frozenset()
    long, short = GenerateRequest((5, 9, 4), max_new_tokens=400), GenerateRequest((5, 7), max_new_tokens=30)
    fed: list[int] = []
    before_each_pass(monkeypatch, lambda embeds: fed.append(embeds.shape[0]))

    async def one_gives_up() -> Generation:
        scheduler = BatchingLLM(tiny_llm)
        waiting = [asyncio.create_task(scheduler.generate(r)) for r in (long, short)]
        for _ in range(500):
            if len(fed) < 10:
                await asyncio.sleep(0)
        assert len(fed) >= 10
        waiting[0].cancel()
        return await waiting[1]

    written = asyncio.run(one_gives_up())
    assert len(written.tokens) == 30
    assert fed.count(2) < 15 and fed[-1] == 1 and len(fed) < 40


def test_thoughts_do_not_starve_behind_texts_nor_texts_behind_thoughts(tiny_llm: LocalLLM) -> None:
    tiny_llm.stop_tokens = frozenset()
    tiny_llm.limits = Limits(max_batch_size=2)
    order: list[str] = []

    async def text(scheduler: BatchingLLM, number: int) -> None:
        await scheduler.generate(GenerateRequest((5, 6 + number), max_new_tokens=20))
        order.append("text")

    async def thought(scheduler: BatchingLLM) -> None:
        await scheduler.think(ThinkRequest((5, 9)))
        order.append("thought")

    async def busy_with_texts() -> None:
        scheduler = BatchingLLM(tiny_llm, most_tokens=30)
        await asyncio.gather(*(text(scheduler, n) for n in range(10)), thought(scheduler))

    asyncio.run(busy_with_texts())
    assert 2 <= order.index("thought") <= 6

    async def busy_with_thoughts() -> None:
        scheduler = BatchingLLM(tiny_llm, most_thoughts=3)

        async def endless() -> None:
            for _ in range(40):
                await thought(scheduler)

        await asyncio.gather(endless(), text(scheduler, 0))

    tiny_llm.limits = Limits(max_batch_size=64)
    order.clear()
    asyncio.run(busy_with_thoughts())
    assert order.index("text") < 40


def test_a_fault_of_the_scheduler_reaches_whoever_waits(tiny_llm: LocalLLM, monkeypatch: pytest.MonkeyPatch) -> None:
    scheduler = BatchingLLM(tiny_llm)
    monkeypatch.setattr(RequestQueue, "_thoughts_first", lambda _: 1 / 0)
    outcomes = through(scheduler, [ThinkRequest((5,)), GenerateRequest((5,))])
    assert all(isinstance(outcome, ZeroDivisionError) for outcome in outcomes)
    monkeypatch.undo()
    assert isinstance(through(scheduler, [ThinkRequest((5,))])[0], KVCache)


def test_what_a_text_was_handed_is_let_go_once_it_is_in_the_batch(tiny_llm: LocalLLM) -> None:
    tiny_llm.stop_tokens = frozenset()

    async def write() -> bool:
        scheduler = BatchingLLM(tiny_llm)
        past = FusedCache.plain(tiny_llm.think([ThinkRequest((5, 9, 8))])[0])
        alive = weakref.ref(past.parts[0])
        writing = asyncio.create_task(scheduler.generate(GenerateRequest((5,), past, max_new_tokens=60)))
        del past
        for _ in range(40):
            await asyncio.sleep(0)
        gc.collect()
        gone = alive() is None and not writing.done()
        await writing
        return gone

    assert asyncio.run(write())
