"""The slots of a text that was written: those that reading it anew gives, after latent steps and in any batch."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from exact import double
from torch import Tensor

from gcache.cache.fused_cache import FusedCache
from gcache.cache.kv_cache import KVCache, SlotKind
from gcache.errors import ConfigError, ContextError
from gcache.llm.local import LocalLLM
from gcache.llm.requests import GenerateRequest, Generation, ThinkRequest

PROMPTS = ((5, 9, 17), (30, 4, 11, 52, 7, 23, 8), (61,), (12, 40), (3, 3, 8, 21, 50))
NUMBERS = ("positions", "mask", "kinds", "owners", "ordinals")


def received(llm: LocalLLM, tokens: tuple[int, ...]) -> FusedCache:
    return FusedCache.plain(llm.think([ThinkRequest(tokens)])[0])


def asked(llm: LocalLLM, number: int, **more: Any) -> GenerateRequest:
    """A request that hands its slots on; every other one has received something."""
    past = received(llm, PROMPTS[number][::-1]) if number % 2 else None
    settings: dict[str, Any] = {"max_new_tokens": 6 + number, "temperature": 0.8, "seed": number, "owner": number}
    return GenerateRequest(PROMPTS[number], past, **{**settings, **more})


def again(request: GenerateRequest, text: Generation, **more: Any) -> ThinkRequest:
    """The same as a thought that reads the text."""
    assert request.owner is not None
    return ThinkRequest(
        request.tokens, request.past, request.latent_steps, request.owner, text=text.tokens,
        text_temperature=request.temperature, **more,
    )  # fmt: skip


def assert_same(one: KVCache, other: KVCache, atol: float = 1e-4) -> None:
    for name in NUMBERS:
        assert getattr(one, name).tolist() == getattr(other, name).tolist(), name
    for name in ("keys", "values"):
        torch.testing.assert_close(getattr(one, name), getattr(other, name), atol=atol, rtol=0)


def slots(text: Generation) -> KVCache:
    assert text.slots is not None
    return text.slots


@pytest.mark.parametrize("latent_steps", [0, 3])
def test_slots_of_a_text_are_those_of_reading_it_anew(tiny_llm: LocalLLM, latent_steps: int) -> None:
    requests = [asked(tiny_llm, number, latent_steps=latent_steps) for number in range(len(PROMPTS))]
    texts = tiny_llm.generate(requests)
    read = tiny_llm.think([again(request, text) for request, text in zip(requests, texts, strict=True)])
    for number, (request, text, other) in enumerate(zip(requests, texts, read, strict=True)):
        own = slots(text)
        assert_same(own, other)
        kinds = own.kinds[0].tolist()
        assert kinds == (
            [SlotKind.PROMPT] * len(request.tokens) + [SlotKind.LATENT] * latent_steps
            + [SlotKind.TEXT] * (len(text.tokens) - 1)
        )  # fmt: skip
        start = 0 if request.past is None else int(request.past.next_positions[0])
        assert own.positions[0].tolist() == list(range(start, start + own.slots))
        assert own.makers == {number}


@pytest.mark.parametrize("latent_steps", [0, 2])
def test_a_text_and_its_slots_are_the_same_alone_and_among_others(tiny_llm: LocalLLM, latent_steps: int) -> None:
    """Some take latent steps and some do not, some hand slots on and some do not; all in one batch."""
    requests = [
        asked(tiny_llm, number, latent_steps=latent_steps * (number % 3), owner=number if number != 2 else None)
        for number in range(len(PROMPTS))
    ]
    together = tiny_llm.generate(requests)
    for request, text in zip(requests, together, strict=True):
        (alone,) = tiny_llm.generate([request])
        assert alone.tokens == text.tokens
        assert (text.slots is None) == (request.owner is None)
        if text.slots is not None:
            assert_same(text.slots, slots(alone))


def test_rows_that_leave_while_others_write_take_their_own_slots(tiny_llm: LocalLLM) -> None:
    """With two rows at once, rows move into the places of those that have left."""
    tiny_llm.limits = replace(tiny_llm.limits, max_batch_size=2)
    requests = [asked(tiny_llm, number, max_new_tokens=2 + 3 * (number % 3)) for number in range(len(PROMPTS))]
    for request, text in zip(requests, tiny_llm.generate(requests), strict=True):
        (other,) = tiny_llm.think([again(request, text)])
        assert_same(slots(text), other)


def test_a_text_that_ends_with_its_first_token_hands_on_its_prompt(tiny_llm: LocalLLM) -> None:
    request = asked(tiny_llm, 1, max_new_tokens=1, latent_steps=2)
    (text,) = tiny_llm.generate([request])
    assert slots(text).kinds[0].tolist() == [SlotKind.PROMPT] * len(request.tokens) + [SlotKind.LATENT] * 2
    (other,) = tiny_llm.think([again(request, text)])
    assert_same(slots(text), other)


@pytest.mark.parametrize("gradient", [False, True])
@pytest.mark.parametrize("latent_steps", [0, 2])
def test_a_text_that_is_read_again_has_the_probability_it_was_drawn_at(
    tiny_llm: LocalLLM, latent_steps: int, gradient: bool
) -> None:
    requests = [asked(tiny_llm, number, latent_steps=latent_steps) for number in range(len(PROMPTS))]
    texts = tiny_llm.generate(requests)
    told: dict[int, Tensor] = {}
    read = tiny_llm.think(
        [again(r, t, watch_text=lambda scores, n=n: told.update({n: scores})) for n, (r, t) in
         enumerate(zip(requests, texts, strict=True))],
        gradient,
    )  # fmt: skip
    for number, text in enumerate(texts):
        torch.testing.assert_close(told[number].detach(), torch.tensor(text.log_probs), atol=1e-4, rtol=0)
        assert_same(slots(text), read[number].detach())


@pytest.mark.parametrize("latent_steps", [0, 2])
def test_gradient_of_a_text_that_is_read_again_is_that_of_finite_differences(
    tiny_llm: LocalLLM, latent_steps: int
) -> None:
    """Of its log-probability and of its slots, to the weight of what its writer had received."""
    llm = double(tiny_llm)
    past = FusedCache.plain(llm.think([ThinkRequest((7, 8, 9, 10))])[0])
    text = (11, 4, 30, 2)

    def value(log_weight: Tensor) -> Tensor:
        told: list[Tensor] = []
        (own,) = llm.think(
            [ThinkRequest((5, 6), past.weighted(log_weight), latent_steps, text=text, watch_text=told.append)], True
        )
        return told[0].sum() + own.values.square().sum() + own.keys.sum()

    at = torch.tensor(-0.4, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(value(at), at)
    step = 1e-3  # log-weights are float32 on the way
    with torch.no_grad():
        rise = (value(at + step) - value(at - step)) / (2 * step)
    torch.testing.assert_close(slope, rise, atol=1e-4, rtol=1e-4)
    assert abs(float(slope)) > 1e-4


def test_states_of_latent_steps_before_a_text_are_told(tiny_llm: LocalLLM) -> None:
    told: list[Tensor] = []
    known: list[Tensor] = []
    request = asked(tiny_llm, 3, latent_steps=3, watch_latents=told.append)
    tiny_llm.generate([request])
    tiny_llm.think([ThinkRequest(request.tokens, request.past, 3, watch=known.append)])
    torch.testing.assert_close(told[0], known[0], atol=1e-4, rtol=0)


def test_what_cannot_be_read_again_is_refused(tiny_llm: LocalLLM) -> None:
    with pytest.raises(ConfigError, match="behind a prompt of tokens"):
        ThinkRequest((), embeds=torch.zeros(2, 32), text=(1, 2))
    with pytest.raises(ConfigError, match="latent_steps must be 0 or more"):
        GenerateRequest((1,), latent_steps=-1)


def test_a_text_beyond_the_context_is_refused_with_its_latent_steps(tiny_llm: LocalLLM) -> None:
    from gcache.llm.context import misfit

    context = 20
    fits = GenerateRequest((1, 2, 3), None, 15, latent_steps=3)
    assert misfit(fits, context) is None
    assert isinstance(misfit(replace(fits, latent_steps=4), context), ContextError)
    assert misfit(ThinkRequest((1, 2, 3), latent_steps=3, text=tuple(range(15))), context) is None
    assert misfit(ThinkRequest((1, 2, 3), latent_steps=4, text=tuple(range(15))), context) is not None
