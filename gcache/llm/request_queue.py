"""The requests of one event loop, and which of them are served next.

A line belongs to the thread of its loop. It lives as long as somebody waits in it: its server is a task, which the loop
holds, and nobody else holds the line, or a loop that was closed would be kept by whoever waited in it. However the
server ends, the line lets go of all that it has.
"""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from gcache.llm.cache_budget import CacheLedger

#: What may be asked for.
CALLS = ("think", "generate", "log_prob")


class QueueSettings(Protocol):
    """What requests are run with, and how patiently; see `gcache.llm.scheduler.BatchingLLM`."""

    llm: Any
    patience: int
    most_tokens: int
    most_thoughts: int
    ledger: CacheLedger
    takes_turns: bool


class PendingRequest:
    """A request and who waits for its answer."""

    def __init__(self, request: Any) -> None:
        self.request = request
        self.future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def settle(self, outcome: Any) -> None:
        self.request = None
        if self.future.done():
            return
        if isinstance(outcome, Exception):
            self.future.set_exception(outcome)
        else:
            self.future.set_result(outcome)


class RequestQueue:
    """Who waits for what in one event loop.

    Args:
        front: what the requests are run with, and how patiently.
        texts: an empty batch of texts; None where the model writes each batch of texts to its end.

    Attributes:
        over: whether its server has ended; nobody may wait in it any more.
        texts: once it is over, the batch again where it is empty and in order, else None.
    """

    def __init__(self, front: QueueSettings, texts: Any) -> None:
        self.front = front
        self.texts = texts
        self.over = False
        self._queues: dict[str, list[PendingRequest]] = {call: [] for call in CALLS}
        self._tokens = 0  # written since thoughts last had a turn
        self._thoughts = 0  # batches run since texts last had a turn
        self._asked = 0

    def submit(self, call: str, request: Any) -> asyncio.Future[Any]:
        """Another request; a future that is cancelled takes it back."""
        waiting = PendingRequest(request)
        waiting.future.add_done_callback(lambda future: self._take_back(call, waiting) if future.cancelled() else None)
        self._queues[call].append(waiting)
        self._asked += 1
        return waiting.future

    def _take_back(self, call: str, waiting: PendingRequest) -> None:
        """Let go at once of what nobody waits for any more."""
        waiting.request = None
        if waiting in self._queues[call]:
            self._queues[call].remove(waiting)
        elif self.texts is not None and call == "generate":
            self.texts.drop(waiting)

    # -- who is served next -----------------------------------------------------------------

    async def serve(self) -> None:
        """Run what is asked for until nothing is."""
        try:
            while await self._quiet():
                await self._next()
        except GeneratorExit:  # the loop was closed: nobody is there to be told
            raise
        except Exception as error:  # a fault of this class: whoever waits must hear of it
            for waiting in self._close():
                waiting.settle(error)
        except BaseException as error:  # an interrupt, or the loop is ending its tasks
            traceback.clear_frames(error.__traceback__)  # whoever keeps the error must not keep the batch
            self.end()
            raise
        finally:
            self._close()

    def end(self) -> None:
        """Let go of everything; whoever still waits is cancelled."""
        for waiting in self._close():
            waiting.future.cancel()

    def _close(self) -> list[PendingRequest]:
        """Let go of everything; returns those who still wait."""
        self.over = True
        left = self._everyone()
        self._queues = {call: [] for call in CALLS}
        if left:
            self.texts = None
        for waiting in left:
            waiting.request = None
        return left

    def _everyone(self) -> list[PendingRequest]:
        return [waiting for queue in self._queues.values() for waiting in queue] + self._writing()

    async def _next(self) -> None:
        if self._thoughts_first():
            self._tokens, self._thoughts = 0, self._thoughts + 1
            self._run("think")
            return
        self._thoughts = 0
        if self.texts is not None and (self._queues["generate"] or self._writing()):
            await self._write()
        else:
            self._run("generate" if self._queues["generate"] else "log_prob")

    def _writing(self) -> list[PendingRequest]:
        return [] if self.texts is None else list(self.texts.tickets)

    async def _quiet(self) -> bool:
        """Wait until nobody asks for anything more; whether anything is to be done."""
        seen, turns = self._asked, 0
        while turns < self.front.patience:
            await asyncio.sleep(0)
            turns, seen = (turns + 1 if seen == self._asked else 0), self._asked
        for call, queue in self._queues.items():  # some may have been cancelled in this very turn
            self._queues[call] = [waiting for waiting in queue if not waiting.future.done()]
        return any(self._queues.values()) or bool(self._writing())

    def _thoughts_first(self) -> bool:
        if not self._queues["think"]:
            return False
        texts = len(self._queues["generate"]) + len(self._writing())
        if not texts or self.texts is None or self._tokens >= self.front.most_tokens:
            return True
        return self._thoughts < self.front.most_thoughts and texts <= self.texts.rows_worth_filling

    # -- serving ----------------------------------------------------------------------------

    async def _write(self) -> None:
        """Let waiting texts join, or write tokens until some text is done or somebody asks."""
        asked = self._asked
        done = self._tell(self._join())
        while len(self.texts) and not done and asked == self._asked:
            with self.front.ledger.turn:
                done = self.texts.step()
            done = self._tell(done)
            self._tokens += 1
            await asyncio.sleep(0)
        for waiting, outcome in done:
            waiting.settle(outcome)

    def _tell(self, done: list[tuple[PendingRequest, Any]]) -> list[tuple[PendingRequest, Any]]:
        """Tell watchers of what was written; no turn is held while they work."""
        try:
            told: list[tuple[PendingRequest, Any]] = self.texts.tell(done)
        except BaseException:
            self._queues["generate"] += [waiting for waiting, _ in done]  # to be told of it with the others
            raise
        return told

    def _join(self) -> list[tuple[PendingRequest, Any]]:
        """Let waiting texts join; those that are done already."""
        queue = self._queues["generate"]
        with self.front.ledger.turn:  # nobody else takes the room that was found for them
            joining = self.texts.admits([waiting.request for waiting in queue])
            if not joining:
                return []
            chosen, self._queues["generate"] = queue[:joining], queue[joining:]
            requests = [waiting.request for waiting in chosen]
            for waiting in chosen:
                waiting.request = None
            try:
                done: list[tuple[PendingRequest, Any]] = self.texts.join(chosen, requests)
            except BaseException:
                self._queues["generate"] += chosen  # to be told of it with the others
                raise
            return done

    def _run(self, call: str) -> None:
        """Run all that wait for one kind of answer."""
        batch, self._queues[call] = self._queues[call], []
        try:
            outcomes = self._outcomes([waiting.request for waiting in batch], getattr(self.front.llm, call))
        except BaseException:
            self._queues[call] += batch  # to be told of it with the others
            raise
        for waiting, outcome in zip(batch, outcomes, strict=True):
            waiting.settle(outcome)

    def _called(self, call: Callable[[list[Any]], list[Any]], requests: list[Any]) -> list[Any]:
        if self.front.takes_turns:
            return call(requests)
        with self.front.ledger.turn:
            return call(requests)

    def _outcomes(self, requests: Sequence[Any], call: Callable[[list[Any]], list[Any]]) -> list[Any]:
        """The answers to a batch; where it fails, to its halves, so that in the end each request fails alone."""
        try:
            results = self._called(call, list(requests))
            if len(results) != len(requests):
                raise RuntimeError(f"the model was asked {len(requests)} requests and gave {len(results)} results")
            return results
        except Exception as error:  # handed to whoever asked, never dropped
            if len(requests) == 1:
                return [error]
        # out of the block: the error would keep what the pass had made until the halves are done
        half = len(requests) // 2
        return self._outcomes(requests[:half], call) + self._outcomes(requests[half:], call)
