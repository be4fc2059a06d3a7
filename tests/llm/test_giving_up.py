"""Whoever gives up lets go: of what it was handed, and of its place in the batch, whichever way it went.

Counted three ways: by the ledger, by weak references to the caches that were handed over, and by the tensors of keys
and values that are alive at all.
"""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import torch
from toy import QUESTIONS, toy_built

from gcache.cache.fused_cache import FusedCache
from gcache.cache.kv_cache import KVCache
from gcache.graph.memo import RolloutMemo
from gcache.graph.run_config import GraphConfig
from gcache.llm.decode.decoding import Decoding
from gcache.llm.local import LocalLLM
from gcache.llm.requests import GenerateRequest, Generation, LogProbRequest, ThinkRequest
from gcache.llm.scheduler import BatchingLLM

Leave = Callable[[], Coroutine[Any, Any, None]]
KINDS = ("think", "generate", "log_prob")
LONG = 400


@pytest.fixture
def llm(tiny_llama: Any, tiny_tokenizer: Any) -> LocalLLM:
    """Without stop tokens: its texts are as long as they may be."""
    made = LocalLLM(tiny_llama, tiny_tokenizer, "tiny")
    made.stop_tokens = frozenset()
    return made


class Counted:
    """Caches that are handed over, and whether they are alive."""

    def __init__(self, llm: LocalLLM) -> None:
        self.llm = llm
        self.handed: list[weakref.ref[KVCache]] = []
        gc.collect()
        self.before = self._tensors()

    def past(self) -> FusedCache:
        made = FusedCache.plain(self.llm.think([ThinkRequest((5, 9, 4, 8, 7, 3))])[0])
        self.handed += [weakref.ref(part) for part in made.parts]
        return made

    def request(self, kind: str, number: int = 0, length: int = LONG) -> Any:
        tokens = (5, 3 + number % 60)
        if kind == "think":
            return ThinkRequest(tokens, self.past(), latent_steps=2)
        if kind == "generate":
            return GenerateRequest(tokens, self.past(), length)
        return LogProbRequest(tokens, (4, 8, 9), self.past())

    def _tensors(self) -> int:
        """Bytes of all keys and values: tensors whose last dimension is a head's."""
        found = {
            each.untyped_storage().data_ptr(): each.untyped_storage().nbytes()
            for each in gc.get_objects()
            if issubclass(type(each), torch.Tensor) and each.dim() >= 4 and each.shape[-1] == self.llm.cache_shape[2]
        }
        return sum(found.values())

    @property
    def alive(self) -> tuple[int, int, int]:
        """By weak references, by the ledger's bytes, by the tensors' bytes."""
        gc.collect()
        return (
            sum(cache() is not None for cache in self.handed),
            self.llm.ledger.used,
            self._tensors() - self.before,
        )


NOTHING = (0, 0, 0)


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


# -- one by one, while the loop goes on ------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("waited", [1, 5])
def test_a_request_that_is_cancelled_lets_go_at_once(llm: LocalLLM, kind: str, waited: int) -> None:
    """40 of them, on a model that never gets to writing or anything else."""
    front, counted = BatchingLLM(llm), Counted(llm)

    async def give_up() -> tuple[int, int, int]:
        for number in range(40):
            task = asyncio.create_task(getattr(front, kind)(counted.request(kind, number)))
            await turns(waited)
            task.cancel()
            await turns(2)
            assert task.cancelled()
        del task
        return counted.alive

    assert asyncio.run(give_up()) == NOTHING
    assert len(counted.handed) == 40


