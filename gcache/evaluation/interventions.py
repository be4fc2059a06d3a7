"""What may become of a cache on its way over an edge: the place where controls cut in.

A run hands every cache that is about to be fused to its channel, if it was given one. Nothing
else of the run changes: the same agents think the same prompts on the same topology.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from gcache.cache.fused_cache import FusedCache
from gcache.cache.kv_cache import SHARED, KVCache, SlotKind
from gcache.errors import ConfigError
from gcache.gnn.topology import Node
from gcache.graph.passing import Passing

#: Added to the attention logits of what is masked; within the range of float16, whose weight is 0.
BLOCKED = -1e4


def masked(passing: Passing) -> KVCache:
    """The same slots, at the same places, with no attention to them."""
    return FusedCache.plain(passing.cache).weighted(torch.tensor(BLOCKED))


def zeroed(passing: Passing) -> KVCache:
    """Slots that are attended to and hold nothing: keys and values 0."""

    def empty(part: KVCache) -> KVCache:
        return replace(part, keys=torch.zeros_like(part.keys), values=torch.zeros_like(part.values))

    return _by_part(passing.cache, empty)


def noise(passing: Passing) -> KVCache:
    """Keys and values of every slot replaced by random vectors of the same norm."""
    drawing = passing.stream("noise")
    return _by_part(passing.cache, lambda part: _randomised(part, torch.ones_like(part.mask), drawing))


def random_latents(passing: Passing) -> KVCache:
    """Keys and values of the latent steps replaced by random vectors of the same norm."""
    drawing = passing.stream("random latents")
    return _by_part(passing.cache, lambda part: _randomised(part, part.kinds == SlotKind.LATENT, drawing))


@dataclass(frozen=True)
class Recorder:
    """Lets everything pass, and remembers it, so that another question can be given it.

    Attributes:
        passed: (sender, receiver) -> what passed; filled in while the run goes on.
    """

    passed: dict[tuple[Node, Node], Passing] = field(default_factory=dict)

    def __call__(self, passing: Passing) -> KVCache:
        self.passed[passing.sender, passing.receiver] = passing
        return passing.cache

    def replay(self, passing: Passing) -> KVCache:
        """What passed over the same edge for the recorded question, moved to stand behind this one.

        The recorded question's own slots are left out: every agent has a question already.

        Raises:
            ConfigError: nothing passed over that edge.
        """
        if (passing.sender, passing.receiver) not in self.passed:
            raise ConfigError(f"nothing passed from {passing.sender} to {passing.receiver}; record the same topology")
        known = self.passed[passing.sender, passing.receiver]
        offset = int(passing.shared.next_positions[0]) - int(known.shared.next_positions[0])
        own = known.cache.take(known.cache.owners[0] != SHARED)
        if passing.rope is None:
            raise ConfigError("the graph's fuser knows no rotation, so no cache can be moved; make it with the model's")
        return own.shift(offset, passing.rope)


def _by_part(cache: KVCache, change: Callable[[KVCache], KVCache]) -> KVCache:
    """A cache with each of its parts changed; its log-weights stay."""
    if not isinstance(cache, FusedCache):
        return change(cache)
    return FusedCache.of_parts([change(part) for part in cache.parts], cache.biases)


def _randomised(cache: KVCache, wanted: Tensor, drawing: torch.Generator) -> KVCache:
    """The `wanted` (B, T) slots random, each key and value (per layer and head) at its own norm."""

    def drawn(vectors: Tensor) -> Tensor:  # (L, B, H, T, D)
        random = torch.randn(vectors.shape, generator=drawing).to(vectors.device)
        norms = vectors.float().norm(dim=-1, keepdim=True)
        scaled = random * (norms / random.norm(dim=-1, keepdim=True).clamp_min(1e-12))
        return torch.where(wanted[None, :, None, :, None], scaled.to(vectors.dtype), vectors)

    return replace(cache, keys=drawn(cache.keys), values=drawn(cache.values))
