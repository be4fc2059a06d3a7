"""Questions that are read once for several evaluations.

Every graph and every prompt of one model begins with the question, in the same tokens, so its cache is the same for
all rows of a report. The questions are read before anything else, in passes of their own: what is computed then does
not depend on which row came first, or on rows that an earlier start of a run had kept.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from gcache.cache.kv_cache import SHARED, KVCache, SlotKind
from gcache.errors import QuestionError
from gcache.graph.agent_graph import AgentGraph
from gcache.graph.cache_graph import CacheGraph
from gcache.graph.loops import run_to_end
from gcache.graph.memo import QUESTION, QuestionMemo
from gcache.llm.requests import ThinkRequest
from gcache.tasks.example import Example


@dataclass(frozen=True)
class ReadQuestions:
    """Questions that were read, by their words.

    Attributes:
        memos: what runs share; of a question that is too long, its error.
        caches: those that could be read.
    """

    memos: dict[str, QuestionMemo] = field(default_factory=dict)
    caches: dict[str, KVCache] = field(default_factory=dict)


def can_be_shared(graph: AgentGraph) -> bool:
    """Whether rows may share what was read: with several models each reads for itself, and where cache bytes are
    limited nothing is held that could not be let go."""
    return isinstance(graph, CacheGraph) and not graph.is_mixed and graph.llm.ledger.limit is None


def question_tokens(graph: AgentGraph, examples: Sequence[Example]) -> int:
    """How many tokens `read_questions` reads."""
    assert isinstance(graph, CacheGraph)
    return sum(len(graph.layout.question(question)) for question in {example.question for example in examples})


def read_questions(graph: AgentGraph, examples: Sequence[Example]) -> ReadQuestions:
    """Read them, all at once."""
    assert isinstance(graph, CacheGraph)
    found, llm, layout = ReadQuestions(), graph.llm, graph.layout

    async def read(question: str) -> None:
        memo = found.memos[question] = QuestionMemo()
        request = ThinkRequest(layout.question(question), owner=SHARED, kind=SlotKind.PREFIX)
        try:
            found.caches[question], _ = await memo.once(QUESTION, lambda: llm.think(request))
        except QuestionError:  # whoever asks it is told, each row by its own rule
            return

    async def together() -> None:
        await asyncio.gather(*map(read, dict.fromkeys(example.question for example in examples)))

    run_to_end(together, "read_questions", "await asyncio.to_thread(read_questions, ...)")
    return found
