"""So many agents are heard in the mean: what is learned is who they are, and not how many.

The logits of the edges into the decision maker are shifted by one number t, so that the chances add up to K:

    sum_i sigmoid(s_i - t) = K,      dt/ds_i = p_i (1 - p_i) / sum_j p_j (1 - p_j)    (implicit function theorem)

Without it every edge may become a little less likely while nothing is yet known of any of them, and a policy of many
agents comes to hear all of them, or none, before it has learned whom.
"""

from __future__ import annotations

import torch
from torch import Tensor

#: The most that may be heard in the mean, of all: with fewer agents than K there is no t.
MOST = 0.95
_HALVINGS = 64


def shifted(logits: Tensor, heard: float) -> Tensor:
    """(N,) logits less t, with the exact gradient.

    Args:
        logits: (N,) s_i.
        heard: K; with few agents `MOST` of them.
    """
    if not logits.numel() or not bool(logits.isfinite().all()):  # what is certain is no matter of how many
        return logits
    wanted = min(heard, MOST * logits.numel())
    exact = logits.double()
    with torch.no_grad():  # sigmoid(s - t) is above `wanted` / N for all at `low`, and below it at `high`
        margin = float(torch.logit(torch.tensor(wanted / logits.numel(), dtype=torch.float64)))
        low, high = exact.min() - margin, exact.max() - margin
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            more = torch.sigmoid(exact - middle).sum() > wanted
            low, high = torch.where(more, middle, low), torch.where(more, high, middle)
    start = (low + high) / 2
    chances = torch.sigmoid(exact - start)
    slope = (chances * (1 - chances)).sum().detach().clamp_min(1e-9)
    return (exact - (start + (chances.sum() - wanted) / slope)).to(logits.dtype)  # a step of Newton's brings dt/ds
