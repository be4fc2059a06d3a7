"""What must hold of every fuser in the registry, trained or not: a fuser added later is asked the same."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
import torch
from exact import awake, double
from torch import Tensor

from gcache.cache.fused_cache import FusedCache
from gcache.cache.fusers.base import CacheFuser, Incoming
from gcache.cache.fusers.registry import FUSERS, make_fuser
from gcache.cache.kv_cache import SHARED, KVCache, SlotKind
from gcache.graph.hand_over import handed_on
from gcache.llm.forward.gradient_pass import GradientPass
from gcache.llm.local import LocalLLM
from gcache.llm.requests import LogProbRequest, ThinkRequest

QUESTION, LAST, WRITTEN = (1, 22, 50, 40), (44, 46, 26), (5, 30, 61)
#: Words of three agents; the last one's are as many as the first one's.
WORDS = ((30, 31, 4, 35, 29), (50, 22, 33), (28, 36, 40, 6, 52))
NAMES = sorted(FUSERS)


@pytest.fixture
def llm(tiny_llm: LocalLLM) -> LocalLLM:
    """In float64, so that what is left of an edge is not lost in rounding."""
    return double(tiny_llm)


def made(name: str, llm: LocalLLM, how: str = "trained", positions: str = "parallel") -> CacheFuser:
    """A fuser: untrained, trained a little, or with parameters far from the start."""
    fuser = make_fuser(name, llm.cache_shape, positions, llm.rope)
    if how == "trained":
        awake(fuser)
    elif how == "wild":
        with torch.no_grad():
            for parameter in fuser.parameters():
                parameter.normal_()
    return fuser


def read(llm: LocalLLM) -> tuple[KVCache, list[KVCache]]:
    """The question, and what each agent thinks of it alone."""
    (shared,) = llm.think([ThinkRequest(QUESTION, owner=SHARED, kind=SlotKind.PREFIX)])
    past = FusedCache.plain(shared)
    return shared, llm.think([ThinkRequest(words, past, 1, source) for source, words in enumerate(WORDS)])


def on(caches: Sequence[KVCache], weights: Sequence[float]) -> list[Incoming]:
    return [Incoming(cache, torch.tensor(weight)) for cache, weight in zip(caches, weights, strict=True)]


@torch.no_grad()
def heard(llm: LocalLLM, fused: FusedCache, place: int | None = None) -> Tensor:
    """Hidden states of the receiver's words, from `place` on: the receiver continues after the last occupied slot,
    however lightly that slot weighs."""
    batch = GradientPass(llm.model.model, fused)
    if place is not None:
        batch.next_positions = torch.tensor([place])
    return batch.feed(*llm.embed([LAST]))


def gap(llm: LocalLLM, with_edge: FusedCache, without: FusedCache) -> float:
    place = int(with_edge.next_positions[0])
    return float((heard(llm, with_edge) - heard(llm, without, place)).abs().max())


# -- 4. w = 1 untrained, and w -> 0 whatever the parameters ---------------------------------------


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("weight", [1.0, 0.3])
def test_untrained_one_cache_is_handed_over_to_the_bit(tiny_llm: LocalLLM, name: str, weight: float) -> None:
    shared, (first, *_) = read(tiny_llm)
    fused = made(name, tiny_llm, "untrained")(shared, on([first], [weight]))
    assert torch.equal(fused.keys, torch.cat([shared.keys, first.keys], dim=3))
    assert torch.equal(fused.values, torch.cat([shared.values, first.values], dim=3))
    expected = torch.tensor(weight).log().expand(first.slots)
    torch.testing.assert_close(fused.bias[0, shared.slots :], expected)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("positions", ["parallel", "sequential"])
@pytest.mark.parametrize("beside", [[], [1], [2], [1, 2]])
@pytest.mark.parametrize("how", ["untrained", "trained"])
def test_an_edge_whose_weight_goes_to_zero_is_no_edge(
    llm: LocalLLM, name: str, positions: str, beside: list[int], how: str
) -> None:
    """The faded cache is longer than, or as long as, each of those beside it."""
    shared, caches = read(llm)
    fuser = made(name, llm, how, positions)
    others, weights = [caches[i] for i in beside], [1.0, 0.4][: len(beside)]
    without = fuser(shared, on(others, weights))
    gaps = {
        weight: gap(llm, fuser(shared, on([*others, caches[0]], [*weights, weight])), without)
        for weight in (0.5, 1e-8, 1e-12, 0.0)
    }
    assert all(gaps[weight] < 1e6 * weight + 1e-6 for weight in (1e-8, 1e-12, 0.0)), gaps
    if not beside:
        assert gaps[0.5] > 1e-3, "an edge must be heard, or this test shows nothing"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("faded", [0, 1, 2])
def test_weight_zero_is_no_edge_whatever_was_learned(llm: LocalLLM, name: str, faded: int) -> None:
    shared, caches = read(llm)
    fuser = made(name, llm, "wild")
    weights = [0.0 if i == faded else 0.3 + 0.2 * i for i in range(3)]
    kept = [i for i in range(3) if i != faded]
    without = fuser(shared, on([caches[i] for i in kept], [weights[i] for i in kept]))
    assert gap(llm, fuser(shared, on(caches, weights)), without) < 1e-6


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("transfer", ["own", "context"])
@pytest.mark.parametrize("how", ["untrained", "trained"])
def test_an_edge_that_fades_two_hops_away_is_no_edge(llm: LocalLLM, name: str, transfer: str, how: str) -> None:
    """0 -> 1 fades; the receiver hears 1, which hands on what it heard as well, and 0 over a lighter edge."""
    shared, caches = read(llm)
    fuser = made(name, llm, how)

    def at_the_end(weight: float, hears: bool = True) -> tuple[FusedCache, int]:
        received = fuser(shared, on([caches[0]], [weight])) if hears else FusedCache.plain(shared)
        place = int(received.next_positions[0])
        (own,) = llm.think([ThinkRequest(WORDS[2], received, owner=1)])
        handed = handed_on(fuser, own, received, transfer)
        direct = fuser.prepare(caches[0])
        return fuser(
            shared, [Incoming(direct, torch.tensor(0.3), True), Incoming(handed, torch.tensor(0.9), True)]
        ), place

    with torch.no_grad():
        faded, place = at_the_end(1e-12)
        # agent 1 stands where it stands with the edge: its place is still counted
        moved = FusedCache.plain(shared)
        late = GradientPass(llm.model.model, moved)
        late.next_positions = torch.tensor([place])
        late.feed(*llm.embed([WORDS[2]]))
        keys, values = late.store.new_slots()
        (known,) = llm.think([ThinkRequest(WORDS[2], moved, owner=1)])
        own = KVCache(
            keys, values, place + known.ordinals, known.mask, known.kinds, known.owners, known.ordinals
        )
        handed = handed_on(fuser, own, moved, transfer)
        direct = fuser.prepare(caches[0])
        without = fuser(
            shared, [Incoming(direct, torch.tensor(0.3), True), Incoming(handed, torch.tensor(0.9), True)]
        )
        assert gap(llm, faded, without) < 1e-4
        assert gap(llm, at_the_end(0.8)[0], without) > 1e-3


# -- 3. Moving, and the order --------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("positions", ["parallel", "sequential"])
def test_moving_all_that_is_fused_by_n_moves_what_comes_out_by_n(llm: LocalLLM, name: str, positions: str) -> None:
    shared, caches = read(llm)
    fuser = made(name, llm, positions=positions)
    here = fuser(shared, on(caches, [0.5, 0.9, 0.7])).shift(30, llm.rope)
    there = fuser(shared.shift(30, llm.rope), on([c.shift(30, llm.rope) for c in caches], [0.5, 0.9, 0.7]))
    assert torch.equal(here.positions, there.positions)
    for part in ("keys", "values", "bias"):
        torch.testing.assert_close(getattr(here, part), getattr(there, part), atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("weights", [(0.9, 0.5, 0.2), (0.6, 0.6, 0.2), (1.0, 1.0, 1.0)])
def test_with_parallel_positions_the_order_changes_nothing(
    llm: LocalLLM, name: str, weights: tuple[float, ...]
) -> None:
    shared, caches = read(llm)
    fuser = made(name, llm)
    arriving = on(caches, weights)
    scores = [
        float(llm.log_prob([LogProbRequest(LAST, WRITTEN, fuser(shared, order))])[0].sum().detach())
        for order in itertools.permutations(arriving)
    ]
    assert scores == pytest.approx([scores[0]] * len(scores), abs=1e-5)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("weights", [(0.5, 0.5), (0.9, 0.4)])
def test_the_order_of_whole_contexts_changes_nothing(llm: LocalLLM, name: str, weights: tuple[float, ...]) -> None:
    """Both bring agent 0's slots, which they heard at different weights."""
    shared, caches = read(llm)
    fuser = made(name, llm)
    with torch.no_grad():
        contexts = []
        for source, weight in ((1, 0.2), (2, 0.8)):
            received = fuser(shared, on([caches[0]], [weight]))
            (own,) = llm.think([ThinkRequest(WORDS[2], received, owner=source)])
            contexts.append(handed_on(fuser, own, received, "context"))
    arriving = [Incoming(c, torch.tensor(w), True) for c, w in zip(contexts, weights, strict=True)]
    scores = [
        float(llm.log_prob([LogProbRequest(LAST, WRITTEN, fuser(shared, order))])[0].sum().detach())
        for order in (arriving, arriving[::-1])
    ]
    assert scores[0] == pytest.approx(scores[1], abs=1e-5)


