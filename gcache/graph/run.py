"""One question on its way through a graph. Everything that belongs to it lives here.

    shared = read(question)                      once for all agents and rollouts
    for every agent that is heard, as soon as its own predecessors are done:
        received = fuse(shared, what its predecessors handed on)
        own      = think(its words on received)
    answer = write(the decision maker's words on fuse(shared, what was handed to it))
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Hashable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import torch

from gcache.agents.roles import Agent
from gcache.cache.kv_cache import SHARED, FusedCache, KVCache, SlotKind
from gcache.gnn.topology import Topology
from gcache.graph.hand_over import Node, edge_weights, handed_on, senders
from gcache.graph.records import KeptCaches, RunResult, Spoken, Step
from gcache.llm.requests import GenerateRequest, ThinkRequest
from gcache.tasks.example import Example

if TYPE_CHECKING:
    from gcache.graph.cache_graph import CacheGraph


class Thoughts:
    """What the rollouts of one question have in common, computed once.

    A thought is known by everything it depends on: its agent, its round, and the thoughts and
    weights that came in. Rollouts that share a `Thoughts` must share the question, its agents and
    the graph.
    """

    def __init__(self) -> None:
        self._known: dict[Hashable, asyncio.Future[Any]] = {}
        self._names: dict[Hashable, int] = {}

    def name(self, inputs: Hashable) -> int:
        """A short name for what a thought depends on, the same for the same inputs."""
        return self._names.setdefault(inputs, len(self._names))

    async def once(self, key: Hashable, make: Callable[[], Awaitable[Any]]) -> tuple[Any, bool]:
        """The value behind a key, and whether this call had to make it."""
        fresh = key not in self._known
        if fresh:
            self._known[key] = asyncio.ensure_future(make())
        # shielded: a run that is cancelled must not cancel what others wait for
        return await asyncio.shield(self._known[key]), fresh


class Run:
    """The state of one question. See the module's docstring for its flow.

    Args:
        thoughts: what the rollouts of this question share; None where there are no others.
        keep_caches: whether the result holds the caches. Where it does not, and nobody shares
            them, each is let go as soon as the last one who reads it has it.
    """

    def __init__(
        self,
        graph: CacheGraph,
        example: Example,
        agents: tuple[Agent, ...],
        topology: Topology,
        topology_log_prob: float,
        temperature: float,
        seed: int,
        thoughts: Thoughts | None = None,
        keep_caches: bool = True,
    ) -> None:
        self.graph, self.config = graph, graph.config
        self.example, self.agents = example, agents
        self.question = graph.layout.question(example.question)
        self.topology, self.topology_log_prob = topology, topology_log_prob
        self.temperature, self.seed = temperature, seed
        self.thoughts, self.keep = thoughts, keep_caches
        self.weights = edge_weights(topology)
        self.trace: list[Step] = []
        self.edge_bytes: dict[tuple[int, int], int] = {}
        self.shared: KVCache | None = None
        self.own: dict[Node, KVCache] = {}
        self.handed: dict[Node, KVCache] = {}
        self.readers = self._count_readers()
        self.keys: dict[Node, int] = {}
        self.events = len(graph.llm.ledger.events)
        self.began = time.perf_counter()

    def _count_readers(self) -> Counter[Node]:
        """How many nodes each node hands to."""
        nodes = [(round_, agent) for round_ in range(self.config.rounds) for agent in self.topology.heard]
        readers = Counter(sender for node in nodes for sender, _ in senders(self.topology, *node))
        last = self.config.rounds - 1
        readers.update((last, edge.source) for edge in self.topology.into(self.topology.decision_node))
        return readers

    async def go(self) -> RunResult:
        """Run the question to its answer."""
        await self._read_question()
        tasks: dict[Node, asyncio.Task[None]] = {}
        for round_ in range(self.config.rounds):
            for agent in range(len(self.agents)):
                if agent not in self.topology.heard:
                    now = self._now()
                    self.trace.append(Step(agent, self.agents[agent].role, round_, "unheard", now, now))
                    continue
                tasks[round_, agent] = asyncio.create_task(self._think((round_, agent), tasks))
        try:
            await asyncio.gather(*tasks.values())
            spoken, answer = await self._answer()
        finally:
            for task in tasks.values():
                task.cancel()
        kept = KeptCaches(self.shared, self.own)
        self.graph.llm.ledger.finished(kept)
        self._note_memory()
        return RunResult(
            self.example, self.agents, answer, self.topology, self.topology_log_prob, spoken,
            tuple(self.trace), dict(self.edge_bytes), kept, self.temperature,
        )  # fmt: skip

    async def _read_question(self) -> None:
        request = ThinkRequest(self.question, source=SHARED, kind=SlotKind.PREFIX)
        self.shared, fresh = await self._once("question", lambda: self.graph.llm.think(request))
        prefilled = len(self.question) if fresh else 0
        self.trace.append(Step(SHARED, "question", 0, "think" if fresh else "shared", 0.0, self._now(), prefilled))

    async def _think(self, node: Node, tasks: dict[Node, asyncio.Task[None]]) -> None:
        round_, agent = node
        coming = senders(self.topology, round_, agent)
        # yield once so that every task of the run exists before one is looked up
        await asyncio.sleep(0)
        for sender, _ in coming:
            await tasks[sender]
        started = self._now()
        tokens = self.graph.agent_tokens(self.agents[agent])
        received = self._fused(agent, coming)
        slots = self._slots_received(received)
        request = ThinkRequest(tokens, received, self.config.latent_steps, self.graph.source(node, len(self.agents)))
        del received
        key = None if self.thoughts is None else self._key(node)
        (own, self.handed[node]), fresh = await self._once(key, lambda: self._thought(request))
        if self.keep:
            self.own[node] = own
        else:
            self._let_go(sender for sender, _ in coming)
        self.trace.append(
            Step(
                agent, self.agents[agent].role, round_, "think" if fresh else "shared", started, self._now(),
                prefilled=len(tokens) if fresh else 0,
                latent=self.config.latent_steps if fresh else 0,
                received=slots,
            )
        )  # fmt: skip

    async def _once(self, key: Hashable, make: Callable[[], Awaitable[Any]]) -> tuple[Any, bool]:
        """See `Thoughts.once`; where nothing is shared, nothing is remembered."""
        return (await make(), True) if self.thoughts is None else await self.thoughts.once(key, make)

    async def _thought(self, request: ThinkRequest) -> tuple[KVCache, KVCache]:
        """An agent's own slots, and what it hands on."""
        own = await self.graph.llm.think(request)
        received = request.past
        assert received is not None
        with torch.no_grad():
            handed = handed_on(self.graph.fuser, own, received, self.config.transfer)
        for part in FusedCache.plain(handed).parts:
            if all(part is not known for known in (own, *received.parts)):
                self.graph.llm.ledger.hold(part)
        return own, handed

    def _let_go(self, read: Iterable[Node]) -> None:
        """Forget what was handed to everyone it is for."""
        for node in read:
            self.readers[node] -= 1
            if not self.readers[node]:
                del self.handed[node]

    async def _answer(self) -> tuple[tuple[Spoken, ...], str]:
        decision = self.graph.decision
        node = self.topology.decision_node
        last = self.config.rounds - 1
        edges = self.topology.into(node)
        started = self._now()
        tokens = self.graph.decision_tokens()
        groups = decision.groups([e.weight for e in edges])
        requests, received = [], 0
        for number, group in enumerate(groups):
            arriving = [((last, edges[i].source), (edges[i].source, node)) for i in group]
            fused = self._fused(node, arriving)
            received += self._slots_received(fused)
            seed = self.seed * len(groups) + number
            requests.append(
                GenerateRequest(tokens, fused, self.config.max_new_tokens, self.temperature, seed, self.question)
            )
        texts = [self.graph.llm.generate(request) for request in requests]
        del fused, requests
        if not self.keep:  # from here on the batch alone holds what it needs
            self.shared = None
            self.handed.clear()
        written = await asyncio.gather(*texts)
        spoken = tuple(
            Spoken(tuple(edges[i].source for i in group), tokens, text)
            for group, text in zip(groups, written, strict=True)
        )
        answer = decision.combine([s.generation.text for s in spoken], [e.weight for e in edges])
        self.trace.append(
            Step(
                node, "decision maker", last, "answer", started, self._now(),
                prefilled=len(tokens) * len(groups),
                generated=sum(len(s.generation.tokens) for s in spoken),
                received=received,
            )
        )  # fmt: skip
        return spoken, answer

    def _fused(self, receiver: int, arriving: Sequence[tuple[Node, tuple[int, int] | None]]) -> FusedCache:
        assert self.shared is not None
        for sender, _ in arriving:
            edge = (sender[1], receiver)
            self.edge_bytes[edge] = self.edge_bytes.get(edge, 0) + self.handed[sender].nbytes
        caches = [(self.handed[sender], edge) for sender, edge in arriving]
        return self.graph.fuse(self.shared, caches, self.weights)

    def _slots_received(self, fused: FusedCache) -> int:
        assert self.shared is not None
        return fused.slots - self.shared.slots

    def _key(self, node: Node) -> int:
        """Names a thought by all it depends on."""
        assert self.thoughts is not None
        if node in self.keys:
            return self.keys[node]
        round_, agent = node
        coming = [
            (self._key(sender), None if edge is None else float(self.weights[edge]))
            for sender, edge in senders(self.topology, round_, agent)
        ]
        self.keys[node] = self.thoughts.name((node, tuple(coming)))
        return self.keys[node]

    def _note_memory(self) -> None:
        now = self._now()
        for event in self.graph.llm.ledger.events[self.events :]:
            self.trace.append(Step(SHARED, "cache memory", 0, "memory", now, now, note=event.text))

    def _now(self) -> float:
        return time.perf_counter() - self.began
