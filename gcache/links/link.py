"""What goes over an edge between two models.

A cache only fits the model that made it. Over an edge between two models a *link* carries the sender's last hidden
states into the receiver's space of input embeddings; the receiver reads them as if they were tokens, behind the
question, and from there on they are a cache of its own like any other that arrives.

    same        same weights: the cache itself, nothing is carried
    vocab       same tokenizer: a linear map through the tokens' embeddings (`gcache.links.linear`)
    overlap     other tokenizers: the same map through the tokens both have
    perceiver   learned soft tokens (`gcache.links.perceiver`)
    text        the sender's words in the receiver's prompt; nothing is carried

`gcache.links.registry` has them by name.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor


#: Of `--link`: the first of same, vocab, overlap and text that the two models allow.
AUTO = "auto"


@runtime_checkable
class Link(Protocol):
    """Carries states from one model to another."""

    @property
    def name(self) -> str:
        """For tables and logs."""
        ...

    def carry(self, states: Tensor) -> Tensor:
        """The sender's last hidden states (S, E_sender), after its final norm and before its own realignment, as
        (S', E_receiver) input embeddings for the receiver."""
        ...


@dataclass(frozen=True)
class ModelEnds:
    """What two models are compared and linked by.

    Attributes:
        label: the name errors use.
        fingerprint: stands for the content of its weights; see `gcache.llm.load.loading.LoadedModel`.
        tokenizer: a transformers tokenizer.
        w_in: (V, E) input embeddings, as the model's layers are fed them; see `gcache.llm.forward.alignment`.
        w_out: (V, E) output embeddings.
    """

    label: str
    fingerprint: str
    tokenizer: Any = field(repr=False)
    w_in: Tensor = field(repr=False)
    w_out: Tensor = field(repr=False)

    @classmethod
    def of(cls, model: Any, tokenizer: Any, label: str, fingerprint: str) -> ModelEnds:
        """Of a transformers causal model."""
        from gcache.llm.forward.alignment import (
            input_embeddings,  # the command line reads names here before torch is there
        )

        w_in = input_embeddings(model)
        return cls(label, fingerprint, tokenizer, w_in, model.get_output_embeddings().weight.detach())
