"""What a run of caches needs of its graph: models, prompts and the numbers of its nodes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gcache.agents.decision import DecisionMaker
from gcache.agents.prompts import with_said
from gcache.agents.roles import Agent
from gcache.cache.fusers.base import CacheFuser
from gcache.gnn.topology import Node, Topology
from gcache.graph.agent_models import AgentModel, AgentModels
from gcache.graph.run_config import GraphConfig
from gcache.graph.writers.registry import LocalWriter, Writer
from gcache.llm.scheduler import LLM


class Parts:
    """The parts of a `CacheGraph`, see there, that a run and its replay share.

    Attributes:
        models: a model each, with its prompts and its fuser; the decision maker's is the first.
    """

    def __init__(
        self,
        llm: LLM,
        tokenizer: Any,
        decision: DecisionMaker,
        fuser: CacheFuser,
        config: GraphConfig,
        writer: Writer | None = None,
        agent_models: AgentModels | None = None,
    ) -> None:
        self.config, self.decision = config, decision
        self.agent_models = agent_models or AgentModels()
        own = AgentModel(llm, tokenizer, fuser, config.template, config.question_order)
        self.models = (own, *self.agent_models.others)
        self.llm, self.layout, self.fuser = self.models[0].llm, self.models[0].layout, fuser
        self.writer: Writer = writer or LocalWriter()

    @property
    def is_mixed(self) -> bool:
        """Whether any agent thinks with another model than the decision maker."""
        return bool(self.agent_models.others)

    def agent_tokens(
        self,
        agent: Agent,
        question: str,
        said: Sequence[tuple[str, str]] = (),
        latent_steps: int | None = None,
        model: int = 0,
        variables: str = "",
        reasons: bool = False,
    ) -> tuple[int, ...]:
        """An agent's prompt behind a question, with what others said, as (role, words), before its own words; None
        latent steps are as many as everybody's.

        Args:
            variables: of the chat template, see `Layouts.of`.
            reasons: whether it writes a solution.
        """
        steps = self.config.latent_steps if latent_steps is None else latent_steps
        words = agent.solving_prompt(self.decision.statement) if reasons else agent.prompt
        return self.models[model].agent_tokens(words, said, steps > 0 or reasons, question, variables)

    def decision_tokens(
        self, question: str, said: Sequence[tuple[str, str]] = (), variables: str = "", judges: bool = False
    ) -> tuple[int, ...]:
        """The decision maker's prompt behind a question, with what others said before its own words.

        Args:
            judges: whether it hears solutions, and states an answer of these without one of its own.
        """
        decision = self.decision
        words = decision.judging if judges else decision.instructions
        prefix = decision.judging_prefix if judges else decision.answer_prefix
        return self.models[0].layouts.of(variables).decision(
            with_said(words, said), prefix, self.config.decision_turn, question=question
        )

    def latent_steps(self, topology: Topology, agent: int) -> int:
        """How many an agent takes: the topology's number, or everybody's."""
        return self.config.latent_steps if topology.latent_steps is None else topology.latent_steps[agent]

    def node_id(self, node: Node, n_agents: int) -> int:
        """The number that marks a node's slots."""
        return node[0] * n_agents + node[1]
