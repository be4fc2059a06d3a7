"""A graph of agents around one model, or several, which hand each other caches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gcache.agents.decision import DecisionMaker
from gcache.agents.roles import Agent
from gcache.cache.fusers.base import CacheFuser
from gcache.errors import ConfigError
from gcache.gnn.providers import TopologyProvider
from gcache.graph.agent_graph import AgentGraph
from gcache.graph.agent_models import AgentModels
from gcache.graph.begin import Start
from gcache.graph.context_length import PlannedRun, positions_of_caches
from gcache.graph.parts import Parts
from gcache.graph.result import RunResult
from gcache.graph.run import Run
from gcache.graph.run_config import GraphConfig
from gcache.graph.writers.registry import Writer
from gcache.llm.scheduler import LLM

#: Modes in which a text is written from what the decision maker's own model holds.
MIXED_MODES = ("local", "hybrid")


class CacheGraph(Parts, AgentGraph):
    """Agents that answer by handing each other caches.

    Args:
        llm: what the decision maker thinks with, and the agents, unless `agent_models` says otherwise.
        tokenizer: its tokenizer, with a chat template.
        agents: who they are, for questions that bring no agents of their own.
        decision: who answers.
        provider: where topologies come from.
        fuser: how incoming caches become one.
        config: see `GraphConfig`.
        writer: who writes the decision maker's text; see `gcache.graph.writers.registry`.
        agent_models: other models, and which agents think with them; see `gcache.graph.agent_models`.

    Raises:
        ConfigError: several models in a mode, or with a transfer, that is for one model.
    """

    def __init__(
        self,
        llm: LLM,
        tokenizer: Any,
        agents: Sequence[Agent],
        decision: DecisionMaker,
        provider: TopologyProvider,
        fuser: CacheFuser,
        config: GraphConfig | None = None,
        writer: Writer | None = None,
        agent_models: AgentModels | None = None,
    ) -> None:
        config = config or GraphConfig()
        Parts.__init__(self, llm, tokenizer, decision, fuser, config, writer, agent_models)
        hard = getattr(getattr(provider, "policy", None), "hard_edges", False)  # then log p(G) says all
        learns = self.writer.learns and not hard
        AgentGraph.__init__(self, agents, decision, provider, config, self.writer.mode, learns)
        if self.is_mixed:
            self._require_mixable()

    def _require_mixable(self) -> None:
        if self.writer.mode not in MIXED_MODES:
            raise ConfigError(
                f"the mode {self.writer.mode!r} reads the thoughts of one model, but the agents have several; use "
                f"{' or '.join(MIXED_MODES)}"
            )
        if self.config.payload.slots == "context":
            raise ConfigError(
                "transfer='context' hands on what an agent received, which another model cannot read; use own or latent"
            )
        linked = any(link is not None for models in (self.agent_models, *self.agent_models.routed.values())
                     for link in models.links.values())  # fmt: skip
        if linked and self.may_reason:
            raise ConfigError(
                "a solution goes to another model as its words: the payload 'reasoning' needs --link text where agents "
                "have several models"
            )

    @property
    def may_reason(self) -> bool:
        """See `AgentGraph`."""
        chosen = getattr(getattr(self.topology_provider, "policy", None), "channels", ())
        return self.config.payload.reasons or "reasoning" in chosen

    def positions(self, place: PlannedRun) -> tuple[int, int | None]:
        """See `AgentGraph`. Where models are mixed, each is asked as far as it goes."""
        context = getattr(self.llm.llm, "context", None)
        return (0, None) if context is None or self.is_mixed else (positions_of_caches(self, place), context)

    async def start(self, start: Start) -> RunResult:
        """See `gcache.graph.run`."""
        return await Run(self, start).go()
