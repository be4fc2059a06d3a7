from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import FrozenInstanceError, fields, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from gcache.cache.fused_cache import FusedCache
from gcache.cache.kv_cache import SHARED, KVCache, SlotKind
from gcache.cache.rope import Rope
from gcache.errors import ConfigError

QUARTER_TURN = Rope(torch.tensor([math.pi / 2]))


def make(
    positions: Sequence[Sequence[int]],
    mask: Sequence[Sequence[int]] | None = None,
    layers: int = 2,
    heads: int = 1,
    dim: int = 2,
    owner: int = 0,
    dtype: torch.dtype = torch.float32,
) -> KVCache:
    """A random cache with one sequence per row of `positions`."""
    places = torch.tensor(positions, dtype=torch.long)  # (B, T)
    batch, slots = places.shape
    valid = torch.ones_like(places) if mask is None else torch.tensor(mask)
    return KVCache(
        keys=torch.randn(layers, batch, heads, slots, dim).to(dtype),
        values=torch.randn(layers, batch, heads, slots, dim).to(dtype),
        positions=places,
        mask=valid.bool(),
        kinds=torch.full_like(places, int(SlotKind.PROMPT)),
        owners=torch.full_like(places, owner),
        ordinals=torch.arange(slots).expand(batch, slots),
    )


def weighted(cache: KVCache, bias: Sequence[Sequence[float]]) -> FusedCache:
    return replace(FusedCache.plain(cache), bias=torch.tensor(bias))


def assert_same(left: KVCache, right: KVCache) -> None:
    assert type(left) is type(right)
    for field in fields(left):
        assert torch.equal(getattr(left, field.name), getattr(right, field.name)), field.name


# -- shapes ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["positions", "mask", "kinds", "owners", "ordinals"])
def test_slots_that_do_not_agree_with_the_keys_are_refused_by_name(name: str) -> None:
    cache = make([[0, 1, 2]])
    short = {name: getattr(cache, name)[:, :2]}
    with pytest.raises(ConfigError, match=rf"^{name} must be .* \(1, 3\).* got \(1, 2\)$"):
        replace(cache, **short)


def test_a_bias_that_does_not_agree_with_the_keys_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^bias must be .* \(1, 3\).* got \(3,\)$"):
        replace(FusedCache.plain(make([[0, 1, 2]])), bias=torch.zeros(3))


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(lambda values: values[..., :1], id="head dimension"),
        pytest.param(lambda values: values[:, :, :, :2], id="slots"),
        pytest.param(lambda values: values[:1], id="layers"),
    ],
)
def test_values_that_do_not_agree_with_the_keys_are_refused(wrong: Callable[[Tensor], Tensor]) -> None:
    cache = make([[0, 1, 2]])
    with pytest.raises(ConfigError, match=r"keys and values must both be \(L, B, H, T, D\)"):
        replace(cache, values=wrong(cache.values))


def test_keys_of_one_layer_without_a_layer_dimension_are_refused() -> None:
    cache = make([[0, 1, 2]])
    with pytest.raises(ConfigError, match=r"\(L, B, H, T, D\)"):
        replace(cache, keys=cache.keys[0], values=cache.values[0])


def test_a_cache_cannot_be_changed() -> None:
    cache = make([[0]])
    with pytest.raises(FrozenInstanceError):
        cache.mask = ~cache.mask  # type: ignore[misc]


# -- size -----------------------------------------------------------------------------------


def test_next_position_is_after_the_last_valid_slot_not_after_the_number_of_slots() -> None:
    positions = [[0, 1, 2, 1], [4, 5, 0, 9], [7, 8, 9, 0]]  # siblings; a pad at 9; nothing valid
    cache = make(positions, mask=[[1, 1, 1, 1], [1, 1, 0, 0], [0, 0, 0, 0]])
    assert cache.next_positions.tolist() == [3, 6, 0]
    assert cache.lengths.tolist() == [4, 2, 0]


def test_an_empty_cache_continues_at_position_zero() -> None:
    cache = make([[], []])
    assert (cache.batch_size, cache.slots, cache.nbytes) == (2, 0, 0)
    assert cache.next_positions.tolist() == [0, 0]


