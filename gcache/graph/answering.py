"""The decision maker's turn: from what was handed to it to the answer.

    texts      one per group of caches that its method hears together; the answer is the only text, or wins the vote
    marginal   no text: how likely each answer is under each cache alone (`gcache.graph.marginal`)

Where nothing says which answers there are, `marginal` writes one text as `refer` does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from gcache.gnn.topology import DECISION, Edge
from gcache.graph.ballot import Ballot
from gcache.graph.decision_turn import DecisionTurn
from gcache.graph.events import TextWatch
from gcache.graph.loops import cancel_all
from gcache.graph.marginal import candidates_of, cast
from gcache.graph.result import Spoken, Step
from gcache.graph.writers.base import WriterInput
from gcache.graph.writers.registry import api_tokens
from gcache.runtime.streams import derive


@dataclass(frozen=True)
class Answered:
    """What came of the decision maker's turn; `ballot` where it wrote no text."""

    text: str
    spoken: tuple[Spoken, ...]
    ballot: Ballot | None = None


async def answer(turn: DecisionTurn) -> Answered:
    """The answer, and the step of the trace."""
    edges = turn.edges
    started = turn.trace.turn(*turn.receiver)
    if turn.parts.decision.method == "marginal":
        candidates = candidates_of(turn.parts.decision, turn.start.example.question, turn.solved(edges))
        if candidates:
            ballot, step = await cast(turn, edges, candidates, started)
            turn.trace.note(step)
            return Answered(ballot.choice.text, (), ballot)
        return await _write(turn, [tuple(range(len(edges)))], edges, started)
    return await _write(turn, turn.parts.decision.groups([e.weight for e in edges]), edges, started)


async def _write(
    turn: DecisionTurn, groups: Sequence[tuple[int, ...]], edges: Sequence[Edge], started: float
) -> Answered:
    parts, transport, start, question = turn.parts, turn.transport, turn.start, turn.start.example.question
    heard = [await transport.heard_over((turn.last, edge.source), edge) for edge in edges]
    watching = TextWatch.of(start.watch, len(groups))
    alone = None if edges else start.alone_seed
    texts: list[asyncio.Future[tuple[Spoken, bool]]] = []
    received, read = 0, 0
    try:
        for number, group in enumerate(groups):
            own = [edges[i] for i in group]
            words, judges = transport.words(turn.receiver, turn.coming(own)), turn.judges(own)
            tokens = parts.decision_tokens(question, words, start.variables, judges)
            fused = await transport.fused(turn.receiver, turn.coming(own))
            received += transport.slots(turn.receiver, fused)
            read += len(tokens) + transport.read_again.get(turn.receiver, 0)
            asked = WriterInput(
                question, parts.decision.judging if judges else parts.decision.instructions, tokens,
                turn.question_tokens, fused, tuple(heard[i] for i in group),
                start.max_new_tokens or parts.config.max_new_tokens,
                start.temperature, derive("text", start.seed if alone is None else alone, question, number),
                start.stop, watching.written if watching else None, start.top_p,
                start.top_log_probs, watching.scored if watching else None,
                parts.models[0].layouts.of(start.variables).thinks,
            )  # fmt: skip
            texts.append(asyncio.ensure_future(_text(turn, asked, alone is not None)))
        del fused, asked, heard
        await asyncio.sleep(0)  # every writer has asked by now, and holds nothing of ours
        if not start.keep_caches:  # from here on the batch alone holds what it needs
            transport.let_go()
        written = await asyncio.gather(*texts)
    finally:
        cancel_all(texts)
    spoken = tuple(text for text, _ in written)
    new = [text for text, fresh in written if fresh]
    api_read, api_written = api_tokens(new)
    turn.trace.note(
        Step(
            turn.receiver[1], DECISION, turn.last, "answer", started, turn.trace.now(),
            prefilled=read if any(s.generation for s in new) else 0,
            generated=sum(len(s.generation.tokens) for s in new if s.generation),
            received=received, api_read=api_read, api_written=api_written,
        )
    )  # fmt: skip
    chosen = parts.decision.combine(
        [s.text for s in spoken], [e.weight for e in edges] or [1.0], question, [s.cut for s in spoken]
    )
    return Answered(spoken[chosen].text, spoken)


async def _text(turn: DecisionTurn, asked: WriterInput, shared: bool) -> tuple[Spoken, bool]:
    """A text, and whether this run had to write it: rollouts may share that of a decision maker that hears nobody."""
    write = partial(turn.parts.writer.write, turn.parts.llm, asked)
    if shared:
        return await turn.start.once(("alone", asked.seed, asked.temperature), write)
    writing = write()
    del write, asked  # a frame that waits must not keep the caches alive
    return await writing, True
