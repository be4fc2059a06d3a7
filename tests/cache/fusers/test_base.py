"""What a fuser must keep, what it may change, and where it puts things."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

import pytest
import torch
from torch import Tensor

from gcache.cache.fused_cache import FusedCache
from gcache.cache.fusers.base import CacheFuser, Incoming
from gcache.cache.fusers.concat import ConcatFuser
from gcache.cache.fusers.registry import FUSERS, make_fuser
from gcache.cache.fusers.simple import FirstFuser, WeightedSumFuser
from gcache.cache.kv_cache import SHARED, KVCache, SlotKind
from gcache.cache.positions import first_seen, place
from gcache.cache.rope import Rope
from gcache.errors import ConfigError
from gcache.llm.local import LocalLLM
from gcache.llm.requests import ThinkRequest

Fuser = TypeVar("Fuser", bound=CacheFuser)
LAYERS, HEADS, DIM = 2, 2, 4
SHAPE = (LAYERS, HEADS, DIM)
ROPE = Rope(torch.tensor([1.0, 0.1]))


def slots(
    source: int,
    positions: Sequence[int],
    raw: Tensor | None = None,
    values: Tensor | None = None,
    ordinals: Sequence[int] | None = None,
) -> KVCache:
    """One sequence of a source's slots; `raw` (L, 1, H, T, D) are its keys before their rotation."""
    where = torch.tensor([list(positions)], dtype=torch.long)
    shape = (LAYERS, 1, HEADS, len(positions), DIM)
    keys = torch.randn(shape) if raw is None else raw
    return KVCache(
        keys=ROPE.rotate(keys, where[:, None]),
        values=torch.randn(shape) if values is None else values,
        positions=where,
        mask=torch.ones_like(where).bool(),
        kinds=torch.full_like(where, int(SlotKind.PREFIX if source == SHARED else SlotKind.PROMPT)),
        owners=torch.full_like(where, source),
        ordinals=torch.tensor([list(ordinals)]) if ordinals is not None else torch.arange(len(positions))[None],
    )


def on(cache: KVCache, weight: float) -> Incoming:
    return Incoming(cache, torch.tensor(weight))


def names(cache: KVCache) -> list[tuple[int, int]]:
    return list(zip(cache.owners[0].tolist(), cache.ordinals[0].tolist(), strict=True))


def with_random_parameters(fuser: Fuser) -> Fuser:
    with torch.no_grad():
        for parameter in fuser.parameters():
            parameter.normal_(std=0.5)
    return fuser


@pytest.fixture
def prefix() -> KVCache:
    return slots(SHARED, [0, 1, 2])


# -- concat, untrained ----------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rope", [ROPE, None])
@pytest.mark.parametrize("weight", [1.0, 0.3])
def test_untrained_concat_leaves_keys_and_values_bit_identical(
    prefix: KVCache, dtype: torch.dtype, rope: Rope | None, weight: float
) -> None:
    def of(cache: KVCache) -> KVCache:
        return KVCache(**{**cache.__dict__, "keys": cache.keys.to(dtype), "values": cache.values.to(dtype)})

    first, second = of(slots(0, [3, 4])), of(slots(1, [3, 4, 5]))
    fused = ConcatFuser(*SHAPE, rope=rope)(of(prefix), [on(first, weight), on(second, 1.0)])
    assert fused.keys.dtype == dtype
    assert torch.equal(fused.keys, torch.cat([of(prefix).keys, first.keys, second.keys], dim=3))
    assert torch.equal(fused.values, torch.cat([of(prefix).values, first.values, second.values], dim=3))
    assert fused.positions.tolist() == [[0, 1, 2, 3, 4, 3, 4, 5]]


def test_the_bias_is_log_w_on_an_edges_slots_and_zero_on_the_prefix(prefix: KVCache) -> None:
    fused = ConcatFuser(*SHAPE)(prefix, [on(slots(0, [3, 4]), 0.5), on(slots(1, [3]), 1.0), on(slots(2, [3]), 0.1)])
    expected = [0.0, 0.0, 0.0, math.log(0.5), math.log(0.5), 0.0, math.log(0.1)]
    assert fused.bias[0].tolist() == pytest.approx(expected)


