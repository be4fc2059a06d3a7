"""Slots of caches that were read side by side, computed again behind the caches before them.

A document that was read alone knows nothing of the others. So some slots of every cache but the first are read once
more, with the question's prefix, the caches before it and its own slots before them as their past; the rest stays as it
was. Which slots, two rules say, each after its source:

    the first R        where nothing stood before them, much of the attention goes (EPIC, Hu et al. 2024,
                       arXiv:2410.15332)
    a share of them    those whose keys and values deviate most in the second layer, which a pass of two layers over
                       all of them tells (CacheBlend, Yao et al. 2025, arXiv:2405.16444; chosen once, where that
                       narrows its choice from layer to layer)

With all slots, sequential positions, edges of weight 1, no latent steps and an untrained fuser this is one prompt of
all their words. What a sender had heard is not in its fresh slots, so it is for agents that hear nobody.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from gcache.cache.fused_cache import FusedCache
from gcache.cache.kv_cache import KVCache
from gcache.cache.rope import Rope
from gcache.gnn.topology import EdgeKey
from gcache.graph.agent_models import AgentModel
from gcache.graph.hand_over import Weights
from gcache.llm.requests import ThinkRequest

#: A cache that arrives, over which edge, and the tokens that its slots were computed from.
Arrived = tuple[KVCache, EdgeKey | None, tuple[int, ...]]
#: Layers of the pass that tells which slots deviate, in the last of them.
FIRST_LAYERS = 2


async def reread(
    model: AgentModel,
    shared: KVCache,
    arrived: Sequence[Arrived],
    weights: Weights,
    first: int,
    share: float = 0.0,
) -> tuple[list[tuple[KVCache, EdgeKey | None]], int]:
    """The caches with some slots computed again, and how many slots that were; a pass of a few layers counts for as
    much as these are of all.

    Args:
        shared: the prefix of the receiver.
        arrived: prepared, in the order in which they stand.
        first: slots of every cache but the first one.
        share: of all slots of these, in 0 to 1, by how much they deviate.
    """
    again = [set(range(min(first, len(tokens)))) for _, _, tokens in arrived]
    read = 0
    if share and len(arrived) > 1:
        deviations, read = await _deviations(model, shared, arrived, weights)
        for chosen, more in zip(again[1:], _most_deviating(deviations, share), strict=True):
            chosen |= more
    found: list[tuple[KVCache, EdgeKey | None]] = []
    for (cache, key, tokens), chosen in zip(arrived, again, strict=True):
        if found and chosen:
            past = model.fuse(shared, found, weights)
            for start, stop in _runs(chosen):
                fresh = await _read(model, tokens[start:stop], _behind(model, past, cache, start), cache)
                with torch.no_grad():
                    cache = _with_fresh(model, cache, model.fuser.prepare(fresh), start)
            del past
            read += len(chosen)
        found.append((cache, key))
    return found, read


async def _read(
    model: AgentModel, tokens: tuple[int, ...], past: FusedCache, like: KVCache, layers: int | None = None
) -> KVCache:
    """Fresh slots, of the one who made a cache."""
    return await model.llm.think(ThinkRequest(tokens, past, 0, int(like.owners[0, 0]), layers=layers))


def _behind(model: AgentModel, past: FusedCache, cache: KVCache, start: int) -> FusedCache:
    """A past that goes on with the first slots of a cache: its own, so at weight 1."""
    if not start:
        return past
    own = cache.take(torch.arange(start, device=cache.positions.device))
    moved = own.shift(int(past.next_positions[0]) - int(own.positions[0, 0]), _rope(model))
    return FusedCache.join([past, FusedCache.plain(moved)])


def _rope(model: AgentModel) -> Rope:
    assert model.fuser.rope is not None, "the rotation is known wherever caches are fused"
    return model.fuser.rope


def _with_fresh(model: AgentModel, cache: KVCache, fresh: KVCache, start: int) -> KVCache:
    """A cache whose slots from one on have what fresh ones have, moved to where they stand; nothing else changes."""
    stop = start + fresh.slots
    moved = fresh.shift(int(cache.positions[0, start]) - int(fresh.positions[0, 0]), _rope(model))
    keys, values = (
        torch.cat((old[..., :start, :], new, old[..., stop:, :]), dim=3)  # (L, 1, H, T, D)
        for new, old in ((moved.keys, cache.keys), (moved.values, cache.values))
    )
    return replace(cache, keys=keys, values=values)


async def _deviations(
    model: AgentModel, shared: KVCache, arrived: Sequence[Arrived], weights: Weights
) -> tuple[list[Tensor], int]:
    """Of every cache but the first, by how much each slot of its prompt is another behind those before it, (n,); and
    what finding that out counts for in slots."""
    layers = min(FIRST_LAYERS, arrived[0][0].shape[0])
    found: list[tuple[KVCache, EdgeKey | None]] = [arrived[0][:2]]
    deviations = []
    for cache, key, tokens in arrived[1:]:
        fresh = await _read(model, tokens, model.fuse(shared, found, weights), cache, layers)
        with torch.no_grad():
            other = _with_first_layers(model, cache, fresh)
        both = ((other.keys, cache.keys), (other.values, cache.values))
        off = torch.stack([(new[layers - 1, 0].float() - old[layers - 1, 0].float()).square() for new, old in both])
        deviations.append(off.sum(dim=(0, 1, 3))[: len(tokens)])  # of (2, H, T, D)
        found.append((other, key))
    slots = sum(len(each) for each in deviations)
    return deviations, -(-slots * layers // arrived[0][0].shape[0])


def _with_first_layers(model: AgentModel, cache: KVCache, fresh: KVCache) -> KVCache:
    """A cache that has fresh slots in the layers that these have, and is as it was in all others."""
    layers = fresh.shape[0]
    deep = cache.keys[layers:, ..., : fresh.slots, :], cache.values[layers:, ..., : fresh.slots, :]
    keys, values = (torch.cat(pair) for pair in zip((fresh.keys, fresh.values), deep, strict=True))
    whole = _with_fresh(model, cache, model.fuser.prepare(replace(fresh, keys=keys, values=values)), 0)
    return replace(
        cache,
        keys=torch.cat((whole.keys[:layers], cache.keys[layers:])),
        values=torch.cat((whole.values[:layers], cache.values[layers:])),
    )


def _most_deviating(deviations: Sequence[Tensor], share: float) -> list[set[int]]:
    """Of each cache, the slots that are in a share of all, at least one, by how much they deviate; of equal ones the
    first."""
    together = torch.cat(list(deviations))
    chosen = torch.zeros(len(together), dtype=torch.bool, device=together.device)
    chosen[together.argsort(descending=True, stable=True)[: max(1, round(share * len(together)))]] = True
    return [set(own.nonzero()[:, 0].tolist()) for own in chosen.split([len(each) for each in deviations])]


def _runs(chosen: Collection[int]) -> list[tuple[int, int]]:
    """Slots as runs without a gap: where each begins, and where it ends."""
    starts = sorted(slot for slot in chosen if slot - 1 not in chosen)
    stops = sorted(slot + 1 for slot in chosen if slot + 1 not in chosen)
    return list(zip(starts, stops, strict=True))
