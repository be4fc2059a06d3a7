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
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, runtime_checkable

from gcache.cache.kv_cache import KVCache
from gcache.llm.cache_budget import CacheLedger
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
        self._writing, self._since = 0, 0.0  # texts that are to be kept, and when the last of them was done

    def think(self, request: ThinkRequest) -> Coroutine[Any, Any, KVCache]:
        """See `LocalLLM.think`."""
        return self._ask("think", request)

    def generate(self, request: GenerateRequest) -> Coroutine[Any, Any, Generation]:
        """See `LocalLLM.generate`. A text that is kept is not written again; where it hands on slots, it is read."""
        texts: KeptTexts | None = getattr(self.llm, "kept_texts", None)
        key = None if texts is None else texts.key(request)
        if texts is None or key is None:
            return self._ask("generate", request)
        return self._kept(texts, key, request)

    async def _kept(self, texts: KeptTexts, key: str, request: GenerateRequest) -> Generation:
        known, owner = texts.get(key), request.owner
        if known is None:
            if not self._writing:
                self._since = time.perf_counter()
            self._writing += 1
            try:
                asked = self._ask("generate", request)
                del request  # a frame that waits must not keep the request's caches alive
                text: Generation = await asked
            finally:
                self._writing -= 1
            now = time.perf_counter()
            texts.put(key, text, now - self._since)  # its share: the time since the text before it was done
            self._since = now
            if text.slots is not None and owner is not None and texts.slots is not None:
                texts.slots.put(key, owner, text.slots)
            return text
        slots = None
        if owner is not None:
            slots = None if texts.slots is None else texts.slots.get(key, owner, getattr(self.llm, "device", "cpu"))
            if slots is not None:
                self.ledger.hold(slots)
            else:
                again = ThinkRequest(request.tokens, request.past, request.latent_steps, owner, text=known.tokens)
                del request
                slots = await self.think(again)
                if texts.slots is not None:
                    texts.slots.put(key, owner, slots)
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
