"""Probabilities of exactly 0 and 1: log-probabilities and entropies are what they are in the limit."""

from __future__ import annotations

import itertools
import math
import random

import pytest
import torch
from torch import Tensor

from gcache.gnn.distribution import EdgeDistribution, candidate_edges
from gcache.gnn.topology import Edge, Topology
from gcache.runtime.streams import stream

INF = math.inf
#: As good as certain where nothing is rounded away: exp(-60) is 1e-26.
NEARLY = 60.0
CHANNELS = ("cache", "text")


def distribution(seed: int, channels: bool, steps: bool, consult: float | None) -> EdgeDistribution:
    """Two agents; every logit may be infinite."""
    rng = random.Random(seed)
    candidates = candidate_edges(2)

    def logits(*shape: int) -> Tensor:
        values = [rng.choice([INF, -INF, rng.gauss(0, 1), rng.gauss(0, 2)]) for _ in range(math.prod(shape))]
        return torch.tensor(values, dtype=torch.float64).view(shape)

    def choices(rows: int) -> Tensor:
        """At most one infinite logit in each row, the second."""
        made = torch.tensor([[rng.gauss(0, 1), rng.gauss(0, 1)] for _ in range(rows)], dtype=torch.float64)
        made[:, 1] = torch.tensor([rng.choice([INF, -INF, 0.3]) for _ in range(rows)])
        return made

    return EdgeDistribution(
        2, tuple(candidates), logits(len(candidates)), CHANNELS if channels else (),
        choices(len(candidates)) if channels else None, (0, 2) if steps else (), choices(2) if steps else None,
        None if consult is None else torch.tensor(consult, dtype=torch.float64),
    )  # fmt: skip


def nearly(exact: EdgeDistribution) -> EdgeDistribution:
    """The same with finite logits."""

    def finite(logits: Tensor | None) -> Tensor | None:
        return None if logits is None else logits.clamp(-NEARLY, NEARLY)

    return EdgeDistribution(
        exact.n_agents, exact.candidates, exact.logits.clamp(-NEARLY, NEARLY), exact.channels,
        finite(exact.channel_logits), exact.latent_choices, finite(exact.latent_logits), finite(exact.consult_logit),
    )  # fmt: skip


def topologies(found: EdgeDistribution) -> list[Topology]:
    """All that it could draw if nothing were certain."""
    made = []
    for count in range(len(found.candidates) + 1):
        for pairs in itertools.combinations(found.candidates, count):
            if {(0, 1), (1, 0)} <= set(pairs):
                continue
            for names in itertools.product(found.channels or (None,), repeat=count):
                edges = tuple(Edge(a, b, payload=name) for (a, b), name in zip(pairs, names, strict=True))
                for steps in itertools.product(found.latent_choices, repeat=2) if found.latent_choices else (None,):
                    made.append(Topology(2, edges, latent_steps=steps))
    return made


CASES = [
    (seed, channels, steps, consult)
    for channels, steps, consult in [
        (False, False, None), (False, False, INF), (False, False, -INF), (True, True, None), (True, True, 0.4),
        (False, True, INF), (True, False, -INF),
    ]
    for seed in range(4)
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=str)
def test_log_probabilities_are_those_of_the_limit(case: tuple[int, bool, bool, float | None]) -> None:
    exact = distribution(*case)
    limit, total = nearly(exact), 0.0
    for topology in topologies(exact):
        found, wanted = float(exact.log_prob(topology)), float(limit.log_prob(topology))
        total += math.exp(found)
        if wanted < -NEARLY / 2:
            assert found == -INF or found < -NEARLY / 2, topology
        else:
            assert found == pytest.approx(wanted, abs=1e-9), topology
    assert total == pytest.approx(1.0)
    assert float(exact.entropy) == pytest.approx(float(limit.entropy), abs=1e-9)
    assert float(exact.most_likely()[1]) == pytest.approx(float(limit.most_likely()[1]), abs=1e-9)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_gradients_are_finite(case: tuple[int, bool, bool, float | None]) -> None:
    exact = distribution(*case)
    learned = [
        logits.requires_grad_()
        for logits in (exact.logits, exact.channel_logits, exact.latent_logits, exact.consult_logit)
        if logits is not None
    ]
    values = [exact.entropy, exact.most_likely()[1], exact.sample(stream("certain", case[0]))[1]]
    values += [exact.log_prob(topology) for topology in topologies(exact)]
    for value in values:
        assert not value.isnan()
        for slopes in torch.autograd.grad(value, learned, allow_unused=True, retain_graph=True):
            assert slopes is None or slopes.isfinite().all()


def test_what_is_certain_is_drawn_and_what_is_impossible_is_not() -> None:
    for case in CASES:
        exact, draws = distribution(*case), stream("draws", case[0])
        for _ in range(20):
            topology, log_p = exact.sample(draws)
            assert log_p.isfinite() and float(exact.log_prob(topology)) == pytest.approx(float(log_p))


def test_by_hand() -> None:
    sure = EdgeDistribution(1, ((0, 1),), torch.tensor([INF]))
    never = EdgeDistribution(1, ((0, 1),), torch.tensor([-INF]))
    edge, none = Topology(1, (Edge(0, 1),)), Topology(1, ())
    assert [float(sure.log_prob(edge)), float(sure.log_prob(none)), float(sure.entropy)] == [0.0, -INF, 0.0]
    assert [float(never.log_prob(edge)), float(never.log_prob(none)), float(never.entropy)] == [-INF, 0.0, 0.0]


def test_finite_logits_are_computed_as_ever() -> None:
    """To the bit: by torch's own functions, a sum of them after the other."""
    logits = torch.randn(4, generator=torch.Generator().manual_seed(0))
    found = EdgeDistribution(2, tuple(candidate_edges(2)), logits)
    outcome = torch.tensor([1.0, 0.0, 1.0])  # the last edge would close a cycle
    topology = Topology(2, (Edge(0, 2), Edge(0, 1)))
    wanted = -torch.nn.functional.binary_cross_entropy_with_logits(logits[:3], outcome, reduction="sum")
    assert torch.equal(found.log_prob(topology), wanted)
