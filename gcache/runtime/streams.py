"""Random numbers: every purpose has a stream of its own, and all of them are made here.

A stream is named by a key: what it is for and all that it depends on, for example
("topology", seed, question). Two different keys give two streams that have nothing to do with each
other, because the key is hashed (SHA-256) into the whole state of a counter-based generator (Philox,
Salmon et al. 2011). Two generators that are seeded with one number would draw the same numbers: a text
would depend on the topology beyond what the topology causes, and REINFORCE would be biased.

    derive      a seed for others to make streams of
    stream      uniform numbers, permutations, normal numbers
    generator   the same for code that needs a generator of torch (32 bits of the key)
    shuffler    the same for Python sequences
    uniforms    numbers in [0, 1) from either of the first two
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy
    import torch

    #: What draws may come from.
    Stream = numpy.random.Generator | torch.Generator

#: Whole numbers below this survive JSON, floating point and every server.
SEEDS = 2**53


def _digest(key: Sequence[int | str]) -> bytes:
    """32 bytes of a key. Every part goes in with its type and length, so ("a", "bc") is not ("ab", "c")."""
    digest = hashlib.sha256()
    for part in key:
        text = str(part).encode("utf-8", "surrogatepass")
        digest.update(f"{'i' if isinstance(part, int) else 's'}{len(text)}:".encode() + text)
    return digest.digest()


def derive(*key: int | str) -> int:
    """A seed in [0, 2^53) for a key.

    >>> derive(0, "rollout", 1) == derive(0, "rollout", 2)
    False
    """
    return int.from_bytes(_digest(key)[:8], "big") % SEEDS


def stream(*key: int | str) -> numpy.random.Generator:
    """The stream of a key."""
    import numpy

    return numpy.random.Generator(numpy.random.Philox(key=int.from_bytes(_digest(key)[:16], "big")))


def generator(*key: int | str) -> torch.Generator:
    """The stream of a key as a CPU generator of torch, which heeds 32 bits of a seed."""
    import torch

    return torch.Generator().manual_seed(int.from_bytes(_digest(key)[:4], "big"))


def uniforms(shape: tuple[int, ...], source: Stream | None = None) -> torch.Tensor:
    """Float64 numbers in [0, 1) from a stream; None for the global one of torch."""
    import torch

    if source is None or isinstance(source, torch.Generator):
        return torch.rand(shape, generator=source, dtype=torch.float64)
    return torch.from_numpy(source.random(shape))


def resampling(seed: int) -> torch.Generator:
    """Of bootstrap intervals. All rows of a table draw the same resamples of its questions."""
    import torch

    return torch.Generator().manual_seed(seed)  # as it always was: published intervals can be computed again


def shuffler(*key: int | str | bytes) -> random.Random:
    """The stream of a key for Python's sequences. Generated questions come from it, so it never changes."""
    if len(key) == 1 and isinstance(key[0], bytes):
        return random.Random(key[0])
    return random.Random("/".join(map(str, key)))
