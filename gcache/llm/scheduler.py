"""Common forward passes for callers that know nothing of each other.

Every run, and every agent within it, awaits `think`, `generate` or `log_prob` on its own. Their
requests are collected until no caller can make progress otherwise (the event loop has gone round
a few times without a new request), and then something is run for as many of them as fit:

    thoughts            while the batch of texts in the making is not full: they become texts
    text, one token     otherwise; texts that are done leave, waiting ones take their rows
    log-probabilities   when neither is asked for

Within a kind, first come, first served. Nothing starves: a waiting thought lets texts write so many
tokens at most, a waiting text lets so many batches of thoughts go first. There is no clock in it,
so the same callers are batched the same way every time.

Every event loop has a queue of its own (`gcache.llm.request_queue`), in its own thread. Requests of two loops are never
batched together, and their passes go one after another. So a text is the same however many threads ask.
"""

from __future__ import annotations

import asyncio
import threading
import time
import weakref
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, runtime_checkable

from gcache.cache.fused_cache import FusedCache
from gcache.cache.kv_cache import KVCache
from gcache.llm.cache_budget import CacheLedger
from gcache.llm.cache_store import ModelStore
from gcache.llm.context import misfit
from gcache.llm.kept_texts import KeptTexts
from gcache.llm.request_queue import RequestQueue
from gcache.llm.requests import GenerateRequest, Generation, LogProbRequest, LogProbs, ThinkRequest


class LLM(Protocol):
    """What a batch is run on: `LocalLLM`, or a scripted one in tests."""

    def think(self, requests: Sequence[ThinkRequest]) -> list[KVCache]: ...

    def generate(self, requests: Sequence[GenerateRequest]) -> list[Generation]: ...


@runtime_checkable
class ContinuousLLM(Protocol):
    """A model whose texts can join and leave a running batch; see `gcache.llm.decode.decoding`."""

    def decoding(self) -> Any: ...


@dataclass
class _OfLoop:
    """What there is of one event loop. None of it refers to the loop, which could not end otherwise.

    Attributes:
        queue: where its requests wait, as long as any do; its server holds it.
        texts: its batch of texts, while it is empty; it remembers what helps to guess the next ones.
    """

    queue: weakref.ref[RequestQueue] | None = None
    texts: Any = None


