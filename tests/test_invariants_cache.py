"""What must hold whatever the model, the batch and the order: batching, shifting, permuting."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from exact import CLOSE_AS_KEPT, CLOSE_IN_DOUBLE, double
from torch import Tensor

from gcache.cache.fused_cache import FusedCache
from gcache.cache.kv_cache import SHARED, KVCache
from gcache.llm.forward.gradient_pass import GradientPass
from gcache.llm.local import LocalLLM
from gcache.llm.requests import GenerateRequest, LogProbRequest, ThinkRequest

CLOSE = 1e-4  # the bound that is promised in fp32


def some_tokens(llm: LocalLLM, count: int) -> tuple[int, ...]:
    """Random ordinary tokens (the special ones come first in every vocabulary used here)."""
    return tuple(torch.randint(32, llm.model.config.vocab_size, (count,)).tolist())


def fuse(parts: Sequence[FusedCache]) -> FusedCache:
    joined = FusedCache.join(parts)
    assert isinstance(joined, FusedCache)
    return joined


def think(
    llm: LocalLLM, size: int, past: FusedCache | None = None, steps: int = 0, source: int = 0
) -> FusedCache:
    """An agent's own slots for `size` random tokens and `steps` latents, at weight 1."""
    return FusedCache.plain(llm.think([ThinkRequest(some_tokens(llm, size), past, steps, source)])[0])


def handed_over(llm: LocalLLM, sizes: list[int], latent_steps: int) -> FusedCache:
    """What an agent may receive: a prefix, then one sender per further size, each at its own weight."""
    parts = [think(llm, sizes[0])]
    for number, size in enumerate(sizes[1:], start=1):
        own = think(llm, size, parts[0], latent_steps, owner=number)
        parts.append(replace(own, bias=own.bias - 0.7 * number))
    return fuse(parts)


def pasts_of_many_lengths(llm: LocalLLM, count: int, latent_steps: int) -> list[FusedCache | None]:
    """`count` pasts of `count` different lengths, of none to two senders; the first is no past at all."""
    pasts: list[FusedCache | None] = [None]
    for number in range(1, count):
        pasts.append(handed_over(llm, [1 + 4 * number, *range(1, 1 + number % 3)], latent_steps))
    assert len({0 if past is None else past.slots for past in pasts}) == count
    return pasts


def assert_close_caches(left: KVCache, right: KVCache, close: float = CLOSE) -> None:
    for name in ("positions", "mask", "kinds", "owners", "ordinals"):
        assert torch.equal(getattr(left, name), getattr(right, name)), name
    torch.testing.assert_close(left.keys, right.keys, atol=close, rtol=0)
    torch.testing.assert_close(left.values, right.values, atol=close, rtol=0)


def check_batching(
    llm: LocalLLM, prompt_sizes: list[int], latent_steps: int, max_new_tokens: int, close: float = CLOSE
) -> None:
    """All three calls: every question alone gives what it gives among the others."""
    pasts = pasts_of_many_lengths(llm, len(prompt_sizes), latent_steps)
    prompts = [some_tokens(llm, size) for size in prompt_sizes]
    pairs = list(zip(prompts, pasts, strict=True))

    thoughts = [ThinkRequest(tokens, past, latent_steps, owner=5) for tokens, past in pairs]
    caches = llm.think(thoughts)
    for request, cache in zip(thoughts, caches, strict=True):
        assert_close_caches(llm.think([request])[0], cache, close)

    owns = [FusedCache.plain(cache) for cache in caches]
    fused = [own if past is None else fuse([past, own]) for own, past in zip(owns, pasts, strict=True)]
    writing = [
        GenerateRequest(tokens, past, max_new_tokens=max_new_tokens - number % 5)  # rows leave one by one
        for number, (tokens, past) in enumerate(zip(reversed(prompts), fused, strict=True))
    ]
    texts = llm.generate(writing)
    asking = [LogProbRequest(r.tokens, text.tokens, r.past) for r, text in zip(writing, texts, strict=True)]
    scores = llm.log_prob(asking)
    assert len(scores) == len(prompt_sizes)
    for request, text, question, score in zip(writing, texts, asking, scores, strict=True):
        alone = llm.generate([request])[0]
        assert (alone.tokens, alone.finished, alone.text) == (text.tokens, text.finished, text.text)
        assert alone.log_probs == pytest.approx(text.log_probs, abs=max(close, CLOSE_AS_KEPT))
        torch.testing.assert_close(llm.log_prob([question])[0], score, atol=close, rtol=0)
        assert score.tolist() == pytest.approx(text.log_probs, abs=max(close, CLOSE_AS_KEPT))


# -- 1. batching ----------------------------------------------------------------------------


@pytest.mark.parametrize("latent_steps", [0, 3])
def test_batching_changes_nothing(tiny_llm: LocalLLM, latent_steps: int) -> None:
    """Sixteen questions, no two with the same past, prompt lengths from 1 to 16 in no order.

    In float64: the weights of the tiny models make rounding grow, and how float32 rounds depends on the machine.
    """
    sizes = [7, 1, 16, 3, 12, 5, 9, 2, 14, 10, 4, 15, 6, 11, 8, 13]
    llm = double(tiny_llm)
    llm.stop_tokens = frozenset(range(8))  # some texts end early
    check_batching(llm, sizes, latent_steps, 12, CLOSE_IN_DOUBLE)


