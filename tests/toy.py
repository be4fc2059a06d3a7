"""A toy task in the words of the tiny tokenizer, and graphs around the tiny models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from gcache.agents.decision import DecisionMaker
from gcache.agents.roles import Agent
from gcache.build import Built, assemble
from gcache.config import GraphSpec
from gcache.graph.cache_graph import CacheGraph
from gcache.graph.run_config import GraphConfig
from gcache.llm.api.client import ApiLLM
from gcache.llm.local import LocalLLM
from gcache.tasks.example import Example, Grade

AGENTS = (
    Agent("planner", "the planner of the plan", "plan each step", private="the box has 3 red apples"),
    Agent("critic", "the critic of the sum", "find the final sum", private="there are 2 blue apples and 1 box"),
    Agent("solver", "you solve it", "solve it", private="she has 4 green apples"),
)
DECISION = DecisionMaker("you answer the question", "what is the answer ?")
QUESTIONS = (
    "how many red apples are there ?",
    "what is 2 + 3 ?",
    "how many apples has she ? give the sum of red and green apples",
    "is it blue ?",
    "what is in the box ?",
    "how many of the three are green ?",
    "what has the box ?",
    "find two",
)


@dataclass(frozen=True)
class ToyTask:
    """Right is any text that starts with one of a few words."""

    name: str = "toy"
    domain: str = "maths"
    max_new_tokens: int = 3
    right: frozenset[str] = field(default_factory=lambda: frozenset("0123456789") | {"a", "is", "the", "sum", "red"})

    def train(self, limit: int | None = None, seed: int = 0) -> Sequence[Example]:
        return [Example(f"toy-{i}", question, "") for i, question in enumerate(QUESTIONS)][:limit]

    def test(self, limit: int | None = None, seed: int = 0) -> Sequence[Example]:
        return self.train(limit, seed)

    def grade(self, text: str, example: Example) -> Grade:
        words = text.split()
        if not words:
            return Grade("unparsed")
        return Grade("right" if words[0] in self.right else "wrong", words[0])


def toy_built(
    llm: LocalLLM, tokenizer: Any, n_agents: int = 3, graph: GraphConfig | None = None,
    api: ApiLLM | None = None, **spec: Any,
) -> Built:  # fmt: skip
    """A graph of the toy agents; a learned topology on hashed features unless told otherwise."""
    settings = {"encoder": "hash", "hidden_dim": 8, "decision_probability": 0.6, "agent_probability": 0.4, **spec}
    made = assemble(
        GraphSpec(graph=graph or GraphConfig(latent_steps=1, max_new_tokens=3), **settings), llm, tokenizer, api=api
    )
    source, fuser, config = made.graph.topology_provider, made.graph.fuser, made.graph.config
    toy = CacheGraph(llm, tokenizer, AGENTS[:n_agents], DECISION, source, fuser, config, made.graph.writer)
    return Built(made.spec, toy, llm, made.policy, made.fingerprint)
