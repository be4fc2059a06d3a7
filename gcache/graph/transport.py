"""What crosses the edges of a run: caches as their receivers read them, what links carry to other models, and words.

    an agent's own model   its cache, prepared for fusing, or its latents alone
    another model          its hidden states, carried by the link and read there
    words                  what it said, for its receivers' prompts
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence

import torch
from torch import Tensor

from gcache.cache.fused_cache import FusedCache
from gcache.cache.kv_cache import KVCache
from gcache.errors import ConfigError
from gcache.gnn.topology import Edge, EdgeKey, Node
from gcache.graph.agent_models import AgentModel
from gcache.graph.begin import Start
from gcache.graph.hand_over import edge_weights, handed_states, over_edge
from gcache.graph.memo import RolloutMemo
from gcache.graph.parts import Parts
from gcache.graph.passing import Passing
from gcache.graph.reread import reread
from gcache.graph.result import Arrival, Carried
from gcache.graph.routes import Routes
from gcache.graph.schedule import Coming
from gcache.graph.thought import Thought
from gcache.graph.writers.base import Received
from gcache.links.link import Link
from gcache.runtime.streams import derive


class Transport:
    """Holds what was handed on in one run, and gives receivers what arrives at them.

    Attributes:
        routes: what goes over each edge; model_of: of each agent, the number of the model it thinks with.
        shared: of each model, the question's slots.
        handed: of each node, what it hands on, prepared for fusing; let go once everyone has it, unless it is kept.
        states: of each node, (S, E) of its latent steps, where somebody wants them.
        outputs: of each node, (P, E) of its prompt, where another model might hear it.
        said: of each node that speaks, its words.
        carried: what other models read of what links brought.
        arrivals: of each receiver, what came, in order.
        prompts: of each node, the tokens of its own slots; read_again: of each receiver, how many of these were
            computed again for it.
        heard: nodes that a path leads from to the decision maker; reasoners: those of them that write a solution;
            speakers: others that say something.
        failed: nodes whose text failed for good, which nobody hears.
    """

    def __init__(self, parts: Parts, start: Start) -> None:
        self.parts, self.config, self._start = parts, parts.config, start
        self.question, self.agents, self.topology = start.example.question, start.agents, start.topology
        self.agent_models = parts.agent_models.for_question(self.question)
        self.routes = Routes(parts.config.payload, start.topology, self.agent_models, start.words_alone)
        self.model_of = self.routes.model_of
        self.weights = edge_weights(start.topology)
        self.keep, self._intervention, self._memo = start.keep_caches, start.intervention, start.memo
        if self.config.rereads and start.intervention is not None:
            how = self.config.rereads
            raise ConfigError(f"an intervention changes caches whose slots {how} computes again; use {how}=0 for it")
        if self.config.rereads and any(edge.target != self.topology.decision_node for edge in self.topology.edges):
            how = self.config.rereads
            raise ConfigError(
                f"{how} computes slots again without what their agents heard, and on this topology they hear each "
                f"other; use one without edges among agents, or {how}=0"
            )
        self._over_links = start.memo or RolloutMemo()
        self._names: dict[Node, Hashable] = {}
        self.shared: dict[int, KVCache] = {}
        self.handed: dict[Node, KVCache] = {}
        self.states: dict[Node, Tensor] = {}
        self.outputs: dict[Node, Tensor] = {}
        self.said: dict[Node, str] = {}
        self.carried: dict[Carried, KVCache] = {}
        self.arrivals: dict[Node, list[Arrival]] = {}
        self.prompts: dict[Node, tuple[int, ...]] = {}
        self.read_again: dict[Node, int] = {}
        self.heard = start.topology.heard_nodes(self.config.num_rounds)
        self.failed: set[Node] = set()
        crossed = self._crossed()
        self._readers = Counter(sender for _, (sender, _) in crossed)
        self.reasoners = frozenset(sender for _, (sender, key) in crossed if self.routes.reasons(key))
        self.speakers = self._speakers(crossed) - self.reasoners

    def _crossed(self) -> list[tuple[Node, tuple[Node, EdgeKey | None]]]:
        """Every edge that is used: its receiver, its sender, its key."""
        crossed = [(node, sending) for node in self.heard for sending in self.topology.senders(*node)]
        last, decision = self.config.num_rounds - 1, self.topology.decision_node
        return crossed + [((last, decision), ((last, edge.source), edge.key)) for edge in self.topology.into(decision)]

    def _speakers(self, crossed: Sequence[tuple[Node, tuple[Node, EdgeKey | None]]]) -> frozenset[Node]:
        if self.routes.default.words:
            return frozenset(self.heard)
        return frozenset(
            sender for receiver, (sender, key) in crossed
            if key is not None and self.routes.payload(sender, receiver, key).words
        )  # fmt: skip

    def agent_model(self, node: Node) -> AgentModel:
        """The model that a node thinks with; the decision maker's is the first."""
        return self.parts.models[self.model_of[node[1]]]

    def crosses(self, node: Node) -> bool:
        """Whether another model might hear a node."""
        return self.agent_models.carries(self.model_of[node[1]])

    def name(self, node: Node) -> Hashable:
        """Names a node's thought by all it depends on, where others may share it; else by the node."""
        if self._memo is None:
            return node
        if node not in self._names:
            coming = [
                (self.name(sender), None if key is None else (float(self.weights[key]), self.topology.payloads[key]))
                for sender, key in self.topology.senders(*node)
            ]
            how = (self.parts.latent_steps(self.topology, node[1]), node in self.speakers, self.words_seed(node))
            self._names[node] = self._memo.name((node, how, tuple(coming)))
        return self._names[node]

    def words_seed(self, node: Node) -> int | None:
        """What a node's solution is drawn by; None where it writes none.

        The solution of an agent that hears nobody depends on nothing that is trained: like its question, it may be the
        same in every rollout. Any other is part of what is learned from, so each rollout draws its own.
        """
        if node not in self.reasoners:
            return None
        if not self.config.agent_temperature:  # nothing is drawn
            return 0
        seed = self._start.seed if self.topology.senders(*node) else self._start.words_seed
        return derive("solution", seed, self.question, *node)

    def take(self, node: Node, thought: Thought) -> None:
        """What a node hands on."""
        self.handed[node] = thought.handed
        if thought.states is not None:
            self.states[node] = thought.states
        if thought.outputs is not None:
            self.outputs[node] = thought.outputs

    def leave_out(self, node: Node) -> None:
        """A node failed: nobody hears it, and what came to its turn made nothing."""
        self.failed.add(node)
        self.arrivals.pop(node, None)
        self.prompts.pop(node, None)

    # -- what arrives ---------------------------------------------------------------------------

    async def fused(self, receiver: Node, coming: Coming) -> FusedCache:
        """One cache of the question and all that arrives at a receiver."""
        caches = await self.arriving(receiver, coming)
        model, shared = self.agent_model(receiver), self.shared[self.model_of[receiver[1]]]
        if self.config.rereads:
            prompts = [self.prompts[sender] for sender, _ in coming if sender not in self.failed]
            known = [(*each, prompt) for each, prompt in zip(caches, prompts, strict=True)]
            caches, self.read_again[receiver] = await reread(
                model, shared, known, self.weights, self.config.reread, self.config.reread_share
            )
        return model.fuse(shared, caches, self.weights)

    async def arriving(self, receiver: Node, coming: Coming) -> list[tuple[KVCache, EdgeKey | None]]:
        """The caches that arrive at a receiver, prepared for fusing; it is noted that they did."""
        agent_model, shared = self.agent_model(receiver), self.shared[self.model_of[receiver[1]]]
        caches: list[tuple[KVCache, EdgeKey | None]] = []
        arrivals = self.arrivals.setdefault(receiver, [])
        for sender, key in coming:
            if sender in self.failed:
                continue
            handed, arrival = await self._over(sender, receiver, key)
            arrivals.append(arrival)
            if handed is None:
                continue
            if self._intervention is not None and key is not None:  # what an agent keeps for itself is on no edge
                rope = agent_model.fuser.rope
                handed = self._intervention(Passing(self.question, sender, receiver, handed, shared, rope))
            caches.append((handed, key))
        return caches

    def payload_over(self, edge: Edge, receiver: Node) -> str:
        """The name of what goes over an edge."""
        return self.routes.payload((receiver[0], edge.source), receiver, edge.key).name

    def words(self, receiver: Node, coming: Coming) -> list[tuple[str, str]]:
        """(role, words) of those who said something to this receiver, or earlier to others what it remembers."""
        told = [sender for sender, key in coming if self.routes.payload(sender, receiver, key).words]
        return [(self.agents[node[1]].role, self.said[node]) for node in told if self.said.get(node, "").strip()]

    async def heard_over(self, sender: Node, edge: Edge) -> Received:
        """What a writer hears over an edge into the decision maker."""
        receiver = (sender[0], self.topology.decision_node)
        cache, arrival = await self._over(sender, receiver, edge.key)
        return Received(
            sender[1], self.agents[sender[1]].role, edge.weight,
            self.handed[sender].of_kind() if cache is None else cache,
            None if cache is None else self.states.get(sender),
            self.said.get(sender, "") if arrival.payload.words or arrival.payload.reasons else "",
        )  # fmt: skip

    def slots(self, receiver: Node, fused: FusedCache) -> int:
        """How many slots arrived, the question's aside."""
        return fused.slots - self.shared[self.model_of[receiver[1]]].slots

    # -- what is let go -------------------------------------------------------------------------

    def read(self, senders: Iterable[Node]) -> None:
        """A receiver has read these. Unless they are kept, what all have read is forgotten."""
        for node in () if self.keep else senders:
            self._readers[node] -= 1
            if not self._readers[node]:
                self.handed.pop(node, None)  # of an agent that failed there is nothing

    def let_go(self) -> None:
        """Forget all caches."""
        for caches in (self.shared, self.handed, self.carried):
            caches.clear()

    # -- one edge -------------------------------------------------------------------------------

    async def _over(self, sender: Node, receiver: Node, key: EdgeKey | None) -> tuple[KVCache | None, Arrival]:
        """The slots that go over an edge, prepared for their receiver, and the record of it; None where words go."""
        mine, theirs = self.model_of[sender[1]], self.model_of[receiver[1]]
        payload = self.routes.payload(sender, receiver, key)
        if mine == theirs:
            handed = over_edge(self.handed[sender], payload, self.routes.default)
            if handed is None:
                return None, Arrival(sender, key, payload)
            return handed, Arrival(sender, key, payload, handed.slots, handed.nbytes)
        link = None if payload.slots is None else self.agent_models.links[mine, theirs]
        states = None if link is None else handed_states(self.outputs[sender], self.states[sender], payload)
        if link is None or states is None or not len(states):
            return None, Arrival(sender, key, payload)
        once = ("carried", self.name(sender), theirs, len(states))
        (carried, prepared, size), _ = await self._over_links.once(
            once, lambda: self._carry(link, sender, states, theirs)
        )
        whose: Carried = (sender, theirs, payload.slots == "latents")
        if self.keep:
            self.carried[whose] = carried
        return prepared, Arrival(sender, key, payload, prepared.slots, size, whose)

    async def _carry(self, link: Link, sender: Node, states: Tensor, model: int) -> tuple[KVCache, KVCache, int]:
        """What a link brings to a model, as slots of that model; the same prepared for fusing; and the bytes that
        crossed: of the states or the embeddings, whichever are less, for a map may stand on either side."""
        agent_model = self.parts.models[model]
        with torch.no_grad():
            embeds = link.carry(states)
        carried = await agent_model.read(embeds, self.shared[model], self.parts.node_id(sender, len(self.agents)))
        size = min(states.nelement(), embeds.nelement()) * states.element_size()
        with torch.no_grad():
            return carried, agent_model.fuser.prepare(carried), size
