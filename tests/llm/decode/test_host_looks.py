"""A step of writing makes the host wait for the device once, a latent step never, however many rows there are."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from host_looks import HostLooks

from gcache.cache.fused_cache import FusedCache
from gcache.llm.cache_budget import Limits
from gcache.llm.decode.decoding import Decoding
from gcache.llm.local import LocalLLM
from gcache.llm.requests import GenerateRequest, Generation, ThinkRequest

PROMPT = (5, 9, 17, 5, 9, 30)


def written(decoding: Decoding[Any], done: list[tuple[Any, Any]]) -> dict[Any, Generation]:
    """All texts, once the last is done."""
    found = dict(decoding.notify(done))
    while len(decoding):
        found.update(decoding.notify(decoding.step()))
    return found


def requests(rows: int, **more: Any) -> list[GenerateRequest]:
    return [
        GenerateRequest(PROMPT[: 3 + n % 4], max_new_tokens=30 + n, seed=n, context=PROMPT, **more) for n in range(rows)
    ]


def batch(llm: LocalLLM, asked: list[GenerateRequest]) -> tuple[Decoding[Any], list[tuple[Any, Any]]]:
    """Texts in the making, as on a device that is no CPU."""
    decoding: Decoding[Any] = llm.decoding()
    decoding._written.looks = False
    return decoding, decoding.join(range(len(asked)), list(asked))


@pytest.fixture
def llm(tiny_llm: LocalLLM) -> LocalLLM:
    tiny_llm.stop_tokens = frozenset()
    return tiny_llm


KINDS: dict[str, dict[str, Any]] = {
    "greedy": {}, "drawn": {"temperature": 1.0}, "of the likeliest": {"temperature": 0.8, "top_p": 0.7}
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lookup", [True, False])
def test_a_step_waits_once(llm: LocalLLM, kind: str, lookup: bool) -> None:
    llm.limits = Limits(prompt_lookup=lookup)
    decoding, done = batch(llm, requests(4, **KINDS[kind]))
    assert not done
    uploads = []
    for _ in range(7):  # 28 tokens at most: nobody is done
        with HostLooks() as looks:
            assert not decoding.step()
        assert looks.waits == {"tolist": 1}
        uploads.append(looks.uploads)
    assert max(uploads) <= 1 and 0 in uploads  # pages are taken ahead


def test_a_step_waits_once_for_texts_that_are_watched_or_may_end_at_a_word(llm: LocalLLM) -> None:
    told: list[tuple[int, ...]] = []
    decoding, _ = batch(llm, requests(4, watch=told.append, stop=("never",)))
    for _ in range(5):
        with HostLooks() as looks:
            assert not decoding.notify(decoding.step())
        assert looks.waits == {"tolist": 1}
    assert len(told) == 4 + 5 * 4  # the first tokens are drawn where the prompts are read


def test_a_step_through_transformers_waits_once(other_llm: LocalLLM) -> None:
    other_llm.stop_tokens = frozenset()
    decoding, _ = batch(other_llm, requests(4))
    for _ in range(4):
        with HostLooks() as looks:
            decoding.step()
        assert looks.waits == {"tolist": 1}


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_of_more_rows_has_no_more_operations(llm: LocalLLM, kind: str) -> None:
    def calls(rows: int) -> Counter[str]:
        decoding, _ = batch(llm, requests(rows, **KINDS[kind]))
        decoding._luck.guesses = lambda *_: 2  # type: ignore[method-assign]
        total: Counter[str] = Counter()
        for _ in range(4):
            with HostLooks() as looks:
                decoding.step()
            total += looks.calls
        return total

    assert calls(4) == calls(16)


def test_a_latent_step_never_waits(llm: LocalLLM) -> None:
    past = FusedCache.plain(llm.think([ThinkRequest(PROMPT)])[0])

    def looked(rows: int, steps: int) -> HostLooks:
        asked = [ThinkRequest(PROMPT[: 3 + n % 4], past if n % 2 else None, steps, owner=n) for n in range(rows)]
        with HostLooks() as looks:
            llm.think(asked)
        return looks

    looked(4, 2)  # what is found out about a cache once is known afterwards
    few, many = looked(4, 2), looked(4, 12)
    assert few.waits == many.waits and few.uploads == many.uploads
    more = looked(8, 12)
    assert many.calls["mm"] - few.calls["mm"] == 10 * (few.calls["mm"] - looked(4, 1).calls["mm"])
    step = {name: count // 10 for name, count in (many.calls - few.calls).items()}
    assert step and {name: count // 10 for name, count in (more.calls - looked(8, 2).calls).items()} == step


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stop", [True, False])
def test_drawing_without_a_look_writes_the_same_texts(llm: LocalLLM, kind: str, stop: bool) -> None:
    asked = requests(6, **KINDS[kind])
    if stop:
        llm.stop_tokens = frozenset({llm.generate(asked[-1:])[0].tokens[9]})
    looking = llm.decoding()
    expected = written(looking, looking.join(range(6), list(asked)))
    assert written(*batch(llm, asked)) == expected  # to the bit


def test_mixed_requests_are_drawn_alike_without_a_look(llm: LocalLLM) -> None:
    told: list[Any] = []
    more: list[dict[str, Any]] = [
        {}, {"temperature": 1.2}, {"temperature": 0.7, "top_p": 0.5}, {"top_p": 0.2}, {"top_log_probs": 3},
        {"temperature": 1.0, "top_log_probs": 0, "score_prompt": True}, {"watch": told.append},
    ]  # fmt: skip
    asked = [GenerateRequest(PROMPT, max_new_tokens=12 + n, seed=n, **each) for n, each in enumerate(more)]
    looking = llm.decoding()
    expected = written(looking, looking.join(range(len(asked)), list(asked)))
    seen, told[:] = list(told), []
    assert written(*batch(llm, asked)) == expected and told == seen


def test_texts_that_are_nan_go_on_alone_without_a_look(llm: LocalLLM) -> None:
    """A guess whose embedding is nan: nothing that was drawn beside it counts."""
    asked = requests(3)
    expected = written(*batch(llm, asked))
    decoding, done = batch(llm, asked)
    embedding = llm.embedding

    def poisoned(ids: torch.Tensor) -> torch.Tensor:
        embeds = embedding(ids).clone()
        embeds[:, 1:] = torch.nan
        return embeds

    llm.embedding = poisoned  # type: ignore[method-assign]
    found = written(decoding, done)
    assert {n: text.tokens for n, text in found.items()} == {n: text.tokens for n, text in expected.items()}


# -- what counts ------------------------------------------------------------------------------


def test_what_makes_the_host_wait_is_counted() -> None:
    numbers = torch.arange(5)
    ways: dict[str, Any] = {
        "_local_scalar_dense": lambda: int(numbers[0]),
        "nonzero": lambda: numbers.nonzero(),
        "index": lambda: numbers[numbers > 2],
        "index_put_": lambda: numbers.clone().__setitem__(numbers > 9, numbers[:0]),
        "masked_select": lambda: numbers.masked_select(numbers > 2),
        "tolist": lambda: numbers.tolist(),
        "numpy": lambda: numbers.numpy(),
        "equal": lambda: torch.equal(numbers, numbers + 1),
        "_unique2": lambda: numbers.unique(),
        "_to_copy": lambda: numbers.to("meta"),
    }
    for name, way in ways.items():
        with HostLooks() as looks:
            way()
        assert looks.waits[name] == 1, (name, looks.waits)
    with HostLooks() as looks:
        bool((numbers > 2).any())
        assert sum(looks.waits.values()) == 1
    with HostLooks() as looks:
        numbers[numbers[:2]] + numbers.gather(0, numbers)[:2] * torch.where(numbers > 2, 1, 0)[:2]
        torch.tensor([1, 2])
    assert not looks.waits and looks.uploads == 1
