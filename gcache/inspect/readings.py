"""Latent thoughts in words: the tokens that each latent step is nearest to, and what the model writes of a cache.

The output head reads hidden states that it would have written from; a latent step's state was never meant to be
written, so a reading is a hint of what is in it and no proof of what is not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from gcache.cache.fused_cache import FusedCache
from gcache.gnn.topology import Node
from gcache.graph.cache_graph import CacheGraph
from gcache.graph.loops import run_to_end
from gcache.graph.result import RunResult
from gcache.llm.local import LocalLLM
from gcache.llm.requests import GenerateRequest

#: What the model is asked on an agent's cache alone.
ASKED = "Say in one sentence what this is about."
#: Tokens shown of each latent step, and the longest text written of a cache.
TOKENS, TEXT = 5, 24


@dataclass(frozen=True)
class Reading:
    """One agent's thought in words.

    Attributes:
        steps: of each latent step, its nearest tokens, nearest first.
        text: what the model writes from the agent's own cache alone, without the question; "" where it was not asked.
    """

    steps: tuple[tuple[str, ...], ...]
    text: str = ""


def readings(
    graph: CacheGraph, llm: LocalLLM, results: Sequence[RunResult], tokens: int = TOKENS, write: bool = True
) -> list[dict[Node, Reading]]:
    """The readings of each result's agents that were heard.

    Args:
        results: of runs with `keep_states=True`, and with their caches where `write` is asked for.
        tokens: of each latent step.
        write: whether to write of each cache as well.

    Raises:
        GcacheError: caches are asked for that were not kept.
    """
    steps = [
        {node: tuple(llm.lens(states, tokens)) if len(states) else () for node, states in result.states.items()}
        for result in results
    ]
    texts: list[dict[Node, str]] = [{} for _ in results]
    if write:
        asked = [graph.layout.decision(ASKED, question=result.example.question) for result in results]
        places = [(number, node) for number, result in enumerate(results) for node in sorted(result.caches)]
        requests = [
            GenerateRequest(asked[number], FusedCache.plain(results[number].caches[node]), TEXT)
            for number, node in places
        ]
        written = run_to_end(lambda: _written(graph, requests), "readings", "await asyncio.to_thread(readings, ...)")
        for (number, node), text in zip(places, written, strict=True):
            texts[number][node] = text
    return [
        {node: Reading(own.get(node, ()), text.get(node, "")) for node in sorted({*own, *text})}
        for own, text in zip(steps, texts, strict=True)
    ]


async def _written(graph: CacheGraph, requests: Sequence[GenerateRequest]) -> list[str]:
    made = await asyncio.gather(*(graph.llm.generate(request) for request in requests))
    return [text.text.strip() for text in made]
