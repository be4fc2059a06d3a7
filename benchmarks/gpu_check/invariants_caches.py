"""What must hold of a model's passes: batching, positions, and that they are transformers' own (1, 3 and 11)."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from benchmarks.gpu_check.checks import Check, worst
from benchmarks.gpu_check.small import Small, apart, beside_largest, small_model, thought, tokens
from benchmarks.gpu_check.tokenizer import bpe_tokenizer
from gcache.cache.fused_cache import FusedCache
from gcache.cache.kv_cache import SHARED
from gcache.llm.exactness import OwnForward, measured
from gcache.llm.forward.gradient_pass import GradientPass
from gcache.llm.local import LocalLLM
from gcache.llm.requests import GenerateRequest, LogProbRequest, ThinkRequest

#: Nats, or units of keys and values, that float32 may be off by.
CLOSE = 1e-4
#: Of a cache, what is compared.
PARTS = ("keys", "values", "positions")
#: Prompt lengths of questions that are asked together, in no order.
LENGTHS = (7, 1, 16, 3, 12, 5, 9, 2, 14, 10, 4, 15, 6, 11, 8, 13)


def batching(small: Small) -> Iterator[Check]:
    """A question alone gives what it gives among 15 others of other lengths."""
    llm, steps = small.single, 3
    pasts: list[FusedCache | None] = [None, *(_handed_over(llm, number) for number in range(1, len(LENGTHS)))]
    prompts = [tokens(length, "prompt", length) for length in LENGTHS]
    thinking = [ThinkRequest(p, past, steps, owner=5) for p, past in zip(prompts, pasts, strict=True)]
    caches = llm.think(thinking)
    alone = [llm.think([request])[0] for request in thinking]
    pairs = list(zip(alone, caches, strict=True))
    off = worst(beside_largest(getattr(a, part), getattr(b, part)) for a, b in pairs for part in PARTS)
    what = "caches of 16 questions alone and together, latent steps included, to their largest number"
    yield Check(1, what, small.family, off, CLOSE)

    owns = [FusedCache.plain(cache) for cache in caches]
    fused = [own if past is None else FusedCache.join([past, own]) for own, past in zip(owns, pasts, strict=True)]
    writing = [GenerateRequest(p, past, 12 - n % 5) for n, (p, past) in enumerate(zip(prompts, fused, strict=True))]
    together, singly = llm.generate(writing), [llm.generate([request])[0] for request in writing]
    other = sum(a.tokens != b.tokens for a, b in zip(together, singly, strict=True))
    yield Check(1, "greedy texts that differ, of 16 alone and together", small.family, float(other), 0)
    asking = [LogProbRequest(r.tokens, text.tokens, r.past) for r, text in zip(writing, together, strict=True)]
    scores = llm.log_prob(asking)
    again = [llm.log_prob([request])[0] for request in asking]
    off = worst(apart(a, b) for a, b in zip(again, scores, strict=True))
    yield Check(1, "log-probabilities of their texts alone and together", small.family, off, CLOSE)
    kept = [torch.tensor(text.log_probs, device=llm.device) for text in together]
    off = worst(apart(a, b) for a, b in zip(kept, scores, strict=True))
    yield Check(1, "log-probabilities when written and when scored", small.family, off, CLOSE)


def _handed_over(llm: LocalLLM, number: int) -> FusedCache:
    """A question and up to two senders, each at a weight of its own; of another length for every number."""
    parts = [thought(llm, tokens(1 + 4 * number, "question", number))]
    for sender in range(1, 1 + number % 3):
        own = thought(llm, tokens(sender, "sender", number, sender), parts[0], 2, sender)
        parts.append(own.weighted(torch.tensor(-0.7 * sender, device=llm.device)))
    return FusedCache.join(parts)


def positions(small: Small) -> Iterator[Check]:
    """A cache that is moved is the one that would have been computed there; siblings have no order."""
    llm, words = small.single, tokens(6, "moved")
    cache = llm.think([ThinkRequest(words, latent_steps=3)])[0]
    for n in (1, 13, 200):
        keys, values = _computed_at(llm, words, n, 3)
        moved = cache.shift(n, llm.rope)
        off = worst((beside_largest(moved.keys, keys), beside_largest(moved.values, values)))
        yield Check(3, f"a cache moved by {n} and one computed there, to its largest number", small.family, off, CLOSE)
    yield Check(3, "how far it moved", small.family, apart(cache.keys, keys), 0.1, at_least=True)

    prefix = thought(llm, tokens(7, "prefix"), owner=SHARED)
    sizes = ((1, 2), (6, 0), (2, 2))
    siblings = [thought(llm, tokens(size, "sibling", size), prefix, steps, owner)
                for owner, (size, steps) in enumerate(sizes)]  # fmt: skip
    biases = (torch.tensor(bias, device=llm.device) for bias in (0.0, -0.5, -1.5))
    parts = [sibling.weighted(bias) for sibling, bias in zip(siblings, biases, strict=True)]
    pasts = [FusedCache.join([prefix, *order]) for order in itertools.permutations(parts)]
    pasts.append(FusedCache.join([prefix, parts[1], parts[2]]))
    asked = [LogProbRequest(tokens(3, "after"), tokens(5, "written"), past) for past in pasts]
    *scores, without = llm.log_prob(asked)
    off = worst(apart(score, scores[0]) for score in scores)
    yield Check(3, "log-probabilities on three predecessors in all orders", small.family, off, CLOSE)
    yield Check(3, "what leaving one out changes", small.family, apart(without, scores[0]), 1e-3, at_least=True)


@torch.no_grad()
def _computed_at(llm: LocalLLM, words: tuple[int, ...], first: int, steps: int) -> tuple[Tensor, Tensor]:
    """Keys and values of a prompt and latents that start at a position."""
    embeds, lengths = llm.embed([words])
    batch = GradientPass(llm.base, llm.empty_cache())
    batch.next_positions = batch.next_positions + first
    hidden = batch.feed(embeds, lengths)[:, -1]
    for _ in range(steps):
        hidden = batch.feed(llm.alignment(hidden)[:, None], torch.ones_like(lengths))[:, 0]
    return batch.store.new_slots()


def exactness(small: Small) -> Iterator[Check]:
    """Every path gives the log-probabilities of the model's own forward pass, in two precisions."""
    for dtype in (torch.float32, torch.bfloat16):
        model = small_model(small.family, small.device, dtype)
        yield from exact_paths(model, f"{small.family}, {str(dtype).removeprefix('torch.')}")[1]


