"""What goes over the edges into one node: the rule that a run follows and training replays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from gcache.cache.fused_cache import FusedCache
from gcache.cache.fusers.base import CacheFuser, Incoming
from gcache.cache.kv_cache import KVCache, SlotKind
from gcache.gnn.topology import EdgeKey, Node, Topology

Weights = Mapping[EdgeKey, Tensor]


def edge_weights(topology: Topology) -> dict[EdgeKey, Tensor]:
    """The topology's weights as constants."""
    return {e.key: torch.tensor(e.weight) for e in topology.edges}


def handed_on(fuser: CacheFuser, own: KVCache, received: FusedCache, transfer: str) -> KVCache:
    """What an agent hands on, of its own slots and of what it received (`GraphConfig.transfer`),
    prepared for fusing."""
    if transfer == "own":
        return fuser.prepare(own)
    if transfer == "latent":
        return fuser.prepare(own.of_kind(SlotKind.LATENT))
    # what was received had been prepared by those who sent it
    return FusedCache.join([received, FusedCache.plain(fuser.prepare(own))])


def handed_states(outputs: Tensor, latents: Tensor, latents_only: bool) -> Tensor:
    """What a link carries to another model of an agent's own slots: (S, E) last hidden states.

    A latent step's slot was fed the state before it, so the states of S latents are those that were fed back, and
    the first of them is that of the prompt's last token.

    Args:
        outputs: (P, E) of the prompt.
        latents: (S, E) that latent steps fed back.
    """
    return latents if latents_only else torch.cat((outputs, latents[1:]))


def over_edge(handed: KVCache, key: EdgeKey | None, topology: Topology) -> KVCache | None:
    """What of a prepared cache goes over an edge (None: what an agent remembers); None where the sender's
    words go instead."""
    channel = None if key is None else topology.channels[key]
    if channel == "text":
        return None
    return handed.of_kind(SlotKind.LATENT) if channel == "latents" else handed


def arriving(
    handed: Mapping[Node, KVCache], coming: Sequence[tuple[Node, EdgeKey | None]], topology: Topology
) -> list[tuple[KVCache, EdgeKey | None]]:
    """The caches that arrive at a receiver, of what its senders handed on."""
    caches = [(over_edge(handed[sender], key, topology), key) for sender, key in coming]
    return [(cache, key) for cache, key in caches if cache is not None]


def fused_for(
    fuser: CacheFuser, shared: KVCache, arriving: Sequence[tuple[KVCache, EdgeKey | None]], weights: Weights
) -> FusedCache:
    """One cache for a receiver, of the shared prefix and the prepared caches on its edges."""
    one = torch.ones(())
    incoming = [
        Incoming(cache, one if edge is None else weights[edge], prepared=True, order=number)
        for number, (cache, edge) in enumerate(arriving)
    ]
    fused: FusedCache = fuser(shared, incoming)
    return fused
