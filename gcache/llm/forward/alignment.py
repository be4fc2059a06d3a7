"""From a hidden state back to an input embedding: what a latent step feeds the model.

    W_a = (W_out' W_out + lambda I)^-1 W_out' W_in,      e = h W_a |w| / |h W_a|

with |w| the mean norm of the rows of W_in: the least-squares map that sends the output
embedding of a token to its input embedding (LatentMAS, Zou et al. 2025, eq. 3). Where the two
embeddings are tied, W_a is the identity up to the ridge term: then a latent step feeds back the
last hidden state itself, at the norm of an embedding, and nothing was realigned.

W_in is what the embedding module gives for each token, which is what the decoder's layers are fed.
That is not always its table: Gemma's multiplies the table by sqrt(E), and W_a with it.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

logger = logging.getLogger(__name__)

#: Rows of the embeddings that are computed at once.
ROWS = 8192


@dataclass(frozen=True)
class Alignment:
    """The map of one model.

    Attributes:
        matrix: (E, E) W_a, float32, or float64 where the model is.
        norm: mean norm of the rows of W_in.
        tied: True where W_out is the table of W_in, so that W_a is near the identity, times what the module
            multiplies the table by.
    """

    matrix: Tensor
    norm: float
    tied: bool

    @classmethod
    def of_model(cls, model: Any, ridge: float = 1e-4, realign: bool = True) -> Alignment:
        """Solve for W_a. `ridge` is lambda, relative to the mean diagonal of W_out' W_out.

        Without `realign`, W_a is the identity: the hidden state itself at the norm of an embedding.
        """
        table = model.get_input_embeddings().weight.detach()
        w_out = model.get_output_embeddings().weight.detach()
        tied = table.data_ptr() == w_out.data_ptr() or torch.equal(table, w_out)
        w_in = input_embeddings(model)
        dtype = torch.promote_types(w_in.dtype, torch.float32)
        w_in, w_out = w_in.to(dtype), w_out.to(dtype)  # (V, E) each
        both = min(len(w_in), len(w_out))  # a few tokens may be read that are never written
        if not realign:
            return cls(torch.eye(w_in.shape[1], dtype=dtype, device=w_in.device), float(w_in.norm(dim=1).mean()), tied)
        gram = w_out.T @ w_out
        strength = ridge * float(gram.diagonal().mean())
        damped = gram + strength * torch.eye(gram.shape[0], dtype=dtype, device=gram.device)
        matrix = torch.linalg.solve(damped, w_out[:both].T @ w_in[:both])
        if tied:
            logger.info("input and output embeddings are tied: the latent map W_a is near the identity")
        return cls(matrix, float(w_in.norm(dim=1).mean()), tied)

    def __call__(self, hidden: Tensor) -> Tensor:
        """Hidden states (..., E), after the final norm, to input embeddings (..., E)."""
        mapped = hidden.to(self.matrix.dtype) @ self.matrix
        scaled: Tensor = mapped * (self.norm / mapped.norm(dim=-1, keepdim=True).clamp_min(1e-12))
        return scaled.to(hidden.dtype)


@torch.no_grad()
def input_embeddings(model: Any) -> Tensor:
    """(V, E) what a transformers model's embedding module gives for each token; its own table, not a copy, where that
    is all it does."""
    module = model.get_input_embeddings()
    table: Tensor = module.weight.detach()
    if type(module) is nn.Embedding and module.max_norm is None:
        return table
    return torch.cat([module(ids) for ids in torch.arange(len(table), device=table.device).split(ROWS)])
