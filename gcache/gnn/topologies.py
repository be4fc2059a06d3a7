"""Fixed topologies by name: each gives its edges for a number of agents. The decision maker is number n."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from gcache.errors import PluginError
from gcache.runtime.registry import Registry, refuses

Pairs = set[tuple[int, int]]
#: Of (number of agents n, randomness): the edges (sender, receiver) among 0 .. n - 1 and the decision maker n.
PairsOf = Callable[[int, random.Random], Pairs]


def _to_decision(n: int) -> Pairs:
    return {(i, n) for i in range(n)}


def _none(n: int, _: random.Random) -> Pairs:
    """No edge: the decision maker answers alone."""
    return set()


def _chain(n: int, _: random.Random) -> Pairs:
    """Each agent to the next one, the last to the decision maker: LatentMAS's order."""
    return {(i, i + 1) for i in range(n)}


def _star(n: int, _: random.Random) -> Pairs:
    """Every agent to the decision maker, none to another."""
    return _to_decision(n)


def _layered(n: int, _: random.Random) -> Pairs:
    """Two layers: the first half to each of the second, the second half to the decision maker."""
    half = n // 2
    return {(i, j) for i in range(half) for j in range(half, n)} | {(j, n) for j in range(half, n)}


def _full(n: int, _: random.Random) -> Pairs:
    """Every agent to all later ones and to the decision maker: the most edges without a cycle."""
    return {(i, j) for i in range(n) for j in range(i + 1, n + 1)}


def _random(n: int, rng: random.Random) -> Pairs:
    """Each edge of `full` with probability one half."""
    return {pair for pair in sorted(_full(n, rng)) if rng.random() < 0.5}


def _debate(n: int, _: random.Random) -> Pairs:
    """The first agent opens, all others answer it, and the decision maker hears everyone."""
    return {(0, j) for j in range(1, n)} | _to_decision(n)


_BUILT_IN: dict[str, PairsOf] = {
    "none": _none,
    "chain": _chain,
    "star": _star,
    "layered": _layered,
    "full": _full,
    "random": _random,
    "debate": _debate,
}


def _wrong(found: Any) -> str:
    if isinstance(found, type):
        if not any("__call__" in vars(base) for base in found.__mro__):
            return "lacks __call__"
        return refuses(found) or refuses(found(), "n", "rng")
    if not callable(found):
        return f"must be a function of (n, rng), or a class of such, got {type(found).__name__}"
    return refuses(found, "n", "rng")


def _adapted(found: Any) -> PairsOf:
    """A stranger's topology, whose edges are looked at before they are used."""
    pairs_of: PairsOf = found() if isinstance(found, type) else found

    def pairs(n: int, rng: random.Random) -> Pairs:
        got = pairs_of(n, rng)
        if not isinstance(got, (set, frozenset, list, tuple)) or not all(map(_is_pair, got)):
            raise PluginError(f"the topology {_name_of(found)} must give a set of (sender, receiver), got {got!r:.200}")
        return set(got)

    pairs.__doc__ = found.__doc__
    return pairs


def _name_of(found: Any) -> str:
    return getattr(found, "__name__", type(found).__name__)


def _is_pair(pair: Any) -> bool:
    return isinstance(pair, tuple) and len(pair) == 2 and all(type(end) is int for end in pair)


TOPOLOGIES: Registry[PairsOf] = Registry("topology", "gcache.topologies", _BUILT_IN, _wrong, _adapted)
