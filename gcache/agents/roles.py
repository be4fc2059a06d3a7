"""Who the agents of a domain are.

A role is public: its description is what the topology policy sees. What an agent alone knows
stands in its `private` text, which reaches its own prompt and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gcache.errors import ConfigError, unknown
from gcache.tasks.example import Example


@dataclass(frozen=True)
class Agent:
    """One agent.

    Attributes:
        role: a short name.
        description: one sentence; its embedding is the role's feature.
        instructions: what the agent's prompt says, apart from the question.
        private: what this agent alone knows; stands before the instructions.
        kind: a label for tables of learned edges; never shown to a model or the policy.
    """

    role: str
    description: str
    instructions: str = ""
    private: str = ""
    kind: str = ""

    @property
    def prompt(self) -> str:
        return "\n".join(part for part in (self.private, self.instructions) if part)

    @property
    def label(self) -> str:
        return self.kind or self.role


MATHS: tuple[Agent, ...] = (
    Agent(
        "solver",
        "The solver, who works a maths problem out step by step to its number.",
        "You are the solver. Work the problem out step by step and find its number.",
    ),
    Agent(
        "analyst",
        "The analyst, who names the quantities of a maths problem and how they depend on each other.",
        "You are the analyst. Name the known and the asked quantities and the equation that joins them.",
    ),
    Agent(
        "programmer",
        "The programmer, who writes a maths problem as a short program.",
        "You are the programmer. Write a short Python program whose result is the asked number.",
    ),
    Agent(
        "inspector",
        "The inspector, who looks for mistakes in the working of a maths problem.",
        "You are the inspector. Check the units, the arithmetic and whether the asked thing is answered.",
    ),
)

#: Domain -> the agents that work on it. `split_facts` brings its own with every question.
DOMAINS: Mapping[str, tuple[Agent, ...]] = {"maths": MATHS, "split_facts": ()}


def pick_agents(domain: str, roles: Sequence[str] | None = None, count: int | None = None) -> tuple[Agent, ...]:
    """The agents of a domain: those named by `roles`, in that order, or the first `count`.

    A count beyond the domain's roles goes round again.

    Raises:
        ConfigError: unknown domain or role, or a count below 1.
    """
    if domain not in DOMAINS:
        raise unknown("domain", domain, DOMAINS)
    if count is not None and count < 1:
        raise ConfigError(f"the number of agents must be 1 or more, got {count}")
    known = {agent.role: agent for agent in DOMAINS[domain]}
    if roles:
        for role in roles:
            if role not in known:
                raise unknown(f"role of the domain {domain!r}", role, known or ["(the task brings its own agents)"])
        return tuple(known[role] for role in roles)
    agents = DOMAINS[domain]
    if count is None or not agents:
        return agents
    return tuple(agents[i % len(agents)] for i in range(count))


def agents_for(example: Example, default: Sequence[Agent]) -> tuple[Agent, ...]:
    """The example's own agents where it brings notes, else the default ones.

    Raises:
        ConfigError: neither has any.
    """
    if example.notes:
        return tuple(Agent(n.role, n.description, private=n.text, kind=n.kind) for n in example.notes)
    if not default:
        raise ConfigError(f"question {example.id!r} brings no agents and none are configured")
    return tuple(default)
