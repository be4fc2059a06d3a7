"""How many bytes of caches are alive, and what gives way when there may be no more.

Two kinds of bytes are counted: caches that somebody still holds (an agent's slots, until the last
reference to them is gone), and the rows of batches in flight. When a batch would go over the
limit, the caches of finished runs are let go first, oldest first; if that is not enough, the batch
is cut. A batch of one request always runs: a limit slows things down, it never stops them.

Event loops in several threads may share a ledger. What fits is found out and taken in one `turn`, in which one thread
runs a pass and the others wait.
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from gcache.errors import ConfigError
from gcache.llm.one_at_a_time import OneAtATime
from gcache.runtime.settings import Settings, setting

if TYPE_CHECKING:
    from gcache.cache.kv_cache import KVCache

logger = logging.getLogger(__name__)

GB = 2**30
EVENTS_KEPT = 1000


@dataclass(frozen=True)
class Limits(Settings):
    """How much a model may take at once; no part of what a graph is or was trained as.

    Raises:
        ConfigError: a value that is not allowed.
    """

    max_batch_size: int = setting(
        64, help="the most sequences in one pass of the model", group="limits", at_least=1
    )
    max_batch_tokens: int = setting(
        32768, help="the most slots in one pass, padding included", group="limits", at_least=1
    )
    max_cache_gb: float | None = setting(
        None, help="the most GB (2^30 bytes) of KV caches: past it, caches of finished runs are let go first, then "
        "batches get smaller",
        group="limits", above=0, unset="no limit",
    )
    native: bool = setting(
        True, help="on a CPU, for models of Llama's shape: passes without gradient in code that is compiled here once, "
        "with a second copy of the weights; needs a C compiler",
        group="limits",
    )
    pack_weights: bool = setting(
        True, help="in bf16 on a CPU, where passes are not native: a second copy of the weights in the layout it "
        "multiplies fastest", group="limits"
    )
    prompt_lookup: bool = setting(
        True, help="guess tokens of a text from what was said before and check them in one pass", group="limits"
    )
    cuda_graphs: bool = setting(
        True, help="on a GPU: record the pass of a decoding or latent step once per shape and replay it; an empty "
        "batch keeps its memory, up to an eighth of max_cache_gb or of the GPU's. No effect on a CPU",
        group="limits",
    )
    texts: str | None = setting(
        None, help="file that keeps every text whose whole prompt is known, for whoever asks the same again: a run "
        "that was killed goes on, and runs share what they draw",
        group="limits", metavar="FILE", unset="none is kept",
    )
    kept_gb: float = setting(
        0.0, help="GB (2^30 bytes) of slots that are kept beside the texts, in the folder FILE.slots: those that were "
        "used last; FILE.scores gets how likely answers were on them; other slots are computed anew where they are "
        "handed on",
        group="limits", at_least=0,
    )
    store: str | None = setting(
        None, help="with --question last, folder that keeps caches of what agents read without hearing anybody, for "
        "whoever reads the same again: a document is read once for all questions, runs and seeds",
        group="limits", metavar="DIR", unset="none is kept",
    )
    store_gb: float = setting(
        10.0, help="GB (2^30 bytes) of caches in --store: those that were used last", group="limits", above=0
    )
    max_gradient_tokens: int = setting(
        2048, help="the most tokens that training scores in one pass, but for a run that has more; fewer take less "
        "memory",
        group="limits", at_least=1,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kept_gb and self.texts is None:
            raise ConfigError("kept_gb keeps slots of kept texts, but no texts are kept; name their file by --texts")

    @property
    def max_cache_bytes(self) -> int | None:
        return None if self.max_cache_gb is None else max(1, int(self.max_cache_gb * GB))


class InFlightBytes(Protocol):
    """A batch in flight."""

    @property
    def nbytes(self) -> int: ...


class Releasable(Protocol):
    """The caches of a finished run."""

    def release(self) -> int:
        """Let them go; returns how many bytes that was."""
        ...


@dataclass(frozen=True)
class MemoryEvent:
    """Something gave way: what, and in words."""

    what: str  # "released", "cut" or "over"
    text: str


class CacheLedger:
    """Counts cache bytes, and keeps them under a limit.

    Args:
        limit: bytes; None for no limit.

    Attributes:
        turn: held by the thread that runs a pass of a model whose caches are counted here.
        peak: the most that caches and batches in flight took together, at any batch's start.
        events: what gave way, oldest first; of a long-lived process the last `EVENTS_KEPT`.
        noted: how many events there were in all.
    """

    def __init__(self, limit: int | None = None) -> None:
        self.limit = limit
        self.turn = OneAtATime()
        self.peak = 0
        self.events: deque[MemoryEvent] = deque(maxlen=EVENTS_KEPT)
        self.noted = 0
        self._finished: deque[weakref.ref[Releasable]] = deque()
        self._in_flight: weakref.WeakSet[InFlightBytes] = weakref.WeakSet()
        self._lock = threading.RLock()  # of the counts; held for no longer than it takes to look at them
        self._held = 0
        self._gone: deque[int] = deque()  # sizes of caches that are gone and not yet taken off

    @property
    def held(self) -> int:
        """Bytes of the caches that are alive."""
        with self._lock:
            while self._gone:
                self._held -= self._gone.popleft()
            return self._held

    @property
    def used(self) -> int:
        """Bytes of caches and of batches in flight."""
        with self._lock:
            return self.held + sum(batch.nbytes for batch in self._in_flight)

    def hold(self, cache: KVCache, size: int | None = None) -> None:
        """Count a cache until nobody refers to it any more.

        Args:
            size: its bytes, where they are known; else the host waits for the device to count its valid slots.
        """
        size = cache.nbytes if size is None else size
        with self._lock:
            self._held += size
        # a cache may go in any thread, at any moment: what is called then takes no lock
        gone = weakref.finalize(cache, self._gone.append, size)
        gone.atexit = False

    def watch(self, batch: InFlightBytes) -> None:
        """Count a batch in flight for as long as it lives."""
        with self._lock:
            self._in_flight.add(batch)

    def finished(self, caches: Releasable) -> None:
        """The caches of a run that is over: the first to go when memory is short."""
        if self.limit is None:
            return
        with self._lock:
            while self._finished and self._finished[0]() is None:  # gone by itself
                self._finished.popleft()
            self._finished.append(weakref.ref(caches))

    def events_since(self, noted: int) -> list[MemoryEvent]:
        """Those after the first `noted` ones, as far as they are kept."""
        with self._lock:
            new = min(self.noted - noted, len(self.events))
            return list(self.events)[len(self.events) - new :]

    def most_that_fit(self, wanted: int, size: Callable[[int], int], free: bool = False) -> int:
        """How many of `wanted` requests may run together, at least 1 unless `free`.

        Args:
            size: bytes that a number of them adds.
            free: whether 0 is an answer (other requests are running already).
        """
        with self._lock:
            return self._most_that_fit(wanted, size, free)

    def _most_that_fit(self, wanted: int, size: Callable[[int], int], free: bool) -> int:
        count = wanted
        while count and not self._fits(size(count)):
            count = count // 2
        least = 0 if free else 1
        if count < least and self.limit is not None:
            self._note("over", f"one request takes {size(1) / GB:.3f} GB, which goes over the limit; it runs alone")
        elif count < wanted:
            self._note("cut", f"a batch of {wanted} was cut to {count}")
        count = max(count, least)
        self.peak = max(self.peak, self.used + size(count))
        return count

    def _fits(self, more: int) -> bool:
        if self.limit is None:
            return True
        while self.used + more > self.limit and self._finished:
            caches = self._finished.popleft()()
            if caches is not None and (size := caches.release()):
                self._note("released", f"a finished run's caches were released ({size / GB:.3f} GB)")
        return self.used + more <= self.limit

    def _note(self, what: str, text: str) -> None:
        event = MemoryEvent(what, f"{text}; max_cache_gb is {(self.limit or 0) / GB:.3g}")
        if what != "released" and self.events and self.events[-1] == event:
            return  # a batch that stays cut says so once
        self.events.append(event)
        self.noted += 1
        logger.info(event.text)
