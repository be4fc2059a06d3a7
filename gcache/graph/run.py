"""One question on its way through a graph. Everything that belongs to it lives here.

    shared = read(question)                      once for all agents and rollouts
    for every agent that is heard, as soon as its own predecessors are done:
        received = fuse(shared, what its predecessors handed on)
        own      = think(its words on received)
    answer = write(the decision maker's words on fuse(shared, what was handed to it))

Where agents think with several models, each reads the question once, and what is handed to another model is carried
over by a link and read there (`gcache.graph.agent_models`).
"""

from __future__ import annotations

import asyncio
import time
import traceback
from collections import Counter
from collections.abc import Awaitable, Callable, Hashable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from gcache.agents.thinking import told_apart
from gcache.cache.fused_cache import FusedCache
from gcache.cache.kv_cache import SHARED, KVCache, SlotKind
from gcache.gnn.topology import DECISION, Edge, EdgeKey, Node
from gcache.graph.agent_models import Thinker
from gcache.graph.begin import Start
from gcache.graph.events import Event, TextWatch
from gcache.graph.hand_over import edge_weights, handed_on, handed_states, over_edge
from gcache.graph.loops import cancel_all
from gcache.graph.memo import Thoughts
from gcache.graph.parts import Parts
from gcache.graph.result import Carried, KeptCaches, RunResult, Spoken, Step
from gcache.graph.schedule import Coming, take_turns
from gcache.graph.transport import Passing
from gcache.graph.writers.base import Asked, Heard
from gcache.graph.writers.registry import api_tokens
from gcache.links.link import Link
from gcache.llm.requests import GenerateRequest, Generation, ThinkRequest
from gcache.runtime.streams import derive


@dataclass(frozen=True)
class _Thought:
    """What came of an agent's turn.

    Attributes:
        own: its own slots; handed: what it hands on.
        states: (S, E) of its latent steps, where somebody wants them.
        said: its text, where it speaks; asked_to_speak: the tokens before it.
        outputs: (P, E) last hidden states of its prompt, where another model might hear it.
    """

    own: KVCache
    handed: KVCache
    states: Tensor | None
    said: Generation | None
    asked_to_speak: tuple[int, ...]
    outputs: Tensor | None = None


