"""Whether a question fits the model's positions, before anything is computed.

    end of an agent's slots   = where the last of what it hears ends + its prompt + its latent steps
    what must fit             = the end of the decision maker's prompt + the answer at its longest

With sequential positions what is heard lies one after another, so its lengths add up instead.
"""

from __future__ import annotations

from collections.abc import Sequence

from gcache.agents.roles import Agent
from gcache.gnn.topology import EdgeKey, Node, Topology
from gcache.graph.cache_graph import CacheGraph
from gcache.graph.speakers import LocalSpeaker
from gcache.graph.speaking_graph import SpeakingGraph
from gcache.serve.refusals import Refused
from gcache.serve.served import Served

#: Tokens that stand around what another agent said, its role among them.
AROUND_WORDS = 16
#: Log-probabilities that one request may ask for: 128 prompts of 4096 tokens, with the likeliest of each.
MOST_TOLD = 2**20


def check_room(served: Served, question: str, agents: Sequence[Agent], topology: Topology, most: int) -> None:
    """Refuse a question that would go beyond the model's context.

    Args:
        most: tokens of the answer.

    Raises:
        Refused: it does not fit.
    """
    context = served.context
    if context is None:
        return
    graph = served.graph
    if isinstance(graph, CacheGraph):
        needed = _Lengths(graph, question, agents, topology).needed(most)
    elif isinstance(graph, SpeakingGraph) and isinstance(graph.speaker, LocalSpeaker):
        words = [agent.prompt for agent in agents] + [graph.decision.instructions]
        layout, said = graph.speaker.layout, graph.config.speak_tokens
        heard = len(topology.edges) * (said + AROUND_WORDS)
        longest = max(len(layout.decision(text, turn="same")) for text in words)
        needed = len(layout.question(question)) + longest + heard + max(most, said)
    else:
        return
    if needed > context:
        raise too_long(needed, context, most)


def check_characters(served: Served, text: str) -> None:
    """Refuse a text that cannot fit, however its tokens fall: to make tokens of megabytes takes seconds.

    Raises:
        Refused: no token is long enough.
    """
    context = served.context
    if context is not None and len(text) > context * served.longest_token:
        raise too_long(-(-len(text) // served.longest_token), context, 0)


def check_completion(served: Served, count: int, most: int) -> int:
    """Tokens that may be written after a prompt: what is asked for, or what the context leaves, as vLLM has it.

    Args:
        count: tokens of the prompt.
        most: tokens that are asked for; 0 where only the prompt is asked about.

    Raises:
        Refused: more is asked for than the context has, or the prompt leaves no room for a token.
    """
    context = served.context
    if context is None:
        return most
    if most > context:
        raise Refused(
            400, f"max_tokens must be: a whole number of at most {context}, the model's context; got {most}",
            "max_tokens", "invalid_value",
        )  # fmt: skip
    if count + min(most, 1) > context:
        raise too_long(count + min(most, 1), context, min(most, 1))
    return min(most, context - count)


def check_told(tokens: int, likeliest: int | None) -> None:
    """Refuse a request whose log-probabilities alone would fill tens of megabytes.

    Args:
        tokens: of all choices at their longest, and of the prompts that they repeat.
        likeliest: told beside each; None where nothing is told.

    Raises:
        Refused: they are too many.
    """
    if likeliest is not None and tokens * (likeliest + 1) > MOST_TOLD:
        raise Refused(
            400,
            f"this asks for {tokens * (likeliest + 1)} log-probabilities, and one request may ask for {MOST_TOLD}; "
            "send fewer prompts at once, or lower max_tokens, n, or how many are told beside each token",
            "logprobs", "invalid_value",
        )  # fmt: skip


def too_long(needed: int, context: int, most: int) -> Refused:
    answer = f", {most} of them for the answer" if most else ""
    return Refused(
        400,
        f"this takes {needed} positions or more{answer}, but the model's context has {context}; shorten the prompt "
        "or lower max_tokens",
        code="context_length_exceeded",
    )


class _Lengths:
    """Where the slots of every turn end."""

    def __init__(self, graph: CacheGraph, question: str, agents: Sequence[Agent], topology: Topology) -> None:
        self.graph, self.config, self.agents, self.topology = graph, graph.config, agents, topology
        self.question = len(graph.layout.question(question))
        self.sequential = getattr(graph.fuser, "positions", "parallel") == "sequential"
        self.said = self.config.speak_tokens + AROUND_WORDS
        self.ends: dict[Node, int] = {}
        self.own: dict[Node, int] = {}

    def needed(self, most: int) -> int:
        last = self.config.rounds - 1
        edges = self.topology.into(self.topology.decision_node)
        coming: list[tuple[Node, EdgeKey | None]] = [((last, edge.source), edge.key) for edge in edges]
        answer = self._start(coming) + len(self.graph.decision_tokens()) + self._words(coming) + most
        turns = max(self.ends.values(), default=0)
        if self.config.hands == "both" or "text" in self.topology.channels.values():
            turns += len(self.graph.thinkers[0].speak_tokens()) + self.config.speak_tokens
        return max(answer, turns)

    def _start(self, coming: Sequence[tuple[Node, EdgeKey | None]]) -> int:
        """Where a receiver goes on."""
        ends = [self._end(sender) for sender, _ in coming]
        if not self.sequential:
            return max([self.question, *ends])
        heard = {sender for sender, _ in coming}
        if self.config.transfer == "context":  # and all that these had, once
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
            tokens = len(self.graph.agent_tokens(self.agents[node[1]], latent_steps=steps))
            self.own[node] = tokens + self._words(coming) + steps
            self.ends[node] = start + self.own[node]
        return self.ends[node]

    def _words(self, coming: Sequence[tuple[Node, EdgeKey | None]]) -> int:
        """Tokens, at most, of what is said to a receiver."""
        if self.config.hands == "both":
            return len(coming) * self.said
        return sum(self.said for _, key in coming if key is not None and self.topology.channels[key] == "text")
