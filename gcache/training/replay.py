"""The log-probability of what a run wrote, computed once more with gradient.

A run itself carries no gradient. To learn from it, the decision maker's fused caches are built
again from the agents' caches with the fuser and the edge weights in the graph of autograd, and the
frozen model is asked how likely the written tokens were on them.

    gradient="decision"   the agents' caches are constants: gradient reaches the last hop. Exact
                          where no agent hands to another; else an approximation.
    gradient="full"       the agents think again, with gradient, so that it reaches every hop and
                          every latent step. Exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gcache.cache.kv_cache import FusedCache, KVCache
from gcache.errors import unknown
from gcache.graph.cache_graph import CacheGraph
from gcache.graph.hand_over import Node, Weights, fused_for, handed_on, senders
from gcache.graph.records import RunResult
from gcache.llm.local import LocalLLM
from gcache.llm.requests import LogProbRequest, ThinkRequest

GRADIENTS = ("decision", "full")


@dataclass(frozen=True)
class Replay:
    """A run and the edge weights to replay it with."""

    result: RunResult
    weights: Weights


def log_probs(graph: CacheGraph, llm: LocalLLM, replays: Sequence[Replay], gradient: str = "decision") -> list[Tensor]:
    """log pi(y | q, G) of each run, 0-dim, with gradient to the fuser and the edge weights.

    Raises:
        ConfigError: `gradient` is not one of `GRADIENTS`.
    """
    if gradient not in GRADIENTS:
        raise unknown("fuser gradient", gradient, GRADIENTS)
    again: dict[int, KVCache] = {}
    handed = [
        _handed_again(graph, llm, replay) if gradient == "full" else _handed_before(graph, replay, again)
        for replay in replays
    ]
    requests: list[LogProbRequest] = []
    owners: list[int] = []
    for number, (replay, caches) in enumerate(zip(replays, handed, strict=True)):
        result = replay.result
        last, decision = graph.config.rounds - 1, result.topology.decision_node
        for spoken in result.spoken:
            arriving = [(caches[last, agent], (agent, decision)) for agent in spoken.heard]
            past = fused_for(graph.fuser, result.shared, arriving, replay.weights)
            requests.append(LogProbRequest(spoken.tokens, spoken.generation.tokens, past, result.temperature))
            owners.append(number)
    totals: list[Tensor] = [torch.zeros((), device=llm.device) for _ in replays]
    for owner, scores in zip(owners, llm.log_prob(requests), strict=True):
        totals[owner] = totals[owner] + scores.sum()
    return totals


def _handed_before(graph: CacheGraph, replay: Replay, again: dict[int, KVCache]) -> dict[Node, KVCache]:
    """What each agent handed on in the run, its own slots as constants, prepared with gradient.

    `again` has the prepared caches of the other replays: runs that share a thought share its cache.
    """
    result, transfer = replay.result, graph.config.transfer
    caches = result.caches
    handed: dict[Node, KVCache] = {}
    for node in sorted_nodes(graph, result):
        if transfer != "context" and node not in read_by_decision(graph, result):
            continue  # nothing of it is in the decision maker's cache
        own = caches[node]
        if transfer == "context":
            coming = [(handed[s], e) for s, e in senders(result.topology, *node)]
            received = fused_for(graph.fuser, result.shared, coming, replay.weights)
            handed[node] = handed_on(graph.fuser, own, received, transfer)
            continue
        if id(own) not in again:
            again[id(own)] = handed_on(graph.fuser, own, FusedCache.plain(result.shared), transfer)
        handed[node] = again[id(own)]
    return handed


def read_by_decision(graph: CacheGraph, result: RunResult) -> set[Node]:
    """The nodes that hand to the decision maker themselves and were heard."""
    last = graph.config.rounds - 1
    return {(last, agent) for spoken in result.spoken for agent in spoken.heard}


def _handed_again(graph: CacheGraph, llm: LocalLLM, replay: Replay) -> dict[Node, KVCache]:
    """What each agent hands on, thought again with gradient."""
    result, config = replay.result, graph.config
    handed: dict[Node, KVCache] = {}
    for node in sorted_nodes(graph, result):
        coming = [(handed[s], e) for s, e in senders(result.topology, *node)]
        received = fused_for(graph.fuser, result.shared, coming, replay.weights)
        agent = result.agents[node[1]]
        source = graph.source(node, len(result.agents))
        request = ThinkRequest(graph.agent_tokens(agent), received, config.latent_steps, source)
        own = llm.think([request], gradient=True)[0]
        handed[node] = handed_on(graph.fuser, own, received, config.transfer)
    return handed


def sorted_nodes(graph: CacheGraph, result: RunResult) -> list[Node]:
    """The nodes that thought, every one after those that hand to it."""
    done: list[Node] = []
    waiting = sorted((round_, agent) for round_ in range(graph.config.rounds) for agent in result.topology.heard)
    while waiting:
        ready = [n for n in waiting if all(s in done for s, _ in senders(result.topology, *n))]
        done += ready
        waiting = [n for n in waiting if n not in ready]
    return done