class BatchingLLM:
    """Asynchronous front of an LLM, for any number of event loops.

    Args:
        llm: does the work, in the thread of the loop that asks, while the loop waits. Models that share a ledger, or
            one front, run one pass at a time, whichever threads ask.
        patience: turns of the loop without a new request before a batch is run.
        most_tokens: that texts may write while thoughts wait, however full the batch of texts is.
        most_thoughts: batches of thoughts that may be run while texts wait, however few these are.
    """

    def __init__(self, llm: LLM, patience: int = 16, most_tokens: int = 256, most_thoughts: int = 16) -> None:
        self.llm = llm
        self.patience = patience
        self.most_tokens = most_tokens
        self.most_thoughts = most_thoughts
        ledger = getattr(llm, "ledger", None)
        self.ledger: CacheLedger = ledger if isinstance(ledger, CacheLedger) else CacheLedger()
        #: Whether the model takes its turns itself. It then gives them back to tell watchers, who may wait for others.
        self.takes_turns = self.ledger is ledger
        self._loops: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _OfLoop] = weakref.WeakKeyDictionary()
        self._lock = threading.Lock()  # of the dictionary
        self._making, self._since = 0, 0.0  # what is to be kept, and when the last of it was done

    @property
    def kept_texts(self) -> KeptTexts | None:
        """What the model keeps."""
        return getattr(self.llm, "kept_texts", None)

    @property
    def store(self) -> ModelStore | None:
        """Where the model keeps caches."""
        return getattr(self.llm, "store", None)

    def keeps(self, request: ThinkRequest) -> bool:
        """Whether the model's store keeps what comes of a request."""
        return self.store is not None and self.store.key(request) is not None

    def think(self, request: ThinkRequest) -> Coroutine[Any, Any, KVCache]:
        """See `LocalLLM.think`. What a store keeps, and a question where slots are kept, is read once."""
        stored = None if self.store is None else self.store.key(request)
        if stored is not None:
            return self._stored(stored, request)
        key = None if self.kept_texts is None else self.kept_texts.key_of_question(request)
        return self._ask("think", request) if key is None else self._question(key, request)

    async def _stored(self, key: str, request: ThinkRequest) -> KVCache:
        """A cache of the store, or one that is made alone and kept there."""
        assert self.store is not None
        store = self.store.store
        cache = store.get(key, request.owner, getattr(self.llm, "device", "cpu"))
        if cache is not None:
            if not store.holds(key):
                self.ledger.hold(cache)
            return cache
        error = misfit(request, getattr(self.llm, "context", None))
        if error is not None:
            raise error
        (cache,) = self.llm.think([request])
        store.put(key, cache)
        await asyncio.sleep(0)  # others may have something to do
        return cache

    async def _question(self, key: str, request: ThinkRequest) -> KVCache:
        slots = self._slots(key, request.owner)
        if slots is None:
            with self._timed() as took:
                slots = await self._ask("think", request)
            assert self.kept_texts is not None and self.kept_texts.slots is not None
            self.kept_texts.slots.put(key, request.owner, slots, took())
        return slots

    def _slots(self, key: str, owner: int, mark: str = "") -> KVCache | None:
        """Slots that are kept, of a question or of the text of that mark."""
        texts = self.kept_texts
        if texts is None or texts.slots is None:
            return None
        found = texts.slots.get(key, owner, getattr(self.llm, "device", "cpu"), mark)
        if found is None:
            return None
        slots, seconds = found
        if seconds:
            texts.count(seconds)
        self.ledger.hold(slots)
        return slots

    @contextmanager
    def _timed(self) -> Iterator[Callable[[], float]]:
        """Around making something that is kept. Asked behind it, what it gets says how many seconds that took: of
        several that are made at once each its share, the time since the one before it was done."""
        if not self._making:
            self._since = time.perf_counter()
        self._making += 1
        took = 0.0
        try:
            yield lambda: took
        finally:
            self._making -= 1
            now = time.perf_counter()
            took, self._since = now - self._since, now

    async def score(
        self, prompt: tuple[int, ...], answer: tuple[int, ...], content: str, read: Callable[[], Awaitable[FusedCache]]
    ) -> float:
        """The log-probability of an answer behind a prompt, and what was heard. Where scores are kept, the same is
        asked once.

        Args:
            content: of the cache that was heard (`gcache.llm.kept_scores.content_of`); "" where scores are not kept.
            read: gives that cache with the prompt behind it, but for the prompt's last token.
        """
        texts = self.kept_texts if content else None
        key = "" if texts is None else texts.key_of_score(content, prompt, answer)
        if texts is not None and texts.scores is not None and (found := texts.scores.get(key)) is not None:
            texts.count(found[1])
            return found[0]
        told: list[float] = []
        with self._timed() as took:
            past = await read()
            await self._ask(
                "think",
                ThinkRequest(
                    prompt[-1:], past, text=answer, watch_text=lambda scores: told.append(float(scores.sum()))
                ),
            )
        if texts is not None and texts.scores is not None:
            texts.scores.put(key, told[0], took())
        return told[0]

    def generate(self, request: GenerateRequest) -> Coroutine[Any, Any, Generation]:
        """See `LocalLLM.generate`. A text that is kept is not written again; where it hands on slots, it is read."""
        texts = self.kept_texts
        key = None if texts is None else texts.key(request)
        if texts is None or key is None:
            return self._ask("generate", request)
        return self._kept(texts, key, request)

    async def _kept(self, texts: KeptTexts, key: str, request: GenerateRequest) -> Generation:
        known, owner = texts.get(key), request.owner
        if known is None:
            with self._timed() as took:
                asked = self._ask("generate", request)
                del request  # a frame that waits must not keep the request's caches alive
                text: Generation = await asked
            kept = texts.put(key, text, took())
            whose = kept.tokens == text.tokens  # else somebody kept another one meanwhile
            if whose and text.slots is not None and owner is not None and texts.slots is not None:
                texts.slots.put(key, owner, text.slots, mark=kept.mark)
            return text
        slots = None if owner is None else self._slots(key, owner, known.mark)
        if owner is not None and slots is None:
            again = ThinkRequest(request.tokens, request.past, request.latent_steps, owner, text=known.tokens)
            del request
            slots = await self._ask("think", again)
            if texts.slots is not None:
                texts.slots.put(key, owner, slots, mark=known.mark)
        return Generation(known.text, known.tokens, known.log_probs, known.finished, (), slots)

    def log_prob(self, request: LogProbRequest) -> Coroutine[Any, Any, LogProbs]:
        """See `LocalLLM.log_prob`."""
        return self._ask("log_prob", request)

    async def _ask(self, call: str, request: Any) -> Any:
        error = misfit(request, getattr(self.llm, "context", None))
        if error is not None:
            del request
            raise error
        future = self._queue().submit(call, request)
        del request  # a frame that waits must not keep the request's caches alive
        return await future

    def _queue(self) -> RequestQueue:
        """That of the running loop."""
        loop = asyncio.get_running_loop()
        with self._lock:
            own = self._loops.setdefault(loop, _OfLoop())
        queue = None if own.queue is None else own.queue()
        if queue is None or queue.over:
            texts, own.texts = own.texts, None
            if texts is None and isinstance(self.llm, ContinuousLLM):
                texts = self.llm.decoding()
            queue = RequestQueue(self, texts)
            own.queue = weakref.ref(queue)
            # held by the loop alone, in which it always has a next step
            loop.create_task(queue.serve()).add_done_callback(partial(_ended, queue, own))
        return queue


def _ended(queue: RequestQueue, own: _OfLoop, server: asyncio.Task[None]) -> None:
    """After a queue's server, even if that was cancelled before it began; its batch of texts is for the next queue."""
    queue.end()
    own.texts = queue.texts
    if not server.cancelled():
        server.exception()  # an interrupt, which the loop has raised by now
