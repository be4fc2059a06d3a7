"""How tokens are drawn, and what is told of their chances: exact against transformers and by enumeration."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gcache.errors import ConfigError
from gcache.llm.cache_budget import Limits
from gcache.llm.decode.sampling import drawn, nucleus
from gcache.llm.local import LocalLLM
from gcache.llm.requests import GenerateRequest, Generation

PROMPTS = [(20, 21, 22), (30, 31, 3, 4, 5, 40), tuple(range(10, 40)), (50,)]


def by_hand(probabilities: list[float], top_p: float) -> set[int]:
    """Tokens in order of their chance, smaller ids first, until the share is reached."""
    order = sorted(range(len(probabilities)), key=lambda token: (-probabilities[token], token))
    kept: set[int] = set()
    for token in order:
        if kept and math.fsum(probabilities[one] for one in kept) >= top_p:
            break
        kept.add(token)
    return kept


@given(
    st.lists(st.integers(1, 12), min_size=1, max_size=9),
    st.floats(0, 1, exclude_min=True) | st.sampled_from([5e-324, 0.25, 0.5, 1.0]),
)
@settings(max_examples=300, deadline=None)
def test_the_nucleus_is_the_smallest_set_of_likeliest_tokens(weights: list[int], top_p: float) -> None:
    probabilities = [weight / sum(weights) for weight in weights]
    sums = [math.fsum(sorted(probabilities, reverse=True)[:count]) for count in range(1, len(weights) + 1)]
    if any(abs(found - top_p) < 1e-6 for found in sums[:-1]):
        return  # rounding decides who crosses it
    kept = nucleus(torch.tensor([probabilities], dtype=torch.float64).log(), torch.tensor([top_p], dtype=torch.float64))
    assert set(kept[0].nonzero().squeeze(1).tolist()) == by_hand(probabilities, top_p)


def test_draws_are_as_frequent_as_the_renormalized_nucleus() -> None:
    """Temperature first, then the share: at temperature 2 the same share holds more tokens."""
    logits = torch.log(torch.tensor([0.5, 0.3, 0.15, 0.05]))
    count = 20000
    for temperature, top_p in ((1.0, 0.7), (2.0, 0.7), (0.5, 0.99), (1.0, 1.0)):
        tempered = torch.softmax(logits / temperature, -1)
        kept = by_hand(tempered.tolist(), top_p)
        whole = float(sum(tempered[token] for token in kept))
        tokens, log_probs = drawn(
            logits.repeat(count, 1), torch.full((count,), temperature),
            torch.full((count,), top_p, dtype=torch.float64), torch.rand(count, dtype=torch.float64),
        )  # fmt: skip
        found = Counter(tokens.tolist())
        assert set(found) == kept
        for token in kept:
            share = float(tempered[token]) / whole
            assert abs(found[token] / count - share) < 4 * math.sqrt(share * (1 - share) / count) + 1e-9
            assert float(log_probs[tokens == token][0]) == pytest.approx(math.log(share), abs=1e-5)


@pytest.mark.parametrize("uniform", [0.1, 0.5, 0.9999])
def test_a_draw_from_a_large_vocabulary_is_where_it_belongs(uniform: float) -> None:
    """Of 150,000 tokens, all as likely: sums in float32 would be off by hundreds of them."""
    tokens, _ = drawn(torch.zeros(1, 150_000), torch.ones(1), None, torch.tensor([uniform], dtype=torch.float64))
    assert abs(int(tokens) - uniform * 150_000) <= 2


def test_a_draw_at_the_very_end_is_in_the_nucleus() -> None:
    logits = torch.log(torch.tensor([[0.1, 0.6, 0.2, 0.1]]))
    last = torch.tensor([1 - 2.0**-53], dtype=torch.float64)
    tokens, log_probs = drawn(logits, torch.ones(1), torch.tensor([0.7], dtype=torch.float64), last)
    assert tokens.tolist() == [2] and bool(torch.isfinite(log_probs).all())


@pytest.mark.parametrize("temperature", [1e-45, 1e-38, 1e-12])
def test_the_coldest_draw_is_the_likeliest_token(temperature: float) -> None:
    logits = torch.tensor([[1.0, 9.0, -3.0]])
    tokens, log_probs = drawn(logits, torch.tensor([temperature]), None, torch.tensor([0.999], dtype=torch.float64))
    assert tokens.tolist() == [1] and float(log_probs[0]) == pytest.approx(0)


def requests(**more: Any) -> list[GenerateRequest]:
    return [GenerateRequest(prompt, max_new_tokens=9, seed=n, **more) for n, prompt in enumerate(PROMPTS)]


def test_top_p_changes_nothing_of_a_greedy_text_nor_of_a_batch_mate(tiny_llm: LocalLLM) -> None:
    assert tiny_llm.generate(requests(top_p=0.1)) == tiny_llm.generate(requests())
    warm = requests(temperature=1.3)
    mixed = [request if n % 2 else GenerateRequest(request.tokens, max_new_tokens=9, seed=n, temperature=1.3, top_p=0.4)
             for n, request in enumerate(warm)]  # fmt: skip
    alone = [tiny_llm.generate([request])[0] for request in mixed]
    together = tiny_llm.generate(mixed)
    assert [text.tokens for text in together] == [text.tokens for text in alone]
    assert [text.tokens for text in together][1::2] == [text.tokens for text in tiny_llm.generate(warm)][1::2]
    tiny = tiny_llm.generate(requests(temperature=1.3, top_p=1e-9))
    assert [text.tokens for text in tiny] == [text.tokens for text in tiny_llm.generate(requests())]


def own_log_probs(llm: LocalLLM, tokens: tuple[int, ...]) -> Tensor:
    """(S, V) by transformers' own forward pass."""
    with torch.no_grad():
        return torch.log_softmax(llm.model(torch.tensor([tokens])).logits[0].float(), dim=-1)


