"""Texts that are scored in one pass have the scores, and the gradients, that they have alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from gcache.cache.fused_cache import FusedCache
from gcache.llm import local
from gcache.llm.local import LocalLLM
from gcache.llm.requests import LogProbRequest, ThinkRequest


@pytest.mark.parametrize("together", [1, 5, 256])
def test_scores_and_gradients_are_those_of_each_text_alone(
    tiny_llm: LocalLLM, monkeypatch: pytest.MonkeyPatch, together: int
) -> None:
    """Texts of 1 to 7 tokens, some at temperatures of their own."""
    (past,) = tiny_llm.think([ThinkRequest((5, 9, 8, 31), latent_steps=2)])
    texts = [tuple(range(10, 10 + n)) for n in (3, 1, 2, 7, 5)]

    def request(number: int, bias: Tensor) -> LogProbRequest:
        cache = FusedCache.of_parts([past], [bias])
        return LogProbRequest((4, 7), texts[number], cache, temperature=(0.0, 0.7)[number % 2])

    def scored(numbers: list[list[int]]) -> tuple[list[Tensor], list[Tensor]]:
        biases = [torch.linspace(-1, 0, past.slots)[None].requires_grad_() for _ in texts]
        found: list[Tensor] = []
        for some in numbers:
            found += tiny_llm.log_prob([request(number, biases[number]) for number in some])
        torch.cat([(1 + n) * scores for n, scores in enumerate(found)]).sum().backward()
        return [scores.detach() for scores in found], [b.grad for b in biases if b.grad is not None]

    alone = scored([[number] for number in range(len(texts))])
    monkeypatch.setattr(local, "SCORED_TOGETHER", together)
    for ones, others in zip(alone, scored([list(range(len(texts)))]), strict=True):
        for one, other in zip(ones, others, strict=True):
            torch.testing.assert_close(other, one.expand_as(other), atol=1e-5, rtol=1e-4)


def test_a_thought_without_latent_steps_is_the_beginning_of_one_with_them(tiny_llm: LocalLLM) -> None:
    """Nobody looks at its states, so they need not be there."""
    requests = [ThinkRequest(tuple(range(3, 6 + n))) for n in range(5)]
    watched: list[Tensor] = []
    seen = [replace(request, watch_prompt=watched.append) for request in requests]
    longer = [replace(request, latent_steps=1) for request in requests]
    for short, told, long in zip(*map(tiny_llm.think, (requests, seen, longer)), strict=True):
        for one in (told, long):
            torch.testing.assert_close(short.keys, one.keys[:, :, :, : short.slots], atol=1e-6, rtol=0)
            torch.testing.assert_close(short.values, one.values[:, :, :, : short.slots], atol=1e-6, rtol=0)
    assert len(watched) == len(requests) and all(bool(states.any()) for states in watched)
