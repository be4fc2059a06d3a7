"""The caches of a run that is over, put together again from what the run recorded.

A run records what arrived at every turn (`RunResult.arrivals`). Training replays that record with gradient, and a
close-up looks at it. Neither asks again what goes over which edge.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import chain

from gcache.cache.fused_cache import FusedCache
from gcache.cache.kv_cache import KVCache
from gcache.gnn.payload import Payload
from gcache.gnn.topology import EdgeKey, Node
from gcache.graph.hand_over import Weights, fused_for, handed_on, over_edge
from gcache.graph.parts import Parts
from gcache.graph.result import Arrival, RunResult


def waves(result: RunResult) -> list[list[Node]]:
    """The turns of a run's agents, in waves: all that arrived at one wave was handed on in earlier ones."""
    found: list[list[Node]] = []
    done: set[Node] = set()
    waiting = sorted(node for node in result.arrivals if node[1] != result.topology.decision_node)
    while waiting:
        found.append([n for n in waiting if all(arrival.sender in done for arrival in result.arrivals[n])])
        done.update(found[-1])
        waiting = [n for n in waiting if n not in done]
    return found


def at_decision(result: RunResult, heard: Collection[int] | None = None) -> list[Arrival]:
    """What arrived at the decision maker.

    Args:
        heard: agents; None for all.
    """
    arrived = [a for node, those in result.arrivals.items() if node[1] == result.topology.decision_node for a in those]
    return [a for a in arrived if heard is None or a.sender[1] in heard]


def arriving(
    handed: Mapping[Node, KVCache], arrivals: Sequence[Arrival], default: Payload
) -> list[tuple[KVCache, EdgeKey | None]]:
    """The caches that arrived at a receiver, of what its senders handed on. What a link brought arrives whole."""
    found: list[tuple[KVCache, EdgeKey | None]] = []
    for arrival in arrivals:
        if arrival.slots is None:
            continue
        cache = handed[arrival.sender]
        whole = cache if arrival.carried is not None else over_edge(cache, arrival.payload, default)
        assert whole is not None  # slots arrived
        found.append((whole, arrival.key))
    return found


def handed_again(
    graph: Parts,
    result: RunResult,
    weights: Weights,
    shared: KVCache,
    own: Mapping[Node, KVCache],
    again: dict[int, KVCache] | None = None,
) -> dict[Node, KVCache]:
    """What the agents handed on in a run, prepared anew with the fuser, their own slots as constants.

    Only what the decision maker reads: with whole contexts that is everyone's, else its own predecessors'.

    Args:
        shared, own: the question's slots and each turn's.
        again: prepared caches by the identity of what they are of. Runs that share a thought share its cache.

    Raises:
        GcacheError: what links brought was let go.
    """
    again, payload = {} if again is None else again, graph.config.payload
    handed: dict[Node, KVCache] = {}
    if payload.slots == "context":
        for node in chain.from_iterable(waves(result)):
            received = fused_for(graph.fuser, shared, arriving(handed, result.arrivals[node], payload), weights)
            handed[node] = handed_on(graph.fuser, own[node], received, payload)
        return handed
    for arrival in at_decision(result):
        if arrival.slots is None:
            continue
        cache = own[arrival.sender] if arrival.carried is None else result.kept.carried()[arrival.carried]
        if id(cache) not in again:  # what a link brought is latents alone, so it is handed on whole either way
            again[id(cache)] = handed_on(graph.fuser, cache, FusedCache.plain(shared), payload)
        handed[arrival.sender] = again[id(cache)]
    return handed


def fused_again(
    graph: Parts,
    result: RunResult,
    weights: Weights,
    shared: KVCache,
    handed: Mapping[Node, KVCache],
    heard: Collection[int],
) -> FusedCache:
    """What a text of the decision maker was written on.

    Args:
        heard: the agents whose caches it was written on.
    """
    arrived = arriving(handed, at_decision(result, heard), graph.config.payload)
    return fused_for(graph.fuser, shared, arrived, weights)
