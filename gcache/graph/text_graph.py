"""A graph of agents that hand each other text, with the local model or an API speaking.

    said_i = say( question, what the predecessors of i said, the role of i )

Every agent reads the question and all that was said to it again: this is what handing on caches is
compared with. What learns is the topology alone, from log p(G | q): text has no weight that a
gradient could reach.
"""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Iterable, Sequence
from typing import TYPE_CHECKING

import torch

from gcache.agents.decision import DecisionMaker
from gcache.agents.roles import Agent
from gcache.errors import ApiError, BudgetSpent, ConfigError
from gcache.gnn.providers import TopologyDistribution, TopologyProvider
from gcache.gnn.topology import DECISION, Node, Topology
from gcache.graph.agent_graph import AgentGraph
from gcache.graph.begin import Start
from gcache.graph.context_length import PlannedRun, positions_of_words
from gcache.graph.events import Event, TextWatch
from gcache.graph.result import KeptCaches, RunResult, Spoken, Step
from gcache.graph.run_config import GraphConfig
from gcache.graph.schedule import Coming, run_in_dag_order
from gcache.graph.text_backends import LocalTextBackend, Prompt, TextBackend, TextOutput
from gcache.graph.trace import Trace
from gcache.llm.requests import Generation
from gcache.runtime.streams import derive
from gcache.tasks.example import Example

if TYPE_CHECKING:
    from gcache.runtime.streams import Stream


class TextGraph(AgentGraph):
    """Agents that answer by handing each other text; none at all is one prompt alone.

    Args:
        backend: says everything.
        agents, decision, provider, config, mode: see `AgentGraph`.
    """

    def __init__(
        self,
        backend: TextBackend,
        agents: Sequence[Agent],
        decision: DecisionMaker,
        provider: TopologyProvider,
        config: GraphConfig | None = None,
        mode: str = "local",
    ) -> None:
        self.backend = backend
        super().__init__(agents, decision, provider, config, mode, learns=False)

    def positions(self, place: PlannedRun) -> tuple[int, int | None]:
        """See `AgentGraph`."""
        if not isinstance(self.backend, LocalTextBackend):
            return 0, None
        context, layout = getattr(self.backend.llm.llm, "context", None), self.backend.layouts.of(place.variables)
        if context is None:
            return 0, None
        return positions_of_words(self.config, self.decision.instructions, layout, place), context

    async def start(self, start: Start) -> RunResult:
        """See `AgentGraph`.

        Raises:
            ConfigError: an intervention or an alignment, where no cache is handed over and nothing is latent.
        """
        if start.intervention or start.alignment:
            raise ConfigError("the agents of this graph hand on text alone; there is no cache to change")
        return await _Talk(self, start).go()

    def agents_of(self, example: Example) -> tuple[Agent, ...]:
        """As for any graph, but there may be none."""
        return super().agents_of(example) if example.notes or self.agents else ()

    def distribution(self, example: Example | str) -> TopologyDistribution:
        alone = isinstance(example, str) or not example.notes
        return _Alone() if alone and not self.agents else super().distribution(example)


class _Alone:
    """The only topology of no agents."""

    def sample(self, generator: Stream | None = None) -> tuple[Topology, torch.Tensor]:
        return self.most_likely()

    def most_likely(self) -> tuple[Topology, torch.Tensor]:
        return Topology(0), torch.zeros(())


