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
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol, runtime_checkable

from gcache.cache.kv_cache import KVCache
from gcache.llm.memory import CacheLedger
from gcache.llm.requests import GenerateRequest, Generation, LogProbRequest, LogProbs, ThinkRequest


class LLM(Protocol):
    """What a batch is run on: `LocalLLM`, or a scripted one in tests."""

    def think(self, requests: Sequence[ThinkRequest]) -> list[KVCache]: ...

    def generate(self, requests: Sequence[GenerateRequest]) -> list[Generation]: ...


@runtime_checkable
class ContinuousLLM(Protocol):
    """A model whose texts can join and leave a running batch; see `gcache.llm.decoding`."""

    def decoding(self) -> Any: ...


class _Waiting:
    """A request and who waits for its answer."""

    def __init__(self, request: Any) -> None:
        self.request = request
        self.future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def settle(self, outcome: Any) -> None:
        if self.future.done():
            return
        if isinstance(outcome, Exception):
            self.future.set_exception(outcome)
        else:
            self.future.set_result(outcome)


class BatchingLLM:
    """Asynchronous front of an LLM; one event loop at a time.

    Args:
        llm: does the work, in this thread, while the loop waits.
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
        self._loop: asyncio.AbstractEventLoop | None = None
        self._server: asyncio.Task[None] | None = None
        self._begin()

    def _begin(self) -> None:
        """Empty queues: whatever another event loop left behind has nobody waiting for it."""
        self._queues: dict[str, list[_Waiting]] = {"think": [], "generate": [], "log_prob": []}
        self._texts = self.llm.decoding() if isinstance(self.llm, ContinuousLLM) else None
        self._tokens = 0  # written since thoughts last had a turn
        self._thoughts = 0  # batches run since texts last had a turn
        self._asked = 0
        self._given_up: list[_Waiting] = []

    # -- what callers see -------------------------------------------------------------------

    def think(self, request: ThinkRequest) -> Coroutine[Any, Any, KVCache]:
        """See `LocalLLM.think`."""
        return self._ask("think", request)

    def generate(self, request: GenerateRequest) -> Coroutine[Any, Any, Generation]:
        """See `LocalLLM.generate`."""
        return self._ask("generate", request)

    def log_prob(self, request: LogProbRequest) -> Coroutine[Any, Any, LogProbs]:
        """See `LocalLLM.log_prob`."""
        return self._ask("log_prob", request)

    async def _ask(self, call: str, request: Any) -> Any:
        future = self._submit(call, request)
        del request  # a frame that waits must not keep the request's caches alive
        return await future

    def _submit(self, call: str, request: Any) -> asyncio.Future[Any]:
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._loop, self._server = loop, None
            self._begin()
        waiting = _Waiting(request)
        waiting.future.add_done_callback(lambda future: self._given_up.append(waiting) if future.cancelled() else None)
        self._queues[call].append(waiting)
        self._asked += 1
        if self._server is None or self._server.done():
            self._server = asyncio.create_task(self._serve())
        return waiting.future

    # -- who is served next -----------------------------------------------------------------

    async def _serve(self) -> None:
        """Run what is asked for until nothing is."""
        try:
            while await self._quiet():
                await self._next()
        except Exception as error:  # a fault of this class: whoever waits must hear of it
            for waiting in [w for queue in self._queues.values() for w in queue] + self._writing():
                waiting.settle(error)
            self._begin()

    async def _next(self) -> None:
        if self._thoughts_first():
            self._tokens, self._thoughts = 0, self._thoughts + 1
            self._run(self._take("think"), self.llm.think)
            return
        self._thoughts = 0
        if self._texts is not None and (self._queues["generate"] or self._writing()):
            await self._write()
        elif self._queues["generate"]:
            self._run(self._take("generate"), self.llm.generate)
        else:
            self._run(self._take("log_prob"), self.llm.log_prob)  # type: ignore[attr-defined]

    def _writing(self) -> list[_Waiting]:
        return [] if self._texts is None else list(self._texts.tickets)

    async def _quiet(self) -> bool:
        """Wait until nobody asks for anything more; whether anything is to be done."""
        seen, turns = self._asked, 0
        while turns < self.patience:
            await asyncio.sleep(0)
            turns, seen = (turns + 1 if seen == self._asked else 0), self._asked
        for call, queue in self._queues.items():
            self._queues[call] = [waiting for waiting in queue if not waiting.future.done()]
        return any(self._queues.values()) or bool(self._writing())

    def _thoughts_first(self) -> bool:
        if not self._queues["think"]:
            return False
        texts = len(self._queues["generate"]) + len(self._writing())
        if not texts or self._texts is None or self._tokens >= self.most_tokens:
            return True
        return self._thoughts < self.most_thoughts and texts <= self._texts.rows_worth_filling

    def _take(self, call: str) -> list[_Waiting]:
        taken, self._queues[call] = self._queues[call], []
        return taken

    async def _write(self) -> None:
        """Let waiting texts join, or write tokens until some text is done or somebody asks."""
        assert self._texts is not None
        asked, queue = self._asked, self._queues["generate"]
        joining = self._texts.admits([waiting.request for waiting in queue])
        if joining:
            chosen, self._queues["generate"] = queue[:joining], queue[joining:]
            del queue
            requests = [waiting.request for waiting in chosen]
            for waiting in chosen:
                waiting.request = None
            done = self._texts.join(chosen, requests)
            del requests, chosen
        else:
            done = []
        while len(self._texts) and not done and asked == self._asked:
            done = self._texts.step()
            self._tokens += 1
            await asyncio.sleep(0)
            while self._given_up:
                self._texts.drop(self._given_up.pop())
        for waiting, outcome in done:
            waiting.settle(outcome)

    def _run(self, batch: Sequence[_Waiting], call: Callable[[list[Any]], list[Any]]) -> None:
        """Run a batch; where it fails, run its halves, so that in the end each request fails alone."""
        if not batch:
            return
        try:
            results = call([waiting.request for waiting in batch])
            if len(results) != len(batch):
                raise RuntimeError(f"the model was asked {len(batch)} requests and gave {len(results)} results")
        except Exception as error:  # handed to whoever asked, never dropped
            if len(batch) == 1:
                batch[0].settle(error)
                return
            half = len(batch) // 2
            self._run(batch[:half], call)
            self._run(batch[half:], call)
            return
        for waiting, result in zip(batch, results, strict=True):
            waiting.settle(result)
