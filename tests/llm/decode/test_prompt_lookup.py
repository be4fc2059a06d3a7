"""Guessed tokens change no text; right ones save passes."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gcache.cache.fused_cache import FusedCache
from gcache.llm.cache_budget import Limits
from gcache.llm.decode import sampler_state
from gcache.llm.decode.prompt_lookup import (
    FEW_GUESSES,
    LONGEST_MATCH,
    MOST_GUESSES,
    MOST_TOKENS,
    AcceptanceRate,
    chance_of,
    guessed,
    tokens_of,
)
from gcache.llm.local import LocalLLM
from gcache.llm.requests import GenerateRequest, Generation, ThinkRequest

NONE = torch.zeros(0, dtype=torch.long)
Guess = Callable[[Tensor, Tensor, Tensor, int], Tensor]


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        ([5, 6, 7, 8, 5, 6], [7, 8]),  # what followed the last place that ended alike
        ([1, 5, 6, 2, 9, 6, 3, 5, 6], [2, 9]),  # the longer match wins over the later one
        ([6, 1, 6, 2, 6], [2, 6]),  # of two alike, the later
        ([4, 4, 4], [4, 4]),  # a text that goes in circles goes on
        ([8, 1, 2, 1, 2, 1], [2, 1]),
        ([7, 3, 4, 9, 3, 4, 8, 3, 4], [8, 3]),
    ],
)
def test_guesses_by_hand(tokens: list[int], expected: list[int]) -> None:
    history = torch.tensor([[*tokens, 0, 0]])
    assert guessed(history, torch.tensor([len(tokens)]), NONE, 2)[0].tolist() == expected


def test_each_row_is_looked_up_up_to_its_own_end() -> None:
    history = torch.tensor([[5, 6, 5, 8, 5], [15, 16, 15, 18, 15], [9, 1, 2, 3, 4]])
    found = guessed(history, torch.tensor([3, 5, 1]), NONE, 1)
    assert found[:2, 0].tolist() == [6, 18]
    assert found.shape == (3, 1)  # nothing matches in the third, whatever is guessed then


def test_other_texts_are_looked_into_too() -> None:
    history = torch.tensor([[9, 9, 9, 9, 0, 0], [7, 5, 6, 8, 0, 0], [1, 5, 6, 0, 0, 0]])
    ends, others = torch.tensor([4, 4, 3]), torch.tensor([3, 5, 6, 2, 4])
    assert guessed(history, ends, NONE, 1)[2].tolist() == [8]  # what another row wrote
    assert guessed(history, ends, others, 2)[2].tolist() == [2, 4]  # of equals, the latest
    own = torch.tensor([[1, 6, 3, 4, 5, 6]])
    assert guessed(own, torch.tensor([6]), others, 2).tolist() == [[3, 4]]  # its own counts one more
    longer = torch.tensor([8, 4, 5, 6, 7, 7])
    assert guessed(own, torch.tensor([6]), longer, 2).tolist() == [[7, 7]]


def by_definition(
    history: list[list[int]], ends: list[int], others: list[int], row: int, count: int
) -> list[int] | None:
    """One row's guesses, place by place; None where nothing matches."""
    width = len(history[0])
    known = [token for tokens in history for token in tokens] + others
    begin, end = row * width, ends[row]
    best, found = (0, 0, 0), None
    for place in range(len(known) - 1):
        if place < len(history) * width and place % width >= ends[place // width] - 1:
            continue
        score = 0
        while score < LONGEST_MATCH and known[max(0, place - score)] == history[row][max(0, end - 1 - score)]:
            score += 1
        own = begin <= place < begin + width
        if score and (2 * (score + own) + own, place, 0) > best:
            best, found = (2 * (score + own) + own, place, 0), place
    if found is None:
        return None
    period = max(1, begin + end - 1 - found) if begin <= found < begin + width else count
    return [known[min(found + 1 + n % period, len(known) - 1)] for n in range(count)]


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_guesses_are_those_of_the_definition(data: st.DataObject) -> None:
    token, width = st.integers(0, data.draw(st.integers(1, 6))), data.draw(st.integers(1, 12))
    history = data.draw(st.lists(st.lists(token, min_size=width, max_size=width), min_size=1, max_size=4))
    ends = [data.draw(st.integers(1, width)) for _ in history]
    others, count = data.draw(st.lists(token, max_size=9)), data.draw(st.integers(1, 3))
    found = guessed(torch.tensor(history), torch.tensor(ends), torch.tensor(others, dtype=torch.long), count)
    for row, guesses in enumerate(found.tolist()):
        expected = by_definition(history, ends, others, row, count)
        assert expected is None or guesses == expected


def requests(llm: LocalLLM, temperature: float) -> list[GenerateRequest]:
    past = FusedCache.plain(llm.think([ThinkRequest((5, 9, 8, 31), latent_steps=2)])[0])
    return [
        GenerateRequest(
            tuple(range(3, 6 + n)), past if n % 2 else None, 1 + 5 * n, temperature, seed=n, context=(5, 9, 8, 31)[:n]
        )
        for n in range(7)
    ]


def counting_passes(llm: LocalLLM, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Filled with the width of each pass from now on."""
    widths: list[int] = []
    decoder = llm.decoder

    def counted(embeds: Tensor, *rest: Any) -> Tensor:
        widths.append(embeds.shape[1])
        return decoder(embeds, *rest)

    monkeypatch.setattr(llm, "decoder", counted)
    return widths


def assert_same(texts: list[Generation], plain: list[Generation]) -> None:
    for text, expected in zip(texts, plain, strict=True):
        assert (text.tokens, text.finished) == (expected.tokens, expected.finished)
        assert text.log_probs == pytest.approx(expected.log_probs, abs=1e-4)


def without_lookup(llm: LocalLLM, asked: list[GenerateRequest]) -> list[Generation]:
    llm.limits = replace(llm.limits, prompt_lookup=False)
    try:
        return llm.generate(asked)
    finally:
        llm.limits = replace(llm.limits, prompt_lookup=True)


def perfect(asked: list[GenerateRequest], texts: list[Generation]) -> Guess:
    """Knows the texts beforehand, by all that comes before."""
    known = {
        request.context + request.tokens + text.tokens[:n]: text.tokens[n:]
        for request, text in zip(asked, texts, strict=True)
        for n in range(1, len(text.tokens) + 1)
    }

    def guess(history: Tensor, ends: Tensor, others: Tensor, count: int) -> Tensor:
        rows = [known[tuple(row[:end].tolist())] for row, end in zip(history, ends, strict=True)]
        return torch.tensor([[*row, *(0,) * count][:count] for row in rows])

    return guess


def always(token: int) -> Guess:
    return lambda history, ends, others, count: torch.full((len(history), count), token)


def half_wrong(asked: list[GenerateRequest], texts: list[Generation]) -> Guess:
    """The first guess is right, those behind it are not."""
    right = perfect(asked, texts)

    def guess(history: Tensor, ends: Tensor, others: Tensor, count: int) -> Tensor:
        guesses = right(history, ends, others, count)
        guesses[:, 1:] = 63
        return guesses

    return guess


@pytest.mark.parametrize("stops", [frozenset(), None])
@pytest.mark.parametrize("temperature", [0.0, 0.8])
@pytest.mark.parametrize("how", ["real", "perfect", "wrong", "half wrong"])
def test_no_guess_changes_a_text(
    tiny_llm: LocalLLM, monkeypatch: pytest.MonkeyPatch, temperature: float, how: str, stops: frozenset[int] | None
) -> None:
    asked = requests(tiny_llm, temperature)
    if stops is None:  # a token that some text writes ends it there
        tiny_llm.stop_tokens = frozenset()
        stops = frozenset({tiny_llm.generate(asked[-1:])[0].tokens[9]})
    tiny_llm.stop_tokens = stops
    plain = without_lookup(tiny_llm, asked)
    guesses: dict[str, Guess] = {
        "real": guessed,
        "perfect": perfect(asked, plain),
        "wrong": always(63),
        "half wrong": half_wrong(asked, plain),
    }
    monkeypatch.setattr(sampler_state, "guessed", guesses[how])
    assert_same(tiny_llm.generate(asked), plain)
    tiny_llm.limits = Limits(max_batch_size=3)  # rows come and go
    assert_same(tiny_llm.generate(asked), plain)


def test_right_guesses_save_passes(tiny_llm: LocalLLM, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_llm.stop_tokens, tiny_llm.pass_seconds = frozenset(), lambda tokens, slots: 1.0
    asked = [GenerateRequest((5, 9, 8), max_new_tokens=46)]
    plain = without_lookup(tiny_llm, asked)
    widths = counting_passes(tiny_llm, monkeypatch)
    monkeypatch.setattr(sampler_state, "guessed", perfect(asked, plain))
    assert_same(tiny_llm.generate(asked), plain)
    assert widths == [3] + [1 + MOST_GUESSES] * (45 // (1 + MOST_GUESSES))


def test_wrong_guesses_are_given_up_and_tried_again(tiny_llm: LocalLLM, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_llm.stop_tokens, tiny_llm.pass_seconds = frozenset(), None
    asked = [GenerateRequest((5, 9, 8), max_new_tokens=200)]
    never = min(set(range(64)) - set(without_lookup(tiny_llm, asked)[0].tokens))
    widths = counting_passes(tiny_llm, monkeypatch)
    monkeypatch.setattr(sampler_state, "guessed", always(never))
    tiny_llm.generate(asked)
    assert len(widths) == 200
    tried = [width for width in widths[1:] if width > 1]
    assert 5 < len(tried) < 30 and tried != widths[1 : 1 + len(tried)]


def test_where_nobody_measured_a_full_batch_is_not_made_longer() -> None:
    luck = AcceptanceRate()
    assert [luck.guesses(rows) for rows in (1, 12, 16, 24, 32, 64)] == [FEW_GUESSES, 3, 2, 1, 0, 0]
    assert all(rows * (1 + luck.guesses(rows)) <= MOST_TOKENS for rows in range(1, 49))
    for _ in range(20):
        luck.guesses(16)
        luck.tried(16, 0)
    assert luck.guesses(1) == 0
    for _ in range(400):
        luck.not_tried()
    assert luck.guesses(1) == FEW_GUESSES


def test_as_many_guesses_are_made_as_give_the_most_tokens_a_second() -> None:
    """By hand, with a chance of 0.35: 1, 1.35, 1.4725, 1.515 tokens of 0, 1, 2, 3 guesses."""
    free, dear = AcceptanceRate(lambda *_: 1.0), AcceptanceRate(lambda tokens, _: 1.0 * tokens)
    assert (free.guesses(16), dear.guesses(16), dear.guesses(1)) == (MOST_GUESSES, 0, 0)
    # 10 and 1 a token at 4 rows: 1 / 14, 1.35 / 18, 1.4725 / 22
    assert AcceptanceRate(lambda tokens, _: 10.0 + tokens).guesses(4) == 1
    # at 1 row: 1 / 11, 1.35 / 12, 1.4725 / 13, 1.5154 / 14
    assert AcceptanceRate(lambda tokens, _: 10.0 + tokens).guesses(1) == 2
    # what each token attends to counts: 1 / 14 and so on over 100 slots, nothing over none
    far = AcceptanceRate(lambda tokens, slots: 10.0 + 0.01 * tokens * slots)
    assert (far.guesses(4, 0.0), far.guesses(4, 100.0)) == (MOST_GUESSES, 1)


@pytest.mark.parametrize("guesses", [1, 2, 3, 8])
@pytest.mark.parametrize("chance", [0.0, 0.2, 0.5, 0.9, 1.0])
def test_the_chance_of_a_guess_is_what_gives_so_many_tokens(guesses: int, chance: float) -> None:
    luck = AcceptanceRate(lambda tokens, slots: 1.0)
    assert chance_of(tokens_of(chance, guesses), guesses) == pytest.approx(chance, abs=2e-3)
    for _ in range(200):
        luck._made = guesses
        luck.tried(1000, round(1000 * tokens_of(chance, guesses)))
    assert luck.chance == pytest.approx(chance, abs=5e-3)


def test_a_chance_that_is_better_than_at_first_is_not_forgotten_by_steps_without_guesses() -> None:
    luck = AcceptanceRate()
    luck.chance = 0.8
    luck.not_tried()
    assert luck.chance == 0.8


def test_models_that_go_through_transformers_guess_as_well(other_llm: LocalLLM) -> None:
    asked = requests(other_llm, 0.0)
    assert_same(other_llm.generate(asked), without_lookup(other_llm, asked))


def test_log_probs_are_the_models_own_where_guesses_were_right(
    tiny_llm: LocalLLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against the whole text read at once, in a copy of the model that never guesses."""
    tiny_llm.stop_tokens = frozenset()
    asked = [GenerateRequest((5, 9, 8), max_new_tokens=20)]
    monkeypatch.setattr(sampler_state, "guessed", perfect(asked, without_lookup(tiny_llm, asked)))
    text = tiny_llm.generate(asked)[0]
    whole = torch.tensor([asked[0].tokens + text.tokens])
    logits = copy.deepcopy(tiny_llm.model)(whole).logits[0, 2:-1].log_softmax(-1)
    own = logits.gather(1, torch.tensor(text.tokens)[:, None]).squeeze(1)
    assert list(text.log_probs) == pytest.approx(own.tolist(), abs=1e-4)
