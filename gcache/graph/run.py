"""One question on its way through a graph. Everything that belongs to it lives here.

    shared = read(question)                      once for all agents and rollouts
    for every agent that is heard, as soon as its own predecessors are done:
        received = fuse(shared, what its predecessors handed on)
        own      = think(its words on received)
    answer = the decision maker's on fuse(shared, what was handed to it)     (`gcache.graph.answering`)

What goes over the edges is `gcache.graph.transport`'s, what is written down `gcache.graph.trace`'s. Where agents think
with several models, each reads the question once (`gcache.graph.agent_models`).
"""

from __future__ import annotations

import asyncio
import traceback

from gcache.agents.thinking import split_thinking
from gcache.cache.kv_cache import SHARED, KVCache, SlotKind
from gcache.errors import QuestionError
from gcache.gnn.topology import Node
from gcache.graph.answering import answer
from gcache.graph.begin import Start
from gcache.graph.decision_turn import DecisionTurn
from gcache.graph.events import Event
from gcache.graph.parts import Parts
from gcache.graph.result import KeptCaches, RunResult, Step
from gcache.graph.schedule import Coming, run_in_dag_order
from gcache.graph.thought import Thought, Turn, think
from gcache.graph.trace import Trace
from gcache.graph.transport import Transport
from gcache.llm.requests import Generation, ThinkRequest