# -- 5. Gradients near w = 0 ----------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("beside", [[], [2], [1, 2]])
@pytest.mark.parametrize("weight", [1e-2, 1e-5, 1e-12])
def test_the_gradient_to_a_small_weight_is_finite_and_exact(
    llm: LocalLLM, name: str, beside: list[int], weight: float
) -> None:
    shared, caches = read(llm)
    fuser = made(name, llm)
    small = torch.tensor(weight, requires_grad=True)
    others = on([caches[i] for i in beside], [0.9, 0.4][: len(beside)])

    def value(w: Tensor) -> Tensor:
        fused = fuser(shared, [*others, Incoming(caches[0], w)])
        return llm.log_prob([LogProbRequest(LAST, WRITTEN, fused)])[0].sum()

    found = value(small)
    (gradient,) = torch.autograd.grad(found, small, allow_unused=True) if found.requires_grad else (None,)
    exact = 0.0 if gradient is None else float(gradient)
    step = 1e-5
    with torch.no_grad():  # to the second order, to one side: no weight is below 0
        ends = [float(value(torch.tensor(weight + number * step))) for number in range(3)]
    slope = (4 * ends[1] - 3 * ends[0] - ends[2]) / (2 * step)
    assert exact == pytest.approx(slope, rel=0.03, abs=0.5)  # fusers average in float32
    if not beside:
        assert abs(exact) > 1.0, "the text must depend on it, or this test shows nothing"
