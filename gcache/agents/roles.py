"""Who the agents of a domain are.

A role is public: its description is what the topology policy sees. What an agent alone knows
stands in its `private` text, which reaches its own prompt and nothing else, but for a number of
the cue `content` where a policy asks for it (`gcache.gnn.cues`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gcache.errors import ConfigError, unknown
from gcache.runtime.numbers import require_whole
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
        solving: what its prompt says instead of `instructions` where it writes a solution of its own; "" for the same.
        cites: the roles of other agents that its `private` text names, which is public.
    """

    role: str
    description: str
    instructions: str = ""
    private: str = ""
    kind: str = ""
    solving: str = ""
    cites: tuple[str, ...] = ()

    @property
    def prompt(self) -> str:
        return "\n".join(part for part in (self.private, self.instructions) if part)

    def solving_prompt(self, statement: str) -> str:
        """Its prompt where it writes a solution, with how an answer is to be stated."""
        words = " ".join(part for part in (self.solving or self.instructions, statement) if part)
        return "\n".join(part for part in (self.private, words) if part)

    @property
    def label(self) -> str:
        return self.kind or self.role


MATHS: tuple[Agent, ...] = (
    Agent(
        "solver",
        "The solver, who works a maths problem out step by step to its number.",
        "You are the solver. Work the problem out step by step and find its number.",
        solving="Think step by step and write your working.",
    ),
    Agent(
        "analyst",
        "The analyst, who names the quantities of a maths problem and how they depend on each other.",
        "You are the analyst. Name the known and the asked quantities and the equation that joins them.",
        solving="You are the analyst. Say what is given and what is asked. Then think step by step and write your "
        "working.",
    ),
    Agent(
        "programmer",
        "The programmer, who writes a maths problem as a short program.",
        "You are the programmer. Write a short Python program whose result is the asked number.",
        solving="You are the programmer. Give every quantity a name. Then think step by step and write your working.",
    ),
    Agent(
        "inspector",
        "The inspector, who looks for mistakes in the working of a maths problem.",
        "You are the inspector. Check the units, the arithmetic and whether the asked thing is answered.",
        solving="You are the inspector. Think step by step and write your working. Then check whether it answers what "
        "was asked.",
    ),
)

SCIENCE: tuple[Agent, ...] = (
    Agent(
        "physicist",
        "The physicist, who reasons from laws, units and orders of magnitude.",
        "You are the physicist. Name the law behind the question, estimate, and check units and signs.",
    ),
    Agent(
        "chemist",
        "The chemist, who reasons about structures, mechanisms and conditions.",
        "You are the chemist. Draw up the structures and the mechanism, and say what the conditions change.",
    ),
    Agent(
        "biologist",
        "The biologist, who reasons about organisms, genes and experiments.",
        "You are the biologist. Say which process is meant, and what the experiment would show.",
    ),
    Agent(
        "sceptic",
        "The sceptic, who rules choices out one by one.",
        "You are the sceptic. Look for what is wrong with each choice, and keep what is left.",
    ),
)

MEDICINE: tuple[Agent, ...] = (
    Agent(
        "diagnostician",
        "The diagnostician, who goes from findings to the likeliest illness.",
        "You are the diagnostician. List the telling findings and the illness they point to.",
    ),
    Agent(
        "pharmacologist",
        "The pharmacologist, who knows drugs, their effects and their dangers.",
        "You are the pharmacologist. Say which drugs and mechanisms matter here, and what they would do.",
    ),
    Agent(
        "pathologist",
        "The pathologist, who explains what happens in tissues and cells.",
        "You are the pathologist. Explain the findings by what happens in organs, tissues and cells.",
    ),
    Agent(
        "examiner",
        "The examiner, who compares each choice with the findings.",
        "You are the examiner. Hold every choice against the findings and say which one fits them all.",
    ),
)