@pytest.mark.parametrize("kind", KINDS)
def test_a_request_that_is_waited_for_no_longer_lets_go(
    llm: LocalLLM, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch is never quiet: somebody else asks in every turn, so nothing is run before the time is up."""
    front, counted = BatchingLLM(llm, patience=10**9), Counted(llm)

    async def time_out() -> tuple[int, int, int]:
        for _ in range(3):
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(getattr(front, kind)(counted.request(kind)), 0.02)
        return counted.alive

    assert asyncio.run(time_out()) == NOTHING


def test_a_text_that_is_cancelled_while_thoughts_go_first_leaves_the_batch(llm: LocalLLM) -> None:
    """It is in the batch of texts, and no further token is ever written."""
    front, counted = BatchingLLM(llm, most_tokens=0), Counted(llm)

    async def give_up() -> tuple[int, int, int]:
        writing = asyncio.create_task(front.generate(counted.request("generate")))
        await turns(30)
        assert llm.ledger.used > 0 and not writing.done()
        writing.cancel()
        await turns(2)
        assert writing.cancelled()
        return counted.alive

    assert asyncio.run(give_up()) == NOTHING


def test_the_others_go_on_when_one_gives_up(llm: LocalLLM) -> None:
    front, counted = BatchingLLM(llm), Counted(llm)
    (expected,) = llm.generate([GenerateRequest((7, 9), max_new_tokens=30)])

    async def one_of_each_gives_up() -> Generation:
        staying = asyncio.create_task(front.generate(GenerateRequest((7, 9), max_new_tokens=30)))
        going = [asyncio.create_task(getattr(front, kind)(counted.request(kind))) for kind in KINDS]
        await turns(3)
        for task in going:
            task.cancel()
        await turns(3)
        assert [cache() for cache in counted.handed] == [None] * 3
        return await staying

    assert asyncio.run(one_of_each_gives_up()).tokens == expected.tokens
    assert counted.alive == NOTHING


# -- all at once -----------------------------------------------------------------------------


def ended(loop: asyncio.AbstractEventLoop, leave: Leave) -> None:
    """As `asyncio.run` ends one: it cancels what is left."""
    try:
        loop.run_until_complete(leave())
    finally:
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(turns(5))
        loop.close()


def closed(loop: asyncio.AbstractEventLoop, leave: Leave) -> None:
    """Without a word to those who wait."""
    loop.set_exception_handler(lambda *_: None)  # "Task was destroyed but it is pending"
    loop.run_until_complete(leave())
    loop.close()


def interrupted(loop: asyncio.AbstractEventLoop, leave: Leave) -> None:
    """By the keyboard, outside of any pass; nothing is cancelled."""
    loop.set_exception_handler(lambda *_: None)
    left = loop.create_task(leave())

    def interrupt(_: Any) -> None:
        raise KeyboardInterrupt

    left.add_done_callback(interrupt)
    with pytest.raises(KeyboardInterrupt):
        loop.run_forever()
    loop.close()


@pytest.mark.parametrize("end", [ended, closed, interrupted])
@pytest.mark.parametrize("waited", [1, 40])
def test_a_loop_that_ends_takes_along_all_that_waits_in_it(
    llm: LocalLLM, end: Callable[[asyncio.AbstractEventLoop, Leave], None], waited: int
) -> None:
    front, counted = BatchingLLM(llm), Counted(llm)

    async def leave() -> None:
        for kind in KINDS:
            tasks.append(asyncio.ensure_future(getattr(front, kind)(counted.request(kind, length=400))))
        await turns(waited)
        assert llm.ledger.used > 0

    tasks: list[Any] = []
    loop = asyncio.new_event_loop()
    gone = weakref.ref(loop)
    end(loop, leave)
    tasks.clear()
    del loop, leave
    assert counted.alive == NOTHING
    assert gone() is None, "the loop is kept"
    assert asyncio.run(front.generate(GenerateRequest((5, 9), max_new_tokens=3))).tokens  # and the model is free


@pytest.mark.parametrize("kind", KINDS)
def test_an_interrupt_in_a_pass_lets_go_though_somebody_keeps_it(
    llm: LocalLLM, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    front, counted = BatchingLLM(llm), Counted(llm)

    async def all_of_them() -> None:
        await asyncio.gather(*(getattr(front, kind)(counted.request(kind, number)) for number in range(3)))

    def stop(*_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(Decoding, "step", stop)
    plain = llm.checked
    monkeypatch.setattr(llm, "checked", lambda past: plain(past) if past is None or kind == "generate" else stop())
    with pytest.raises(KeyboardInterrupt) as kept:
        asyncio.run(all_of_them())
    assert kept.value is not None
    assert counted.alive == NOTHING
    monkeypatch.undo()
    assert asyncio.run(front.generate(GenerateRequest((5, 9), max_new_tokens=3))).tokens


def test_those_who_wait_hear_of_an_interrupt_where_their_loop_goes_on(
    llm: LocalLLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a notebook, whose loop outlives an interrupt."""
    front, loop = BatchingLLM(llm), asyncio.new_event_loop()

    def stop(*_: Any) -> Any:
        raise KeyboardInterrupt

    async def ask() -> Any:
        return await front.generate(GenerateRequest((5, 9), max_new_tokens=3))

    monkeypatch.setattr(Decoding, "step", stop)
    try:
        waiting = loop.create_task(ask())
        with pytest.raises(KeyboardInterrupt):
            loop.run_forever()
        monkeypatch.undo()
        with pytest.raises(asyncio.CancelledError):
            loop.run_until_complete(asyncio.wait_for(waiting, 5))
        assert loop.run_until_complete(asyncio.wait_for(ask(), 5)).tokens
    finally:
        loop.close()


@pytest.mark.parametrize("begun", [0, 3])
def test_a_server_that_is_cancelled_leaves_nobody_waiting(llm: LocalLLM, begun: int) -> None:
    """By somebody who cancels all tasks of a loop that goes on; it may not have begun yet."""
    front, counted = BatchingLLM(llm), Counted(llm)

    async def cancel_it() -> Generation:
        waiting = [asyncio.create_task(getattr(front, kind)(counted.request(kind))) for kind in KINDS]
        await turns(1 + begun)
        (server,) = asyncio.all_tasks() - {*waiting, asyncio.current_task()}
        server.cancel()
        await asyncio.wait(waiting, timeout=10)
        assert all(task.cancelled() for task in waiting)
        return await asyncio.wait_for(front.generate(GenerateRequest((5, 9), max_new_tokens=3)), 10)

    assert len(asyncio.run(cancel_it()).tokens) == 3
    assert counted.alive == NOTHING


# -- runs ------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [False, True])
@pytest.mark.parametrize("waited", [3, 30, 60, 100, 200])
def test_a_run_that_is_cancelled_keeps_no_cache_though_its_task_is_kept(
    llm: LocalLLM, tiny_tokenizer: Any, waited: int, share: bool
) -> None:
    """A cancelled task holds its error, that the frames it went through, and these what the run had."""
    graph = toy_built(
        llm, tiny_tokenizer, topology="chain", graph=GraphConfig(latent_steps=2, max_new_tokens=LONG)
    ).graph
    counted = Counted(llm)

    async def give_up() -> tuple[int, int, int]:
        thoughts = RolloutMemo() if share else None
        tasks = [asyncio.create_task(graph.arun(QUESTIONS[number])) for number in range(2)]
        sharing = [asyncio.create_task(graph.arun(QUESTIONS[2], memo=thoughts)) for _ in range(2)]
        await turns(waited)
        assert not any(task.done() for task in tasks + sharing)
        for task in tasks + sharing:
            task.cancel()
        await turns(12)
        assert all(task.cancelled() for task in tasks + sharing)
        if share:  # thoughts are theirs who made them, and so are the tasks that were given them
            del thoughts, task
            sharing.clear()
        return counted.alive

    assert asyncio.run(give_up()) == NOTHING


def test_rollouts_that_are_all_cancelled_give_up_the_thoughts_they_shared(
    llm: LocalLLM, tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = toy_built(llm, tiny_tokenizer, topology="chain", graph=GraphConfig(latent_steps=2)).graph
    asked: list[int] = []
    think = llm.think
    monkeypatch.setattr(llm, "think", lambda requests: asked.append(len(requests)) or think(requests))

    async def give_up() -> None:
        thoughts = RolloutMemo()
        tasks = [asyncio.create_task(graph.arun(QUESTIONS[0], memo=thoughts)) for _ in range(3)]
        await turns(4)
        for task in tasks:
            task.cancel()
        await turns(100)

    asyncio.run(give_up())
    assert asked == []
