"""A checkpoint on one question: its topology, what every agent thought and said, and what the answer attended to."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import torch
from torch import Tensor

from gcache.agents.roles import Agent
from gcache.cache.kv_cache import SHARED
from gcache.errors import GcacheError
from gcache.gnn.greedy import topology_name
from gcache.gnn.topology import DECISION, Edge, Topology
from gcache.graph.ballot import Ballot
from gcache.graph.cache_graph import CacheGraph
from gcache.graph.rebuild import at_decision
from gcache.graph.result import RunResult
from gcache.inspect.attention_shares import shares_of_answer
from gcache.inspect.readings import TOKENS, Reading, readings
from gcache.inspect.view import Frame, View, ViewEdge, ViewNode
from gcache.llm.local import LocalLLM
from gcache.tasks.example import Example

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CloseUp:
    """What a question's run showed.

    Attributes:
        result: the run.
        attention: (L, N + 2) float32 shares of the answer's attention, per layer: to the slots of each agent, to those
            of the decision maker's own words and text, and to the question's. None where the local model wrote nothing.
        readings: of the agents that were heard.
        handed: (source, target, delay) -> slots and bytes that went over the edge, in all rounds, counted as in
            `RunResult.edge_bytes`: where agents hand on all that they had, with the question's.
    """

    result: RunResult
    attention: Tensor | None
    readings: tuple[Reading | None, ...]
    handed: Mapping[tuple[int, int, int], tuple[int, int]]


def close_up(
    graph: CacheGraph, llm: LocalLLM, example: Example, tokens: int = TOKENS, write: bool = True, seed: int = 0
) -> CloseUp:
    """Run a question on its most likely topology (with many agents, its greedy one), and look at everything.

    Args:
        tokens, write: see `gcache.inspect.readings.readings`.

    Raises:
        GcacheError: the run's caches do not stay, for want of room under `max_cache_gb`.
    """
    result = graph.run(example, keep_states=True, seed=seed)
    n_agents, last = len(result.agents), graph.config.num_rounds - 1
    handed: dict[tuple[int, int, int], tuple[int, int]] = {}
    for (_, target), arrived in result.arrivals.items():
        for arrival in arrived:
            if arrival.key is not None and arrival.slots is not None:
                key = (arrival.sender[1], target, len(arrival.key) - 2)
                slots, size = handed.get(key, (0, 0))
                handed[key] = (slots + arrival.slots, size + arrival.nbytes)
    by_node = readings(graph, llm, [result], tokens, write)[0]
    latest: list[Reading | None] = [
        next((by_node[r, agent] for r in range(last, -1, -1) if (r, agent) in by_node), None)
        for agent in range(n_agents)
    ]
    return CloseUp(result, _attention(graph, llm, result), tuple(latest), handed)


def _attention(graph: CacheGraph, llm: LocalLLM, result: RunResult) -> Tensor | None:
    """See `CloseUp.attention`; the mean over the texts, where the decision maker wrote several."""
    n_agents, found = len(result.agents), []
    for shares, fused in shares_of_answer(graph, llm, result):
        own = shares.new_zeros(shares.shape[0], n_agents + 2)
        owners = fused.owners[0].cpu()
        columns = torch.where(owners == SHARED, n_agents + 1, owners % max(1, n_agents))
        columns = torch.cat((columns, columns.new_full((shares.shape[1] - len(owners),), n_agents)))
        found.append(own.index_add_(1, columns, shares))
    return torch.stack(found).mean(dim=0) if found else None


def view_of(close: CloseUp, graph: CacheGraph, *, title: str, task: str, model: str, step: int) -> View:
    """The close-up in plain values."""
    result = close.result
    ids = unique([DECISION, *(agent.role for agent in result.agents)])[1:]
    called = topology_name(graph, result.example)
    nodes = [_agent(close, ids[number], agent, number) for number, agent in enumerate(result.agents)]
    return View(
        title,
        f"one question, on its {called} topology",
        task,
        model,
        step,
        (*nodes, _decision(close, graph)),
        (Frame(step, f"after {step} steps", _edges(close, [*ids, DECISION])),),
        question=result.example.question,
        answer=result.answer,
        notes=tuple(s.note for s in result.trace if s.what == "memory"),
        topologies=called,
    )


def unique(names: Sequence[str]) -> list[str]:
    """The names, with numbers where one comes several times.

    >>> unique(["solver", "critic", "solver"])
    ['solver', 'critic', 'solver 2']
    """
    found: list[str] = []
    for name in names:
        numbered = (f"{name} {number}" for number in count(2))
        found.append(name if name not in found else next(other for other in numbered if other not in found))
    return found


def _agent(close: CloseUp, id_: str, agent: Agent, number: int) -> ViewNode:
    result, reading = close.result, close.readings[number]
    turns = [s for s in result.trace if s.agent == number and s.what != "memory"]
    said = [text for (_, who), text in sorted(result.said.items()) if who == number]
    details = [
        ("turns", ", ".join(s.what for s in turns)),
        ("read, tokens", str(sum(s.prefilled for s in turns))),
        ("latent steps", str(sum(s.latent for s in turns))),
        ("slots that arrived", str(sum(s.received for s in turns))),
        *([("tokens written", str(written))] if (written := _written(result, number)) else []),
        ("seconds", f"{sum(s.ended - s.started for s in turns):.2f}"),
        *_belief(result.ballot, number),
    ]
    attention = None if close.attention is None else tuple(close.attention[:, number].tolist())
    return ViewNode(
        id_, id_, False, tuple(details), agent.prompt, said[-1] if said else None,
        reading.steps if reading else (), (reading.text or None) if reading else None, attention,
    )  # fmt: skip


def _decision(close: CloseUp, graph: CacheGraph) -> ViewNode:
    result, n_agents = close.result, len(close.result.agents)
    turn = [s for s in result.trace if s.what == "answer"][-1]
    details = [("slots that arrived", str(turn.received)), ("tokens written", str(turn.generated))]
    if result.ballot is not None:
        details += _chances(result.ballot, result.ballot.probabilities)
        if (writer := result.ballot.choice.writer) is not None:
            details += [("the answer is the text of", result.agents[writer].role)]
    if close.attention is not None:
        mean = close.attention.mean(dim=0).tolist()
        details += [("attention on the question", f"{mean[n_agents + 1]:.3f}")]
        details += [("attention on its own words", f"{mean[n_agents]:.3f}")]
        details += [("attention on what was handed over", f"{sum(mean[:n_agents]):.3f}")]
    attention = None if close.attention is None else tuple(close.attention[:, n_agents].tolist())
    judges = result.ballot is not None or any(a.sender in result.solutions for a in at_decision(result))
    told = graph.decision.judging if judges else graph.decision.instructions
    return ViewNode(DECISION, DECISION, True, tuple(details), told, result.answer, attention=attention)


def _belief(ballot: Ballot | None, agent: int) -> list[tuple[str, str]]:
    """How much an agent was believed, and what its cache alone says of each answer."""
    if ballot is None or agent not in ballot.heard:
        return []
    share = ("share in the decision", f"{ballot.shares[ballot.heard.index(agent)]:.3f}")
    return [share, *(_chances(ballot, ballot.under(agent)) if len(ballot.options) > 1 else [])]


def _chances(ballot: Ballot, chances: Sequence[float]) -> list[tuple[str, str]]:
    """The probability of each answer, the likeliest of the decision first."""
    names = unique([f"probability of {option.answer[:40]}" for option in ballot.options])
    order = sorted(range(len(names)), key=lambda number: -ballot.probabilities[number])
    return [(names[number], f"{chances[number]:.3f}") for number in order]


def _written(result: RunResult, agent: int) -> int:
    """Tokens of an agent's texts, whoever wrote them first."""
    return sum(len(text.tokens) for (_, who), text in result.written.items() if who == agent)


