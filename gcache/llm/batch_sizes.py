"""Which requests go through the model together: as many as fit, and prompts of like length."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass

from gcache.llm.requests import GenerateRequest, LogProbRequest, ThinkRequest

#: Padding that is cheaper than another pass: so many slots, or this share of the real ones.
FREE_PADDING = 128
PADDING_SHARE = 0.25


@dataclass(frozen=True, order=True)
class RequestSize:
    """Slots of a request: read at once (its prompt), carried (its past), added one by one."""

    read: int
    past: int
    later: int

    @classmethod
    def of(cls, request: ThinkRequest | GenerateRequest | LogProbRequest) -> RequestSize:
        past = 0 if request.past is None else request.past.slots
        if isinstance(request, LogProbRequest):
            return cls(len(request.tokens) + len(request.completion) - 1, past, 0)
        if isinstance(request, GenerateRequest):
            return cls(request.prompt_slots, past, request.latent_steps + request.max_new_tokens)
        if not request.latent_steps:  # a text that is read again goes on right behind its prompt
            return cls(request.prompt_slots + request.text_slots, past, 0)
        return cls(request.prompt_slots, past, request.latent_steps + request.text_slots)

    @property
    def total(self) -> int:
        return self.read + self.past + self.later


def batches(
    sizes: Sequence[RequestSize], keys: Sequence[Hashable], most_slots: int, most_rows: int
) -> Iterator[list[int]]:
    """Numbers of requests to run as one batch, the shortest prompts first.

    Args:
        sizes, keys: one per request; only equal keys go together.
        most_slots: of a batch, padding included; a single request may exceed it.
        most_rows: of a batch.
    """
    groups: dict[Hashable, list[int]] = {}
    for index, key in enumerate(keys):
        groups.setdefault(key, []).append(index)
    for group in groups.values():
        batch: list[int] = []
        for index in sorted(group, key=lambda i: sizes[i]):
            widest = max(sizes[i].total for i in (*batch, index))
            if batch and (len(batch) == most_rows or widest * (len(batch) + 1) > most_slots):
                yield batch
                batch = []
            batch.append(index)
        yield batch


def group_similar_lengths(lengths: Sequence[int]) -> Iterator[slice]:
    """Neighbours that are read in one pass: all, unless padding them would cost more than a pass."""
    start = 0
    for stop in range(1, len(lengths) + 1):
        if stop < len(lengths):
            together = lengths[start : stop + 1]
            padding = max(together) * len(together) - sum(together)
            if padding <= max(FREE_PADDING, PADDING_SHARE * sum(together)):
                continue
        yield slice(start, stop)
        start = stop
