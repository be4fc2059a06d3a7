from __future__ import annotations

import math

import pytest
import torch

from gcache.cache.fused_cache import FusedCache
from gcache.cache.fusers.base import Incoming
from gcache.cache.fusers.concat import ConcatFuser
from gcache.cache.fusers.relevance import MATCH_GAIN, PRIOR_GAIN, RelevanceFuser
from gcache.cache.kv_cache import SHARED, KVCache, SlotKind
from gcache.errors import ConfigError
from gcache.llm.local import LocalLLM
from gcache.llm.requests import ThinkRequest

QUESTION = (20, 21, 22)
#: notes of four words; the second has two of the question's
NOTES = ((30, 31, 32, 33), (30, 21, 22, 33), (30, 31, 34, 33))


def read(llm: LocalLLM) -> tuple[KVCache, list[KVCache]]:
    (shared,) = llm.think([ThinkRequest(QUESTION, owner=SHARED, kind=SlotKind.PREFIX)])
    past = FusedCache.plain(shared)
    return shared, llm.think([ThinkRequest(note, past, owner=i) for i, note in enumerate(NOTES)])


def made(llm: LocalLLM) -> RelevanceFuser:
    return RelevanceFuser(*llm.cache_shape, rope=llm.rope)


def incoming(caches: list[KVCache], weight: float = 0.5) -> list[Incoming]:
    return [Incoming(cache, torch.tensor(weight)) for cache in caches]


def biases(fused: FusedCache) -> list[float]:
    """Of each part behind the question, whose slots all have the same."""
    assert all(bool((bias == bias[0, 0]).all()) for bias in fused.biases)
    return [float(bias[0, 0].detach()) for bias in fused.biases[1:]]


def test_untrained_it_is_concat_to_the_bit(tiny_llm: LocalLLM) -> None:
    shared, caches = read(tiny_llm)
    plain = ConcatFuser(*tiny_llm.cache_shape, rope=tiny_llm.rope)(shared, incoming(caches))
    for gradient in (True, False):
        with torch.set_grad_enabled(gradient):
            fused = made(tiny_llm)(shared, incoming(caches))
        assert torch.equal(fused.keys, plain.keys) and torch.equal(fused.bias, plain.bias)


def test_the_cache_with_the_questions_words_weighs_most(tiny_llm: LocalLLM) -> None:
    """Before any training of the space: values of the first layer know a word again."""
    shared, caches = read(tiny_llm)
    fuser = made(tiny_llm)
    with torch.no_grad():
        fuser.match.fill_(0.1)
    log_half = float(torch.tensor(0.5).log())
    found = [bias - log_half for bias in biases(fuser(shared, incoming(caches)))]
    assert found[1] == pytest.approx(0.0, abs=1e-5)
    assert found[0] < -1 and found[2] < -1


def test_the_match_by_hand() -> None:
    """One layer, one head of two numbers, compared as they are: cosines."""
    fuser = RelevanceFuser(1, 1, 2, width=2)
    with torch.no_grad():
        fuser.of_question.copy_(torch.eye(2))
        fuser.of_cache.copy_(torch.eye(2))
        fuser.match.fill_(0.01)
        fuser.prior.copy_(torch.tensor([0.0, 0.03]))

    def cache(source: int, *values: tuple[float, float]) -> KVCache:
        block = torch.tensor(values)[None, None, None]  # (1, 1, 1, T, 2)
        ordinals = torch.arange(len(values))[None]
        return KVCache(
            torch.zeros_like(block), block, ordinals, ordinals >= 0, torch.ones_like(ordinals),
            torch.full_like(ordinals, source), ordinals,
        )  # fmt: skip

    question = cache(SHARED, (2.0, 0.0), (0.0, 5.0))
    # cosines of the question's slots with (3, 4)/5: 0.6, 0.8; with (0, 1) and (1, 0): 0 and 1 each, whose
    # mean by the softmax of 0/0.1 and 1/0.1 is 1/(1 + e^-10)
    first, second = cache(0, (3.0, 4.0)), cache(1, (0.0, 1.0), (9.0, 0.0))
    scores = [
        MATCH_GAIN * 0.01 * (0.6 + 0.8) + PRIOR_GAIN * 0.03 * 0.8,
        MATCH_GAIN * 0.01 * 2 / (1 + math.exp(-10)) + PRIOR_GAIN * 0.03 * 0.5,
    ]
    found = fuser.relevance(question, [first, second]).tolist()
    # scores are rounded before their difference is taken
    rounding = 8 * torch.finfo(torch.float32).eps * max(scores)
    assert found == pytest.approx([score - max(scores) for score in scores], abs=rounding)