def test_the_bias_of_weight_zero_is_finite_and_blocks(prefix: KVCache) -> None:
    fused = ConcatFuser(*SHAPE)(prefix, [on(slots(0, [3]), 0.0)])
    assert math.isfinite(float(fused.bias[0, 3]))
    assert float(fused.bias[0, 3]) < -80


def test_weights_multiply_along_a_path(prefix: KVCache) -> None:
    fuser = ConcatFuser(*SHAPE)
    first_hop = fuser(prefix, [on(slots(0, [3]), 0.5)])
    second_hop = fuser(prefix, [on(first_hop, 0.2)])
    assert second_hop.bias[0].tolist() == pytest.approx([0.0, 0.0, 0.0, math.log(0.1)])


def test_gradient_reaches_a_weight_exactly(prefix: KVCache) -> None:
    weight = torch.tensor(0.25, requires_grad=True)
    fused = ConcatFuser(*SHAPE)(prefix, [Incoming(slots(0, [3, 4]), weight)])
    fused.bias.sum().backward()
    assert weight.grad is not None
    assert float(weight.grad) == pytest.approx(2 / 0.25)  # two slots, d log w / dw = 1 / w


# -- slots that arrive twice ----------------------------------------------------------------


@pytest.mark.parametrize(("direct", "relayed", "expected"), [(0.9, 0.3, 0.9), (0.3, 0.9, 0.9), (0.4, 0.4, 0.4)])
def test_a_slot_that_arrives_twice_is_kept_once_by_the_heaviest_edge(
    prefix: KVCache, direct: float, relayed: float, expected: float
) -> None:
    first, second = slots(0, [3, 4]), slots(1, [5])
    context = KVCache.join([prefix, first, second])  # what agent 1 hands on with transfer="context"
    fused = ConcatFuser(*SHAPE)(prefix, [on(first, direct), on(context, relayed)])
    assert sorted(names(fused)) == [(-1, 0), (-1, 1), (-1, 2), (0, 0), (0, 1), (1, 0)]
    weights = dict(zip(names(fused), fused.bias[0].exp().tolist(), strict=True))
    assert weights[0, 0] == weights[0, 1] == pytest.approx(expected)
    assert weights[1, 0] == pytest.approx(relayed)


def test_of_a_slot_that_arrives_twice_the_heaviest_path_counts_not_the_last_edge(prefix: KVCache) -> None:
    fuser = ConcatFuser(*SHAPE)
    first = slots(0, [3, 4])
    relayed = FusedCache.join([fuser(prefix, [on(first, 0.1)]), FusedCache.plain(slots(1, [5]))])
    fused = fuser(prefix, [on(first, 0.5), on(relayed, 0.9)])
    weights = dict(zip(names(fused), fused.bias[0].exp().tolist(), strict=True))
    assert len(weights) == fused.slots == 6
    assert weights[0, 0] == weights[0, 1] == pytest.approx(0.5)  # not 0.1 * 0.9
    assert weights[1, 0] == pytest.approx(0.9)


@pytest.mark.parametrize("name", sorted(FUSERS))
def test_an_edge_that_brings_nothing_new_changes_nothing(prefix: KVCache, name: str) -> None:
    fuser = make_fuser(name, SHAPE, "parallel", ROPE)
    with_random_parameters(fuser)
    caches = [slots(0, [3, 4]), slots(1, [3, 4, 5])]
    arriving = [on(cache, weight) for cache, weight in zip(caches, (0.5, 0.9), strict=True)]
    without = fuser(prefix, arriving)
    fused = fuser(prefix, [on(prefix, 1.0), *arriving])
    assert names(fused) == names(without)
    assert torch.equal(fused.values, without.values) and torch.equal(fused.bias, without.bias)


@pytest.mark.parametrize("name", sorted(FUSERS))
def test_the_prefix_is_never_repeated_whoever_hands_it_on(prefix: KVCache, name: str) -> None:
    context = KVCache.join([prefix, slots(0, [3, 4])])
    fuser = make_fuser(name, SHAPE, "parallel", ROPE)
    fused = fuser(prefix, [on(context, 1.0), on(KVCache.join([prefix, slots(1, [3, 4])]), 0.5)])
    assert [name for name in names(fused) if name[0] == SHARED] == [(-1, 0), (-1, 1), (-1, 2)]
    assert torch.equal(fused.keys[:, :, :, :3], prefix.keys)


