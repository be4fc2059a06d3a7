"""The text baseline: everything that any agent knows, as words in one prompt of one model.

What the channel has to beat where knowledge is split: the same facts, without agents, edges or
caches. Laid out as the graph lays out its own prompts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

from gcache.agents.prompts import GAP
from gcache.agents.roles import agents_for
from gcache.cache.fused_cache import FusedCache
from gcache.errors import QuestionError
from gcache.evaluation.read_questions import ReadQuestions
from gcache.graph.cache_graph import CacheGraph
from gcache.graph.loops import run_to_end
from gcache.llm.requests import GenerateRequest, Generation
from gcache.tasks.example import Example


def in_one_prompt(example: Example, question_order: str = "first") -> Example:
    """A question with the words of all notes behind it, or before it, and no agents; one without notes as it is.

    Args:
        question_order: one of `gcache.agents.prompts.QUESTION_ORDERS`.
    """
    if not example.notes:
        return example
    parts = [example.question, "\n".join(note.text for note in example.notes)]
    return replace(example, question=GAP.join(parts if question_order == "first" else reversed(parts)), notes=())


async def answer_in_one_prompt(
    graph: CacheGraph, example: Example, heard: Collection[int] | None = None, read: ReadQuestions | None = None
) -> tuple[Generation, int]:
    """The decision maker's greedy text with the agents' words before its own, and the number of
    prompt tokens that were computed.

    Args:
        heard: whose words; None for all agents'.
        read: questions that were read; the prompt goes on behind one, where its tokens begin the prompt's.
    """
    agents = agents_for(example, graph.agents)
    said = [a.private or a.instructions for i, a in enumerate(agents) if heard is None or i in heard]
    decision = graph.decision
    tokens = graph.layout.in_one(
        example.question, "\n".join(said), decision.instructions, decision.answer_prefix, graph.config.decision_turn
    )
    question = graph.layout.question(example.question)
    past = None if read is None else read.caches.get(example.question)
    if past is None or tokens[: len(question)] != question or len(tokens) == len(question):
        request = GenerateRequest(tokens, None, graph.config.max_new_tokens)
    else:
        rest = tokens[len(question) :]
        request = GenerateRequest(rest, FusedCache.plain(past), graph.config.max_new_tokens, context=question)
    return await graph.llm.generate(request), len(request.tokens)


def answer_all_in_one_prompt(
    graph: CacheGraph,
    examples: Sequence[Example],
    heard: Callable[[Example], Collection[int]] | None = None,
    read: ReadQuestions | None = None,
) -> list[tuple[Generation, int] | QuestionError]:
    """`answer_in_one_prompt` for a batch, in the order of the examples; an error where a question is too long."""

    async def one(example: Example) -> tuple[Generation, int] | QuestionError:
        try:
            return await answer_in_one_prompt(graph, example, heard(example) if heard else None, read)
        except QuestionError as error:
            return error

    async def together() -> list[tuple[Generation, int] | QuestionError]:
        return list(await asyncio.gather(*(one(example) for example in examples)))

    return run_to_end(
        together, "answer_all_in_one_prompt", "await asyncio.to_thread(answer_all_in_one_prompt, ...)"
    )
