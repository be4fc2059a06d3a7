"""From the last hidden states to logits, as the model itself goes there.

Many families do more than multiply by the output embeddings: Granite divides the logits, Cohere multiplies them,
Gemma 2 caps them, MiniCPM3 divides the states before. So where a model's head is more than its output embeddings, its
own code is asked, with the states in the place of what its layers would give.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from gcache.cache.rope import base_model, base_name
from gcache.errors import ModelError
from gcache.runtime.streams import generator

logger = logging.getLogger(__name__)

#: (..., E) states after the final norm to (..., V) logits.
Head = Callable[[Tensor], Tensor]


def head_of(model: Any, label: str) -> Head:
    """The head of a transformers causal model: its output embeddings, or its own code where that does more.

    Code that does not run on states alone is left aside: whether it was needed, `gcache.llm.exactness` finds out.

    Raises:
        ModelError: there are no output embeddings.
    """
    plain: Head | None = model.get_output_embeddings()
    if plain is None:
        raise ModelError(f"model {label!r} cannot be used: it has no output embeddings; pass a causal language model")
    own = OwnHead(model)
    table = model.get_input_embeddings().weight
    width = model.get_output_embeddings().weight.shape[1]
    states = torch.randn((2, width), generator=generator("trial of a head")).to(table.device, table.dtype)
    try:
        with torch.no_grad():
            alike = torch.equal(own(states), plain(states))
    except (AttributeError, LookupError, TypeError, ValueError, RuntimeError) as error:
        logger.info("the model's own head does not run on states alone (%s: %s)", type(error).__name__, error)
        return plain
    return plain if alike else own


class OwnHead:
    """A causal model's own forward pass, with given states in the place of its layers.

    Args:
        model: a transformers causal model; it is not changed.
    """

    def __init__(self, model: Any) -> None:
        self._model = copy.copy(model)  # every weight is shared
        self._model._modules = {**model._modules, base_name(model): _Given(base_model(model))}
        # of the class: what hooks put on the instance is bound to the model that was copied
        self._forward = type(model).forward

    def __call__(self, states: Tensor) -> Tensor:
        """(..., V) logits of (..., E) states."""
        logits: Tensor = self._forward(self._model, inputs_embeds=states.reshape(1, -1, states.shape[-1])).logits
        return logits.view(*states.shape[:-1], -1)


class _Given(nn.Module):
    """In the place of a base model: gives its inputs back as the last hidden states.

    Args:
        base: the base model; a head may look at its attributes.
    """

    def __init__(self, base: Any) -> None:
        super().__init__()
        self.__dict__["base"] = base  # no part of it, or its weights would be there twice

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["base"], name)

    def forward(self, input_ids: Tensor | None = None, inputs_embeds: Tensor | None = None, **_: Any) -> Any:
        from transformers.modeling_outputs import MoeModelOutputWithPast

        return MoeModelOutputWithPast(last_hidden_state=inputs_embeds)