@pytest.mark.parametrize("name", sorted(FUSERS))
def test_nothing_new_on_any_edge_leaves_the_prefix_at_weight_one(prefix: KVCache, name: str) -> None:
    fuser = make_fuser(name, SHAPE, "parallel", ROPE)
    for incoming in ([], [on(prefix.take(torch.tensor([], dtype=torch.long)), 0.5)]):
        fused = fuser(prefix, incoming)
        assert names(fused) == names(prefix)
        assert torch.equal(fused.bias, torch.zeros(1, 3))


def test_slots_that_only_look_alike_are_both_kept(prefix: KVCache) -> None:
    first = slots(0, [3, 4])
    twin = KVCache(**{**first.__dict__, "owners": torch.full_like(first.owners, 1)})
    fused = ConcatFuser(*SHAPE)(prefix, [on(first, 1.0), on(twin, 1.0)])
    assert names(fused)[3:] == [(0, 0), (0, 1), (1, 0), (1, 1)]


def test_first_seen_marks_what_no_earlier_cache_brought() -> None:
    masks = first_seen([slots(0, [0, 1]), slots(0, [5, 6, 7]), slots(1, [0]), slots(1, [0], ordinals=[3])])
    assert [mask.tolist() for mask in masks] == [[True, True], [False, False, True], [True], [True]]


# -- positions ------------------------------------------------------------------------------


def test_sequential_positions_start_where_the_one_before_ends(prefix: KVCache) -> None:
    incoming = [on(slots(0, [3, 4]), 1.0), on(slots(1, [3, 4, 5]), 0.5), on(slots(2, [9]), 1.0)]
    fused = ConcatFuser(*SHAPE, positions="sequential", rope=ROPE)(prefix, incoming)
    assert fused.positions.tolist() == [[0, 1, 2, 3, 4, 5, 6, 7, 8]]


def test_sequential_keys_are_those_rotated_to_their_new_positions(prefix: KVCache) -> None:
    raw = torch.randn(LAYERS, 1, HEADS, 3, DIM)
    incoming = [on(slots(0, [3, 4]), 1.0), on(slots(1, [3, 4, 5], raw), 1.0)]
    fused = ConcatFuser(*SHAPE, positions="sequential", rope=ROPE)(prefix, incoming)
    later = ROPE.rotate(raw, torch.tensor([5, 6, 7]))
    torch.testing.assert_close(fused.keys[:, :, :, 5:], later, atol=1e-5, rtol=0)
    assert not torch.allclose(fused.keys[:, :, :, 5:], incoming[1].cache.keys, atol=1e-2)


def test_sequential_positions_equal_recomputation_by_the_model(tiny_llm: LocalLLM) -> None:
    nothing = tiny_llm.empty_cache()
    first, second = tiny_llm.think(
        [ThinkRequest((30, 31, 4), owner=0), ThinkRequest((35, 29), latent_steps=1, owner=1)]
    )
    fuser = make_fuser("concat", tiny_llm.cache_shape, "sequential", tiny_llm.rope)
    fused = fuser(nothing, [on(first, 1.0), on(second, 1.0)])
    # the second agent again, behind the first one's slots but deaf to them
    behind = fuser(nothing, [on(first, 0.0)])
    (again,) = tiny_llm.think([ThinkRequest((35, 29), behind, latent_steps=1, owner=1)])
    assert again.positions.tolist() == [[3, 4, 5]]
    moved = fused.take(fused.owners[0] == 1)
    assert moved.positions.tolist() == again.positions.tolist()
    torch.testing.assert_close(moved.keys, again.keys, atol=1e-4, rtol=0)
    torch.testing.assert_close(moved.values, again.values, atol=1e-4, rtol=0)
    assert not torch.allclose(moved.keys, second.keys, atol=1e-2)


@pytest.mark.parametrize(("direct", "relayed"), [(0.9, 0.3), (0.3, 0.9)])
def test_sequential_positions_have_no_hole_where_a_slot_arrived_twice(
    prefix: KVCache, direct: float, relayed: float
) -> None:
    first, second = slots(0, [3, 4]), slots(1, [5, 6])
    context = KVCache.join([prefix, first, second])
    fuser = ConcatFuser(*SHAPE, positions="sequential", rope=ROPE)
    fused = fuser(prefix, [on(first, direct), on(context, relayed)])
    assert sorted(fused.positions[0].tolist()) == [0, 1, 2, 3, 4, 5, 6]


