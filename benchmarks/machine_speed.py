"""What the machine can do at most: floating-point operations and bytes per second."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from benchmarks.timing import timed

#: Tries per measurement; the best counts, since a floor must not be too high.
TRIES = 3


@dataclass(frozen=True)
class Sizes:
    """How large the measured operations are.

    Attributes:
        square: side of the square matrix product.
        floats: fp32 numbers read or copied; far more than any processor cache holds.
    """

    square: int = 4096
    floats: int = 2**27


@dataclass(frozen=True)
class MachineSpeed:
    """The best of several tries.

    Attributes:
        flops: by the shape (M, K, N) of the matrix product, operations per second.
        copied, read: bytes per second; a copied byte counts twice, as it is read and written.
    """

    flops: dict[str, float]
    copied: float
    read: float

    @property
    def best_flops(self) -> float:
        return max(self.flops.values())


def machine_speed(rows: int, linear: tuple[int, int], dtype: torch.dtype, sizes: Sizes) -> MachineSpeed:
    """Measure the machine.

    Args:
        rows: M of the product in the model's own shape.
        linear: (K, N) of the model's largest linear map.
        dtype: of the products.
    """
    square = (sizes.square,) * 3
    shapes = {square, (rows, *linear)}
    flops = {" x ".join(map(str, shape)): _flops(shape, dtype) for shape in sorted(shapes)}
    source = torch.ones(sizes.floats)
    target = torch.empty_like(source)
    size = source.numel() * source.element_size()
    copied = 2 * size / _best(lambda: target.copy_(source))
    summed = size / _best(source.sum)
    dotted = 2 * size / _best(lambda: torch.dot(source, target))
    return MachineSpeed(flops, copied, max(summed, dotted))


def _flops(shape: tuple[int, int, int], dtype: torch.dtype) -> float:
    m, k, n = shape
    left, right = torch.randn(m, k).to(dtype), torch.randn(n, k).to(dtype)
    # the weight transposed, as a linear layer has it
    return 2 * m * k * n / _best(lambda: torch.nn.functional.linear(left, right))


def _best(run: Callable[[], object]) -> float:
    """Seconds of the fastest of several tries, after one that warms up."""
    run()
    return min(timed(run)[0] for _ in range(TRIES))
