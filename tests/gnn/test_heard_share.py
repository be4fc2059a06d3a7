"""So many agents are heard in the mean."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from gcache.gnn.heard_share import MOST, shifted


@pytest.mark.parametrize("heard", [0.3, 1.0, 2.5, 9.0])
@pytest.mark.parametrize("spread", [0.0, 1.0, 8.0])
def test_the_chances_add_up_to_what_is_asked(heard: float, spread: float) -> None:
    logits = spread * torch.randn(10, generator=torch.Generator().manual_seed(0)) + 3
    found = shifted(logits, heard)
    assert float(torch.sigmoid(found).sum()) == pytest.approx(heard, abs=1e-4)
    assert torch.allclose(found - found[0], logits - logits[0], atol=1e-5), "all are shifted by one number"


def test_whoever_is_sure_is_sure_still() -> None:
    found = torch.sigmoid(shifted(torch.tensor([60.0, 55.0, -60.0, -70.0]), 2.0))
    assert found.tolist() == pytest.approx([1, 1, 0, 0], abs=1e-6)
    assert torch.isfinite(shifted(torch.tensor([200.0, -200.0, 0.0]), 1.5)).all()


@pytest.mark.parametrize("agents", [1, 2, 3])
def test_of_fewer_agents_than_are_to_be_heard_nearly_all_are(agents: int) -> None:
    assert float(torch.sigmoid(shifted(torch.zeros(agents), 3.0)).sum()) == pytest.approx(MOST * agents, abs=1e-4)


def test_nobody_is_heard_where_there_is_nobody() -> None:
    assert shifted(torch.zeros(0), 2.0).shape == (0,)


def test_a_shift_of_all_logits_changes_nothing() -> None:
    logits = torch.randn(6, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(shifted(logits, 2.0), shifted(logits + 7, 2.0), atol=1e-5)


def test_the_gradient_is_that_of_finite_differences() -> None:
    logits = (2 * torch.randn(7, generator=torch.Generator().manual_seed(2), dtype=torch.float64)).requires_grad_()
    weights = torch.randn(7, generator=torch.Generator().manual_seed(3), dtype=torch.float64)

    def of(values: Tensor) -> Tensor:
        return (weights * torch.sigmoid(shifted(values, 2.3))).sum()

    (exact,) = torch.autograd.grad(of(logits), logits)
    step = 1e-6
    for i in range(7):
        moved = torch.zeros(7, dtype=torch.float64)
        moved[i] = step
        slope = float((of(logits.detach() + moved) - of(logits.detach() - moved)) / (2 * step))
        assert math.isclose(float(exact[i]), slope, rel_tol=1e-5, abs_tol=1e-8)
    assert float(exact.sum()) == pytest.approx(0, abs=1e-10), "no gradient goes to what all have in common"


@pytest.mark.parametrize("certain", [math.inf, -math.inf])
def test_what_is_certain_stays_so(certain: float) -> None:
    logits = torch.tensor([certain, 0.0, 0.0])
    assert torch.equal(shifted(logits, 1.0), logits)
