"""Common forward passes for callers that know nothing of each other.

Every run, and every agent within it, awaits `think`, `generate` or `log_prob` on its own. Their
requests are collected until no caller can make progress otherwise (the event loop has gone round
a few times without a new request), and then run together. There is no clock in it, so the same
callers are batched the same way every time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from gcache.cache.kv_cache import KVCache
from gcache.llm.requests import GenerateRequest, Generation, ThinkRequest


class LLM(Protocol):
    """What a batch is run on: `LocalLLM`, or a scripted one in tests."""

    def think(self, requests: Sequence[ThinkRequest]) -> list[KVCache]: ...

    def generate(self, requests: Sequence[GenerateRequest]) -> list[Generation]: ...


@dataclass(frozen=True)
class _Waiting:
    request: Any
    future: asyncio.Future[Any]


class BatchingLLM:
    """Asynchronous front of an LLM, for one event loop.

    Args:
        llm: does the work, in this thread, while the loop waits.
        patience: turns of the loop without a new request before a batch is run.
    """

    def __init__(self, llm: LLM, patience: int = 16) -> None:
        self.llm = llm
        self.patience = patience
        self._queues: dict[str, list[_Waiting]] = {"think": [], "generate": []}
        self._flusher: asyncio.Task[None] | None = None

    async def think(self, request: ThinkRequest) -> KVCache:
        """See `LocalLLM.think`."""
        cache: KVCache = await self._submit("think", request)
        return cache

    async def generate(self, request: GenerateRequest) -> Generation:
        """See `LocalLLM.generate`."""
        generation: Generation = await self._submit("generate", request)
        return generation

    async def _submit(self, call: str, request: Any) -> Any:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._queues[call].append(_Waiting(request, future))
        if self._flusher is None or self._flusher.done():
            self._flusher = asyncio.create_task(self._flush_when_quiet())
        return await future

    async def _flush_when_quiet(self) -> None:
        while any(self._queues.values()):
            seen, quiet = -1, 0
            while quiet < self.patience:
                await asyncio.sleep(0)
                waiting = sum(map(len, self._queues.values()))
                quiet, seen = (quiet + 1 if waiting == seen else 0), waiting
            # thoughts first: text may be waited for by nobody, thoughts hold up their readers
            call = "think" if self._queues["think"] else "generate"
            batch, self._queues[call] = self._queues[call], []
            self._run([w for w in batch if not w.future.done()], getattr(self.llm, call))

    def _run(self, batch: Sequence[_Waiting], call: Callable[[list[Any]], list[Any]]) -> None:
        """Run a batch; where it fails, run its requests one by one, so that each fails alone."""
        if not batch:
            return
        try:
            results = call([w.request for w in batch])
            if len(results) != len(batch):
                raise RuntimeError(f"the model was asked {len(batch)} requests and gave {len(results)} results")
        except Exception as error:  # handed to whoever asked, never dropped
            if len(batch) == 1:
                batch[0].future.set_exception(error)
                return
            for waiting in batch:
                self._run([waiting], call)
            return
        for waiting, result in zip(batch, results, strict=True):
            waiting.future.set_result(result)
