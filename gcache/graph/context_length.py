"""Whether a question fits the model's positions, before anything is computed.

    end of an agent's slots   = where the last of what it hears ends + its prompt + its latent steps
    what must fit             = the end of the decision maker's prompt + the answer at its longest

With sequential positions what is heard lies one after another, so its lengths add up instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gcache.agents.prompts import ChatLayout
from gcache.agents.roles import Agent
from gcache.gnn.topology import EdgeKey, Node, Topology
from gcache.graph.parts import Parts
from gcache.graph.routes import Routes
from gcache.graph.run_config import GraphConfig

#: Tokens that stand around what another agent said, its role among them.
AROUND_WORDS = 16


@dataclass(frozen=True)
class PlannedRun:
    """A question that is about to be run.

    Attributes:
        most: tokens of the answer.
        variables: of the chat template, see `Layouts.of`.
        at_longest: whether what agents will say counts at its longest, instead of not at all.
    """

    question: str
    agents: Sequence[Agent]
    topology: Topology
    most: int
    variables: str = ""
    at_longest: bool = False


def positions_of_caches(graph: Parts, place: PlannedRun) -> int:
    """Positions that a question takes where agents hand on caches."""
    return _Lengths(graph, place).needed(place.most)


def positions_of_words(config: GraphConfig, instructions: str, layout: ChatLayout, place: PlannedRun) -> int:
    """The same where the local model speaks for all agents.

    Args:
        instructions: the decision maker's.
    """
    said, question = config.speak_tokens, place.question

    def asked(words: str) -> int:
        return len(layout.decision(words, turn="same", question=question))

    agents, decision = [asked(agent.prompt) for agent in place.agents], asked(instructions)
    start = len(layout.question(question))
    if place.at_longest:
        heard = len(place.topology.edges) * (said + AROUND_WORDS)
        return start + max(decision, *agents, 0) + heard + max(place.most, said)
    return start + max(decision + place.most, *(tokens + said for tokens in agents), 0)


class _Lengths:
    """Where the slots of every turn end."""

    def __init__(self, graph: Parts, place: PlannedRun) -> None:
        self.graph, self.config, self.agents, self.topology = graph, graph.config, place.agents, place.topology
        self.words, self.variables = place.question, place.variables
        self.question = len(graph.models[0].layouts.of(self.variables).question(self.words))
        self.sequential = getattr(graph.fuser, "positions", "parallel") == "sequential"
        self.routes = Routes(self.config.payload, place.topology, graph.agent_models)
        ends = [((0, edge.source), (0, edge.target), edge.key) for edge in place.topology.edges]
        self.reasoning = {sender[1] for sender, _, key in ends if self.routes.reasons(key)}
        self.longest = max(self.config.speak_tokens, self.config.reason_tokens if self.reasoning else 0)
        self.said = self.longest + AROUND_WORDS if place.at_longest else 0
        self.speaking = {sender[1] for sender, target, key in ends if self.routes.payload(sender, target, key).words}
        self.ends: dict[Node, int] = {}
        self.own: dict[Node, int] = {}

    def needed(self, most: int) -> int:
        last = self.config.num_rounds - 1
        edges = self.topology.into(self.topology.decision_node)
        coming: list[tuple[Node, EdgeKey | None]] = [((last, edge.source), edge.key) for edge in edges]
        judges = any(edge.source in self.reasoning for edge in edges) or self.graph.decision.method == "marginal"
        decision = self.graph.decision_tokens(self.words, variables=self.variables, judges=judges)
        receiver = (last, self.topology.decision_node)
        if self.graph.decision.method == "marginal" and self.graph.decision.states_words:
            most = max(most, self.longest + 1)  # a whole text may be the answer that is read
        answer = self._start(coming) + len(decision) + self._words(receiver, coming) + most
        turns = max(self.ends.values(), default=0)
        if self.config.rereads and len(coming) > 1 and not self.sequential:  # they are read behind the others at first
            again = max(self.own[sender] for sender, _ in coming)
            if not self.config.reread_share:
                again = min(self.config.reread, again)
            turns = max(turns, self._start(coming) + again)
        if self.speaking:
            turns += len(self.graph.models[0].speak_tokens(self.words, self.variables)) + self.config.speak_tokens
        return max(answer, turns)

    def _start(self, coming: Sequence[tuple[Node, EdgeKey | None]]) -> int:
        """Where a receiver goes on."""
        ends = [self._end(sender) for sender, _ in coming]
        if not self.sequential:
            return max([self.question, *ends])
        heard = {sender for sender, _ in coming}
        if self.routes.default.slots == "context":  # and all that these had, once
            heard = self._with_those_before(heard)
        return self.question + sum(self.own[sender] for sender in heard)

    def _with_those_before(self, nodes: set[Node]) -> set[Node]:
        found: set[Node] = set()
        frontier = list(nodes)
        while frontier:
            node = frontier.pop()
            if node not in found:
                found.add(node)
                frontier += [sender for sender, _ in self.topology.senders(*node)]
        return found

    def _end(self, node: Node) -> int:
        if node not in self.ends:
            coming = self.topology.senders(*node)
            steps = self.graph.latent_steps(self.topology, node[1])
            start = self._start(coming)
            agent = self.agents[node[1]]
            reasons = node[1] in self.reasoning
            tokens = self.graph.agent_tokens(
                agent, self.words, latent_steps=steps, variables=self.variables, reasons=reasons
            )
            solution = self.config.reason_tokens - 1 if reasons else 0  # its last token has no slot
            self.own[node] = len(tokens) + self._words(node, coming) + steps + solution
            self.ends[node] = start + self.own[node]
        return self.ends[node]

    def _words(self, receiver: Node, coming: Sequence[tuple[Node, EdgeKey | None]]) -> int:
        """Tokens, at most, of what is said to a receiver, and of what it remembers to have said."""
        told = [sender for sender, key in coming if self.routes.payload(sender, receiver, key).words]
        return sum(self.said for sender in told if sender[1] in self.speaking)
