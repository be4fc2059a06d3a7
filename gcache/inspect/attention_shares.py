"""How a text's attention was divided over the slots it was written on."""

from __future__ import annotations

import torch
from torch import Tensor

from gcache.cache.fused_cache import FusedCache
from gcache.errors import ModelError
from gcache.graph.cache_graph import CacheGraph
from gcache.graph.hand_over import edge_weights
from gcache.graph.rebuild import fused_again, handed_again
from gcache.graph.result import RunResult
from gcache.llm.forward.attention import is_grouped, watching
from gcache.llm.forward.gradient_pass import GradientPass
from gcache.llm.local import LocalLLM
from gcache.llm.requests import LogProbRequest


@torch.no_grad()
def attention_shares(llm: LocalLLM, request: LogProbRequest) -> Tensor:
    """(L, T) float32: per layer, the attention to each slot, averaged over heads and over the places at which
    the tokens of `request.completion` were drawn. T is the slots of `request.past`, of the prompt, and of the text.

    Rows sum to 1.

    Raises:
        ModelError: a model that does not attend by torch's own attention, whose weights are not seen.
    """
    if not is_grouped(llm.model):
        raise ModelError(f"the attention of {llm.label!r} cannot be looked into: it is not torch's own (sdpa)")
    past = llm.checked(request.past) or llm.empty_cache()
    first = len(request.tokens) - 1
    layers: dict[int, Tensor] = {}

    def keep(layer: int, weights: Tensor) -> None:  # (1, H, S, T)
        layers[layer] = weights[0, :, first:].mean(dim=(0, 1)).cpu()

    embeds, lengths = llm.embed([request.tokens + request.completion[:-1]])
    with watching(keep):
        GradientPass(llm.base, past).feed(embeds, lengths)
    return torch.stack([layers[number] for number in sorted(layers)])


@torch.no_grad()
def shares_of_answer(graph: CacheGraph, llm: LocalLLM, result: RunResult) -> list[tuple[Tensor, FusedCache]]:
    """Of each text that the decision maker wrote: the shares of its attention, and the cache that it was written on.

    Raises:
        GcacheError: the run's caches were not kept.
        ModelError: see `attention_shares`.
    """
    weights, found = edge_weights(result.topology), []
    handed = handed_again(graph, result, weights, result.shared, result.caches)
    for spoken in result.spoken:
        if spoken.generation is None or not spoken.generation.tokens:
            continue
        fused = fused_again(graph, result, weights, result.shared, handed, spoken.heard)
        found.append((attention_shares(llm, LogProbRequest(spoken.tokens, spoken.generation.tokens, fused)), fused))
    return found
