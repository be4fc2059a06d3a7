"""Which requests go through the model together: as many as fit, of like length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from gcache.llm.requests import GenerateRequest, LogProbRequest, ThinkRequest

#: Padding that is cheaper than another pass: so many slots, or this share of the real ones.
FREE_PADDING = 128
PADDING_SHARE = 0.25


@dataclass(frozen=True, order=True)
class Size:
    """Slots of a request: read at once (its prompt), carried (its past), added one by one."""

    read: int
    past: int
    later: int

    @classmethod
    def of(cls, request: ThinkRequest | GenerateRequest | LogProbRequest) -> Size:
        past = 0 if request.past is None else request.past.slots
        if isinstance(request, LogProbRequest):
            return cls(len(request.tokens) + len(request.completion) - 1, past, 0)
        later = request.latent_steps if isinstance(request, ThinkRequest) else request.max_new_tokens
        return cls(len(request.tokens), past, later)


def chunks(sizes: Sequence[Size], keys: Sequence[tuple[int, ...]], most: int) -> Iterator[list[int]]:
    """Numbers of requests to run together.

    Args:
        sizes, keys: one per request; only equal keys go together.
        most: slots of a chunk, padding included; a single request may exceed it.

    A pass that writes many tokens costs per token, not per slot of its prompt, so padding only
    splits those that read.
    """
    order = sorted(range(len(sizes)), key=lambda i: (keys[i], sizes[i]))
    chunk: list[int] = []
    for index in order:
        if chunk and not _fits(chunk, index, sizes, keys, most):
            yield chunk
            chunk = []
        chunk.append(index)
    if chunk:
        yield chunk


def _fits(
    chunk: Sequence[int], index: int, sizes: Sequence[Size], keys: Sequence[tuple[int, ...]], most: int
) -> bool:
    if keys[index] != keys[chunk[0]]:
        return False
    together = [sizes[i] for i in (*chunk, index)]
    widths = [max(getattr(size, part) for size in together) for part in ("read", "past", "later")]
    if sum(widths) * len(together) > most:
        return False
    real = sum(size.read for size in together)
    padding = widths[0] * len(together) - real
    reads = max(size.later for size in together) <= max(size.read for size in together)
    return not reads or padding <= max(FREE_PADDING, PADDING_SHARE * real)