def exact_paths(model: object, label: str) -> tuple[LocalLLM, list[Check]]:
    """Of a model that nothing was done to yet: ours around it, and what its paths are off, beside what rounding allows.

    Raises:
        ModelError: it is off by more.
    """
    own = OwnForward.of_model(model, label)
    llm = LocalLLM(model, bpe_tokenizer(), label)
    return llm, [Check(11, what, label, error, allowed) for what, error, allowed in measured(llm, own)]


def batched_gradient(small: Small) -> Iterator[Check]:
    """Gradients to the weights of what was handed over do not depend on what else is scored."""
    llm = small.single
    pasts = [_handed_over(llm, number) for number in range(1, 7)]
    found = []
    for groups in ([range(6)], [range(n, n + 1) for n in range(6)]):
        leaves = [replace(past, bias=past.bias.clone().requires_grad_()) for past in pasts]
        asked = [LogProbRequest(tokens(1 + n % 4, "g", n), tokens(1 + n % 3, "h", n), leaves[n]) for n in range(6)]
        for group in groups:
            torch.cat(llm.log_prob([asked[n] for n in group])).sum().backward()
        found.append([leaf.bias.grad for leaf in leaves])
    pairs = [(a, b) for a, b in zip(*found, strict=True) if a is not None and b is not None]
    off = worst(apart(a, b) for a, b in pairs) if len(pairs) == 6 else float("nan")
    yield Check(1, "gradients to weights alone and together", small.family, off, CLOSE)


#: What is asked of each family's passes.
ALL = (batching, batched_gradient, positions, exactness)
