"""Documents read before anybody asks: their caches go into the model's store."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from gcache.agents.roles import Agent
from gcache.cache.fused_cache import FusedCache
from gcache.cache.kv_cache import SHARED, KVCache, SlotKind
from gcache.errors import QuestionError
from gcache.graph.cache_graph import CacheGraph
from gcache.graph.loops import run_to_end
from gcache.llm.requests import ThinkRequest
from gcache.tasks.example import Note


@dataclass(frozen=True)
class DocumentsRead:
    """What came of reading.

    Attributes:
        failed: documents that could not be read, such as one that is longer than the model's context.
        keys: of the caches in the store: of what stands before all documents, and of each that was read.
    """

    failed: list[tuple[Note, QuestionError]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)


def read_documents(
    graph: CacheGraph, notes: Sequence[Note], on_read: Callable[[], None] = lambda: None
) -> DocumentsRead:
    """Read each as the agent would that holds it, without a question.

    Args:
        graph: reads questions last (`question_order`), and its model has a store.
        on_read: called after each, whether it was there already or not.
    """
    store, done = graph.llm.store, DocumentsRead()
    assert store is not None

    async def read(request: ThinkRequest) -> KVCache:
        cache = await graph.llm.think(request)
        done.keys.extend(filter(None, [store.key(request)]))
        return cache

    async def all_of_them() -> None:
        before = graph.layout.question("")
        opening = await read(ThinkRequest(before, owner=SHARED, kind=SlotKind.PREFIX))
        for note in notes:
            tokens = graph.agent_tokens(Agent(note.role, note.description, private=note.text), "")
            request = ThinkRequest(
                tokens, FusedCache.plain(opening), graph.config.latent_steps, past_tokens=before
            )
            try:
                await read(request)
            except QuestionError as error:
                done.failed.append((note, error))
            on_read()
            await asyncio.sleep(0)

    run_to_end(all_of_them, "read_documents", "await asyncio.to_thread(read_documents, ...)")
    return done