def test_a_more_relevant_cache_takes_as_much_as_its_edge_weighs(tiny_llm: LocalLLM) -> None:
    shared, caches = read(tiny_llm)
    fuser = made(tiny_llm)
    with torch.no_grad():
        fuser.match.fill_(0.1)
    plain = fuser.relevance(shared, caches)
    assert int(plain.argmax()) == 1
    found = fuser.relevance(shared, caches, torch.tensor([1.0, 0.25, 1.0]))
    assert float(found[1]) == 0.0
    # of the first and the third one is more relevant, and takes all of the difference
    least = min(plain[0], plain[2])
    expected = [max(float(plain[1] - s) * 0.25, float(max(plain[0], plain[2]) - s)) for s in (plain[0], plain[2])]
    assert float(least) < -1
    assert [-float(found[0]), -float(found[2])] == pytest.approx(expected)
    alone = fuser.relevance(shared, caches, torch.tensor([1.0, 0.0, 1.0]))
    assert alone[[0, 2]].tolist() == pytest.approx(fuser.relevance(shared, [caches[0], caches[2]]).tolist())


def test_an_edge_of_weight_zero_leaves_the_others_what_they_weigh(tiny_llm: LocalLLM) -> None:
    """However relevant its cache is."""
    shared, caches = read(tiny_llm)
    fuser = made(tiny_llm)
    with torch.no_grad():
        fuser.match.fill_(0.1)
    weights = (1.0, 0.0, 0.4)
    arriving = [Incoming(cache, torch.tensor(weight)) for cache, weight in zip(caches, weights, strict=True)]
    found = biases(fuser(shared, arriving))
    expected = biases(fuser(shared, [arriving[0], arriving[2]]))
    assert [found[0], found[2]] == pytest.approx(expected)


def test_slots_that_were_hardly_heard_hardly_count(tiny_llm: LocalLLM) -> None:
    """What a context holds of a third agent, at the weight of the edge it came over."""
    shared, caches = read(tiny_llm)
    fuser = made(tiny_llm)
    with torch.no_grad():
        fuser.match.fill_(0.1)
        fuser.prior.normal_(std=0.05)

    def of_context(log_weight: float) -> float:
        faded = FusedCache.plain(caches[1]).weighted(torch.tensor(log_weight))
        context = FusedCache.join([faded, FusedCache.plain(caches[0])])
        return float(fuser.relevance(shared, [context, caches[2]])[0])

    without = float(fuser.relevance(shared, [caches[0], caches[2]])[0])
    assert of_context(-60.0) == pytest.approx(without, abs=1e-5)
    assert of_context(0.0) != pytest.approx(without, abs=1e-2)


def test_order_does_not_matter_and_the_best_loses_nothing(tiny_llm: LocalLLM) -> None:
    shared, caches = read(tiny_llm)
    fuser = made(tiny_llm)
    with torch.no_grad():
        for parameter in (fuser.match, fuser.prior):
            parameter.normal_(std=0.05)
    forward, backward = (fuser.relevance(shared, order).tolist() for order in (caches, caches[::-1]))
    assert forward == pytest.approx(backward[::-1])
    assert max(forward) == 0.0 and min(forward) < 0.0
    assert biases(fuser(shared, incoming(caches[:1], 1.0))) == [0.0]  # alone, it always weighs what it weighed


def test_a_question_of_nothing_and_a_cache_of_nothing(tiny_llm: LocalLLM) -> None:
    shared, caches = read(tiny_llm)
    fuser = made(tiny_llm)
    with torch.no_grad():
        fuser.match.fill_(0.1)
        fuser.prior.normal_()
    nothing = shared.take(torch.tensor([], dtype=torch.long))
    assert bool(torch.isfinite(fuser.relevance(nothing, caches)).all())
    assert bool(torch.isfinite(fuser.relevance(shared, [caches[0], nothing])).all())


def test_a_fused_cache_counts_all_its_parts(tiny_llm: LocalLLM) -> None:
    shared, caches = read(tiny_llm)
    fuser = made(tiny_llm)
    with torch.no_grad():
        fuser.match.fill_(0.1)
        fuser.prior.normal_(std=0.1)
    joined = FusedCache.join(caches[:2])
    found = fuser.relevance(shared, [joined, caches[2]])
    torch.testing.assert_close(found, fuser.relevance(shared, [joined.dense(), caches[2]]))


def test_a_width_below_one_is_refused() -> None:
    with pytest.raises(ConfigError, match="width must be 1 or more, got 0"):
        RelevanceFuser(1, 1, 2, width=0)
