"""A fuser that learns which caches to believe, from what they hold.

A frozen model's states tell, better than its words do, whether what it writes is right (Kadavath et al. 2022; Azaria
and Mitchell 2023). Here the values of an agent's slots are asked, and the answer is a weight beside the edge's.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gcache.cache.fused_cache import FusedCache
from gcache.cache.fusers.base import Incoming, yielding
from gcache.cache.fusers.side_by_side import SideBySideFuser
from gcache.cache.kv_cache import KVCache, SlotKind
from gcache.cache.rope import Rope

#: How far one step of the optimizer moves a score, beside the other parameters.
GAIN = 30.0


class TrustFuser(SideBySideFuser):
    """Slots side by side, and a learned weight per incoming cache.

    x_i is the mean over the slots of cache i of their values in the layers from 1/2 to 5/6 of the depth, each layer's
    of norm 1: over those of the solution that its sender wrote, where there is one, else over all. With g learned,

        s_i = g . x_i            r_i = - max over j of w_j (s_j - s_i)       (at j = i it is 0, so r_i <= 0)

    and cache i counts for log w_i + r_i: a cache gives way to one that is believed more, as far as that one's edge
    weighs. g is 0 at the start, so that an untrained fuser is plain concatenation; with one incoming cache it always
    is. No slot is changed, so how likely an answer is under a cache never has to be computed with gradient.

    Args:
        layers, heads, dim: the model's cache shape (L, H_kv, D).
        positions, rope: see `CacheFuser`.
    """

    keeps_slots = True

    def __init__(
        self, layers: int, heads: int, dim: int, positions: str = "parallel", rope: Rope | None = None
    ) -> None:
        super().__init__(positions, rope)
        self.read = tuple(range(layers // 2, max(layers // 2 + 1, 5 * layers // 6)))  # layers
        self.belief = nn.Parameter(torch.zeros(len(self.read) * heads * dim))

    def log_weights(self, shared: KVCache, incoming: Sequence[Incoming]) -> Sequence[Tensor]:
        plain = super().log_weights(shared, incoming)
        if len(incoming) < 2 or not (torch.is_grad_enabled() or bool(self.belief.any())):
            return plain
        weights = torch.stack([item.weight.float() for item in incoming])
        scores = torch.stack([self.score(item.cache) for item in incoming])
        return [log_weight + less for log_weight, less in zip(plain, yielding(scores, weights), strict=True)]

    def score(self, cache: KVCache) -> Tensor:
        """0-dim s of one prepared cache."""
        if not cache.slots:
            return torch.zeros((), device=self.belief.device)
        fused = FusedCache.plain(cache)
        values = torch.cat([self._features(part) for part in fused.parts])  # (T, F)
        heard = fused.bias[0]  # (T,) log-weights: 0 for its sender's own slots
        is_text = torch.cat([part.kinds[0] for part in fused.parts]) == SlotKind.TEXT
        if bool(is_text.any()):
            heard = heard.masked_fill(~is_text, float("-inf"))
        return GAIN * (torch.softmax(heard, dim=0) @ values @ self.belief)

    def _features(self, part: KVCache) -> Tensor:
        """(T, F) of a cache of one sequence: values of the layers that are read, each of norm 1."""
        values = part.values[list(self.read), 0].float().permute(2, 0, 1, 3)  # (T, layers read, H, D)
        return nn.functional.normalize(values.flatten(2), dim=2).flatten(1)
