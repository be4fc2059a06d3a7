"""The last token of a text with stop words is the same however many tokens were guessed beyond it.

The rule: a text ends with the first token at which what has been decoded so far holds a stop word. It is held against
the same text without stop words, cut by that rule.
"""

from __future__ import annotations

import asyncio
import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from conftest import TINY
from toy import QUESTIONS, toy_built

from gcache.graph.hand_over import edge_weights
from gcache.graph.run_config import GraphConfig
from gcache.llm.cache_budget import Limits
from gcache.llm.decode.stopping import first_stop
from gcache.llm.local import LocalLLM
from gcache.llm.requests import GenerateRequest, Generation, LogProbRequest
from gcache.llm.scheduler import BatchingLLM
from gcache.training.replay import Replay, log_probs

LENGTH = 24
PROMPTS = ((5, 9, 17), (30, 4, 11, 52, 7, 23, 8), (61,), (40, 41))


@pytest.fixture(scope="module")
def byte_tokenizer() -> Any:
    """A token per byte, and a few of two and three: characters may be cut, and words begin within a token."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    pairs = ["a b", "ab c", "\u0120 a", "b \u0120", "\u00c3 \u00a9", ". \u0120", "d e"]
    merges = [(pair.split()[0], pair.split()[1]) for pair in pairs]
    vocabulary = [*letters, *("".join(pair) for pair in merges), "<end>"]
    made = Tokenizer(models.BPE({token: number for number, token in enumerate(vocabulary)}, merges))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<end>")


@pytest.fixture(scope="module")
def byte_model() -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(3)
    return LlamaForCausalLM(LlamaConfig(**{**TINY, "vocab_size": 264}, tie_word_embeddings=True)).eval()


@pytest.fixture(params=["words", "tidied", "bytes"])
def llm(request: pytest.FixtureRequest, tiny_llama: Any, tiny_tokenizer: Any) -> LocalLLM:
    """Words; words before which spaces are taken away once the next one is known; bytes."""
    if request.param == "bytes":
        made = LocalLLM(request.getfixturevalue("byte_model"), request.getfixturevalue("byte_tokenizer"), "bytes")
    else:
        tokenizer = copy.deepcopy(tiny_tokenizer)
        tokenizer.clean_up_tokenization_spaces = request.param == "tidied"
        made = LocalLLM(tiny_llama, tokenizer, "words")
    made.stop_tokens = frozenset()
    return made


def asked(number: int, temperature: float, **more: Any) -> GenerateRequest:
    settings = {"max_new_tokens": LENGTH, "temperature": temperature, "seed": number, **more}
    return GenerateRequest(PROMPTS[number % len(PROMPTS)], **settings)


def cut(llm: LocalLLM, free: Generation, stop: tuple[str, ...]) -> Generation:
    """A text without stop words, ended by the rule."""
    for length in range(1, len(free.tokens) + 1):
        text = llm.text(free.tokens[:length])
        if (place := first_stop(text, stop)) is not None:
            return Generation(text[:place], free.tokens[:length], free.log_probs[:length], True)
    return free


def stops_of(llm: LocalLLM, free: Generation) -> list[tuple[str, ...]]:
    """Pieces of what is written, of all lengths, from within words and characters; with others, or alone."""
    text = free.text
    places = range(2, max(3, len(text) - 3), max(1, len(text) // 9))
    pieces = [text[place : place + 1 + place % 4] for place in places if text[place : place + 1 + place % 4]]
    beginnings = [llm.text(free.tokens[:n])[-2:] for n in range(2, len(free.tokens), 3)]  # of half characters, too
    alone = [(piece,) for piece in (*pieces, *beginnings) if piece]
    return [*alone, ("never", *pieces[-2:], pieces[0]), tuple(pieces[3:5]) or ("never",)]


def same(found: Generation, expected: Generation) -> None:
    assert (found.tokens, found.text, found.finished) == (expected.tokens, expected.text, expected.finished)
    assert found.log_probs == pytest.approx(expected.log_probs, abs=1e-4)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("lookup", [False, True])
def test_a_text_ends_with_the_token_that_completes_a_stop_word(
    llm: LocalLLM, lookup: bool, temperature: float
) -> None:
    llm.limits = Limits(prompt_lookup=lookup)
    shorter = 0
    for number in range(3):
        (free,) = llm.generate([asked(number, temperature)])
        for stop in stops_of(llm, free):
            expected = cut(llm, free, stop)
            told: list[tuple[int, ...]] = []
            # what will be written is the context, so that guesses come true and steps go past a stop word
            (found,) = llm.generate([asked(number, temperature, stop=stop, context=free.tokens, watch=told.append)])
            same(found, expected)
            assert told[-1] == found.tokens, "a watcher was told of more, or of less"
            shorter += len(expected.tokens) < LENGTH
    assert shorter > 20


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_batch_mates_change_no_ending(llm: LocalLLM, temperature: float) -> None:
    """Rows of a batch are guessed as many tokens each, by how many guesses came true for all."""
    free = llm.generate([asked(number, temperature) for number in range(4)])
    requests, expected = [], []
    for number, text in enumerate(free):
        for place, stop in enumerate(stops_of(llm, text)):
            context = text.tokens if place % 2 else ()
            requests.append(asked(number, temperature, stop=stop, context=context))
            expected.append(cut(llm, text, stop))
    for size in (1, 3, 11):
        llm.limits = Limits(max_batch_size=size)
        for found, wanted in zip(llm.generate(requests), expected, strict=True):
            same(found, wanted)


@pytest.mark.parametrize("lookup", [False, True])
def test_where_a_stop_word_meets_an_end_of_turn_or_the_limit(llm: LocalLLM, lookup: bool) -> None:
    (free,) = llm.generate([asked(0, 1.0)])
    llm.limits = Limits(prompt_lookup=lookup)
    for place in range(1, 14):
        llm.stop_tokens = frozenset({free.tokens[place]})
        end = free.tokens.index(free.tokens[place])
        stop = (llm.text(free.tokens[:place])[-2:],)
        if not stop[0]:
            continue
        tokens = free.tokens[: end + 1]
        whole = Generation(llm.text(tokens), tokens, free.log_probs[: end + 1], True)
        (found,) = llm.generate([asked(0, 1.0, stop=stop, context=free.tokens)])
        same(found, cut(llm, whole, stop))
    llm.stop_tokens = frozenset()
    for limit in range(1, 14):
        tokens = free.tokens[:limit]
        whole = Generation(llm.text(tokens), tokens, free.log_probs[:limit], False)
        for stop in stops_of(llm, free)[:8]:
            (found,) = llm.generate([asked(0, 1.0, stop=stop, context=free.tokens, max_new_tokens=limit)])
            same(found, cut(llm, whole, stop))


def test_the_tokens_of_a_stopped_text_have_the_log_probabilities_that_were_drawn(llm: LocalLLM) -> None:
    """What training computes again is what was counted."""
    (free,) = llm.generate([asked(1, 1.0)])
    for stop in stops_of(llm, free):
        (found,) = llm.generate([asked(1, 1.0, stop=stop, context=free.tokens)])
        (scores,) = llm.log_prob([LogProbRequest(PROMPTS[1], found.tokens, None, 1.0)])
        assert scores.tolist() == pytest.approx(found.log_probs, abs=1e-3)


def test_a_run_with_a_stop_word_is_replayed(tiny_llama: Any, tiny_tokenizer: Any) -> None:
    """Greedy texts of tiny models go round in circles, so guesses come true."""
    found = []
    for lookup in (True, False):
        llm = LocalLLM(tiny_llama, tiny_tokenizer, "tiny", Limits(prompt_lookup=lookup))
        llm.stop_tokens = frozenset()
        graph = toy_built(
            llm, tiny_tokenizer, topology="chain", graph=GraphConfig(latent_steps=1, max_new_tokens=40)
        ).graph
        free = graph.run(QUESTIONS[0]).answer.split()
        stop = (" ".join(free[20:22]), f"{free[12]} {free[13]} {free[14]}")
        result = graph.run(QUESTIONS[0], stop=stop)
        (again,) = log_probs(graph, llm, [Replay(result, edge_weights(result.topology))])  # type: ignore[arg-type]
        assert float(again) == pytest.approx(result.text_log_prob, abs=1e-3)
        found.append((result.answer, result.spoken[0].generation.tokens, result.tokens))  # type: ignore[union-attr]
    assert found[0] == found[1]


def test_texts_that_join_a_running_batch_end_where_they_end_alone(llm: LocalLLM) -> None:
    front = BatchingLLM(llm)
    free = llm.generate([asked(number, 1.0) for number in range(4)])
    requests = [
        replace(asked(number, 1.0), stop=stop, context=text.tokens)
        for number, text in enumerate(free)
        for stop in stops_of(llm, text)[:4]
    ]
    expected = [cut(llm, free[number // 4], request.stop) for number, request in enumerate(requests)]

    async def one_after_another() -> list[Generation]:
        async def late(number: int) -> Generation:
            for _ in range(9 * number):
                await asyncio.sleep(0)
            return await front.generate(requests[number])

        return list(await asyncio.gather(*map(late, range(len(requests)))))

    for found, wanted in zip(asyncio.run(one_after_another()), expected, strict=True):
        same(found, wanted)
