"""A graph of agents around one model. It holds nothing of any question, so any number of runs
go on at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import torch

from gcache.agents.decision import DecisionMaker
from gcache.agents.layout import ChatLayout, with_said
from gcache.agents.roles import Agent, agents_for
from gcache.cache.fuser import CacheFuser
from gcache.cache.kv_cache import FusedCache, KVCache
from gcache.errors import ApiError, BudgetSpent, ConfigError
from gcache.gnn.topology import Topology
from gcache.graph.hand_over import Node, Weights, fused_for
from gcache.graph.records import GraphConfig, RunResult
from gcache.graph.run import Run, Thoughts
from gcache.graph.sources import TopologyDistribution, TopologySource
from gcache.graph.writers import LocalWriter, Writer
from gcache.llm.batching import LLM, BatchingLLM
from gcache.tasks.example import Example

#: Questions in flight at once where nobody says otherwise.
IN_FLIGHT = 64
#: What an agent is asked for its text.
SPEAK = "Say in a few sentences what you found, for the others to go on from."
#: Prompts whose tokens are remembered.
KNOWN_PROMPTS = 1000


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
        self.agents = tuple(agents)
        self.decision = decision
        self.source_of_topologies = source
        self.fuser = fuser
        self.config = config or GraphConfig()
        self.writer: Writer = writer or LocalWriter()
        self._prompts: dict[tuple[str, bool], tuple[int, ...]] = {}  # tokens of prompts, which repeat

    async def arun(
        self,
        example: Example | str,
        *,
        topology: Topology | None = None,
        sample: bool = False,
        temperature: float = 0.0,
        seed: int = 0,
        thoughts: Thoughts | None = None,
        keep_caches: bool = True,
    ) -> RunResult:
        """Answer one question.

        Args:
            example: a question, or a task's example.
            topology: run on this one; else on the source's most likely one, or with `sample`
                on one drawn by `seed`.
            temperature: of the answer's text; 0 is greedy.
            seed: of the topology's and the text's draws.
            thoughts: share equal thoughts with the other rollouts of this question.
            keep_caches: whether the result holds the caches of the question and the agents.
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
        run = Run(self, asked, agents, topology, log_prob, temperature, seed, thoughts, keep_caches)
        return await run.go()

    def run(self, example: Example | str, **options: Any) -> RunResult:
        """`arun` for code that is not asynchronous."""
        return asyncio.run(self.arun(example, **options))

    async def arun_all(
        self,
        examples: Sequence[Example],
        *,
        in_flight: int = IN_FLIGHT,
        keep_caches: bool = False,
        topology: Callable[[Example], Topology] | None = None,
        on_result: Callable[[int, RunResult], None] | None = None,
        on_failure: Callable[[int, ApiError], None] | None = None,
        **options: Any,
    ) -> list[RunResult]:
        """Answer many questions, so many at a time; results in the order of the questions.

        Args:
            in_flight: questions that are thought about or written at once: as one is answered,
                the next begins. Twice the batch of texts keeps that batch full.
            topology: of each question; else the source's.
            on_result: called with a question's number and result as soon as it is answered.
            options: see `arun`.

            on_failure: called with the number of a question whose API failed for good, and how; it is
                missing in the results, and the others go on. Once a budget is spent, no further
                question is asked, and nothing is called for those that were not.

        The first run that fails otherwise stops the others and raises.
        """
        if in_flight < 1:
            raise ConfigError(f"in_flight must be 1 or more, got {in_flight}")
        results: dict[int, RunResult] = {}
        coming = iter(enumerate(examples))

        async def one_after_another() -> None:
            for number, example in coming:
                chosen = topology(example) if topology else None
                try:
                    result = await self.arun(example, topology=chosen, keep_caches=keep_caches, **options)
                except ApiError as error:
                    if on_failure is None:
                        raise
                    on_failure(number, error)
                    if isinstance(error, BudgetSpent):
                        return
                    continue
                results[number] = result
                if on_result:
                    on_result(number, result)

        workers = [asyncio.create_task(one_after_another()) for _ in range(min(in_flight, len(examples)))]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
        return [results[number] for number in sorted(results)]

    def run_all(self, examples: Sequence[Example], **options: Any) -> list[RunResult]:
        """`arun_all` for code that is not asynchronous."""
        return asyncio.run(self.arun_all(examples, **options))

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

    def agent_tokens(self, agent: Agent, said: Sequence[tuple[str, str]] = ()) -> tuple[int, ...]:
        """An agent's prompt, with what others said, as (role, words), before its own words."""
        key = (with_said(agent.prompt, said), self.config.latent_steps > 0)
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

    def source(self, node: Node, n_agents: int) -> int:
        """The number that marks a node's slots."""
        return node[0] * n_agents + node[1]

    def fuse(
        self, shared: KVCache, arriving: Sequence[tuple[KVCache, tuple[int, int] | None]], weights: Weights
    ) -> FusedCache:
        """Fuse without gradient."""
        with torch.no_grad():
            return fused_for(self.fuser, shared, arriving, weights)
