"""Log-probabilities and entropies where a probability may be 0 or 1 to the bit: a logit of minus or plus infinity.

0 log 0 is 0, and what is certain has no gradient. Written out, the formulas would give inf - inf or 0 * inf, which is
nan, and so would their gradients. Whatever is finite is computed as torch computes it.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid


def bernoulli_log_probs(logits: Tensor, outcome: Tensor) -> Tensor:
    """(E,) log-probabilities of outcomes 0 and 1; -inf of one that is impossible."""
    certain = logits.isinf()
    impossible = torch.where((logits > 0) == (outcome > 0), 0.0, -torch.inf)
    finite = torch.where(certain, 0.0, logits)
    return torch.where(certain, impossible, -binary_cross_entropy_with_logits(finite, outcome, reduction="none"))


def bernoulli_entropies(logits: Tensor) -> Tensor:
    """(E,) in nats."""
    certain = logits.isinf()
    finite = torch.where(certain, 0.0, logits)
    p = torch.sigmoid(finite)
    return torch.where(certain, 0.0, -(p * logsigmoid(finite) + (1 - p) * logsigmoid(-finite)))


def settled(logits: Tensor) -> Tensor:
    """(R, C) logits of which softmax makes the same probabilities: where some are plus infinity, these share all."""
    most = logits.isposinf()
    return torch.where(most.any(dim=1, keepdim=True), torch.where(most, 0.0, -torch.inf), logits)


def softmax_entropies(logits: Tensor) -> Tensor:
    """(R,) of the softmax of each of (R, C) logits, in nats."""
    logs = or_zero(torch.log_softmax(settled(logits), dim=1))
    return -(logs.exp() * logs).sum(dim=1)


def or_zero(log_p: Tensor) -> Tensor:
    """0 in place of log 0, so that p log p, as exp(log p) * log p, is 0 there."""
    return torch.where(log_p.isneginf(), 0.0, log_p)


def log_sum_exp(one: Tensor, other: Tensor) -> Tensor:
    """log (exp one + exp other), log 0 where both are."""
    neither = one.isneginf() & other.isneginf()
    either = torch.logaddexp(torch.where(neither, 0.0, one), torch.where(neither, 0.0, other))
    return torch.where(neither, -torch.inf, either)
