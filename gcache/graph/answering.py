"""The decision maker's turn: from what was handed to it to the answer.

    texts      one per group of caches that its method hears together; the answer is the only text, or wins the vote
    marginal   no text: how likely each answer is under each cache alone (`gcache.graph.marginal`)

Where nothing says which answers there are, `marginal` writes one text as `refer` does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gcache.gnn.topology import DECISION, Edge, Node
from gcache.graph.begin import Start
from gcache.graph.events import TextWatch
from gcache.graph.loops import cancel_all
from gcache.graph.marginal import Ballot, candidates_of, cast
from gcache.graph.parts import Parts
from gcache.graph.result import Spoken, Step
from gcache.graph.schedule import Coming
from gcache.graph.trace import Trace
from gcache.graph.transport import Transport
from gcache.graph.writers.base import WriterInput
from gcache.graph.writers.registry import api_tokens
from gcache.llm.requests import Generation
from gcache.runtime.streams import derive


@dataclass(frozen=True)
class Answered:
    """What came of the decision maker's turn; `ballot` where it wrote no text."""

    text: str
    spoken: tuple[Spoken, ...]
    ballot: Ballot | None = None


@dataclass(frozen=True)
class DecisionTurn:
    """What the decision maker has: the run's parts, and of each agent that wrote one, its solution."""

    parts: Parts
    start: Start
    transport: Transport
    trace: Trace
    question_tokens: tuple[int, ...]
    solutions: Mapping[Node, Generation]

    @property
    def last(self) -> int:
        """The round in which it hears."""
        return self.parts.config.num_rounds - 1

    @property
    def receiver(self) -> Node:
        return self.last, self.transport.topology.decision_node

    @property
    def edges(self) -> list[Edge]:
        """Over which it hears somebody; an agent that failed is nobody."""
        into = self.transport.topology.into(self.transport.topology.decision_node)
        return [edge for edge in into if (self.last, edge.source) not in self.transport.failed]

    def is_cut(self, edge: Edge) -> bool:
        """Whether a length limit cut off the solution of an edge's sender."""
        solution = self.solutions.get((self.last, edge.source))
        return solution is not None and not solution.finished

    def coming(self, edges: Sequence[Edge]) -> Coming:
        return [((self.last, edge.source), edge.key) for edge in edges]

    def judges(self, edges: Sequence[Edge]) -> bool:
        """Whether it is handed a solution."""
        return any((self.last, edge.source) in self.solutions for edge in edges)

    async def take(self) -> Answered:
        """The answer, and the step of the trace."""
        edges = self.edges
        started = self.trace.turn(*self.receiver)
        if self.parts.decision.method == "marginal":
            candidates = candidates_of(self.parts.decision, self.start.example.question, self._solved(edges))
            if candidates:
                ballot, step = await cast(self, edges, candidates, started)
                self.trace.note(step)
                return Answered(ballot.choice.text, (), ballot)
            return await self._write([tuple(range(len(edges)))], edges, started)
        return await self._write(self.parts.decision.groups([e.weight for e in edges]), edges, started)

    def _solved(self, edges: Sequence[Edge]) -> list[tuple[str, bool]]:
        """Of each edge's sender what it said, and whether that was cut off."""
        return [(self.transport.said.get((self.last, edge.source), ""), self.is_cut(edge)) for edge in edges]

    async def _write(self, groups: Sequence[tuple[int, ...]], edges: Sequence[Edge], started: float) -> Answered:
        parts, transport, start, question = self.parts, self.transport, self.start, self.start.example.question
        heard = [await transport.heard_over((self.last, edge.source), edge) for edge in edges]
        watching = TextWatch.of(start.watch, len(groups))
        texts: list[asyncio.Future[Spoken]] = []
        received, read = 0, 0
        try:
            for number, group in enumerate(groups):
                own = [edges[i] for i in group]
                words, judges = transport.words(self.receiver, self.coming(own)), self.judges(own)
                tokens = parts.decision_tokens(question, words, start.variables, judges)
                fused = await transport.fused(self.receiver, self.coming(own))
                received += transport.slots(self.receiver, fused)
                read += len(tokens)
                asked = WriterInput(
                    question, parts.decision.judging if judges else parts.decision.instructions, tokens,
                    self.question_tokens, fused, tuple(heard[i] for i in group),
                    start.max_new_tokens or parts.config.max_new_tokens,
                    start.temperature, derive("text", start.seed, question, number),
                    start.stop, watching.written if watching else None, start.top_p,
                    start.top_log_probs, watching.scored if watching else None,
                    parts.models[0].layouts.of(start.variables).thinks,
                )  # fmt: skip
                texts.append(asyncio.ensure_future(parts.writer.write(parts.llm, asked)))
            del fused, asked, heard
            await asyncio.sleep(0)  # every writer has asked by now, and holds nothing of ours
            if not start.keep_caches:  # from here on the batch alone holds what it needs
                transport.let_go()
            spoken = tuple(await asyncio.gather(*texts))
        finally:
            cancel_all(texts)
        api_read, api_written = api_tokens(spoken)
        self.trace.note(
            Step(
                self.receiver[1], DECISION, self.last, "answer", started, self.trace.now(),
                prefilled=read if any(s.generation for s in spoken) else 0,
                generated=sum(len(s.generation.tokens) for s in spoken if s.generation),
                received=received, api_read=api_read, api_written=api_written,
            )
        )  # fmt: skip
        chosen = parts.decision.combine(
            [s.text for s in spoken], [e.weight for e in edges] or [1.0], question, [s.cut for s in spoken]
        )
        return Answered(spoken[chosen].text, spoken)