@pytest.mark.parametrize(("dtype", "bytes_per_number"), [(torch.float32, 4), (torch.bfloat16, 2)])
def test_nbytes_counts_keys_and_values_of_valid_slots_only(dtype: torch.dtype, bytes_per_number: int) -> None:
    cache = make([[0, 1, 2], [0, 1, 0]], mask=[[1, 1, 1], [1, 1, 0]], layers=3, heads=2, dim=4, dtype=dtype)
    # 5 valid slots, 3 layers, 2 heads, 4 numbers, once as key and once as value: 240 numbers
    assert cache.nbytes == 240 * bytes_per_number


# -- shift ----------------------------------------------------------------------------------


def test_shift_turns_the_keys_and_moves_the_positions() -> None:
    cache = replace(make([[4]], layers=1), keys=torch.tensor([2.0, 3.0]).reshape(1, 1, 1, 1, 2))
    moved = cache.shift(1, QUARTER_TURN)
    assert moved.keys.flatten().tolist() == pytest.approx([-3.0, 2.0], abs=1e-6)
    assert moved.positions.tolist() == [[5]]


def test_shift_moves_every_sequence_by_its_own_offset() -> None:
    cache = make([[0, 1], [5, 6]], layers=1)
    cache = replace(cache, keys=torch.tensor([1.0, 0.0]).expand(1, 2, 1, 2, 2))
    moved = cache.shift(torch.tensor([2, 1]), QUARTER_TURN)
    assert moved.positions.tolist() == [[2, 3], [6, 7]]
    expected = torch.tensor([[[-1.0, 0.0]] * 2, [[0.0, 1.0]] * 2]).reshape(1, 2, 1, 2, 2)
    torch.testing.assert_close(moved.keys, expected, atol=1e-6, rtol=0)


def test_shift_leaves_values_and_names_of_slots_alone() -> None:
    cache = weighted(make([[0, 1, 2]], mask=[[1, 1, 0]], owner=3), [[-1.0, -2.0, 0.0]])
    moved = cache.shift(5, QUARTER_TURN)
    assert_same(replace(moved, keys=cache.keys, positions=cache.positions), cache)


def test_shift_and_shift_back_is_the_same_cache() -> None:
    rope = Rope(torch.tensor([1.0, 0.1, 0.01, 0.001]))
    cache = make([[0, 1, 2], [3, 4, 5]], layers=2, heads=2, dim=8)
    back = cache.shift(40, rope).shift(-40, rope)
    assert torch.equal(back.positions, cache.positions)
    torch.testing.assert_close(back.keys, cache.keys, atol=1e-5, rtol=0)


def test_shift_does_not_touch_the_cache_it_was_called_on() -> None:
    cache = make([[0, 1]])
    before = cache.keys.clone()
    cache.shift(3, QUARTER_TURN)
    assert torch.equal(cache.keys, before) and cache.positions.tolist() == [[0, 1]]


# -- choosing -------------------------------------------------------------------------------


def test_take_by_index_and_by_mask_agree() -> None:
    cache = weighted(make([[0, 1, 2, 3], [4, 5, 6, 7]]), [[0.0, -1.0, -2.0, -3.0]] * 2)
    picked = cache.take(torch.tensor([1, 3]))
    assert_same(picked, cache.take(torch.tensor([False, True, False, True])))
    assert picked.positions.tolist() == [[1, 3], [5, 7]]
    assert picked.ordinals.tolist() == [[1, 3], [1, 3]]
    assert picked.bias.tolist() == [[-1.0, -3.0]] * 2
    assert torch.equal(picked.keys, cache.keys[:, :, :, [1, 3]])
    assert torch.equal(picked.values, cache.values[:, :, :, [1, 3]])


