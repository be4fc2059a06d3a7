"""Five ways in which published latent multi-agent code goes wrong, as its users report them.

Each test does the thing right by hand, with transformers alone, does it wrong as well, and asks that
ours equals the one and differs from the other. Without the second half a test could pass on a
question where the mistake makes no difference.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from toy import AGENTS, DECISION, QUESTIONS
from transformers import DynamicCache

from gcache.cache.fused_cache import FusedCache
from gcache.cache.fusers.registry import make_fuser
from gcache.cache.kv_cache import KVCache, SlotKind
from gcache.gnn.providers import FixedProvider
from gcache.graph.cache_graph import CacheGraph
from gcache.graph.run_config import GraphConfig
from gcache.llm.local import LocalLLM
from gcache.llm.requests import GenerateRequest, ThinkRequest

CLOSE = 1e-4
LONG, SHORT = (40, 41, 42, 43, 44, 45, 46, 47), (50, 51, 52)


def by_hand(
    llm: LocalLLM, tokens: tuple[int, ...], steps: int = 0, cache: Any = None, start: int = 0
) -> tuple[Tensor, Any]:
    """A prompt and its latent steps, one sequence, positions counted from `start`; the last state
    and transformers' cache."""
    cache = DynamicCache() if cache is None else cache
    embeds, position = llm.embedding(torch.tensor([tokens])), start
    for step in range(steps + 1):
        places = torch.arange(position, position + embeds.shape[1])[None]
        out = llm.model.model(inputs_embeds=embeds, past_key_values=cache, position_ids=places, use_cache=True)
        position += embeds.shape[1]
        hidden = out.last_hidden_state[:, -1:]
        if step < steps:
            embeds = llm.alignment(hidden)
    return hidden[0, 0], cache


def keys_of(cache: Any) -> Tensor:
    """(L, H, T, D) of transformers' cache of one sequence."""
    return torch.stack([layer.keys[0] for layer in cache.layers])


def assert_same_keys(cache: KVCache, expected: Tensor) -> None:
    torch.testing.assert_close(cache.keys[:, 0], expected, atol=CLOSE, rtol=0)


@torch.no_grad()
def test_the_last_state_of_a_right_padded_row_is_that_of_its_last_token(tiny_llm: LocalLLM) -> None:
    """Taking `hidden[:, -1]` of a batch padded on the right feeds back the state of a pad."""
    ours = tiny_llm.think([ThinkRequest(LONG, latent_steps=2), ThinkRequest(SHORT, latent_steps=2)])
    for own, tokens in zip(ours, (LONG, SHORT), strict=True):
        assert_same_keys(own, keys_of(by_hand(tiny_llm, tokens, 2)[1]))
    padded = SHORT + (0,) * (len(LONG) - len(SHORT))
    wrong = keys_of(by_hand(tiny_llm, padded, 2)[1])[:, :, [0, 1, 2, -2, -1]]
    assert float((wrong[:, :, 3:] - ours[1].keys[:, 0, :, 3:]).abs().max()) > 0.1


@torch.no_grad()
def test_padding_of_a_past_is_not_attended_to(tiny_llm: LocalLLM) -> None:
    """A mask of all ones over a padded past lets every row read its padding."""
    long, short = tiny_llm.think([ThinkRequest(LONG, owner=1), ThinkRequest(SHORT, owner=2)])
    both = KVCache.batch([long, short])
    assert both.mask.tolist() == [[True] * 8, [True] * 3 + [False] * 5]
    padded = both.unbatch()[1].pad_to(8)
    prompt = (33, 34)
    ones = KVCache(
        padded.keys, padded.values, torch.arange(8)[None], torch.ones_like(padded.mask), padded.kinds, padded.owners,
        torch.arange(8)[None],
    )  # fmt: skip
    requests = [ThinkRequest(prompt, FusedCache.plain(cache)) for cache in (short, padded, ones)]
    alone, masked, wrong = (own.keys for own in tiny_llm.think(requests))
    torch.testing.assert_close(masked, alone, atol=CLOSE, rtol=0)
    _, cache = by_hand(tiny_llm, SHORT)
    _, cache = by_hand(tiny_llm, prompt, cache=cache, start=3)
    assert_same_keys(tiny_llm.think(requests[:1])[0], keys_of(cache)[:, :, 3:])
    assert float((wrong - alone).abs().max()) > 0.1


