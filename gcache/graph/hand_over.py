"""What goes over the edges into one node: the rule that a run follows and training replays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from gcache.cache.fuser import CacheFuser, Incoming
from gcache.cache.kv_cache import FusedCache, KVCache, SlotKind
from gcache.gnn.topology import Topology

#: (round, agent)
Node = tuple[int, int]
Weights = Mapping[tuple[int, int], Tensor]


def edge_weights(topology: Topology) -> dict[tuple[int, int], Tensor]:
    """The topology's weights as constants."""
    return {(e.source, e.target): torch.tensor(e.weight) for e in topology.edges}


def senders(topology: Topology, round_: int, agent: int) -> list[tuple[Node, tuple[int, int] | None]]:
    """Who hands to an agent in a round, by number: its predecessors in the same round, then
    itself in the round before (an edge of weight 1 that is no part of the topology: None)."""
    spatial = [((round_, e.source), (e.source, e.target)) for e in topology.into(agent)]
    memory: list[tuple[Node, tuple[int, int] | None]] = [((round_ - 1, agent), None)] if round_ else []
    return [*spatial, *memory]


def handed_on(fuser: CacheFuser, own: KVCache, received: FusedCache, transfer: str) -> KVCache:
    """What an agent hands on, of its own slots and of what it received (`GraphConfig.transfer`),
    prepared for fusing."""
    if transfer == "own":
        return fuser.prepare(own)
    if transfer == "latent":
        return fuser.prepare(own.of_kind(SlotKind.LATENT))
    # what was received had been prepared by those who sent it
    return FusedCache.join([received, FusedCache.plain(fuser.prepare(own))])


def fused_for(
    fuser: CacheFuser,
    shared: KVCache,
    arriving: Sequence[tuple[KVCache, tuple[int, int] | None]],
    weights: Weights,
) -> FusedCache:
    """One cache for a receiver, of the shared prefix and the prepared caches on its edges."""
    one = torch.ones(())
    incoming = [Incoming(cache, one if edge is None else weights[edge], prepared=True) for cache, edge in arriving]
    fused: FusedCache = fuser(shared, incoming)
    return fused
