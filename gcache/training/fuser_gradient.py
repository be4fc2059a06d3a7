"""Which gradient of log pi a training run takes: the exact one where it can be had.

`decision` holds the agents' caches constant. So it is exact where no cache that the decision maker hears depends on
what learns. An agent's cache does where a cache arrives at the agent

    from another agent, over an edge whose weight is learned, or
    at the model whose fuser learns, from another agent or from the agent's own round before, or
    from an agent of which the same is true.

Words are part of the environment: no gradient goes through them. A fuser that drops some of what arrives may be
exact more often than is said here.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import torch

from gcache.agents.roles import Agent
from gcache.errors import ConfigError
from gcache.gnn.distribution import EdgeDistribution
from gcache.gnn.topology import EdgeKey, Node, senders
from gcache.graph.agent_graph import AgentGraph
from gcache.graph.cache_graph import CacheGraph
from gcache.llm.cache_budget import Limits
from gcache.tasks.choices import LETTERS
from gcache.tasks.example import Example
from gcache.training.config import AUTO

#: The most tokens that a number or a letter takes, with the one that ends the turn.
ANSWER = 24

#: Questions with agents of their own whose prompts are counted: those with the longest ones.
COUNTED = 16


@dataclass(frozen=True)
class TakenGradient:
    """The gradient of a training run, one of `gcache.training.config.GRADIENTS`, and why it is that one."""

    name: str
    why: str


def take_gradient(
    asked: str, graph: AgentGraph, examples: Sequence[Example], limits: Limits | None = None
) -> TakenGradient:
    """What a run takes: what was asked for, or for "auto" `decision` where it is exact on all topologies that may be
    drawn for the examples, else `full` where one run's replay fits into a pass.

    It is a function of the settings and the questions alone, so the same run takes the same.

    Args:
        limits: of the decision maker's model.
    """
    if asked != AUTO:
        return TakenGradient(asked, "it was asked for")
    if not isinstance(graph, CacheGraph) or not graph.learns:
        return TakenGradient("decision", "exact: no text's log-probability is learned from")
    if decision_is_exact(graph, examples):
        return TakenGradient("decision", "exact: no cache that the decision maker hears depends on what learns")
    if graph.is_mixed:
        return TakenGradient(
            "decision", "an approximation: agents hand to each other, and full does not go through several models"
        )
    tokens, most = most_replayed(graph, examples), (limits or Limits()).max_gradient_tokens
    size = f"a run may replay {tokens} tokens in full, and max_gradient_tokens is {most}"
    if tokens > most:
        return TakenGradient("decision", f"an approximation: agents' caches depend on what learns, but {size}")
    return TakenGradient("full", f"agents' caches depend on what learns; {size}")


def require_several_heard(graph: AgentGraph, gradient: TakenGradient) -> None:
    """Refuse to train a fuser that weighs caches beside each other where no text hears two.

    Raises:
        ConfigError: so it is.
    """
    if not isinstance(graph, CacheGraph) or not graph.learns or not _weighs(graph):
        return
    if not graph.decision.hears_together and gradient.name == "decision":
        raise ConfigError(
            f"nothing reaches the fuser: it weighs caches that are heard together, and with --decision_method "
            f"{graph.decision.method} each text hears one; choose marginal or refer, or --fuser concat"
        )


def _weighs(graph: CacheGraph) -> bool:
    return graph.fuser.keeps_slots and any(True for _ in graph.fuser.parameters())


def decision_is_exact(graph: CacheGraph, examples: Iterable[Example]) -> bool:
    """Whether `decision` is the exact gradient on every topology that may be drawn for these examples."""
    by_size = {len(graph.agents_of(example)): example for example in examples}
    return all(_is_exact_of(graph, n_agents, example) for n_agents, example in sorted(by_size.items()))


def _is_exact_of(graph: CacheGraph, n_agents: int, example: Example) -> bool:
    with torch.no_grad():
        distribution = graph.distribution(example)
    if isinstance(distribution, EdgeDistribution):
        return is_exact_on(graph, n_agents, distribution.candidates, True)
    topology = distribution.most_likely()[0]
    carrying = [edge.key for edge in topology.edges if edge.payload != "text"]
    return is_exact_on(graph, n_agents, carrying, False)


def is_exact_on(graph: CacheGraph, n_agents: int, edges: Collection[EdgeKey], weights_learn: bool) -> bool:
    """Whether `decision` is the exact gradient on any topology of these edges over which caches go.

    Args:
        edges: of one topology, or all that may be drawn, in which there may be cycles.
        weights_learn: whether a gradient to the edges' weights is wanted.
    """
    models = graph.agent_models.numbers(n_agents)
    fuser_learns = any(parameter.requires_grad for parameter in graph.fuser.parameters())
    last = graph.config.num_rounds - 1

    def carried(source: int, target: int) -> bool:
        routes = (graph.agent_models, *graph.agent_models.routed.values())
        return any(not route.tells(models[source], models[target]) for route in routes)

    # a solution that was drawn on what learns is learned from, also by those who are told its words alone
    solutions = graph.may_reason
    nodes = [(round_, agent) for round_ in range(last + 1) for agent in range(n_agents)]
    heard_by = {node: senders(edges, *node) for node in nodes}
    depend: set[Node] = set()
    before = -1
    while before != len(depend):
        before = len(depend)
        for node in nodes:
            caches = sum(carried(sender[1], node[1]) for sender, _ in heard_by[node])
            learns = fuser_learns and models[node[1]] == 0 and caches > (1 if graph.fuser.keeps_slots else 0)
            for sender, key in heard_by[node]:
                through = carried(sender[1], node[1])
                if (through and (learns or (weights_learn and key))) or (sender in depend and (through or solutions)):
                    depend.add(node)
    return not any((agent, n_agents) in edges and (solutions or carried(agent, n_agents)) and (last, agent) in depend
                   for agent in range(n_agents))  # fmt: skip


def most_replayed(graph: CacheGraph, examples: Sequence[Example]) -> int:
    """How many tokens `replay.log_probs` computes with gradient for one run in `full`, at most: every agent thinks
    again in every round, and every text is as long as it may be."""
    casts = sorted({graph.agents_of(example) for example in examples}, key=_characters)[-COUNTED:]
    return max((_replayed_of(graph, agents) for agents in casts), default=0)


def _characters(agents: Sequence[Agent]) -> tuple[int, list[str]]:
    return sum(len(agent.prompt) for agent in agents), [agent.prompt for agent in agents]


def _replayed_of(graph: CacheGraph, agents: Sequence[Agent]) -> int:
    config, policy = graph.config, getattr(graph.topology_provider, "policy", None)
    steps = max(policy.latent_choices) if policy is not None and policy.latent_choices else config.latent_steps
    speak = config.payload.words or (policy is not None and "text" in policy.channels)
    said = [(agent.role, "") for agent in agents] if speak else []
    reasons = graph.may_reason
    words, solution = len(said) * config.speak_tokens, config.reason_tokens if reasons else 0
    thinking = sum(
        len(graph.agent_tokens(agent, "", said, steps, reasons=reasons)) + words + solution + steps for agent in agents
    )
    texts = len(graph.decision.groups([1.0] * len(agents)))
    marginal = graph.decision.method == "marginal"
    prompt = len(graph.decision_tokens("", said, judges=reasons or marginal)) + words
    if marginal:  # every answer, behind every cache
        longest = max(solution, config.speak_tokens) if graph.decision.states_words else ANSWER
        return config.num_rounds * thinking + texts * max(len(agents), len(LETTERS)) * (prompt + longest)
    return config.num_rounds * thinking + texts * (prompt + config.max_new_tokens)
