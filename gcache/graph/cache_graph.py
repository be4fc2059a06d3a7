"""A graph of agents around one model. It holds nothing of any question, so any number of runs
go on at once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import torch

from gcache.agents.decision import DecisionMaker
from gcache.agents.layout import ChatLayout
from gcache.agents.roles import Agent, agents_for
from gcache.cache.fuser import CacheFuser
from gcache.cache.kv_cache import FusedCache, KVCache
from gcache.gnn.topology import Topology
from gcache.graph.hand_over import Node, Weights, fused_for
from gcache.graph.records import GraphConfig, RunResult
from gcache.graph.run import Run, Thoughts
from gcache.graph.sources import TopologyDistribution, TopologySource
from gcache.llm.batching import LLM, BatchingLLM
from gcache.tasks.example import Example


class CacheGraph:
    """Agents that answer by handing each other caches.

    Args:
        llm: what the agents think with; its calls are batched over all runs in flight.
        tokenizer: its tokenizer, with a chat template.
        agents: who they are, for questions that bring no agents of their own.
        decision: who answers.
        source: where topologies come from.
        fuser: how incoming caches become one.
        config: see `GraphConfig`.
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
    ) -> None:
        self.llm = BatchingLLM(llm)
        self.layout = ChatLayout.of(tokenizer)
        self.agents = tuple(agents)
        self.decision = decision
        self.source_of_topologies = source
        self.fuser = fuser
        self.config = config or GraphConfig()

    async def arun(
        self,
        example: Example | str,
        *,
        topology: Topology | None = None,
        sample: bool = False,
        temperature: float = 0.0,
        seed: int = 0,
        thoughts: Thoughts | None = None,
    ) -> RunResult:
        """Answer one question.

        Args:
            example: a question, or a task's example.
            topology: run on this one; else on the source's most likely one, or with `sample`
                on one drawn by `seed`.
            temperature: of the answer's text; 0 is greedy.
            seed: of the topology's and the text's draws.
            thoughts: share equal thoughts with the other rollouts of this question.
        """
        asked = Example("question", example, "") if isinstance(example, str) else example
        agents = agents_for(asked, self.agents)
        log_prob = 0.0
        if topology is None:
            with torch.no_grad():
                distribution = self.distribution(asked)
                generator = torch.Generator().manual_seed(seed)
                topology, drawn = distribution.sample(generator) if sample else distribution.most_likely()
                log_prob = float(drawn)
        run = Run(self, asked, agents, topology, log_prob, temperature, seed, thoughts or Thoughts())
        return await run.go()

    def run(self, example: Example | str, **options: Any) -> RunResult:
        """`arun` for code that is not asynchronous."""
        return asyncio.run(self.arun(example, **options))

    def distribution(self, example: Example | str) -> TopologyDistribution:
        """What the source says of a question; with gradient where it learns."""
        asked = Example("question", example, "") if isinstance(example, str) else example
        return self.source_of_topologies.distribution(
            agents_for(asked, self.agents), self.decision, asked.question
        )

    def topology(self, example: Example | str) -> Topology:
        """The most likely topology of a question."""
        with torch.no_grad():
            return self.distribution(example).most_likely()[0]

    # -- pieces that a run and its replay share ----------------------------------------------

    def agent_tokens(self, agent: Agent) -> tuple[int, ...]:
        return self.layout.agent(agent.prompt, thinks=self.config.latent_steps > 0)

    def decision_tokens(self) -> tuple[int, ...]:
        return self.layout.decision(
            self.decision.instructions, self.decision.answer_prefix, self.config.decision_turn
        )

    def source(self, node: Node, n_agents: int) -> int:
        """The number that marks a node's slots."""
        return node[0] * n_agents + node[1]

    def fuse(
        self, shared: KVCache, arriving: Sequence[tuple[KVCache, tuple[int, int] | None]], weights: Weights
    ) -> FusedCache:
        """Fuse without gradient."""
        with torch.no_grad():
            return fused_for(self.fuser, shared, arriving, weights)
