"""Intervals for the numbers that are reported. All are at 95 % unless told otherwise."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from gcache.runtime.streams import resampling

Z95 = 1.959963984540054


def wilson(successes: int, n: int, z: float = Z95) -> tuple[float, float]:
    """Interval of a proportion (Wilson 1927); (0, 1) where nothing was counted.

    >>> tuple(round(x, 3) for x in wilson(9, 10))
    (0.596, 0.982)
    """
    if n == 0:
        return 0.0, 1.0
    share = successes / n
    centre = share + z * z / (2 * n)
    spread = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


def mean_interval(values: Sequence[float], z: float = Z95) -> tuple[float, float, float]:
    """Mean, and the ends of its normal interval; of one value the interval is that value."""
    n = len(values)
    mean = sum(values) / n
    if n < 2:
        return mean, mean, mean
    error = math.sqrt(sum((v - mean) ** 2 for v in values) / (n - 1) / n)
    return mean, mean - z * error, mean + z * error


def paired_difference(first: Sequence[bool], second: Sequence[bool], z: float = Z95) -> tuple[float, float, float]:
    """Difference of two proportions over the same questions, second less first, and its interval.

    The interval is Agresti and Min's (2005): half a question is added to each of the four cells of
    the paired table, so it has a width even where the two never differ.

    >>> tuple(round(x, 3) for x in paired_difference([False] * 10, [True] * 5 + [False] * 5))
    (0.5, 0.093, 0.74)
    """
    n = len(first)
    if n == 0 or n != len(second):
        raise ValueError(f"the two must be of the same length, above 0, got {n} and {len(second)}")
    gained = sum(b and not a for a, b in zip(first, second, strict=True))
    lost = sum(a and not b for a, b in zip(first, second, strict=True))
    centre = (gained - lost) / (n + 2)
    spread = z * math.sqrt(gained + lost + 1 - (gained - lost) ** 2 / (n + 2)) / (n + 2)
    return (gained - lost) / n, max(-1.0, centre - spread), min(1.0, centre + spread)


def bootstrap_difference(
    first: Sequence[float], second: Sequence[float], resamples: int = 10_000, seed: int = 0
) -> tuple[float, float, float]:
    """Mean of second less first over the same questions, and its 95 % percentile bootstrap interval
    (Efron 1979): questions are drawn again with replacement, both outcomes of a question together.

    Where the two never differ the interval is that one value: the bootstrap knows no other.

    >>> bootstrap_difference([0.0] * 4, [1.0] * 4)
    (1.0, 1.0, 1.0)
    """
    n = len(first)
    if n == 0 or n != len(second):
        raise ValueError(f"the two must be of the same length, above 0, got {n} and {len(second)}")
    differences = torch.tensor(second, dtype=torch.float64) - torch.tensor(first, dtype=torch.float64)
    generator = resampling(seed)
    drawn = torch.randint(n, (resamples, n), generator=generator)
    low, high = differences[drawn].mean(dim=1).quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return float(differences.mean()), low, high
