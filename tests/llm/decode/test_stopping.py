"""How texts end and who is told of them while they are written; prompts that come as embeddings.

The tiny models write nonsense of many different words, so that a word of a free text is a stop word that comes where
one knows it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from gcache.cache.fused_cache import FusedCache
from gcache.errors import ConfigError
from gcache.llm.cache_budget import Limits
from gcache.llm.decode.stopping import first_stop
from gcache.llm.local import LocalLLM
from gcache.llm.requests import GenerateRequest, Generation, ThinkRequest
from gcache.llm.scheduler import BatchingLLM

PROMPTS = ((5, 9, 17), (30, 4, 11, 52, 7, 23, 8), (61,), (40, 41))
LENGTH = 14
Tokens = tuple[int, ...]


@pytest.fixture
def llm(tiny_llm: LocalLLM) -> LocalLLM:
    """Without stop tokens: words and limits alone end its texts."""
    tiny_llm.stop_tokens = frozenset()
    return tiny_llm


def drawn(number: int, **more: Any) -> GenerateRequest:
    """Texts of all sorts of words; greedy ones of such models go round in circles."""
    return GenerateRequest(
        PROMPTS[number], **{"max_new_tokens": LENGTH, "temperature": 1.0, "seed": number, **more}
    )


def written(llm: LocalLLM, *requests: GenerateRequest) -> list[Any]:
    """Each text, or what went wrong with it, of requests that are asked together."""
    batching = BatchingLLM(llm)

    async def together() -> list[Any]:
        return list(await asyncio.gather(*map(batching.generate, requests), return_exceptions=True))

    return asyncio.run(together())


def stop_of(text: str) -> str:
    """A word in the middle of a text, with the space before it, that is nowhere earlier in it."""
    middle = len(text) // 3
    return next(word for word in (f" {word}" for word in text[middle:].split()[1:]) if text.find(word) >= middle)


# -- stop words -----------------------------------------------------------------------------


@pytest.mark.parametrize("guesses", [True, False])
@pytest.mark.parametrize("alone", [True, False])
def test_a_text_ends_at_a_stop_word_and_is_cut_before_it(llm: LocalLLM, guesses: bool, alone: bool) -> None:
    free = llm.generate([drawn(n) for n in range(3)])
    llm.limits = Limits(prompt_lookup=guesses)
    words = [stop_of(text.text) for text in free]
    # what will be written is the context, so that many guesses come true and steps go past a stop word
    asked = [drawn(n, stop=("never", words[n]), context=free[n].tokens) for n in range(3)]
    others = [] if alone else [drawn(3), drawn(0, seed=9, max_new_tokens=3)]
    found = [text for one in asked for text in llm.generate([one])] if alone else llm.generate([*asked, *others])
    for whole, word, text in zip(free, words, found, strict=False):
        assert text.text == whole.text[: whole.text.index(word)]
        assert 0 < len(text.text) < len(whole.text)
        assert text.finished and not whole.finished
        assert len(text.tokens) < LENGTH, "the text went on after its stop word"
        assert text.tokens == whole.tokens[: len(text.tokens)]
        assert text.log_probs == pytest.approx(whole.log_probs[: len(text.tokens)], abs=1e-4)
        assert word in llm.text(text.tokens)
    assert [len(text.tokens) for text in found[3:]] == [] if alone else [LENGTH, 3]


def test_a_step_may_write_past_a_stop_word_and_the_text_is_cut_all_the_same(llm: LocalLLM) -> None:
    (free,) = llm.generate([drawn(0)])
    told: list[Tokens] = []
    request = drawn(0, stop=(stop_of(free.text),), context=free.tokens, watch=told.append)
    (text,) = llm.generate([request])
    assert max(len(b) - len(a) for a, b in zip([(), *told], told, strict=False)) > 1, "no guess came true"
    assert text.text == free.text[: free.text.index(request.stop[0])]


def test_the_first_of_several_stop_words_ends_a_text(llm: LocalLLM) -> None:
    (free,) = llm.generate([drawn(0)])
    early, late = free.text.split()[3:5]
    (text,) = llm.generate([drawn(0, stop=(f" {late}", f" {early}"))])
    assert text.text == free.text[: free.text.index(f" {early}")]


def test_a_stop_word_that_is_never_written_changes_nothing(llm: LocalLLM) -> None:
    assert llm.generate([drawn(1, stop=("never",))]) == llm.generate([drawn(1)])


def test_a_text_that_begins_with_a_stop_word_is_empty(llm: LocalLLM) -> None:
    (free,) = llm.generate([drawn(0)])
    (text,) = llm.generate([drawn(0, stop=(free.text.split()[0],))])
    assert (text.text, text.tokens, text.finished) == ("", free.tokens[:1], True)


def test_a_stop_word_over_several_tokens_ends_a_text(llm: LocalLLM) -> None:
    (free,) = llm.generate([drawn(0)])
    words = free.text.split()
    (text,) = llm.generate([drawn(0, stop=(" ".join(words[4:7]),))])
    assert text.text.split() == words[:4]
    assert text.tokens == free.tokens[: len(text.tokens)]


def test_a_stop_word_at_the_limit_is_an_end_and_no_cut(llm: LocalLLM) -> None:
    def words(number: int) -> tuple[list[str], list[str]]:
        (free,) = llm.generate([drawn(number)])
        return llm.text(free.tokens[:6]).split(), llm.text(free.tokens[:7]).split()

    number = next(n for n in range(len(PROMPTS)) if words(n)[1][-1] not in words(n)[0])
    (free,), last = llm.generate([drawn(number)]), words(number)[1][-1]
    (text,) = llm.generate([drawn(number, max_new_tokens=7, stop=(last,))])
    assert text.finished and len(text.tokens) == 7
    assert text.text == free.text[: free.text.index(last)]


@pytest.mark.parametrize(
    ("text", "stop", "place"),
    [
        ("one. two", ("two", "."), 3),
        ("one", ("two",), None),
        ("one", (), None),
        ("", ("a",), None),
        ("aab", ("ab", "aab"), 0),
    ],
)
def test_the_first_stop_by_hand(text: str, stop: tuple[str, ...], place: int | None) -> None:
    assert first_stop(text, stop) == place


def test_an_empty_stop_word_is_refused() -> None:
    with pytest.raises(ConfigError, match="a stop word is empty; leave it out"):
        GenerateRequest((1,), stop=("x", ""))


# -- watchers -------------------------------------------------------------------------------


@pytest.mark.parametrize("guesses", [True, False])
def test_a_watcher_is_told_growing_beginnings_of_the_whole_text(llm: LocalLLM, guesses: bool) -> None:
    llm.limits = Limits(prompt_lookup=guesses)
    (free,) = llm.generate([drawn(0)])
    told: list[Tokens] = []
    (text,) = llm.generate([drawn(0, watch=told.append, context=free.tokens)])
    assert text.tokens == free.tokens  # being watched changes nothing
    assert [len(tokens) for tokens in told] == sorted({len(tokens) for tokens in told})
    assert all(tokens == text.tokens[: len(tokens)] for tokens in told)
    assert told[-1] == text.tokens
    assert len(told) < LENGTH if guesses else len(told) == LENGTH


def test_the_end_of_turn_token_is_told_as_well(tiny_llm: LocalLLM) -> None:
    tiny_llm.stop_tokens = frozenset()
    (free,) = tiny_llm.generate([drawn(0)])
    tiny_llm.stop_tokens = frozenset({free.tokens[4]})
    told: list[Tokens] = []
    (text,) = tiny_llm.generate([drawn(0, watch=told.append)])
    assert told[-1] == text.tokens
    assert len(text.tokens) <= 5 and text.tokens[-1] == free.tokens[4]


@pytest.mark.parametrize("most", [2, 3, 64])
def test_rows_that_leave_and_move_keep_their_watchers_and_their_stop_words(llm: LocalLLM, most: int) -> None:
    """Texts of many lengths, of which short ones leave first, so that the last rows take their places."""
    llm.limits = Limits(max_batch_size=most)
    lengths = (2, 9, 4, 12, 3, 7, 1, 11, 5)
    requests = [drawn(n % 4, seed=n, max_new_tokens=length) for n, length in enumerate(lengths)]
    expected = [text for request in requests for text in llm.generate([request])]
    told: dict[int, list[Tokens]] = {n: [] for n in range(len(lengths))}

    def watcher(number: int) -> Callable[[Tokens], None]:
        return lambda tokens: told[number].append(tokens)

    stops = {n: stop_of(expected[n].text) for n, length in enumerate(lengths) if length > 8}
    asked = [
        replace(r, watch=watcher(n) if n % 3 else None, stop=(stops[n],) if n in stops else ())
        for n, r in enumerate(requests)
    ]
    found = written(llm, *asked)
    for number, (text, whole) in enumerate(zip(found, expected, strict=True)):
        assert isinstance(text, Generation)
        if number in stops:
            assert text.text == whole.text[: whole.text.index(stops[number])]
        else:
            assert text.tokens == whole.tokens
        if number % 3:
            assert told[number][-1] == text.tokens, number
            assert all(tokens == whole.tokens[: len(tokens)] for tokens in told[number])
        else:
            assert told[number] == []


def test_a_watcher_that_raises_loses_its_own_row_only(llm: LocalLLM) -> None:
    free = llm.generate([drawn(n) for n in range(4)])

    def raises(tokens: Tokens) -> None:
        if len(tokens) >= 3:
            raise RuntimeError("nobody is there any more")

    told: list[Tokens] = []
    asked = [drawn(0), drawn(1, watch=raises), drawn(2, watch=told.append), drawn(3)]
    found = written(llm, *asked)
    assert isinstance(found[1], RuntimeError) and str(found[1]) == "nobody is there any more"
    assert [found[n].tokens for n in (0, 2, 3)] == [free[n].tokens for n in (0, 2, 3)]
    assert told[-1] == free[2].tokens
    with pytest.raises(RuntimeError, match="nobody is there"):
        llm.generate([asked[1]])


def test_a_watcher_that_raises_as_its_text_ends_is_heard(llm: LocalLLM) -> None:
    def raises(tokens: Tokens) -> None:
        if len(tokens) == 5:
            raise RuntimeError("at the end")

    failed, text = written(llm, drawn(0, max_new_tokens=5, watch=raises), drawn(1))
    assert isinstance(failed, RuntimeError)
    assert isinstance(text, Generation) and len(text.tokens) == LENGTH


# -- prompts as embeddings ------------------------------------------------------------------


def embedded(llm: LocalLLM, request: GenerateRequest) -> GenerateRequest:
    """The same prompt as embeddings."""
    return replace(request, tokens=(), embeds=llm.embedding(torch.tensor(request.tokens)))


@pytest.mark.parametrize("number", range(4))
def test_a_prompt_as_embeddings_writes_what_its_tokens_write(llm: LocalLLM, number: int) -> None:
    request = drawn(number)
    (expected,) = llm.generate([request])
    (found,) = llm.generate([embedded(llm, request)])
    assert found.tokens == expected.tokens and found.text == expected.text
    assert found.log_probs == pytest.approx(expected.log_probs, abs=1e-4)


def test_embeddings_and_tokens_go_together_and_on_a_past(llm: LocalLLM) -> None:
    past = FusedCache.plain(llm.think([ThinkRequest(PROMPTS[1], latent_steps=1)])[0])
    requests = [drawn(n % 4, seed=n, past=past if n % 3 == 0 else None, temperature=n % 2) for n in range(8)]
    expected = llm.generate(requests)
    mixed = [embedded(llm, request) if n in (0, 1, 4, 7) else request for n, request in enumerate(requests)]
    found = llm.generate(mixed)
    assert [text.tokens for text in found] == [text.tokens for text in expected]
    for one, other in zip(found, expected, strict=True):
        assert one.log_probs == pytest.approx(other.log_probs, abs=1e-4)


def test_embeddings_have_stop_words_and_watchers_as_tokens_have(llm: LocalLLM) -> None:
    (free,) = llm.generate([drawn(0)])
    told: list[Tokens] = []
    (text,) = llm.generate([embedded(llm, drawn(0, stop=(stop_of(free.text),), watch=told.append))])
    assert text.text == free.text[: free.text.index(stop_of(free.text))]
    assert told[-1] == text.tokens


def test_embeddings_of_another_precision_are_taken_as_the_models(llm: LocalLLM) -> None:
    request = embedded(llm, drawn(1))
    assert request.embeds is not None
    (expected,) = llm.generate([request])
    (found,) = llm.generate([replace(request, embeds=request.embeds.double())])
    assert found == expected


@pytest.mark.parametrize(
    ("tokens", "embeds", "named"),
    [
        ((5,), torch.zeros(2, 32), r"a prompt is tokens or \(S, E\) embeddings, got 1 tokens and \(2, 32\)"),
        ((), torch.zeros(0, 32), r"got 0 tokens and \(0, 32\)"),
        ((), torch.zeros(32), r"got 0 tokens and \(32,\)"),
        ((), torch.zeros(1, 2, 32), r"got 0 tokens and \(1, 2, 32\)"),
        ((), None, "a request needs at least one prompt token, got none"),
    ],
)
def test_a_prompt_that_is_neither_or_both_is_refused(tokens: Tokens, embeds: Tensor | None, named: str) -> None:
    with pytest.raises(ConfigError, match=named) as refused:
        GenerateRequest(tokens, embeds=embeds)
    assert "\n" not in str(refused.value)


def test_embeddings_of_another_width_are_refused_alone(llm: LocalLLM) -> None:
    narrow = GenerateRequest((), embeds=torch.zeros(3, 31), max_new_tokens=4)
    refused, text = written(llm, narrow, drawn(1))
    assert isinstance(refused, ConfigError)
    assert str(refused) == "prompt embeddings must be as wide as the model's, 32, got 31"
    assert isinstance(text, Generation) and len(text.tokens) == LENGTH
    with pytest.raises(ConfigError, match="as wide as the model's, 32, got 31"):
        llm.generate([narrow])