def test_of_kind_keeps_the_slots_of_these_kinds_in_order() -> None:
    prefix, prompt, latent, text = SlotKind
    kinds = torch.tensor([[prefix, prompt, latent, text, latent]])
    cache = replace(make([[0, 1, 2, 3, 4]]), kinds=kinds)
    assert cache.of_kind(SlotKind.LATENT).positions.tolist() == [[2, 4]]
    assert cache.of_kind(SlotKind.LATENT, SlotKind.PREFIX).positions.tolist() == [[0, 2, 4]]
    assert cache.of_kind().slots == 0


def test_of_kind_of_a_batch_is_refused() -> None:
    with pytest.raises(ConfigError, match="of_kind takes a cache of one sequence, got 2"):
        make([[0], [0]]).of_kind(SlotKind.PROMPT)


# -- putting together -----------------------------------------------------------------------


def test_batch_then_unbatch_gives_the_sequences_back() -> None:
    caches = [make([[0, 1, 2]], owner=SHARED), make([[]]), make([[5]], owner=2), make([[0, 1, 7, 3]])]
    batch = KVCache.batch(caches)
    assert (batch.batch_size, batch.slots) == (4, 4)
    assert batch.lengths.tolist() == [3, 0, 1, 4]
    for back, cache in zip(batch.unbatch(), caches, strict=True):
        assert_same(back, cache)


def test_batch_pads_at_the_end() -> None:
    batch = KVCache.batch([make([[4]]), make([[0, 1, 2]])])
    assert batch.mask.tolist() == [[True, False, False], [True, True, True]]
    assert batch.next_positions.tolist() == [5, 3]


def test_unbatch_drops_invalid_slots_wherever_they_are() -> None:
    first, second = make([[0, 1, 2], [3, 4, 5]], mask=[[0, 1, 1], [1, 0, 1]]).unbatch()
    assert first.positions.tolist() == [[1, 2]]
    assert second.positions.tolist() == [[3, 5]]


def test_pad_then_unbatch_gives_the_cache_back() -> None:
    cache = weighted(make([[0, 1]]), [[-1.0, -2.0]])
    padded = cache.pad_to(5)
    assert (padded.slots, padded.lengths.tolist(), padded.nbytes) == (5, [2], cache.nbytes)
    assert_same(padded.unbatch()[0], cache)
    assert cache.pad_to(2) is cache and cache.pad_to(1) is cache


def test_join_then_take_gives_the_parts_back() -> None:
    left, right = make([[0, 1]], owner=1), make([[1, 2, 3]], owner=2)
    joined = KVCache.join([left, right])
    assert joined.positions.tolist() == [[0, 1, 1, 2, 3]]  # nothing is moved
    assert joined.owners.tolist() == [[1, 1, 2, 2, 2]]
    assert_same(joined.take(torch.arange(2)), left)
    assert_same(joined.take(torch.arange(2, 5)), right)


def test_join_of_one_or_with_an_empty_cache_changes_nothing() -> None:
    cache = make([[0, 1]])
    assert_same(KVCache.join([cache]), cache)
    assert_same(KVCache.join([cache, make([[]])]), cache)


@pytest.mark.parametrize("together", [KVCache.join, KVCache.batch])
def test_nothing_to_put_together_is_refused(together: Callable[[list[KVCache]], KVCache]) -> None:
    with pytest.raises(ConfigError, match="at least one"):
        together([])


@pytest.mark.parametrize("together", [KVCache.join, KVCache.batch])
@pytest.mark.parametrize(
    ("other", "named"),
    [
        ({"layers": 3}, "3 layers"),
        ({"heads": 4}, "4 heads"),
        ({"dim": 6}, "heads of 6"),
        ({"dtype": torch.bfloat16}, "torch.bfloat16"),
    ],
    ids=["layers", "heads", "dimension", "dtype"],
)
def test_caches_of_different_models_are_refused(
    together: Callable[[list[KVCache]], KVCache], other: dict[str, Any], named: str
) -> None:
    with pytest.raises(ConfigError, match="different models") as refusal:
        together([make([[0]]), make([[0]], **other)])
    assert named in str(refusal.value) and "\n" not in str(refusal.value)


def test_joining_different_numbers_of_sequences_is_refused() -> None:
    with pytest.raises(ConfigError, match="sequences"):
        KVCache.join([make([[0, 1]]), make([[0, 1], [0, 1]])])