class Run:
    """The state of one question. See the module's docstring for its flow."""

    def __init__(self, parts: Parts, start: Start) -> None:
        self.parts, self.config, self.start = parts, parts.config, start
        self.example, self.agents, self.topology = start.example, start.agents, start.topology
        self.transport = Transport(parts, start)
        self.trace = Trace(start.watch, start.keep_states)
        self.questions = [t.layouts.of(start.variables).question(start.example.question) for t in parts.models]
        self.own: dict[Node, KVCache] = {}
        self.written: dict[Node, Generation] = {}
        self.thinking = 0  # tokens of latent steps and of agents' texts
        self._events = parts.llm.ledger.noted

    async def go(self) -> RunResult:
        """Run the question to its answer."""
        try:
            return await self._go()
        except BaseException as error:  # whoever keeps the error, or a cancelled task, must not keep the caches
            if not isinstance(error, Exception):
                traceback.clear_frames(error.__traceback__)
            self.transport.let_go()
            self.own.clear()
            raise

    async def _go(self) -> RunResult:
        self.trace.tell(Event("topology", self.topology))
        await self._read_question()
        rounds, heard = self.config.num_rounds, self.transport.heard
        await run_in_dag_order(self.topology, rounds, heard, self._think, self._note_unheard)
        turn = DecisionTurn(
            self.parts, self.start, self.transport, self.trace, self.questions[0], self.written
        )
        answered = await answer(turn)
        kept = KeptCaches(self.transport.shared.get(0), self.own, self.transport.carried)
        arrivals = {node: tuple(arrived) for node, arrived in self.transport.arrivals.items()}
        self.parts.llm.ledger.finished(kept)
        self._note_memory()
        return RunResult(
            self.example, self.agents, answered.text, self.topology, self.start.topology_log_prob, answered.spoken,
            tuple(self.trace.steps), arrivals, kept, self.start.temperature, dict(self.transport.prompts),
            dict(self.transport.said), self.thinking,
            dict(self.transport.states) if self.start.keep_states else {}, dict(self.written),
            self.transport.reasoners & self.written.keys(), answered.ballot,
        )  # fmt: skip

    async def _read_question(self) -> None:
        models = sorted({0, *(self.transport.model_of[node[1]] for node in self.transport.heard)})
        await asyncio.gather(*(self._read_with(model) for model in models))

    async def _read_with(self, model: int) -> None:
        agent_model, tokens = self.parts.models[model], self.questions[model]
        request = ThinkRequest(tokens, owner=SHARED, kind=SlotKind.PREFIX)
        cache, fresh = await self.start.once(("question", model), lambda: agent_model.llm.think(request))
        self.transport.shared[model] = cache
        kept = agent_model.llm.keeps(request)
        read = len(tokens) if fresh else 0
        self.trace.note(
            Step(
                SHARED, "question", 0, "think" if fresh else "shared", 0.0, self.trace.now(),
                prefilled=0 if kept else read, stored=read if kept else 0,
            )
        )  # fmt: skip

    async def _think(self, node: Node, coming: Coming) -> None:
        round_, agent = node
        started = self.trace.turn(round_, agent)
        model = self.transport.model_of[agent]
        steps = self.parts.latent_steps(self.topology, agent)
        tokens = self.parts.agent_tokens(
            self.agents[agent], self.example.question, self.transport.words(node, coming), steps, model,
            self.start.variables, node in self.transport.reasoners,
        )  # fmt: skip
        self.transport.prompts[node] = tokens
        received = await self.transport.fused(node, coming)
        slots = self.transport.slots(node, received)
        request = ThinkRequest(
            tokens, received, steps, self.parts.node_id(node, len(self.agents)),
            alignment=self.start.alignment if model == 0 else None,
        )  # fmt: skip
        del received
        try:
            thought, fresh = await self.start.once(self.transport.name(node), lambda: self._thought(node, request))
        except QuestionError as error:
            if not self.start.lenient:
                raise
            self._leave_out(node, error, started)
            return
        self._take(node, thought, steps)
        if self.start.keep_caches:
            self.own[node] = thought.own
        self.transport.read(sender for sender, _ in coming)
        self.trace.note(
            Step(
                agent, self.agents[agent].role, round_, "think" if fresh else "shared", started, self.trace.now(),
                prefilled=self.transport.read_again.get(node, 0)
                + ((0 if thought.kept else len(tokens)) + len(thought.asked_to_speak) if fresh else 0),
                latent=steps if fresh and not thought.kept else 0,
                generated=len(thought.said.tokens) if fresh and thought.said else 0,
                received=slots,
                stored=len(tokens) + steps if fresh and thought.kept else 0,
            ),
            thought.states,
        )  # fmt: skip

    async def _thought(self, node: Node, request: ThinkRequest) -> Thought:
        crosses, speaks = self.transport.crosses(node), node in self.transport.speakers
        turn = Turn(
            request, self.questions[self.transport.model_of[node[1]]],
            wants_states=self.parts.writer.wants_states or self.start.keep_states or crosses, crosses=crosses,
            solution_seed=self.transport.words_seed(node),
            question=self.example.question if speaks else None, variables=self.start.variables,
        )  # fmt: skip
        return await think(self.parts, self.transport.agent_model(node), turn)

    def _leave_out(self, node: Node, error: QuestionError, started: float) -> None:
        """An agent failed for good: nobody hears it, and the others' caches stay in use."""
        self.transport.leave_out(node)
        now, role = self.trace.now(), self.agents[node[1]].role
        self.trace.note(Step(node[1], role, node[0], "failed", started, now, note=str(error)))

    def _take(self, node: Node, thought: Thought, steps: int) -> None:
        """Keep what an agent made."""
        self.transport.take(node, thought)
        self.thinking += steps
        if thought.said is not None:
            layout = self.transport.agent_model(node).layouts.of(self.start.variables)
            self.transport.said[node] = split_thinking(thought.said.text, layout.thinks).answer
            self.thinking += len(thought.said.tokens)
            self.written[node] = thought.said

    # -- what is noted ---------------------------------------------------------------------------

    def _note_unheard(self, node: Node) -> None:
        now = self.trace.now()
        self.trace.note(Step(node[1], self.agents[node[1]].role, node[0], "unheard", now, now))

    def _note_memory(self) -> None:
        now = self.trace.now()
        for event in self.parts.llm.ledger.events_since(self._events):
            self.trace.note(Step(SHARED, "cache memory", 0, "memory", now, now, note=event.text))
