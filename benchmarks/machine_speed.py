"""What a processor or a GPU can do at most: floating-point operations and bytes per second.

A GPU is told what to do and does it later, so a single call there takes mostly the telling. Calls are timed on it
many at once, by its own clock.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from benchmarks.timing import timed

#: Tries per measurement; the best counts, since a floor must not be too high.
TRIES = 3
#: Seconds that the calls of a try take together on a GPU, about.
TRY = 0.02


@dataclass(frozen=True)
class Sizes:
    """How large the measured operations are.

    Attributes:
        square: side of the square matrix product.
        floats: fp32 numbers read or copied; far more than any processor cache holds.
    """

    square: int = 4096
    floats: int = 2**27

    @classmethod
    def of(cls, device: torch.device) -> Sizes:
        """What keeps a device busy."""
        return cls(8192, 2**28) if device.type == "cuda" else cls()


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


def machine_speed(
    rows: int, linear: tuple[int, int], dtype: torch.dtype, sizes: Sizes, device: torch.device
) -> MachineSpeed:
    """Measure the machine, by what `device` can do.

    Args:
        rows: M of the product in the model's own shape.
        linear: (K, N) of the model's largest linear map.
        dtype: of the products.
    """
    square = (sizes.square,) * 3
    shapes = {square, (rows, *linear)}
    flops = {" x ".join(map(str, shape)): _flops(shape, dtype, device) for shape in sorted(shapes)}
    source = torch.ones(sizes.floats, device=device)
    target = torch.empty_like(source)
    size = source.numel() * source.element_size()
    copied = 2 * size / _best(lambda: target.copy_(source), device)
    summed = size / _best(source.sum, device)
    dotted = 2 * size / _best(lambda: torch.dot(source, target), device)
    return MachineSpeed(flops, copied, max(summed, dotted))


def _flops(shape: tuple[int, int, int], dtype: torch.dtype, device: torch.device) -> float:
    m, k, n = shape
    left, right = (torch.randn(size, k, device=device).to(dtype) for size in (m, n))
    # the weight transposed, as a linear layer has it
    return 2 * m * k * n / _best(lambda: torch.nn.functional.linear(left, right), device)


def _best(run: Callable[[], object], device: torch.device) -> float:
    """Seconds of the fastest of several tries, after one that warms up."""
    run()
    if device.type != "cuda":
        return min(timed(run)[0] for _ in range(TRIES))
    calls = max(1, round(TRY / max(timed(run)[0], 1e-6)))
    return min(_on_gpu(run, calls) for _ in range(TRIES))


def _on_gpu(run: Callable[[], object], calls: int) -> float:
    """Seconds of one of so many calls, by the GPU's clock."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(calls):
        run()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) / 1e3 / calls