def test_place_keeps_parallel_caches_as_they_are_and_steps_over_empty_ones() -> None:
    caches = [slots(0, [3, 4]), slots(1, []), slots(2, [3])]
    assert place(caches, 3, "parallel", None) == caches
    moved = place(caches, 10, "sequential", ROPE)
    assert [cache.positions.tolist() for cache in moved] == [[[10, 11]], [[]], [[12]]]


def test_sequential_positions_without_a_rope_are_refused(prefix: KVCache) -> None:
    with pytest.raises(ConfigError, match="pass the model's rope, or use positions='parallel'"):
        ConcatFuser(*SHAPE, positions="sequential")(prefix, [on(slots(0, [3]), 1.0)])


# -- weighted_sum ---------------------------------------------------------------------------


def test_the_weighted_sum_of_two_equal_caches_is_that_cache(prefix: KVCache) -> None:
    cache = slots(0, [3, 4])
    fused = WeightedSumFuser(rope=ROPE)(prefix, [on(cache, 0.2), on(cache, 0.7)])
    assert fused.positions.tolist() == [[0, 1, 2, 3, 4]]
    torch.testing.assert_close(fused.keys[:, :, :, 3:], cache.keys)
    torch.testing.assert_close(fused.values[:, :, :, 3:], cache.values)
    # either edge is enough: 1 - 0.8 * 0.3
    assert fused.bias[0].exp().tolist() == pytest.approx([1.0, 1.0, 1.0, 0.76, 0.76])


def test_the_weighted_sum_of_one_to_three(prefix: KVCache) -> None:
    shape = (LAYERS, 1, HEADS, 1, DIM)
    light = slots(0, [3], raw=torch.full(shape, 8.0), values=torch.zeros(shape))
    heavy = slots(1, [3], raw=torch.zeros(shape), values=torch.full(shape, 4.0))
    fused = WeightedSumFuser(rope=ROPE)(prefix, [on(light, 0.25), on(heavy, 0.75)])
    torch.testing.assert_close(fused.values[:, :, :, 3:], torch.full(shape, 3.0))
    expected = ROPE.rotate(torch.full(shape, 2.0), torch.tensor([3]))
    torch.testing.assert_close(fused.keys[:, :, :, 3:], expected)


def test_a_merged_slot_weighs_as_much_as_the_edges_that_bring_it(prefix: KVCache) -> None:
    fuser = WeightedSumFuser(rope=ROPE)
    alone = fuser(prefix, [on(slots(0, [3, 4]), 0.3)])
    assert alone.bias[0, 3:].exp().tolist() == pytest.approx([0.3, 0.3])
    longer = fuser(prefix, [on(slots(0, [3, 4]), 0.5), on(slots(1, [4]), 1.0)])
    assert longer.bias[0, 3:].exp().tolist() == pytest.approx([0.5, 1.0])
    tiny = fuser(prefix, [on(slots(0, [3]), 1e-20), on(slots(1, [3]), 2e-20)])
    assert float(tiny.bias[0, 3]) == pytest.approx(math.log(3e-20))


def test_the_weighted_sum_weighs_a_slot_by_its_whole_path(prefix: KVCache) -> None:
    fuser = WeightedSumFuser(rope=ROPE)
    shape = (LAYERS, 1, HEADS, 1, DIM)
    heard = fuser(prefix, [on(slots(0, [3], values=torch.full(shape, 8.0)), 0.25)])
    fused = fuser(prefix, [on(heard, 0.5), on(slots(1, [3], values=torch.zeros(shape)), 0.375)])
    torch.testing.assert_close(fused.values[:, :, :, 3:], torch.full(shape, 2.0))  # 8 * 0.125 / (0.125 + 0.375)
    assert float(fused.bias[0, 3].exp()) == pytest.approx(1 - 0.875 * 0.625)


