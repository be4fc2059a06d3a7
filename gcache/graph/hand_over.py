"""What goes over the edges into one node: the rule that a run follows and training replays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from gcache.cache.fused_cache import FusedCache
from gcache.cache.fusers.base import CacheFuser, Incoming, log_weight
from gcache.cache.kv_cache import KVCache, SlotKind
from gcache.gnn.payload import Payload
from gcache.gnn.topology import EdgeKey, Topology

Weights = Mapping[EdgeKey, Tensor]


def edge_weights(topology: Topology) -> dict[EdgeKey, Tensor]:
    """The topology's weights as constants."""
    return {e.key: torch.tensor(e.weight) for e in topology.edges}


def handed_on(fuser: CacheFuser, own: KVCache, received: FusedCache, payload: Payload) -> KVCache:
    """The slots that an agent hands on, of its own and of those it received, prepared for fusing."""
    if payload.slots == "latents":
        return fuser.prepare(own.of_kind(SlotKind.LATENT))
    if payload.slots == "context":  # what was received had been prepared by those who sent it
        return FusedCache.join([received, FusedCache.plain(fuser.prepare(own))])
    return fuser.prepare(own)


def handed_states(outputs: Tensor, latents: Tensor, payload: Payload) -> Tensor:
    """What a link carries to another model of an agent's own slots: (S, E) last hidden states.

    A latent step's slot was fed the state before it, so the states of S latents are those that were fed back, and
    the first of them is that of the prompt's last token.

    Args:
        outputs: (P, E) of the prompt.
        latents: (S, E) that latent steps fed back.
    """
    return latents if payload.slots == "latents" else torch.cat((outputs, latents[1:]))


def over_edge(handed: KVCache, payload: Payload, default: Payload) -> KVCache | None:
    """The slots that go over an edge, of all that an agent hands on; None where words go instead.

    Args:
        handed: prepared, of the graph's `default`.
    """
    if payload.slots is None:
        return None
    if payload.slots == "latents" and default.slots != "latents":
        return handed.of_kind(SlotKind.LATENT)
    if payload.slots == "cache" and bool((handed.kinds == SlotKind.TEXT).any()):
        return handed.of_kind(SlotKind.PROMPT, SlotKind.LATENT)  # the solution is for other receivers
    return handed


def log_weights(
    fuser: CacheFuser,
    shared: KVCache,
    arriving: Sequence[tuple[KVCache, EdgeKey | None] | None],
    weights: Sequence[Tensor],
) -> Tensor:
    """(n,) what each of some senders counts for beside the others, as a log-weight.

    Args:
        arriving: prepared caches; None where a sender's words alone arrived.
        weights: (n,) of their edges.
    """
    caches = [
        Incoming(each[0], weight, prepared=True, order=number)
        for number, (each, weight) in enumerate(zip(arriving, weights, strict=True)) if each is not None
    ]
    found = iter(fuser.log_weights(shared, caches) if caches else ())
    own = [log_weight(w) if each is None else next(found) for each, w in zip(arriving, weights, strict=True)]
    return torch.stack(own)


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
