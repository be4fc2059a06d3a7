"""The most likely topology of a distribution that leaves out edges which would close a cycle.

Edges are visited in order. One that is free adds its gain, log p if it is drawn and log(1 - p) if it is not;
one that would close a cycle is left out and adds nothing. Whether a later edge is free depends on the earlier
ones only through who reaches whom. So of all partial topologies with the same reachability the likeliest alone
can become the mode, and a search that keeps one of each is exact: at most one per partial order of the agents,
130,023 for six of them. A bound cuts most of these.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

#: The most agents for which the search is exact; with seven there are 6,129,859 partial orders.
EXACT_AGENTS = 6

Pair = tuple[int, int]


def likeliest_edges(n_agents: int, pairs: Sequence[Pair], drawn: Sequence[float], left: Sequence[float]) -> list[int]:
    """Numbers of the edges among agents in the most likely topology.

    Args:
        pairs: (source, target) in the order they are visited, both below `n_agents`.
        drawn, left: what each adds to the log-probability when it is drawn and when it is left out; 0 or less.

    Exact up to `EXACT_AGENTS`; beyond, `greedy_edges`.
    """
    greedy = greedy_edges(pairs, drawn, left)
    if n_agents > EXACT_AGENTS or len(pairs) < 2:
        return greedy
    least = score(pairs, drawn, left, set(greedy))
    closures = np.zeros(1, dtype=np.int64)  # bit a * N + b: a reaches b
    scores, chosen = np.zeros(1), np.zeros(1, dtype=np.int64)  # bits of edges
    for e, (source, target) in enumerate(pairs):
        forced = (closures >> (target * n_agents + source)) & 1 == 1
        free = ~forced
        closures = np.concatenate((closures, _with_edge(closures[free], source, target, n_agents)))
        scores = np.concatenate((scores + np.where(forced, 0.0, left[e]), scores[free] + drawn[e]))
        chosen = np.concatenate((chosen, chosen[free] | np.int64(1 << e)))
        hopeful = scores + _most(pairs[e + 1 :], drawn[e + 1 :], left[e + 1 :]) >= least - 1e-9
        closures, scores, chosen = closures[hopeful], scores[hopeful], chosen[hopeful]
        order = np.lexsort((chosen, -scores, closures))  # of equals, fewer and earlier edges
        first = np.ones(len(order), dtype=bool)
        first[1:] = np.diff(closures[order]) != 0
        kept = order[first]
        closures, scores, chosen = closures[kept], scores[kept], chosen[kept]
    best = int(chosen[np.lexsort((chosen, -scores))[0]])
    return [e for e in range(len(pairs)) if best >> e & 1]


def greedy_edges(pairs: Sequence[Pair], drawn: Sequence[float], left: Sequence[float]) -> list[int]:
    """Edges that are likelier drawn than left out, the likeliest first, unless one closes a cycle."""
    found: list[int] = []
    reached: set[Pair] = set()
    for e in sorted(range(len(pairs)), key=lambda e: left[e] - drawn[e]):
        source, target = pairs[e]
        if drawn[e] > left[e] and (target, source) not in reached:
            found.append(e)
            reached = closed(reached, pairs[e])
    return sorted(found)


def closed(reached: set[Pair], pair: Pair) -> set[Pair]:
    """Who reaches whom with one more edge; everyone reaches itself, which is not written down."""
    source, target = pair
    before = {source, *(a for a, b in reached if b == source)}
    after = {target, *(b for a, b in reached if a == target)}
    return reached | {(a, b) for a in before for b in after}


def score(pairs: Sequence[Pair], drawn: Sequence[float], left: Sequence[float], wanted: set[int]) -> float:
    """What some edges, without cycles, add to the log-probability."""
    reached: set[Pair] = set()
    total = 0.0
    for e, (source, target) in enumerate(pairs):
        if (target, source) in reached:
            continue
        total += drawn[e] if e in wanted else left[e]
        if e in wanted:
            reached = closed(reached, pairs[e])
    return total


def _with_edge(closures: np.ndarray, source: int, target: int, n_agents: int) -> np.ndarray:
    """Who reaches whom with one more edge, of each of (S,) closures."""
    row = (1 << n_agents) - 1
    more = ((closures >> (target * n_agents)) & row) | (1 << target)
    found: np.ndarray = closures.copy()
    for agent in range(n_agents):
        reaches = 1 if agent == source else (closures >> (agent * n_agents + source)) & 1
        found |= (more * reaches) << (agent * n_agents)
    return found


def _most(pairs: Sequence[Pair], drawn: Sequence[float], left: Sequence[float]) -> float:
    """No less than what edges still to come can add.

    Of i -> j and j -> i at most one can be forced out, so two agents add at most the largest of their four gains. An
    edge whose reverse is not among them can be forced out, which adds 0.
    """
    known = {pair: max(drawn[e], left[e]) for e, pair in enumerate(pairs)}
    total = 0.0
    for (source, target), most in known.items():
        if source < target and (target, source) in known:
            total += max(most, known[target, source])
    return total
