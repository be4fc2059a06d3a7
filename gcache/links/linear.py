"""A linear map from one model's last hidden states to another's input embeddings, through the tokens they share.

    W_cross = (W_out,A' W_out,A + lambda I)^-1 W_out,A' W_in,B          e = h W_cross |w_B| / |h W_cross|

with one row of W_out,A and W_in,B per shared token, and |w_B| the mean norm of the rows of W_in,B: the map that a
latent step uses within one model (`gcache.llm.forward.alignment`), ending in another one. From A to A it is A's own.
The sums over tokens are taken piece by piece; nothing as tall as the vocabulary is copied, and no state is ever scored
against it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from gcache.errors import ConfigError
from gcache.links.link import ModelEnds
from gcache.links.vocabulary import common_tokens, same_vocabulary

#: Fewer shared tokens than this do not say enough about two spaces.
FEWEST_TOKENS = 100
#: Rows of the embeddings that are summed over at once.
_ROWS = 8192


@dataclass(frozen=True)
class LinearLink:
    """The map between two models.

    Attributes:
        name: "vocab" or "overlap".
        matrix: (E_A, E_B) W_cross, float32, or float64 where a model is.
        norm: mean norm of the rows of W_in,B.
        tokens: how many it was found through.
    """

    name: str
    matrix: Tensor
    norm: float
    tokens: int

    def carry(self, states: Tensor) -> Tensor:
        """(S, E_A) last hidden states to (S, E_B) embeddings.

        Raises:
            ConfigError: states of another width.
        """
        if states.dim() != 2 or states.shape[1] != self.matrix.shape[0]:
            raise ConfigError(
                f"the link {self.name} carries (S, {self.matrix.shape[0]}) states of its sender, got "
                f"{tuple(states.shape)}"
            )
        mapped = states.to(self.matrix.device, self.matrix.dtype) @ self.matrix
        scaled: Tensor = mapped * (self.norm / mapped.norm(dim=-1, keepdim=True).clamp_min(1e-12))
        return scaled.to(states.dtype)


def fit_vocab(sender: ModelEnds, receiver: ModelEnds, ridge: float = 1e-4) -> LinearLink:
    """Through every token; the two models must have the same tokenizer, and may be of any widths.

    Raises:
        ConfigError: other tokenizers.
    """
    if not same_vocabulary(sender.tokenizer, receiver.tokenizer):
        raise ConfigError(
            f"the link vocab needs one tokenizer, but {sender.label!r} and {receiver.label!r} have different ones; "
            "use --link overlap, perceiver, text or auto"
        )
    # padding of an embedding beyond the tokenizer's tokens may differ in length
    rows = torch.arange(min(len(sender.w_out), len(receiver.w_in)))
    return _fitted("vocab", sender, receiver, rows, rows, ridge)


def fit_overlap(sender: ModelEnds, receiver: ModelEnds, ridge: float = 1e-4) -> LinearLink:
    """Through the tokens that stand for the same bytes in both tokenizers.

    Raises:
        ConfigError: fewer than `FEWEST_TOKENS` of them.
    """
    mine, theirs = common_tokens(sender.tokenizer, receiver.tokenizer)
    known = (mine < len(sender.w_out)) & (theirs < len(receiver.w_in))
    mine, theirs = mine[known], theirs[known]
    if len(mine) < FEWEST_TOKENS:
        raise ConfigError(
            f"the link overlap needs {FEWEST_TOKENS} tokens that both tokenizers have, but those of {sender.label!r} "
            f"and {receiver.label!r} have {len(mine)} in common; use --link perceiver or text"
        )
    return _fitted("overlap", sender, receiver, mine, theirs, ridge)


def _fitted(
    name: str, sender: ModelEnds, receiver: ModelEnds, mine: Tensor, theirs: Tensor, ridge: float
) -> LinearLink:
    """Solve for W_cross. `ridge` is lambda, relative to the mean diagonal of W_out' W_out."""
    dtype = torch.promote_types(torch.promote_types(sender.w_out.dtype, receiver.w_in.dtype), torch.float32)
    device = receiver.w_in.device
    width, to_width = sender.w_out.shape[1], receiver.w_in.shape[1]
    gram = torch.zeros((width, width), dtype=dtype, device=device)
    cross = torch.zeros((width, to_width), dtype=dtype, device=device)
    for rows in _pieces(len(mine)):
        out = sender.w_out[mine[rows].to(sender.w_out.device)].to(device, dtype)
        gram += out.T @ out
        cross += out.T @ receiver.w_in[theirs[rows].to(device)].to(dtype)
    strength = ridge * float(gram.diagonal().mean())
    matrix = torch.linalg.solve(gram + strength * torch.eye(width, dtype=dtype, device=device), cross)
    return LinearLink(name, matrix, _mean_norm(receiver.w_in, dtype), len(mine))


def _mean_norm(rows: Tensor, dtype: torch.dtype) -> float:
    """Of all rows of an embedding."""
    total = sum(float(rows[piece].to(dtype).norm(dim=1).sum()) for piece in _pieces(len(rows)))
    return total / len(rows)


def _pieces(count: int) -> Iterator[slice]:
    for start in range(0, count, _ROWS):
        yield slice(start, min(start + _ROWS, count))
