"""The first slots of caches that were read side by side, computed again behind the caches before them.

A document that was read alone knows nothing of the others, and its first slots, to which much of the attention goes,
stand where nothing stood before them. So the first R slots of every cache but the first one are read once more, with
the question's prefix and the caches before it as their past; the rest stays as it was (after EPIC, Hu et al. 2024,
arXiv:2410.15332; which slots deviate most, as in CacheBlend, Yao et al. 2025, is not asked). With R of at least every
cache's length, sequential positions, edges of weight 1, no latent steps and an untrained fuser this is one prompt of
all their words. What a sender had heard is not in its fresh slots, so it is for agents that hear nobody.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from gcache.cache.kv_cache import KVCache
from gcache.gnn.topology import EdgeKey
from gcache.graph.agent_models import AgentModel
from gcache.graph.hand_over import Weights
from gcache.llm.requests import ThinkRequest

#: A cache that arrives, over which edge, and the tokens that its slots were computed from.
Arrived = tuple[KVCache, EdgeKey | None, tuple[int, ...]]


async def reread(
    model: AgentModel, shared: KVCache, arrived: Sequence[Arrived], weights: Weights, most: int
) -> tuple[list[tuple[KVCache, EdgeKey | None]], int]:
    """The caches with their first `most` slots computed again, and how many slots that were.

    Args:
        shared: the prefix of the receiver.
        arrived: prepared, in the order in which they stand.
    """
    found: list[tuple[KVCache, EdgeKey | None]] = []
    read = 0
    for cache, key, tokens in arrived:
        again = tokens[: min(most, cache.slots)] if found else ()
        if again:
            past = model.fuse(shared, found, weights)
            owner = int(cache.owners[0, 0])
            fresh = await model.llm.think(ThinkRequest(again, past, 0, owner))
            del past
            with torch.no_grad():
                cache = _with_fresh(model, cache, model.fuser.prepare(fresh))
            read += len(again)
        found.append((cache, key))
    return found, read


def _with_fresh(model: AgentModel, cache: KVCache, fresh: KVCache) -> KVCache:
    """A cache whose first slots have what fresh ones have, moved to where they stand; nothing else changes."""
    rope = model.fuser.rope
    assert rope is not None, "the rotation is known wherever caches are fused"
    moved = fresh.shift(int(cache.positions[0, 0]) - int(fresh.positions[0, 0]), rope)
    keys, values = (
        torch.cat((new, old[..., fresh.slots :, :]), dim=3)  # (L, 1, H, T, D)
        for new, old in ((moved.keys, cache.keys), (moved.values, cache.values))
    )
    return replace(cache, keys=keys, values=values)