class _Talk:
    """One question's way through the graph."""

    def __init__(self, graph: TextGraph, start: Start) -> None:
        self.graph, self.config, self.begin = graph, graph.config, start
        self.agents, self.topology = start.agents, start.topology
        self.said: dict[Node, str] = {}
        self.written: dict[Node, Generation] = {}
        self.prompts: dict[Node, tuple[int, ...]] = {}
        self.thinking = 0
        self.trace = Trace(start.watch)

    async def go(self) -> RunResult:
        self.trace.tell(Event("topology", self.topology))
        heard = self.topology.heard_nodes(self.config.num_rounds)
        await run_in_dag_order(self.topology, self.config.num_rounds, heard, self._speak, self._note_unheard)
        spoken, answer = await self._answer()
        return RunResult(
            self.begin.example, self.agents, answer, self.topology, self.begin.topology_log_prob, spoken,
            tuple(self.trace.steps), {}, KeptCaches(None, {}), self.begin.temperature, self.prompts, self.said,
            self.thinking, written=self.written,
        )  # fmt: skip

    def _note_unheard(self, node: Node) -> None:
        self._note(node[1], node[0], "unheard", self.trace.now())

    async def _speak(self, node: Node, coming: Coming) -> None:
        round_, agent = node
        started = self.trace.turn(round_, agent)
        # greedy: an agent's words are part of the environment, only the answer is drawn
        prompt = Prompt(
            self.begin.example.question, self.agents[agent].prompt, self._heard(sender for sender, _ in coming),
            self.config.speak_tokens, variables=self.begin.variables,
        )  # fmt: skip
        try:
            output, fresh = await self._once(node, prompt)
        except ApiError as error:
            if not self.begin.lenient or isinstance(error, BudgetSpent):
                raise
            self._note(agent, round_, "failed", started, note=str(error))
            return
        self.said[node], self.prompts[node] = output.text, output.tokens
        if output.generation is not None:
            self.written[node] = output.generation
            self.thinking += len(output.generation.tokens)
        if output.api is not None:
            self.thinking += output.api.completion_tokens or 0
        self._note(agent, round_, "say" if fresh else "shared", started, [output] if fresh else [])

    async def _answer(self) -> tuple[tuple[Spoken, ...], str]:
        decision, last = self.graph.decision, self.config.num_rounds - 1
        edges = self.topology.into(self.topology.decision_node)
        started = self.trace.turn(last, self.topology.decision_node)
        groups = decision.groups([e.weight for e in edges])
        watching = TextWatch.of(self.begin.watch, len(groups))
        prompts = [
            Prompt(
                self.begin.example.question, decision.instructions, self._heard((last, edges[i].source) for i in group),
                self.begin.max_new_tokens or self.config.max_new_tokens, decision.answer_prefix, self.begin.temperature,
                derive("text", self.begin.seed, self.begin.example.question, number), self.begin.stop,
                watching.written if watching else None, self.begin.top_p, self.begin.top_log_probs,
                watching.scored if watching else None, self.begin.variables,
            )
            for number, group in enumerate(groups)
        ]  # fmt: skip
        outputs = await asyncio.gather(*(self.graph.backend.say(prompt) for prompt in prompts))
        spoken = tuple(
            Spoken(tuple(edges[i].source for i in group), u.tokens, u.generation, u.api, thinks=u.thinks)
            for group, u in zip(groups, outputs, strict=True)
        )
        self._note(self.topology.decision_node, last, "answer", started, outputs)
        chosen = decision.combine(
            [s.text for s in spoken], [e.weight for e in edges] or [1.0], self.begin.example.question,
            [s.cut for s in spoken],
        )  # fmt: skip
        return spoken, spoken[chosen].text

    def _heard(self, nodes: Iterable[Node]) -> list[tuple[str, str]]:
        return [(self.agents[node[1]].role, self.said[node]) for node in nodes if self.said.get(node, "").strip()]

    async def _once(self, node: Node, prompt: Prompt) -> tuple[TextOutput, bool]:
        """Rollouts of a question that heard the same say the same."""
        return await self.begin.once(self._key(node, prompt), lambda: self.graph.backend.say(prompt))

    @staticmethod
    def _key(node: Node, prompt: Prompt) -> Hashable:
        return node, tuple(prompt.said)

    def _note(
        self, agent: int, round_: int, what: str, started: float, said: Sequence[TextOutput] = (), note: str = ""
    ) -> None:
        written = [u.generation for u in said if u.generation is not None]
        asked = [u.api for u in said if u.api is not None]
        role = self.agents[agent].role if agent < len(self.agents) else DECISION
        self.trace.note(Step(
            agent, role, round_, what, started, self.trace.now(),
            prefilled=sum(len(u.tokens) for u in said), generated=sum(len(g.tokens) for g in written), note=note,
            api_read=sum(t.prompt_tokens or 0 for t in asked),
            api_written=sum(t.completion_tokens or 0 for t in asked),
        ))  # fmt: skip