@pytest.mark.embedded
@pytest.mark.slow
@pytest.mark.parametrize("latent_steps", [0, 3])
def test_batching_changes_nothing_in_the_embedded_model(embedded_llm: LocalLLM, latent_steps: int) -> None:
    check_batching(embedded_llm, [6, 1, 9, 3, 5], latent_steps, max_new_tokens=6)


def test_batching_changes_no_gradient(tiny_llm: LocalLLM) -> None:
    pasts = [past for past in pasts_of_many_lengths(tiny_llm, 8, 2) if past is not None]
    asked = [
        (some_tokens(tiny_llm, 1 + i % 4), some_tokens(tiny_llm, 1 + i % 3), p) for i, p in enumerate(pasts)
    ]

    def gradients(groups: list[list[int]]) -> list[Tensor]:
        leaves = [replace(p, bias=p.bias.clone().requires_grad_()) for _, _, p in asked]
        requests = [
            LogProbRequest(prompt, completion, leaf)
            for (prompt, completion, _), leaf in zip(asked, leaves, strict=True)
        ]
        for group in groups:
            torch.cat(tiny_llm.log_prob([requests[index] for index in group])).sum().backward()
        found = [leaf.bias.grad for leaf in leaves]
        return [gradient for gradient in found if gradient is not None]

    everyone = list(range(len(asked)))
    together, alone = gradients([everyone]), gradients([[index] for index in everyone])
    assert len(together) == len(alone) == 7
    for batched, single in zip(together, alone, strict=True):
        torch.testing.assert_close(batched, single, atol=CLOSE, rtol=0)


# -- 3. positions ---------------------------------------------------------------------------


def in_flight_at(llm: LocalLLM, tokens: tuple[int, ...], first: int, steps: int) -> tuple[Tensor, Tensor]:
    """Keys and values of a prompt and `steps` latents that start at position `first`."""
    embeds = llm.model.get_input_embeddings()(torch.tensor([tokens]))
    batch = GradientPass(llm.model.model, llm.empty_cache())
    batch.next_positions = batch.next_positions + first
    with torch.no_grad():
        hidden = batch.feed(embeds, torch.tensor([len(tokens)]))[:, -1]
        for _ in range(steps):
            hidden = batch.feed(llm.alignment(hidden)[:, None], torch.tensor([1]))[:, 0]
    return batch.store.new_slots()


@pytest.mark.parametrize("n", [1, 13, 200])
def test_shifting_a_cache_by_n_equals_computing_it_n_positions_later(tiny_llm: LocalLLM, n: int) -> None:
    tokens = some_tokens(tiny_llm, 6)
    cache = tiny_llm.think([ThinkRequest(tokens, latent_steps=3)])[0]
    keys, values = in_flight_at(tiny_llm, tokens, first=n, steps=3)
    moved = cache.shift(n, tiny_llm.rope)
    assert moved.positions.tolist() == [list(range(n, n + 9))]
    torch.testing.assert_close(moved.keys, keys, atol=CLOSE, rtol=0)
    torch.testing.assert_close(moved.values, values, atol=CLOSE, rtol=0)
    assert (cache.keys - keys).abs().max().item() > 0.1  # unmoved keys would not do


def test_thinking_behind_an_unseen_slot_equals_shifting(tiny_llm: LocalLLM) -> None:
    """A past of one slot at position 20 with next to no weight moves the agent, and nothing else."""
    tokens = some_tokens(tiny_llm, 6)
    unseen = replace(think(tiny_llm, 1), positions=torch.tensor([[20]]), bias=torch.tensor([[-1e9]]))
    moved = tiny_llm.think([ThinkRequest(tokens, latent_steps=3)])[0].shift(21, tiny_llm.rope)
    assert_close_caches(tiny_llm.think([ThinkRequest(tokens, unseen, latent_steps=3)])[0], moved)


def test_moving_everything_an_agent_reads_by_n_moves_what_it_thinks_by_n(tiny_llm: LocalLLM) -> None:
    past = handed_over(tiny_llm, [4, 3, 2], latent_steps=2)
    moved = past.shift(30, tiny_llm.rope)
    assert isinstance(moved, FusedCache)
    tokens = some_tokens(tiny_llm, 5)
    here, there = tiny_llm.think([ThinkRequest(tokens, p, latent_steps=2) for p in (past, moved)])
    assert_close_caches(here.shift(30, tiny_llm.rope), there)


def test_permuting_predecessors_changes_nothing_with_parallel_positions(tiny_llm: LocalLLM) -> None:
    prefix = think(tiny_llm, 7, owner=SHARED)
    sizes = [(1, 2), (6, 0), (2, 2)]  # 3, 6 and 4 slots, all from position 7 on
    siblings = [think(tiny_llm, size, prefix, steps, source) for source, (size, steps) in enumerate(sizes)]
    prompt, completion = some_tokens(tiny_llm, 3), some_tokens(tiny_llm, 5)
    for biases in ([0.0, 0.0, 0.0], [0.0, -0.5, -1.5]):
        parts = [replace(c, bias=c.bias + bias) for c, bias in zip(siblings, biases, strict=True)]
        pasts = [fuse([prefix, *order]) for order in itertools.permutations(parts)]
        pasts.append(fuse([prefix, parts[1], parts[2]]))
        scores = tiny_llm.log_prob([LogProbRequest(prompt, completion, past) for past in pasts])
        for score in scores[1:6]:
            torch.testing.assert_close(score, scores[0], atol=CLOSE, rtol=0)
        assert (scores[6] - scores[0]).abs().max().item() > 1e-3  # the one left out had been heard
