"""How a token is drawn from logits, and how likely tokens were.

    logits / temperature  ->  the smallest set of most likely tokens that holds top_p  ->  a draw

as vLLM and transformers have it. At temperature 0 the most likely token is taken, whatever top_p says. What is told of
a token's chance (`scores`) is the model's own: neither the temperature nor top_p is in it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gcache.llm.requests import GenerateRequest, TokenScore
from gcache.runtime.streams import stream
from gcache.runtime.transfers import to_device

#: Temperatures below this one would make logits infinite, and draw the same tokens.
COLDEST = 1e-30
#: Rows of logits that are looked at together: so many fit a processor's cache.
LOGIT_ROWS = 16


def uniforms(request: GenerateRequest) -> Tensor:
    """(max_new_tokens,) draws in [0, 1), from the request's own seed: a batch mate changes none of them."""
    return torch.from_numpy(stream("tokens", request.seed).random(request.max_new_tokens))


def drawn(
    logits: Tensor, temperature: Tensor, top_p: Tensor | None, uniform: Tensor, looks: bool = True
) -> tuple[Tensor, Tensor]:
    """Pick a token per row of (n, V) logits; returns (n,) ids and (n,) log-probabilities of the draws.

    Drawn by inverting the cumulative distribution at `uniform`, summed in float64; greedy at temperature 0.

    Args:
        temperature, top_p, uniform: (n,); None where nobody's top_p is below 1.
        looks: whether the host looks whose top_p is, and sorts only theirs.
    """
    greedy = temperature == 0
    warmth = torch.where(greedy, 1.0, temperature.clamp_min(COLDEST))
    log_probs = torch.log_softmax(logits / warmth[:, None], dim=-1)
    if top_p is not None:
        cut = (top_p < 1) & ~greedy
        narrow = cut.nonzero().squeeze(1) if looks else slice(None)
        kept = log_probs[narrow].masked_fill(~nucleus(log_probs[narrow], top_p[narrow]), -torch.inf)
        kept = torch.log_softmax(kept, dim=-1)
        log_probs[narrow] = kept if looks else torch.where(cut[:, None], kept, log_probs)
    cumulative = log_probs.exp().double().cumsum(dim=-1)  # exp in float32: in float64 it takes ten times as long
    whole = cumulative[:, -1:]
    # below the whole, however it rounds: what lies behind the last token of the nucleus has no chance
    target = torch.minimum(uniform[:, None] * whole, torch.nextafter(whole, torch.zeros_like(whole)))
    found = torch.searchsorted(cumulative, target, right=True).squeeze(1).clamp_max(logits.shape[1] - 1)
    tokens = torch.where(greedy, logits.argmax(dim=-1), found)
    return tokens, log_probs.gather(1, tokens[:, None]).squeeze(1)


def nucleus(log_probs: Tensor, top_p: Tensor) -> Tensor:
    """(n, V) whether a token is in the smallest set of most likely tokens whose probabilities reach top_p (n,).

    The token that crosses it is in the set; of equally likely tokens those with smaller ids come first (Holtzman et
    al., "The Curious Case of Neural Text Degeneration", 2020).
    """
    ordered, order = log_probs.double().exp().sort(dim=-1, descending=True, stable=True)
    before = ordered.cumsum(dim=-1) - ordered
    inside = before < top_p[:, None]
    inside[:, 0].fill_(True)
    return torch.zeros_like(inside).scatter_(1, order, inside)


def scores(log_probs: Tensor, tokens: Sequence[int], counts: Sequence[int]) -> list[TokenScore]:
    """How likely tokens were under (n, V) log-probabilities, and which `counts` tokens were the most likely."""
    if not tokens:
        return []
    most = min(max(counts), log_probs.shape[1])
    best = log_probs.topk(most, dim=-1)
    own = log_probs.gather(1, to_device(tokens, log_probs.device)[:, None]).squeeze(1).tolist()
    pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    tops = [list(zip(ids, values, strict=True)) for ids, values in pairs]
    return [
        TokenScore(token, value, tuple(top[:count]))
        for token, value, top, count in zip(tokens, own, tops, counts, strict=True)
    ]


def raw_log_probs(logits: Tensor) -> Tensor:
    """(n, V) the model's own log-probabilities, a copy: neither tempered nor cut."""
    return torch.log_softmax(logits.to(torch.promote_types(logits.dtype, torch.float32)), dim=-1)