# -- fused ----------------------------------------------------------------------------------


def test_plain_gives_every_slot_weight_one() -> None:
    cache = make([[0, 1], [0, 1]], dtype=torch.bfloat16)
    fused = FusedCache.plain(cache)
    assert fused.bias.tolist() == [[0.0, 0.0], [0.0, 0.0]]
    assert fused.bias.dtype == torch.float32  # log-weights stay exact whatever the keys are kept in
    for field in fields(KVCache):
        assert getattr(fused, field.name) is getattr(cache, field.name)


def test_plain_of_a_fused_cache_keeps_its_weights() -> None:
    fused = weighted(make([[0, 1]]), [[-1.0, -2.0]])
    assert FusedCache.plain(fused) is fused


def test_batch_and_join_of_fused_caches_keep_their_weights() -> None:
    left, right = weighted(make([[0, 1]]), [[-1.0, -2.0]]), weighted(make([[2]]), [[-3.0]])
    batch, joined = FusedCache.batch([left, right]), FusedCache.join([left, right])
    assert isinstance(batch, FusedCache) and isinstance(joined, FusedCache)
    assert joined.bias.tolist() == [[-1.0, -2.0, -3.0]]
    assert batch.bias[batch.mask].tolist() == [-1.0, -2.0, -3.0]
    for back, cache in zip(batch.unbatch(), (left, right), strict=True):
        assert_same(back, cache)


@pytest.mark.parametrize("owner", [KVCache, FusedCache])
@pytest.mark.parametrize("order", [(0, 1), (1, 0), (1, 1)], ids=["plain+fused", "fused+plain", "fused+fused"])
@pytest.mark.parametrize("how", ["join", "batch"])
def test_a_weight_is_kept_or_refused_but_never_lost(
    how: str, order: tuple[int, int], owner: type[KVCache]
) -> None:
    caches = [make([[0, 1]]), weighted(make([[2, 3]]), [[-1.0, -2.0]])]
    chosen = [caches[index] for index in order]
    try:
        together = getattr(owner, how)(chosen)
    except ConfigError:
        return
    assert isinstance(together, FusedCache)
    assert together.bias.min().item() == -2.0


def test_gradient_flows_through_moving_and_putting_together() -> None:
    fused = FusedCache.plain(make([[0, 1]]))
    keys, bias = fused.keys.clone().requires_grad_(), fused.bias.clone().requires_grad_()
    leaf = replace(fused, keys=keys, bias=bias)
    batch = FusedCache.batch([FusedCache.join([leaf, fused]).shift(3, QUARTER_TURN), fused])
    assert isinstance(batch, FusedCache)
    (batch.keys.sum() + batch.bias.sum()).backward()
    assert keys.grad is not None and bool((keys.grad != 0).all())
    assert bias.grad is not None and bias.grad.tolist() == [[1.0, 1.0]]


def test_detach_cuts_every_gradient() -> None:
    fused = FusedCache.plain(make([[0, 1]]))
    names = ("keys", "values", "bias")
    leaf = replace(fused, **{name: getattr(fused, name).clone().requires_grad_() for name in names})
    cut = leaf.detach()
    assert type(cut) is FusedCache
    assert not any(getattr(cut, name).requires_grad for name in names)
    assert_same(cut, leaf)


# -- another device --------------------------------------------------------------------------


def test_a_cache_goes_to_another_device_whole() -> None:
    plain = make([[0, 1, 2]], owner=1)
    fused = FusedCache.join([weighted(plain, [[0.0, -1.0, 0.0]]), make([[3, 4]], owner=2)])
    for cache in (plain, fused):
        assert cache.to(torch.device("cpu")) is cache
        there = cache.to(torch.device("meta"))
        assert type(there) is type(cache) and there.shape == cache.shape
        for field in fields(cache):
            moved = getattr(there, field.name)
            assert (moved.device.type, moved.dtype) == ("meta", getattr(cache, field.name).dtype), field.name
    assert len(fused.to(torch.device("meta")).parts) == 2
