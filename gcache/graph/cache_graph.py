"""A graph of agents around one model, or several, which hand each other caches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gcache.agents.decision import DecisionMaker
from gcache.agents.prompts import with_said
from gcache.agents.roles import Agent
from gcache.cache.fusers.base import CacheFuser
from gcache.errors import ConfigError
from gcache.gnn.providers import TopologySource
from gcache.gnn.topology import Node, Topology
from gcache.graph.agent_graph import AgentGraph, Start
from gcache.graph.agent_models import Mixture, Thinker
from gcache.graph.result import GraphConfig, RunResult
from gcache.graph.room import Place, positions_of_caches
from gcache.graph.run import Run
from gcache.graph.writers.registry import LocalWriter, Writer
from gcache.llm.scheduler import LLM

#: Modes in which a text is written from what the decision maker's own model holds.
MIXED_MODES = ("local", "hybrid")


class CacheGraph(AgentGraph):
    """Agents that answer by handing each other caches.

    Args:
        llm: what the decision maker thinks with, and the agents, unless a `mixture` says otherwise.
        tokenizer: its tokenizer, with a chat template.
        agents: who they are, for questions that bring no agents of their own.
        decision: who answers.
        source: where topologies come from.
        fuser: how incoming caches become one.
        config: see `GraphConfig`.
        writer: who writes the decision maker's text; see `gcache.graph.writers.registry`.
        mixture: other models, and which agents think with them; see `gcache.graph.agent_models`.

    Raises:
        ConfigError: a mixture in a mode, or with a transfer, that is for one model.
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
        mixture: Mixture | None = None,
    ) -> None:
        self.mixture = mixture or Mixture()
        template = (config or GraphConfig()).template
        self.thinkers = (Thinker(llm, tokenizer, fuser, template), *self.mixture.others)
        self.llm, self.layout, self.fuser = self.thinkers[0].llm, self.thinkers[0].layout, fuser
        self.writer: Writer = writer or LocalWriter()
        super().__init__(agents, decision, source, config, self.writer.mode, self.writer.learns)
        if self.is_mixed:
            self._require_mixable()

    @property
    def is_mixed(self) -> bool:
        """Whether any agent thinks with another model than the decision maker."""
        return bool(self.mixture.others)

    def _require_mixable(self) -> None:
        if self.writer.mode not in MIXED_MODES:
            raise ConfigError(
                f"the mode {self.writer.mode!r} reads the thoughts of one model, but the agents have several; use "
                f"{' or '.join(MIXED_MODES)}"
            )
        if self.config.transfer == "context":
            raise ConfigError(
                "transfer='context' hands on what an agent received, which another model cannot read; use own or latent"
            )

    def positions(self, place: Place) -> tuple[int, int | None]:
        """See `AgentGraph`. Where models are mixed, each is asked as far as it goes."""
        context = getattr(self.llm.llm, "context", None)
        return (0, None) if context is None or self.is_mixed else (positions_of_caches(self, place), context)

    async def start(self, start: Start) -> RunResult:
        """See `gcache.graph.run`."""
        return await Run(self, start).go()

    # -- pieces that a run and its replay share ----------------------------------------------

    def agent_tokens(
        self,
        agent: Agent,
        question: str,
        said: Sequence[tuple[str, str]] = (),
        latent_steps: int | None = None,
        model: int = 0,
        variables: str = "",
    ) -> tuple[int, ...]:
        """An agent's prompt behind a question, with what others said, as (role, words), before its own words; None
        latent steps are as many as everybody's. `variables`: of the chat template, see `Layouts.of`."""
        steps = self.config.latent_steps if latent_steps is None else latent_steps
        return self.thinkers[model].agent_tokens(agent.prompt, said, steps > 0, question, variables)

    def decision_tokens(
        self, question: str, said: Sequence[tuple[str, str]] = (), variables: str = ""
    ) -> tuple[int, ...]:
        """The decision maker's prompt behind a question, with what others said before its own words."""
        return self.thinkers[0].layouts.of(variables).decision(
            with_said(self.decision.instructions, said), self.decision.answer_prefix, self.config.decision_turn,
            question=question,
        )  # fmt: skip

    def latent_steps(self, topology: Topology, agent: int) -> int:
        """How many an agent takes: the topology's number, or everybody's."""
        return self.config.latent_steps if topology.latent_steps is None else topology.latent_steps[agent]

    def source(self, node: Node, n_agents: int) -> int:
        """The number that marks a node's slots."""
        return node[0] * n_agents + node[1]
