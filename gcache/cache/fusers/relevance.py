"""A fuser that weighs each incoming cache by what it has to do with the question.

Late interaction, as between a query and documents in ColBERT (Khattab and Zaharia 2020), on what
caches hold anyway: their values.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gcache.cache.fused_cache import FusedCache
from gcache.cache.fusers.base import Incoming, yielding
from gcache.cache.fusers.concat import ConcatFuser
from gcache.cache.kv_cache import KVCache
from gcache.cache.rope import Rope
from gcache.runtime.numbers import require_whole
from gcache.runtime.streams import generator as generator_of

#: How far one step of the optimizer moves the two terms of the score, beside the other parameters.
MATCH_GAIN, PRIOR_GAIN = 50.0, 10.0
#: Temperature of the soft maximum over a cache's slots.
SHARPNESS = 0.1


class RelevanceFuser(ConcatFuser):
    """`ConcatFuser`, and a weight per incoming cache that is learned from the question.

    Of every slot, x is its values in three layers, each of norm 1, side by side: (F,). A cache i is

        s_i = a sum over the question's slots q of  softmax-weighted mean over its slots t of c_qt
              + g . mean over its slots of x_t,                     c_qt = (x_q U)(x_t V)

    relevant, and the attention logits of its slots get log w_i + r_i,

        r_i = - max over j of w_j (s_j - s_i)                       (at j = i it is 0, so r_i <= 0)

    A cache gives way to a more relevant one as far as that one's edge weighs: at weight 1 by all of the difference
    (with all edges at 1, r_i = s_i - max_j s_j), and an edge whose weight goes to 0 takes nothing from any other.
    Likewise the softmax and the mean over a cache's slots are weighted by what the slots weighed when they were
    handed on: 1 for its sender's own.

    Values in the first layer are functions of the token alone, so the sum counts, softly, the question's words
    that the cache has (the softmax is at a temperature of 0.1: a maximum without its kinks); g
    learns whom to believe whatever is asked. a and g are 0 at the start, so that an untrained
    fuser is plain concatenation; with one incoming cache it always is.

    Args:
        layers, heads, dim: the model's cache shape (L, H_kv, D).
        width: of the space that words are compared in, at most H_kv D.
        rank, positions, rope: see `ConcatFuser`.

    Raises:
        ConfigError: a width that is not allowed.
    """

    def __init__(
        self,
        layers: int,
        heads: int,
        dim: int,
        width: int = 64,
        rank: int = 8,
        positions: str = "parallel",
        rope: Rope | None = None,
    ) -> None:
        super().__init__(layers, heads, dim, rank, positions, rope)
        require_whole("width", width, 1)
        self.read = tuple(dict.fromkeys((0, layers // 3, 2 * layers // 3)))  # layers
        block = heads * dim
        width = min(width, block)
        generator = generator_of("relevance fuser")
        basis = torch.linalg.qr(torch.randn(block, width, generator=generator))[0] * (block / width) ** 0.5
        start = torch.cat([basis, torch.zeros((len(self.read) - 1) * block, width)])  # words alone
        self.of_question = nn.Parameter(start)
        self.of_cache = nn.Parameter(start.clone())
        self.match = nn.Parameter(torch.zeros(()))
        self.prior = nn.Parameter(torch.zeros(len(start)))

    def log_weights(self, shared: KVCache, incoming: Sequence[Incoming]) -> Sequence[Tensor]:
        plain = super().log_weights(shared, incoming)
        if len(incoming) < 2 or not (torch.is_grad_enabled() or self._weighs()):
            return plain
        weights = torch.stack([item.weight.float() for item in incoming])
        relevance = self.relevance(shared, [item.cache for item in incoming], weights)
        return [log_weight + relevance[i] for i, log_weight in enumerate(plain)]

    def relevance(self, shared: KVCache, caches: Sequence[KVCache], weights: Tensor | None = None) -> Tensor:
        """(n,) what is added to the log-weights of prepared caches' slots: 0 for the most relevant one.

        Args:
            weights: (n,) of their edges; None for 1.
        """
        question = self._features(shared) @ self.of_question
        scores = torch.stack([self._score(question, cache) for cache in caches])
        return yielding(scores, torch.ones_like(scores) if weights is None else weights)

    def _weighs(self) -> bool:
        return bool(self.match) or bool(self.prior.any())

    def _score(self, question: Tensor, cache: KVCache) -> Tensor:
        """0-dim s of one cache, of the question's (Tq, width)."""
        if not cache.slots:
            return torch.zeros((), device=self.match.device)
        features = self._features(cache)  # (T, F)
        heard = FusedCache.plain(cache).bias[0]  # (T,) log-weights
        score = PRIOR_GAIN * (torch.softmax(heard, dim=0) @ features @ self.prior)
        if question.shape[0]:
            likeness = question @ (features @ self.of_cache).T  # (Tq, T)
            best = (torch.softmax(likeness / SHARPNESS + heard, dim=1) * likeness).sum(dim=1)
            score = score + MATCH_GAIN * self.match * best.sum()
        return score

    def _features(self, cache: KVCache) -> Tensor:
        """(T, F) of a cache of one sequence: values of the layers that are read, each of norm 1."""
        parts = []
        for part in FusedCache.plain(cache).parts:
            values = part.values[list(self.read), 0].float().permute(2, 0, 1, 3)  # (T, layers read, H, D)
            parts.append(nn.functional.normalize(values.flatten(2), dim=2).flatten(1))
        return torch.cat(parts)
