"""What all graphs of agents have in common: who they are, who hands to whom, and how questions are run.

A graph holds nothing of any question, so any number of runs go on at once, in any number of event loops and threads.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import torch

from gcache.agents.chat_template import as_text
from gcache.agents.decision import DecisionMaker
from gcache.agents.roles import Agent
from gcache.errors import BudgetSpent, ConfigError, QuestionError
from gcache.gnn.providers import TopologyProvider
from gcache.gnn.team import Team, as_example
from gcache.gnn.topology import Topology
from gcache.graph.begin import Start
from gcache.graph.context_length import PlannedRun
from gcache.graph.events import Watch
from gcache.graph.loops import cancel_all, run_to_end
from gcache.graph.memo import RolloutMemo
from gcache.graph.passing import Intervention
from gcache.graph.result import MAX_CONCURRENT, RunResult
from gcache.graph.run_config import GraphConfig
from gcache.llm.context import too_long
from gcache.llm.forward.alignment import Alignment
from gcache.runtime.streams import stream
from gcache.tasks.example import Example

#: Runs a question on a topology; None for the provider's.
Ask = Callable[[Example, Topology | None], Awaitable[RunResult]]


class AgentGraph(Team, ABC):
    """Agents that answer questions together.

    Args:
        agents: who they are, for questions that bring no agents of their own.
        decision: who answers.
        provider: where topologies come from.
        config: see `GraphConfig`.
        mode: the generation mode's name.
        learns: whether the fuser and the edge weights learn from the answer's log-probability.
    """

    def __init__(
        self,
        agents: Sequence[Agent],
        decision: DecisionMaker,
        provider: TopologyProvider,
        config: GraphConfig | None = None,
        mode: str = "local",
        learns: bool = True,
    ) -> None:
        super().__init__(agents, decision, provider)
        self.config = config or GraphConfig()
        self.mode = mode
        self.learns = learns

    @property
    def may_reason(self) -> bool:
        """Whether agents write solutions, on any topology that may be drawn."""
        return False

    @abstractmethod
    async def start(self, start: Start) -> RunResult:
        """Run one question from its start to its answer."""

    def positions(self, place: PlannedRun) -> tuple[int, int | None]:
        """The positions that a question takes, and those that the local model was made for; None for no limit."""
        return 0, None

    def require_context(self, place: PlannedRun, name: str = "") -> None:
        """Refuse a question that would go beyond the model's context.

        Args:
            name: of the question, for the message.

        Raises:
            ContextError: it does not fit.
        """
        needed, context = self.positions(place)
        if context is not None and needed > context:
            raise too_long(needed, context, place.most, "the answer", name)

    # -- questions in, answers out --------------------------------------------------------------

    async def arun(
        self,
        example: Example | str,
        *,
        topology: Topology | None = None,
        sample: bool = False,
        temperature: float = 0.0,
        seed: int = 0,
        memo: RolloutMemo | None = None,
        keep_caches: bool = True,
        lenient: bool = False,
        intervention: Intervention | None = None,
        alignment: Alignment | None = None,
        max_new_tokens: int | None = None,
        stop: Sequence[str] = (),
        watch: Watch | None = None,
        keep_states: bool = False,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        top_p: float = 1.0,
        top_log_probs: int | None = None,
        words_seed: int | None = None,
        agents: Sequence[Agent] | None = None,
        words_alone: bool = False,
        alone_seed: int | None = None,
    ) -> RunResult:
        """Answer one question.

        Args:
            example: a question, or a task's example.
            topology: run on this one; else on the provider's most likely one, or with `sample`
                on one drawn by `seed`.
            temperature: of the answer's text; 0 is greedy.
            seed: of all draws of this run; the topology and each text have a stream of their own, of this seed
                and the question.
            memo: share equal thoughts with the other rollouts of this question.
            keep_caches: whether the result holds the caches of the question and the agents.
            lenient: whether an agent whose API fails for good is gone on without; the decision
                maker's failure is the run's.
            intervention: what becomes of every cache on its way; see `gcache.evaluation.interventions`.
            alignment: what latent steps feed back instead of the model's own `Alignment`.
            max_new_tokens: the most tokens of the answer; None for the graph's.
            stop: words at which a text of the local model ends, and before which it is cut.
            watch: told of every event of the run as it happens; see `gcache.graph.events`.
            keep_states: whether the result holds the hidden states of latent steps.
            chat_template_kwargs: variables of the chat template, for this question alone.
            top_p: the answer's tokens are drawn from the most likely ones that hold this share. What is drawn so
                cannot be replayed: its log-probability is not the policy's.
            top_log_probs: so many of the likeliest tokens are told beside each of the answer's; see `Generation`.
            words_seed: what agents that hear nobody draw their solutions by, so that runs of other seeds can have the
                same ones; None for `seed`.
            alone_seed: likewise of the decision maker's text where it hears nobody.
            words_alone: whether agents hand on their words instead of slots: those that write solutions, these.
            agents: who works on it instead of the graph's or the question's own; as many as a given topology has.

        Raises:
            ApiError: the API failed for good.
            ContextError: the question is too long for the local model.
        """
        asked = as_example(example)
        working = self.agents_of(asked) if agents is None else tuple(agents)
        log_prob = 0.0
        if topology is None:
            with torch.no_grad():
                distribution = self.distribution(asked)
                drawing = stream("topology", seed, asked.question)
                topology, drawn = distribution.sample(drawing) if sample else self.likeliest(distribution)
                log_prob = float(drawn)
        variables = as_text(chat_template_kwargs)
        most = max_new_tokens or self.config.max_new_tokens
        if len(working) != topology.n_agents:
            raise ConfigError(f"there are {len(working)} agents, but the topology has {topology.n_agents}")
        self.require_context(PlannedRun(asked.question, working, topology, most, variables), asked.id)
        return await self.start(
            Start(
                asked, working, topology, log_prob, temperature, seed, memo, keep_caches, lenient, intervention,
                alignment, max_new_tokens, tuple(stop), watch, keep_states, top_p, top_log_probs, variables,
                seed if words_seed is None else words_seed, words_alone, alone_seed,
            )
        )

    def run(self, example: Example | str, **options: Any) -> RunResult:
        """`arun` for code that is not asynchronous. Any number of threads may ask at once.

        Raises:
            LoopError: an event loop runs in this thread, as in a notebook; await `arun` there.
        """
        return run_to_end(lambda: self.arun(example, **options), "run", "await graph.arun(...)")

    async def arun_all(
        self,
        examples: Sequence[Example],
        *,
        max_concurrent: int = MAX_CONCURRENT,
        keep_caches: bool = False,
        topology: Callable[[Example], Topology] | None = None,
        ask: Ask | None = None,
        on_result: Callable[[int, RunResult], None] | None = None,
        on_failure: Callable[[int, QuestionError], None] | None = None,
        **options: Any,
    ) -> list[RunResult]:
        """Answer many questions, so many at a time; results in the order of the questions.

        Args:
            max_concurrent: questions that are thought about or written at once: as one is answered,
                the next begins. Twice the batch of texts keeps that batch full.
            topology: of each question; else the provider's.
            ask: how a question is run, on its topology; else by `arun`, with the `options`.
            on_result: called with a question's number and result as soon as it is answered.
            options: see `arun`.

            on_failure: called with the number of a question that failed for good, and how; it is
                missing in the results, and the others go on. Once a budget is spent, no further
                question is asked, and nothing is called for those that were not.

        The first run that fails otherwise stops the others and raises.
        """
        if max_concurrent < 1:
            raise ConfigError(f"max_concurrent must be 1 or more, got {max_concurrent}")
        results: dict[int, RunResult] = {}
        coming = iter(enumerate(examples))

        async def one_after_another() -> None:
            for number, example in coming:
                chosen = topology(example) if topology else None
                try:
                    if ask is None:
                        result = await self.arun(example, topology=chosen, keep_caches=keep_caches, **options)
                    else:
                        result = await ask(example, chosen)
                except QuestionError as error:
                    if on_failure is None:
                        raise
                    on_failure(number, error)
                    if isinstance(error, BudgetSpent):
                        return
                    continue
                results[number] = result
                if on_result:
                    on_result(number, result)

        workers = [asyncio.create_task(one_after_another()) for _ in range(min(max_concurrent, len(examples)))]
        try:
            await asyncio.gather(*workers)
        finally:
            cancel_all(workers)
        return [results[number] for number in sorted(results)]

    def run_all(self, examples: Sequence[Example], **options: Any) -> list[RunResult]:
        """`arun_all` for code that is not asynchronous; see `run`."""
        return run_to_end(lambda: self.arun_all(examples, **options), "run_all", "await graph.arun_all(...)")