def _edges(close: CloseUp, ids: Sequence[str]) -> tuple[ViewEdge, ...]:
    """The drawn edges with what they carried, then the candidates that were not drawn, at their probability."""
    topology: Topology = close.result.topology
    over = {(a.sender, a.key): a.payload for arrived in close.result.arrivals.values() for a in arrived}

    def words(edge: Edge) -> str | None:
        """What its sender wrote, of the last round in which it went over the edge."""
        told = [sender for (sender, key), payload in over.items()
                if key == edge.key and (payload.words or payload.reasons)]  # fmt: skip
        return close.result.said.get(max(told)) if told else None

    chances = {tuple(int(part) for part in row[:-1]): float(row[-1]) for row in topology.probabilities}

    def shown(edge: Edge, drawn: bool) -> ViewEdge:
        slots, size = close.handed.get((edge.source, edge.target, edge.delay), (0, 0)) if drawn else (None, None)
        return ViewEdge(
            ids[edge.source], ids[edge.target], chances.get(edge.key, edge.probability), bool(edge.delay),
            kept=1.0 if drawn else 0.0, weight=edge.weight if drawn else None, bytes=size, slots=slots,
            channel=edge.payload, words=words(edge) if drawn else None,
        )  # fmt: skip

    rest = [Edge(key[0], key[1], delay=len(key) - 2) for key in chances if key not in topology.pairs]
    return (*(shown(edge, True) for edge in topology.edges), *(shown(edge, False) for edge in rest))


def find_example(examples: Sequence[Example], wanted: str) -> Example:
    """A task's question by its id, or by its words: the first that says them, since others may say the same of other
    agents.

    Raises:
        GcacheError: there is none, with the way to see which there are.
    """
    found = [example for example in examples if wanted == example.id]
    found = found or [example for example in examples if wanted == example.question]
    if len(found) > 1:
        logger.warning("%d questions say this; here is %s, the others can be had by their ids", len(found), found[0].id)
    if found:
        return found[0]
    raise GcacheError(
        f"no question of the task is called or says {wanted!r}; agents of this task come with its questions, so pass "
        f"one of its own" + (f", for example --question {examples[0].id!r}" if examples else "")
    )


def attention_rows(view: View) -> list[list[Any]]:
    """[node, mean over layers, layer 0, layer 1, ...] of each node whose share is known."""
    return [[n.id, sum(n.attention) / len(n.attention), *n.attention] for n in view.nodes if n.attention]