def graph(llm: LocalLLM, tokenizer: Any, **config: Any) -> CacheGraph:
    """Two agents in a chain."""
    fuser = make_fuser("concat", llm.cache_shape, "parallel", llm.rope)
    settings = GraphConfig(**{"max_new_tokens": 6, "transfer": "context", **config})
    return CacheGraph(llm, tokenizer, AGENTS[:2], DECISION, FixedProvider("chain"), fuser, settings)


def test_no_latent_step_is_none_and_the_cache_is_handed_over_all_the_same(
    tiny_llm: LocalLLM, tiny_tokenizer: Any
) -> None:
    """Some code takes one step where none is asked for, some hands nothing over then."""
    tiny_llm.stop_tokens = frozenset()
    made = graph(tiny_llm, tiny_tokenizer, latent_steps=0)
    result = made.run(QUESTIONS[0])
    question = made.layout.question(QUESTIONS[0])
    prompts = [made.agent_tokens(agent, QUESTIONS[0]) for agent in AGENTS[:2]]
    assert result.tokens["latent"] == 0
    assert [cache.slots for _, cache in sorted(result.caches.items())] == [len(prompt) for prompt in prompts]
    # the answer is that to all prompts one after another, and not that to the question alone
    everything = question + prompts[0] + prompts[1] + made.decision_tokens(QUESTIONS[0])
    whole, alone = tiny_llm.generate(
        [GenerateRequest(everything, None, 6), GenerateRequest(question + made.decision_tokens(QUESTIONS[0]), None, 6)]
    )
    assert result.spoken[0].generation is not None
    assert result.spoken[0].generation.tokens == whole.tokens
    assert result.spoken[0].generation.log_probs == pytest.approx(whole.log_probs, abs=1e-3)
    assert whole.log_probs[0] != pytest.approx(alone.log_probs[0], abs=1e-3)


@torch.no_grad()
def test_latents_alone_keep_their_positions(tiny_llm: LocalLLM, tiny_tokenizer: Any) -> None:
    """Handing on latents without the prompt before them must not move them, nor the receiver into
    their places: cutting a cache and counting positions from its length does both."""
    made = graph(tiny_llm, tiny_tokenizer, latent_steps=2, transfer="latent")
    result = made.run(QUESTIONS[0])
    question, first = made.layout.question(QUESTIONS[0]), made.agent_tokens(AGENTS[0], QUESTIONS[0])
    own, second = result.caches[0, 0], result.caches[0, 1]
    latents = own.of_kind(SlotKind.LATENT)
    places = len(question) + len(first)
    assert latents.positions.tolist() == [[places, places + 1]]
    assert int(second.positions[0, 0]) == places + 2  # after the last place that is taken

    def receiver(start: int) -> Tensor:
        """The second agent's keys, by hand, on the question and the latents, from a position on."""
        _, cache = by_hand(tiny_llm, question)
        for layer, (keys, values) in enumerate(zip(latents.keys, latents.values, strict=True)):
            cache.update(keys, values, layer)
        taken = len(question) + 2
        _, cache = by_hand(tiny_llm, made.agent_tokens(AGENTS[1], QUESTIONS[0]), 2, cache, start)
        return keys_of(cache)[:, :, taken:]

    assert_same_keys(second, receiver(places + 2))
    assert float((receiver(len(question) + 2) - second.keys[:, 0]).abs().max()) > 0.1


def test_what_pads_a_batch_is_nobodys_input(tiny_llm: LocalLLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is embedded behind the end of a text must reach nothing: here it is made huge."""
    asked = [ThinkRequest(LONG, latent_steps=2), ThinkRequest(SHORT, latent_steps=2)]
    texts = [GenerateRequest(LONG, None, 5), GenerateRequest(SHORT, None, 5)]
    before = tiny_llm.think(asked), tiny_llm.generate(texts)
    embedding, met = tiny_llm.embedding, []

    def with_a_mad_pad(ids: Tensor) -> Tensor:
        embeds = embedding(ids).clone()
        for row in range(len(ids) if ids.dim() == 2 else 0):
            if tuple(ids[row, : len(SHORT)].tolist()) == SHORT:
                met.append(ids.shape[1] - len(SHORT))
                embeds[row, len(SHORT) :] = 1e4
        return embeds

    monkeypatch.setattr(tiny_llm, "embedding", with_a_mad_pad)
    after = tiny_llm.think(asked), tiny_llm.generate(texts)
    assert max(met) == len(LONG) - len(SHORT)  # the batch was padded
    for one, other in zip(before[0], after[0], strict=True):
        torch.testing.assert_close(one.keys, other.keys, atol=CLOSE, rtol=0)
    assert [text.tokens for text in before[1]] == [text.tokens for text in after[1]]