CODE: tuple[Agent, ...] = (
    Agent(
        "designer",
        "The designer, who chooses an algorithm and its data structures.",
        "You are the designer. Choose an algorithm, and name its steps and its cost.",
    ),
    Agent(
        "coder",
        "The coder, who writes the function in Python.",
        "You are the coder. Write the function in Python, with the name and the parameters asked for.",
    ),
    Agent(
        "tester",
        "The tester, who thinks of the inputs that break a program.",
        "You are the tester. Name the edge cases: empty, one, many, negative, equal, very large.",
    ),
    Agent(
        "reader",
        "The reader, who compares what is asked with what a program does.",
        "You are the reader. Go through the statement and its examples word by word and say what they demand.",
    ),
)

KNOWLEDGE: tuple[Agent, ...] = (
    Agent(
        "scholar",
        "The scholar, who recalls the facts that a question is about.",
        "You are the scholar. Recall the facts and definitions that decide the question.",
    ),
    Agent(
        "reasoner",
        "The reasoner, who goes from facts to what follows.",
        "You are the reasoner. Go from what is given to what follows, one step after another.",
    ),
    Agent(
        "experimenter",
        "The experimenter, who pictures the situation and what would be seen.",
        "You are the experimenter. Picture the situation and say what would be observed.",
    ),
    Agent(
        "doubter",
        "The doubter, who says why each tempting choice is wrong.",
        "You are the doubter. Say of each tempting choice why it is wrong, and what remains.",
    ),
)

#: Pipelines of any domain: one after another, and side by side.
PIPELINE: tuple[Agent, ...] = (
    Agent(
        "planner",
        "The planner, who lays out how a question can be answered.",
        "You are the planner. Lay out, step by step, how this question can be answered. Do not answer it.",
    ),
    Agent(
        "critic",
        "The critic, who looks for what is missing or wrong in a plan.",
        "You are the critic. Say what is missing or wrong in the plan so far, and how to mend it.",
    ),
    Agent(
        "refiner",
        "The refiner, who turns a plan and its critique into a better one.",
        "You are the refiner. Turn the plan and the critique into one improved plan, with its key steps worked out.",
    ),
)
EXPERTS: tuple[Agent, ...] = (
    Agent(
        "mathematician",
        "The mathematician, who answers by calculating and proving.",
        "You are the mathematician. Work on this question by calculation and proof, and state your result.",
    ),
    Agent(
        "scientist",
        "The scientist, who answers from knowledge of nature and people.",
        "You are the scientist. Work on this question from what is known of nature and people, and state your result.",
    ),
    Agent(
        "programmer",
        "The programmer, who answers by an algorithm.",
        "You are the programmer. Work on this question by writing down an algorithm, and state its result.",
    ),
)

#: Domain -> the agents that work on it. Those without any bring their own with every question.
DOMAINS: Mapping[str, tuple[Agent, ...]] = {
    "maths": MATHS,
    "science": SCIENCE,
    "medicine": MEDICINE,
    "code": CODE,
    "knowledge": KNOWLEDGE,
    "split_facts": (),
    "classification": (),
    "hidden_profile": (),
    "reading": (),
}


def pick_agents(domain: str, roles: Sequence[str] | None = None, count: int | None = None) -> tuple[Agent, ...]:
    """The agents of a domain: those named by `roles`, in that order, or the first `count`.

    A count beyond the domain's roles goes round again.

    Raises:
        ConfigError: unknown domain or role, or a count below 1.
    """
    if domain not in DOMAINS:
        raise unknown("domain", domain, DOMAINS)
    if count is not None:
        require_whole("the number of agents", count, 1)
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
        return tuple(
            Agent(n.role, n.description, private=n.text, kind=n.kind, cites=n.cites) for n in example.notes
        )
    if not default:
        raise ConfigError(
            f"question {example.id!r} brings no agents, and this graph has none of its own: they come with the "
            "questions of the task that it was trained on, so ask one of these (make_task(NAME).test(), or "
            "gcache inspect --question)"
        )
    return tuple(default)
