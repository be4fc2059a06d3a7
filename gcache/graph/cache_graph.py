"""A graph of agents around one model, which hand each other caches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from gcache.agents.decision import DecisionMaker
from gcache.agents.layout import ChatLayout, with_said
from gcache.agents.roles import Agent
from gcache.cache.fuser import CacheFuser
from gcache.cache.kv_cache import FusedCache, KVCache
from gcache.gnn.topology import EdgeKey, Node, Topology
from gcache.graph.agent_graph import AgentGraph, Start
from gcache.graph.hand_over import Weights, fused_for
from gcache.graph.records import GraphConfig, RunResult
from gcache.graph.run import Run
from gcache.graph.sources import TopologySource
from gcache.graph.writers import LocalWriter, Writer
from gcache.llm.batching import LLM, BatchingLLM

#: What an agent is asked for its text.
SPEAK = "Say in a few sentences what you found, for the others to go on from."
#: Prompts whose tokens are remembered.
KNOWN_PROMPTS = 1000


class CacheGraph(AgentGraph):
    """Agents that answer by handing each other caches.

    Args:
        llm: what the agents think with; its calls are batched over all runs in flight.
        tokenizer: its tokenizer, with a chat template.
        agents: who they are, for questions that bring no agents of their own.
        decision: who answers.
        source: where topologies come from.
        fuser: how incoming caches become one.
        config: see `GraphConfig`.
        writer: who writes the decision maker's text; see `gcache.graph.writers`.
    """

    def __init__(
        self,
        llm: LLM,
        tokenizer: Any,
        agents: Sequence[Agent],
        decision: DecisionMaker,
        source: TopologySource,
        fuser: CacheFuser,
        config: GraphConfig | None = None,
        writer: Writer | None = None,
    ) -> None:
        self.llm = BatchingLLM(llm)
        self.layout = ChatLayout.of(tokenizer)
        self.fuser = fuser
        self.writer: Writer = writer or LocalWriter()
        super().__init__(agents, decision, source, config, self.writer.mode, self.writer.learns)
        self._prompts: dict[tuple[str, bool], tuple[int, ...]] = {}  # tokens of prompts, which repeat

    async def start(self, start: Start) -> RunResult:
        """See `gcache.graph.run`."""
        return await Run(self, start).go()

    # -- pieces that a run and its replay share ----------------------------------------------

    def agent_tokens(
        self, agent: Agent, said: Sequence[tuple[str, str]] = (), latent_steps: int | None = None
    ) -> tuple[int, ...]:
        """An agent's prompt, with what others said, as (role, words), before its own words; None latent steps
        are as many as everybody's."""
        steps = self.config.latent_steps if latent_steps is None else latent_steps
        key = (with_said(agent.prompt, said), steps > 0)
        if key not in self._prompts:
            if len(self._prompts) >= KNOWN_PROMPTS:
                self._prompts.clear()
            self._prompts[key] = self.layout.agent(*key)
        return self._prompts[key]

    def decision_tokens(self, said: Sequence[tuple[str, str]] = ()) -> tuple[int, ...]:
        """The decision maker's prompt, with what others said before its own words."""
        return self.layout.decision(
            with_said(self.decision.instructions, said), self.decision.answer_prefix, self.config.decision_turn
        )

    def speak_tokens(self) -> tuple[int, ...]:
        """What an agent that has thought is asked, so that it says what it hands on."""
        return self.layout.decision(SPEAK)

    def latent_steps(self, topology: Topology, agent: int) -> int:
        """How many an agent takes: the topology's number, or everybody's."""
        return self.config.latent_steps if topology.latent_steps is None else topology.latent_steps[agent]

    def source(self, node: Node, n_agents: int) -> int:
        """The number that marks a node's slots."""
        return node[0] * n_agents + node[1]

    def fuse(
        self, shared: KVCache, arriving: Sequence[tuple[KVCache, EdgeKey | None]], weights: Weights
    ) -> FusedCache:
        """Fuse without gradient."""
        with torch.no_grad():
            return fused_for(self.fuser, shared, arriving, weights)