def check(llm: LocalLLM, request: GenerateRequest, text: Generation) -> None:
    whole = request.tokens + text.tokens
    wanted = own_log_probs(llm, whole)
    first = 0 if request.score_prompt else len(request.tokens)
    assert [score.token for score in text.scores] == list(whole[first:])
    for place, score in enumerate(text.scores, start=first):
        if place == 0:
            assert score.log_prob is None and score.top == ()
            continue
        assert score.log_prob == pytest.approx(float(wanted[place - 1, score.token]), abs=1e-4)
        best = wanted[place - 1].topk(request.top_log_probs or 0)
        assert [value for _, value in score.top] == pytest.approx(best.values.tolist(), abs=1e-4)
        assert [token for token, _ in score.top] == best.indices.tolist()


@pytest.mark.parametrize("prompt", [False, True])
@pytest.mark.parametrize("how", [{}, {"temperature": 1.4}, {"temperature": 0.7, "top_p": 0.5}])
def test_what_is_told_is_what_transformers_gives_batched_or_alone(
    tiny_llm: LocalLLM, how: dict[str, Any], prompt: bool
) -> None:
    """Neither the temperature nor top_p is in it."""
    asked = requests(top_log_probs=4, score_prompt=prompt, **how)
    together = tiny_llm.generate(asked)
    for request, text in zip(asked, together, strict=True):
        check(tiny_llm, request, text)
        (alone,) = tiny_llm.generate([request])
        check(tiny_llm, request, alone)
    plain = tiny_llm.generate(requests(**how))
    assert [text.tokens for text in plain] == [text.tokens for text in together]
    assert all(not text.scores for text in plain)


@pytest.mark.parametrize("lookup", [False, True])
def test_guessed_tokens_and_a_stop_word_are_told_as_any(tiny_llama: Any, tiny_tokenizer: Any, lookup: bool) -> None:
    llm = LocalLLM(tiny_llama, tiny_tokenizer, "tiny", Limits(prompt_lookup=lookup))
    llm.stop_tokens = frozenset()
    told: list[int] = []
    words = llm.generate([GenerateRequest(PROMPTS[0], max_new_tokens=40)])[0].text.split()
    request = GenerateRequest(
        PROMPTS[0], max_new_tokens=40, top_log_probs=1, stop=(" ".join(words[25:27]),),
        watch_scores=lambda scores: told.append(len(scores)),
    )  # fmt: skip
    text, mate = llm.generate([request, GenerateRequest(PROMPTS[2], max_new_tokens=40, top_log_probs=0)])
    check(llm, request, text)
    assert told == sorted(told) and told[-1] == len(text.tokens) < 40
    assert len(mate.scores) == 40 and all(score.top == () for score in mate.scores)


def test_what_cannot_be_told_or_drawn_is_refused() -> None:
    for wrong in ({"top_p": 0.0}, {"top_p": 1.1}, {"top_p": math.nan}, {"top_log_probs": -1}, {"score_prompt": True}):
        with pytest.raises(ConfigError):
            GenerateRequest((1,), **wrong)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="score_prompt"):
        GenerateRequest((), embeds=torch.ones(2, 3), top_log_probs=0, score_prompt=True)
