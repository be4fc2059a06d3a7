"""Agents that hand each other text: one prompt alone, text pipelines, and any other topology.

    said_i = write( question, what the predecessors of i said, the role of i )

The caches stay where they are: every agent reads the question and all that was said to it again.
One prompt alone is the graph without agents.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gcache.agents.decision import DecisionMaker
from gcache.agents.layout import ChatLayout, with_said
from gcache.agents.roles import Agent
from gcache.gnn.topology import Topology
from gcache.graph.records import TOKENS
from gcache.graph.sources import TopologySource
from gcache.llm.local import LocalLLM
from gcache.llm.requests import GenerateRequest, Generation
from gcache.methods.method import Answer
from gcache.tasks.example import Example

Node = tuple[int, int]  # (question, agent); the decision maker has the last number


@dataclass(frozen=True)
class TextGraph:
    """A method.

    Args:
        llm: writes all texts, greedily.
        agents: who they are; none for one prompt alone.
        decision: who answers.
        source: of the topologies.
        max_new_tokens: the most tokens of every text.
    """

    name: str
    llm: LocalLLM
    layout: ChatLayout
    agents: tuple[Agent, ...]
    decision: DecisionMaker
    source: TopologySource | None
    max_new_tokens: int

    def answer(self, examples: Sequence[Example], on_answer: Callable[[], None] = lambda: None) -> list[Answer]:
        """See `Method`. In waves: everyone writes whose predecessors have written."""
        graphs = [self._topology(example) for example in examples]
        written: dict[Node, Generation] = {}
        read: dict[Node, int] = {}
        waiting = [(q, agent) for q in range(len(examples)) for agent in [*sorted(graphs[q].heard), len(self.agents)]]
        while waiting:
            wave = [
                (q, agent) for q, agent in waiting
                if all((q, edge.source) in written for edge in graphs[q].into(agent))
            ]  # fmt: skip
            requests = [self._request(examples[q], graphs[q], q, agent, written) for q, agent in wave]
            for node, request, text in zip(wave, requests, self.llm.generate(requests), strict=True):
                written[node], read[node] = text, len(request.tokens)
                if node[1] == len(self.agents):
                    on_answer()
            waiting = [node for node in waiting if node not in written]
        return [self._answer(example, q, graphs[q], written, read) for q, example in enumerate(examples)]

    def _topology(self, example: Example) -> Topology:
        if not self.agents or self.source is None:
            return Topology(0, ())
        return self.source.distribution(self.agents, self.decision, example.question).most_likely()[0]

    def _request(
        self, example: Example, graph: Topology, q: int, agent: int, written: dict[Node, Generation]
    ) -> GenerateRequest:
        said = [(self.agents[e.source].role, written[q, e.source].text) for e in graph.into(agent)]
        question = self.layout.question(example.question)
        if agent == len(self.agents):
            words = with_said(self.decision.instructions, said)
            prompt = question + self.layout.decision(words, self.decision.answer_prefix, turn="same")
        else:
            prompt = question + self.layout.agent(with_said(self.agents[agent].prompt, said), thinks=True)
        return GenerateRequest(prompt, None, self.max_new_tokens)

    def _answer(
        self, example: Example, q: int, graph: Topology, written: dict[Node, Generation], read: dict[Node, int]
    ) -> Answer:
        nodes = [(q, agent) for agent in [*sorted(graph.heard), len(self.agents)]]
        tokens = dict.fromkeys(TOKENS, 0)
        tokens["prefilled"] = sum(read[node] for node in nodes)
        tokens["generated"] = sum(len(written[node].tokens) for node in nodes)
        said = tuple((self.agents[agent].role, written[q, agent].text) for _, agent in nodes[:-1])
        return Answer(example, written[nodes[-1]].text, tokens, said=said)
