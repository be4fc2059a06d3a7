"""The text baseline: everything that any agent knows, as words in one prompt of one model.

What the channel has to beat where knowledge is split: the same facts, without agents, edges or
caches. Laid out as the graph lays out its own prompts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from gcache.agents.roles import agents_for
from gcache.graph.cache_graph import CacheGraph
from gcache.llm.requests import GenerateRequest, Generation
from gcache.tasks.example import Example


async def answer_in_one_prompt(graph: CacheGraph, example: Example) -> tuple[Generation, int]:
    """The decision maker's greedy text with all agents' words before its own, and the number of
    prompt tokens."""
    words = "\n".join(agent.private or agent.instructions for agent in agents_for(example, graph.agents))
    layout = graph.layout
    tokens = layout.question(example.question) + layout.agent(words, thinks=False) + graph.decision_tokens()
    request = GenerateRequest(tokens, None, graph.config.max_new_tokens)
    return await graph.llm.generate(request), len(tokens)


def answer_all_in_one_prompt(graph: CacheGraph, examples: Sequence[Example]) -> list[tuple[Generation, int]]:
    """`answer_in_one_prompt` for a batch, in the order of the examples."""

    async def together() -> list[tuple[Generation, int]]:
        return list(await asyncio.gather(*(answer_in_one_prompt(graph, example) for example in examples)))

    return asyncio.run(together())