class Run:
    """The state of one question. See the module's docstring for its flow.

    Where the result is not to hold the caches, and nobody shares them, each is let go as soon as the
    last one who reads it has it.
    """

    def __init__(self, graph: Parts, start: Start) -> None:
        self.graph, self.config = graph, graph.config
        self.example, self.agents = start.example, start.agents
        self.mixture = graph.mixture.for_question(start.example.question)
        self.models = self.mixture.models(len(start.agents))
        self.variables = start.variables
        self.questions = [t.layouts.of(self.variables).question(start.example.question) for t in graph.thinkers]
        self.topology, self.topology_log_prob = start.topology, start.topology_log_prob
        self.temperature, self.seed = start.temperature, start.seed
        self.thoughts, self.keep = start.thoughts, start.keep_caches
        self.channel, self.alignment = start.channel, start.alignment
        self.stop, self.watch = start.stop, start.watch
        self.top_p, self.top_log_probs = start.top_p, start.top_log_probs
        self.max_new_tokens = start.max_new_tokens or self.config.max_new_tokens
        self.keep_states = start.keep_states
        self.weights = edge_weights(start.topology)
        self.trace: list[Step] = []
        self.edge_bytes: dict[tuple[int, int], int] = {}
        self.shared: dict[int, KVCache] = {}  # of each model
        self.own: dict[Node, KVCache] = {}
        self.handed: dict[Node, KVCache] = {}
        self.states: dict[Node, Tensor] = {}  # of latent steps, where the writer wants them
        self.outputs: dict[Node, Tensor] = {}  # of prompts, where another model might hear their agent
        self.carried: dict[Carried, KVCache] = {}  # what other models read of what links brought
        self.said: dict[Node, str] = {}  # where agents speak
        self.thinking = 0  # tokens of latent steps and of agents' texts
        self.prompts: dict[Node, tuple[int, ...]] = {}
        self.heard = start.topology.heard_nodes(self.config.rounds)
        self.readers, self.speakers = self._readers_and_speakers()
        self.over_links = self.thoughts or Thoughts()
        self.keys: dict[Node, int] = {}
        self.events = graph.llm.ledger.noted
        self.began = time.perf_counter()

    def _readers_and_speakers(self) -> tuple[Counter[Node], frozenset[Node]]:
        """How many nodes each node hands to, and which of them have to say something."""
        crossed = [(node, sending) for node in self.heard for sending in self.topology.senders(*node)]
        last, decision = self.config.rounds - 1, self.topology.decision_node
        crossed += [((last, decision), ((last, edge.source), edge.key)) for edge in self.topology.into(decision)]
        speakers = self.heard if self.config.hands == "both" else {
            sender for receiver, (sender, key) in crossed if key is not None and self._tells(sender, receiver, key)
        }  # fmt: skip
        return Counter(sender for _, (sender, _) in crossed), frozenset(speakers)

    def _thinker(self, node: Node) -> Thinker:
        return self.graph.thinkers[self.models[node[1]]]

    async def go(self) -> RunResult:
        """Run the question to its answer."""
        try:
            return await self._go()
        except BaseException as error:  # whoever keeps the error, or a cancelled task, must not keep the caches
            if not isinstance(error, Exception):
                traceback.clear_frames(error.__traceback__)
            for caches in (self.shared, self.own, self.handed, self.carried):
                caches.clear()
            raise

    async def _go(self) -> RunResult:
        self._tell(Event("topology", self.topology))
        await self._read_question()
        await take_turns(self.topology, self.config.rounds, self.heard, self._think, self._note_unheard)
        spoken, answer = await self._answer()
        kept = KeptCaches(self.shared.get(0), self.own, self.carried)
        self.graph.llm.ledger.finished(kept)
        self._note_memory()
        return RunResult(
            self.example, self.agents, answer, self.topology, self.topology_log_prob, spoken,
            tuple(self.trace), dict(self.edge_bytes), kept, self.temperature, dict(self.prompts), dict(self.said),
            self.thinking, dict(self.states) if self.keep_states else {},
        )  # fmt: skip

    def _tell(self, event: Event) -> None:
        if self.watch is not None:
            self.watch(event)

    def _note(self, step: Step, states: Tensor | None = None) -> None:
        """Another line of the trace."""
        self.trace.append(step)
        self._tell(Event("step", step=step, states=states if self.keep_states else None))

    async def _read_question(self) -> None:
        """Each model that is asked anything reads it once."""
        models = sorted({0, *(self.models[node[1]] for node in self.heard)})
        await asyncio.gather(*(self._read_with(model) for model in models))

    async def _read_with(self, model: int) -> None:
        thinker, tokens = self.graph.thinkers[model], self.questions[model]
        request = ThinkRequest(tokens, source=SHARED, kind=SlotKind.PREFIX)
        self.shared[model], fresh = await self._once(("question", model), lambda: thinker.llm.think(request))
        prefilled = len(tokens) if fresh else 0
        self._note(Step(SHARED, "question", 0, "think" if fresh else "shared", 0.0, self._now(), prefilled))

    def _note_unheard(self, node: Node) -> None:
        now = self._now()
        self._note(Step(node[1], self.agents[node[1]].role, node[0], "unheard", now, now))

    async def _think(self, node: Node, coming: Coming) -> None:
        round_, agent = node
        self._tell(Event("turn", round=round_, agent=agent))
        started = self._now()
        steps = self.graph.latent_steps(self.topology, agent)
        said = self._heard_texts(node, coming)
        tokens = self.graph.agent_tokens(
            self.agents[agent], self.example.question, said, steps, self.models[agent], self.variables
        )
        self.prompts[node] = tokens
        received = await self._fused(node, coming)
        slots = self._slots_received(node, received)
        request = ThinkRequest(
            tokens, received, steps, self.graph.source(node, len(self.agents)),
            alignment=self.alignment if self.models[agent] == 0 else None,
        )  # fmt: skip
        del received
        key = None if self.thoughts is None else self._key(node)
        thought, fresh = await self._once(key, lambda: self._thought(node, request, node in self.speakers))
        self.handed[node] = thought.handed
        if thought.states is not None:
            self.states[node] = thought.states
        if thought.outputs is not None:
            self.outputs[node] = thought.outputs
        self.thinking += steps
        if thought.said is not None:
            layout = self._thinker(node).layouts.of(self.variables)
            self.said[node] = told_apart(thought.said.text, layout.thinks).answer
            self.thinking += len(thought.said.tokens)
        if self.keep:
            self.own[node] = thought.own
        else:
            self._let_go(sender for sender, _ in coming)
        self._note(
            Step(
                agent, self.agents[agent].role, round_, "think" if fresh else "shared", started, self._now(),
                prefilled=len(tokens) + len(thought.asked_to_speak) if fresh else 0,
                latent=steps if fresh else 0,
                generated=len(thought.said.tokens) if fresh and thought.said else 0,
                received=slots,
            ),
            thought.states,
        )  # fmt: skip

    def _heard_texts(self, receiver: Node, coming: Coming) -> list[tuple[str, str]]:
        """(role, words) of those who said something to this receiver, or earlier to others what it remembers."""
        told = [sender for sender, key in coming if self._tells(sender, receiver, key)]
        return [(self.agents[node[1]].role, self.said[node]) for node in told if self.said.get(node, "").strip()]

    def _tells(self, sender: Node, receiver: Node, key: EdgeKey | None) -> bool:
        """Whether words go over an edge: its channel, or the link between two models, may be text."""
        if key is None or self.config.hands == "both" or self.topology.channels[key] == "text":
            return True
        return self.mixture.tells(self.models[sender[1]], self.models[receiver[1]])

    async def _once(self, key: Hashable, make: Callable[[], Awaitable[Any]]) -> tuple[Any, bool]:
        """See `Thoughts.once`; where nothing is shared, nothing is remembered."""
        return (await make(), True) if self.thoughts is None else await self.thoughts.once(key, make)

    async def _thought(self, node: Node, request: ThinkRequest, speaks: bool) -> _Thought:
        """An agent's own slots, what it hands on, and what it says."""
        thinker, model = self._thinker(node), self.models[node[1]]
        states: list[Tensor] = []
        outputs: list[Tensor] = []
        crosses = self.mixture.carries(model)
        if self.graph.writer.wants_states or self.keep_states or crosses:
            request = replace(request, watch=states.append, watch_prompt=outputs.append if crosses else None)
        own = await thinker.llm.think(request)
        received = request.past
        assert received is not None
        with torch.no_grad():
            handed = handed_on(thinker.fuser, own, received, self.config.transfer)
        for part in FusedCache.plain(handed).parts:
            if all(part is not known for known in (own, *received.parts)):
                self.graph.llm.ledger.hold(part)
        said: Generation | None = None
        asked: tuple[int, ...] = ()
        if speaks:
            asked = thinker.speak_tokens(self.example.question, self.variables)
            whole = FusedCache.join([received, FusedCache.plain(own)])
            # greedy: an agent's words are part of the environment, only the answer is drawn
            said = await thinker.llm.generate(
                GenerateRequest(asked, whole, self.config.speak_tokens, context=self.questions[model])
            )
        return _Thought(
            own, handed, states[-1] if states else None, said, asked, outputs[-1] if outputs else None
        )  # fmt: skip

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
        self._tell(Event("turn", round=last, agent=node))
        heard = [await self._heard_over((last, edge.source), edge) for edge in edges]
        groups = decision.groups([e.weight for e in edges])
        watching = TextWatch.of(self.watch, len(groups))
        texts: list[asyncio.Future[Spoken]] = []
        received, read = 0, 0
        try:
            for number, group in enumerate(groups):
                coming: Coming = [((last, edges[i].source), edges[i].key) for i in group]
                said = self._heard_texts((last, node), coming)
                tokens = self.graph.decision_tokens(self.example.question, said, self.variables)
                fused = await self._fused((last, node), coming)
                received += self._slots_received((last, node), fused)
                read += len(tokens)
                asked = Asked(
                    self.example.question, self.graph.decision.instructions, tokens, self.questions[0], fused,
                    tuple(heard[i] for i in group), self.max_new_tokens, self.temperature,
                    derive("text", self.seed, self.example.question, number), self.stop,
                    watching.written if watching else None, self.top_p, self.top_log_probs,
                    watching.scored if watching else None,
                    self.graph.thinkers[0].layouts.of(self.variables).thinks,
                )  # fmt: skip
                texts.append(asyncio.ensure_future(self.graph.writer.write(self.graph.llm, asked)))
            del fused, asked, heard
            await asyncio.sleep(0)  # every writer has asked by now, and holds nothing of ours
            if not self.keep:  # from here on the batch alone holds what it needs
                self.shared.clear()
                self.handed.clear()
                self.carried.clear()
            spoken = tuple(await asyncio.gather(*texts))
        finally:
            cancel_all(texts)
        answer = decision.combine([s.text for s in spoken], [e.weight for e in edges])
        api_read, api_written = api_tokens(spoken)
        self._note(
            Step(
                node, DECISION, last, "answer", started, self._now(),
                prefilled=read if any(s.generation for s in spoken) else 0,
                generated=sum(len(s.generation.tokens) for s in spoken if s.generation),
                received=received, api_read=api_read, api_written=api_written,
            )
        )  # fmt: skip
        return spoken, answer

    async def _heard_over(self, sender: Node, edge: Edge) -> Heard:
        receiver = (sender[0], self.topology.decision_node)
        cache, _ = await self._over(sender, receiver, edge.key)
        return Heard(
            sender[1], self.agents[sender[1]].role, edge.weight,
            self.handed[sender].of_kind() if cache is None else cache,
            None if cache is None else self.states.get(sender),
            self.said.get(sender, "") if self._tells(sender, receiver, edge.key) else "",
        )  # fmt: skip

    async def _fused(self, receiver: Node, coming: Coming) -> FusedCache:
        thinker, shared = self._thinker(receiver), self.shared[self.models[receiver[1]]]
        caches: list[tuple[KVCache, EdgeKey | None]] = []
        for sender, key in coming:
            handed, size = await self._over(sender, receiver, key)
            if handed is None:
                continue
            crossed = (sender[1], receiver[1])
            self.edge_bytes[crossed] = self.edge_bytes.get(crossed, 0) + size
            if self.channel is not None and key is not None:  # what an agent keeps for itself is on no edge
                passing = Passing(self.example.question, sender, receiver, handed, shared, thinker.fuser.rope)
                handed = self.channel(passing)
            caches.append((handed, key))
        return thinker.fuse(shared, caches, self.weights)

    async def _over(self, sender: Node, receiver: Node, key: EdgeKey | None) -> tuple[KVCache | None, int]:
        """What goes over an edge, prepared for its receiver, and the bytes that crossed; None where words go."""
        mine, theirs = self.models[sender[1]], self.models[receiver[1]]
        if mine == theirs:
            handed = over_edge(self.handed[sender], key, self.topology)
            return handed, 0 if handed is None else handed.nbytes
        assert key is not None  # what an agent remembers is in its own model
        channel, link = self.topology.channels[key], self.mixture.links[mine, theirs]
        if link is None or channel == "text":
            return None, 0
        states = handed_states(
            self.outputs[sender], self.states[sender], self.config.transfer == "latent" or channel == "latents"
        )
        if not len(states):
            return None, 0
        name = self._key(sender) if self.thoughts else sender
        once = ("carried", name, theirs, len(states))
        (carried, prepared, size), _ = await self.over_links.once(
            once, lambda: self._carry(link, sender, states, theirs)
        )
        if self.keep:
            self.carried[sender, theirs, channel == "latents"] = carried
        return prepared, size

    async def _carry(self, link: Link, sender: Node, states: Tensor, model: int) -> tuple[KVCache, KVCache, int]:
        """What a link brings to a model, as slots of that model; the same prepared for fusing; and the bytes that
        crossed: of the states or the embeddings, whichever are less, for a map may stand on either side."""
        thinker = self.graph.thinkers[model]
        with torch.no_grad():
            embeds = link.carry(states)
        carried = await thinker.read(embeds, self.shared[model], self.graph.source(sender, len(self.agents)))
        size = min(states.nelement(), embeds.nelement()) * states.element_size()
        with torch.no_grad():
            return carried, thinker.fuser.prepare(carried), size

    def _slots_received(self, receiver: Node, fused: FusedCache) -> int:
        return fused.slots - self.shared[self.models[receiver[1]]].slots

    def _key(self, node: Node) -> int:
        """Names a thought by all it depends on."""
        assert self.thoughts is not None
        if node in self.keys:
            return self.keys[node]
        round_, agent = node
        coming = [
            (self._key(sender), None if key is None else (float(self.weights[key]), self.topology.channels[key]))
            for sender, key in self.topology.senders(round_, agent)
        ]
        how = (self.graph.latent_steps(self.topology, agent), node in self.speakers)
        self.keys[node] = self.thoughts.name((node, how, tuple(coming)))
        return self.keys[node]

    def _note_memory(self) -> None:
        now = self._now()
        for event in self.graph.llm.ledger.events_since(self.events):
            self._note(Step(SHARED, "cache memory", 0, "memory", now, now, note=event.text))

    def _now(self) -> float:
        return time.perf_counter() - self.began