@pytest.mark.parametrize("swap", [False, True])
def test_the_weighted_sum_aligns_different_lengths_at_their_last_slots(prefix: KVCache, swap: bool) -> None:
    def column(*numbers: float) -> Tensor:
        return torch.tensor(numbers, dtype=torch.float32)[:, None].expand(LAYERS, 1, HEADS, len(numbers), DIM).clone()

    long = slots(0, [3, 4, 5], raw=column(1, 2, 3), values=column(1, 2, 3))
    short = slots(1, [3], raw=column(9), values=column(9))
    incoming = [on(long, 0.5), on(short, 0.25)]
    fused = WeightedSumFuser(rope=ROPE)(prefix, incoming[::-1] if swap else incoming)
    assert fused.positions.tolist() == [[0, 1, 2, 3, 4, 5]]
    merged = column(1, 2, 5)  # (2 * 3 + 1 * 9) / 3 = 5
    torch.testing.assert_close(fused.values[:, :, :, 3:], merged)
    expected = ROPE.rotate(merged, torch.tensor([3, 4, 5]))
    torch.testing.assert_close(fused.keys[:, :, :, 3:], expected, atol=1e-5, rtol=1e-5)


def test_the_weighted_sum_carries_gradient_to_the_ratio_of_the_weights(prefix: KVCache) -> None:
    shape = (LAYERS, 1, HEADS, 1, DIM)
    zero, four = slots(0, [3], values=torch.zeros(shape)), slots(1, [3], values=torch.full(shape, 4.0))
    light, heavy = torch.tensor(0.25, requires_grad=True), torch.tensor(0.75, requires_grad=True)
    fused = WeightedSumFuser(rope=ROPE)(prefix, [Incoming(zero, light), Incoming(four, heavy)])
    fused.values[:, :, :, 3:].mean().backward()
    assert light.grad is not None and heavy.grad is not None
    assert float(light.grad) == pytest.approx(-3.0)  # 4 * d/da [b / (a + b)] = -4 b = -3
    assert float(heavy.grad) == pytest.approx(1.0)  # 4 * d/db [b / (a + b)] = 4 a = 1


def test_the_weighted_sum_without_a_rope_is_refused(prefix: KVCache) -> None:
    with pytest.raises(ConfigError, match="pass the model's rope"):
        WeightedSumFuser()(prefix, [on(slots(0, [3]), 1.0)])


# -- first ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("weights", "chosen"), [((0.2, 0.6, 0.5), 1), ((0.6, 0.2, 0.6), 0), ((0.1, 0.2, 0.3), 2)])
def test_first_keeps_only_the_heaviest_edge_at_its_weight(
    prefix: KVCache, weights: tuple[float, ...], chosen: int
) -> None:
    caches = [slots(source, [3, 4]) for source in range(3)]
    fused = FirstFuser()(prefix, [on(cache, weight) for cache, weight in zip(caches, weights, strict=True)])
    assert names(fused)[3:] == [(chosen, 0), (chosen, 1)]
    assert torch.equal(fused.keys[:, :, :, 3:], caches[chosen].keys)
    assert fused.bias[0, 3:].exp().tolist() == pytest.approx([weights[chosen]] * 2)


def test_of_equals_first_takes_that_of_the_first_sender_in_whatever_order_they_come(prefix: KVCache) -> None:
    weight = torch.tensor(0.5)
    late, early = Incoming(slots(0, [3]), weight, order=1), Incoming(slots(1, [3]), weight, order=0)
    for arriving in ([late, early], [early, late]):
        assert names(FirstFuser()(prefix, arriving))[3:] == [(1, 0)]


# -- names ----------------------------------------------------------------------------------


def test_unknown_names_are_refused_with_the_known_ones() -> None:
    known = "concat, first, relevance, trust, weighted_sum"
    with pytest.raises(ConfigError, match=f"unknown fuser 'mean'; choose one of: {known}"):
        make_fuser("mean", SHAPE, "parallel", ROPE)
    for name in FUSERS:
        with pytest.raises(ConfigError, match="unknown positions 'stacked'; choose one of: parallel, sequential"):
            make_fuser(name, SHAPE, "stacked", ROPE)


def test_a_rank_below_one_is_refused() -> None:
    with pytest.raises(ConfigError, match="rank must be 1 or more, got 0"):
        ConcatFuser(*SHAPE, rank=0)


# -- what concat learns ---------------------------------------------------------------------


