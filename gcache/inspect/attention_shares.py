"""How a text's attention was divided over the slots it was written on."""

from __future__ import annotations

import torch
from torch import Tensor

from gcache.errors import ModelError
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
