from __future__ import annotations

import math

import pytest

from gcache.evaluation.intervals import Z95, bootstrap_difference, mean_interval, wilson


def test_wilson_by_hand() -> None:
    # with z = 1 and 1 of 2: centre (1/2 + 1/4) / (3/2), spread sqrt(1/8 + 1/16) / (3/2)
    spread = math.sqrt(3) / 4 / 1.5
    assert wilson(1, 2, z=1.0) == pytest.approx((0.5 - spread, 0.5 + spread))
    assert wilson(9, 10) == pytest.approx((0.59585, 0.98212), abs=1e-5)


@pytest.mark.parametrize("n", [1, 2, 10, 1000])
def test_wilson_at_the_ends_stays_in_range_and_is_not_a_point(n: int) -> None:
    low, high = wilson(0, n)
    assert low == pytest.approx(0.0, abs=1e-12) and low >= 0
    assert high == pytest.approx(Z95**2 / (n + Z95**2))
    assert wilson(n, n) == pytest.approx((1 - high, 1.0))
    assert wilson(n, n)[1] <= 1


@pytest.mark.parametrize(("successes", "n"), [(0, 5), (1, 5), (3, 7), (50, 100)])
def test_wilson_holds_the_share_and_mirrors_failures(successes: int, n: int) -> None:
    low, high = wilson(successes, n)
    assert low <= successes / n <= high
    other = wilson(n - successes, n)
    assert (low, high) == pytest.approx((1 - other[1], 1 - other[0]))


def test_more_questions_make_a_narrower_interval() -> None:
    widths = [high - low for low, high in (wilson(n // 2, n) for n in (2, 20, 200, 2000))]
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] == pytest.approx(2 * Z95 * 0.5 / math.sqrt(2000), rel=0.01)


def test_wilson_of_nothing_is_everything() -> None:
    assert wilson(0, 0) == (0.0, 1.0)


def test_the_mean_interval_by_hand() -> None:
    # of 1 and 3: deviation sqrt(2), error of the mean 1
    assert mean_interval([1.0, 3.0], z=2.0) == pytest.approx((2.0, 0.0, 4.0))
    assert mean_interval([1.0, 3.0]) == pytest.approx((2.0, 2 - Z95, 2 + Z95))
    # of 0, 0, 0, 4: variance 4, error 1
    assert mean_interval([0.0, 0.0, 0.0, 4.0], z=1.0) == pytest.approx((1.0, 0.0, 2.0))


def test_the_interval_of_one_value_or_of_equal_ones_is_that_value() -> None:
    assert mean_interval([0.7]) == (0.7, 0.7, 0.7)
    assert mean_interval([2.0, 2.0, 2.0]) == (2.0, 2.0, 2.0)


def test_the_bootstrap_interval_by_enumeration() -> None:
    """Of 3 questions with differences 1, 0, 0 a resample has k ones with a known chance: none has
    8/27, all three 1/27 (3.7 %, above the upper 2.5 %), so the interval is 0 to 1."""
    difference, low, high = bootstrap_difference([0, 0, 1], [1, 0, 1])
    assert difference == pytest.approx(1 / 3)
    assert (low, high) == (0.0, 1.0)


def test_the_bootstrap_agrees_with_the_normal_interval_where_both_hold() -> None:
    first = [0.0] * 400
    second = [1.0] * 120 + [0.0] * 280
    difference, low, high = bootstrap_difference(first, second)
    spread = 1.96 * math.sqrt(0.3 * 0.7 / 400)
    assert difference == pytest.approx(0.3)
    assert (low, high) == pytest.approx((0.3 - spread, 0.3 + spread), abs=0.006)


def test_the_bootstrap_is_paired_and_repeatable() -> None:
    first, second = [0.0, 1.0] * 50, [0.0, 1.0] * 50
    assert bootstrap_difference(first, second) == (0.0, 0.0, 0.0)  # unpaired it would have a width
    assert bootstrap_difference(first, second[::-1]) == bootstrap_difference(first, second[::-1])
    with pytest.raises(ValueError, match="same length"):
        bootstrap_difference([1.0], [])