def test_gate_and_low_rank_corrections_get_gradient(prefix: KVCache) -> None:
    fuser = ConcatFuser(*SHAPE, rank=2, rope=ROPE)

    def gradients() -> dict[str, float]:
        fuser.zero_grad()
        fused = fuser(prefix, [on(slots(0, [3, 4]), 0.5)])
        (fused.keys * torch.randn(fused.keys.shape) + fused.values * torch.randn(fused.values.shape)).sum().backward()
        return {name: float(p.grad.abs().sum()) for name, p in fuser.named_parameters() if p.grad is not None}

    at_the_start = gradients()
    assert {name for name, size in at_the_start.items() if size > 0} == {"gate", "key_up", "value_up"}
    with_random_parameters(fuser)
    later = gradients()
    assert set(later) == {"gate", "key_down", "key_up", "value_down", "value_up"}
    assert all(size > 0 for size in later.values()), later


def test_the_value_correction_by_hand() -> None:
    fuser = ConcatFuser(layers=1, heads=1, dim=2, rank=1)
    with torch.no_grad():
        fuser.gate.fill_(0.5)
        fuser.value_down.copy_(torch.tensor([1.0, -1.0]).reshape(1, 1, 2, 1))
        fuser.value_up.copy_(torch.tensor([0.0, 2.0]).reshape(1, 1, 1, 2))
    index = torch.zeros(1, 1, dtype=torch.long)
    values = torch.tensor([3.0, 5.0]).reshape(1, 1, 1, 1, 2)
    cache = KVCache(torch.ones_like(values), values, index, index == 0, index, index, index)
    nothing = cache.take(torch.tensor([], dtype=torch.long))
    fused = fuser(nothing, [on(cache, 1.0)])
    # 1.5 * (3, 5) + (3 - 5) * (0, 2) = (4.5, 7.5 - 4)
    assert fused.values.flatten().tolist() == pytest.approx([4.5, 3.5])
    assert fused.keys.flatten().tolist() == [1.0, 1.0]


def test_a_trained_fuser_leaves_the_prefix_alone(prefix: KVCache) -> None:
    fuser = with_random_parameters(ConcatFuser(*SHAPE, rope=ROPE))
    cache = slots(0, [3])
    fused = fuser(prefix, [on(KVCache.join([prefix, cache]), 0.5)])
    assert torch.equal(fused.keys[:, :, :, :3], prefix.keys)
    assert torch.equal(fused.values[:, :, :, :3], prefix.values)
    assert not torch.allclose(fused.keys[:, :, :, 3:], cache.keys, atol=1e-2)
    assert not torch.allclose(fused.values[:, :, :, 3:], cache.values, atol=1e-2)


def test_a_cache_prepared_beforehand_fuses_as_one_that_was_not(prefix: KVCache) -> None:
    fuser = with_random_parameters(ConcatFuser(*SHAPE, positions="sequential", rope=ROPE))
    caches = [slots(0, [3, 4]), slots(1, [3, 4, 5])]
    plain = fuser(prefix, [on(cache, 0.5) for cache in caches])
    early = [Incoming(fuser.prepare(cache), torch.tensor(0.5), prepared=True) for cache in caches]
    fused = fuser(prefix, early)
    assert torch.equal(fused.values, plain.values)
    torch.testing.assert_close(fused.keys, plain.keys, atol=1e-5, rtol=0)
    assert torch.equal(fused.bias, plain.bias) and torch.equal(fused.positions, plain.positions)
    twice = fuser(prefix, [on(item.cache, 0.5) for item in early])
    assert not torch.allclose(twice.values, plain.values, atol=1e-2)


@pytest.mark.parametrize(("rope", "commutes"), [(ROPE, True), (None, False)])
def test_the_key_correction_commutes_with_a_shift(prefix: KVCache, rope: Rope | None, commutes: bool) -> None:
    fuser = with_random_parameters(ConcatFuser(*SHAPE, rope=rope))
    cache = slots(0, [3, 4, 5])
    nothing = prefix.take(torch.tensor([], dtype=torch.long))
    corrected_then_moved = fuser(nothing, [on(cache, 1.0)]).shift(11, ROPE)
    moved_then_corrected = fuser(nothing, [on(cache.shift(11, ROPE), 1.0)])
    gap = float((corrected_then_moved.keys - moved_then_corrected.keys).detach().abs().max())
    # without the rotation known, the correction does depend on where a slot stands
    assert gap < 1e-4 if commutes else gap > 0.1
