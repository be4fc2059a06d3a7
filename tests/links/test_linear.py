"""The linear links are exact where two models are one function in other coordinates."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from two_models import MANY_WORDS, QUESTION, across, ends, model_of, renumbered, rotated, rotation, tokenizer_of

from gcache.errors import ConfigError
from gcache.links import linear
from gcache.links.linear import LinearLink, fit_overlap, fit_vocab
from gcache.llm.forward.alignment import Alignment

TURN = rotation(32)


@pytest.fixture(scope="module")
def words() -> Any:
    return tokenizer_of(MANY_WORDS)


@pytest.fixture(scope="module", params=[True, False], ids=["tied", "untied"])
def model(request: pytest.FixtureRequest) -> Any:
    return model_of(len(MANY_WORDS), tied=request.param)


def hidden(model: Any) -> torch.Tensor:
    """(S, E) last hidden states of some tokens."""
    tokens = torch.randint(0, len(MANY_WORDS), (1, 12), generator=torch.Generator().manual_seed(5))
    return model.model(tokens).last_hidden_state[0]


def shuffled() -> list[int]:
    order = list(range(len(MANY_WORDS)))
    random.Random(3).shuffle(order)
    return order


def test_a_rotated_model_is_the_same_function(model: Any) -> None:
    tokens = torch.randint(0, len(MANY_WORDS), (2, 12))
    assert torch.allclose(model(tokens).logits, rotated(model, TURN)(tokens).logits, atol=2e-4)
    assert not torch.allclose(hidden(model), hidden(rotated(model, TURN)), atol=0.1)


def test_from_a_model_to_itself_it_is_its_own_map(model: Any, words: Any) -> None:
    own = ends(model, words, "one")
    for link in (fit_vocab(own, own), fit_overlap(own, own)):
        assert torch.allclose(link.carry(hidden(model)), Alignment.of_model(model)(hidden(model)), atol=1e-5)


def test_to_other_coordinates_it_is_the_senders_own_map_in_them(model: Any, words: Any) -> None:
    other, q = rotated(model, TURN), TURN.float()
    there = fit_vocab(ends(model, words, "one"), ends(other, words, "other"))
    assert torch.allclose(there.carry(hidden(model)), Alignment.of_model(model)(hidden(model)) @ q, atol=1e-4)
    back = fit_vocab(ends(other, words, "other"), ends(model, words, "one"))
    assert torch.allclose(back.carry(hidden(other)), Alignment.of_model(other)(hidden(other)) @ q.T, atol=1e-4)


def test_to_other_numbers_it_is_the_same_map(model: Any, words: Any) -> None:
    order = shuffled()
    other = renumbered(rotated(model, TURN), order)
    theirs = tokenizer_of([MANY_WORDS[n] for n in order])
    link = fit_overlap(ends(model, words, "one"), ends(other, theirs, "other"))
    assert link.tokens == len(MANY_WORDS)
    assert torch.allclose(link.carry(hidden(model)), Alignment.of_model(model)(hidden(model)) @ TURN.float(), atol=1e-4)


@pytest.mark.parametrize("transfer", ["own", "latent"])
@pytest.mark.parametrize("topology", ["chain", "star"])
def test_two_agents_across_two_models_are_those_of_one(model: Any, words: Any, topology: str, transfer: str) -> None:
    """The receiver reads embeddings either way: those of its own model, and the same in other coordinates."""
    one, other = (model, words), (rotated(model, TURN), words)
    order = shuffled()
    third = renumbered(other[0], order), tokenizer_of([MANY_WORDS[n] for n in order])
    itself = fit_vocab(ends(*one, "one"), ends(*one, "one"))
    turned = fit_vocab(ends(*one, "one"), ends(*other, "other"))
    over = fit_overlap(ends(*one, "one"), ends(*third, "third"))
    alike = [
        across(one, one, itself, topology, transfer=transfer).run(QUESTION),
        across(other, one, turned, topology, transfer=transfer).run(QUESTION),
        across(third, one, over, topology, transfer=transfer).run(QUESTION),
    ]
    assert len({result.answer for result in alike}) == 1
    first = alike[0].spoken[0].generation
    assert first is not None
    for result in alike[1:]:
        text = result.spoken[0].generation
        assert text is not None
        assert text.log_probs == pytest.approx(first.log_probs, abs=1e-4)
    deaf = across(one, one, itself, topology).run(QUESTION, topology=type(alike[0].topology)(2)).spoken[0].generation
    assert deaf is not None
    assert deaf.log_probs != pytest.approx(first.log_probs, abs=1e-2)  # what was carried was heard


def test_models_may_be_of_any_widths(words: Any) -> None:
    one, other = model_of(len(MANY_WORDS)), model_of(len(MANY_WORDS) + 8, hidden_size=48, head_dim=12, seed=2)
    link = fit_vocab(ends(one, words, "one"), ends(other, words, "other"))
    assert link.tokens == len(MANY_WORDS)  # the other's padding is nobody's token
    carried = link.carry(hidden(one))
    assert carried.shape == (12, 48)
    norm = other.model.embed_tokens.weight.norm(dim=1).mean()
    assert torch.allclose(carried.norm(dim=1), norm.expand(12), rtol=1e-5)


def test_summed_in_pieces_it_is_the_same(model: Any, words: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    own = ends(model, words, "one")
    whole = fit_vocab(own, own)
    monkeypatch.setattr(linear, "_ROWS", 7)
    pieces = fit_vocab(own, own)
    assert torch.allclose(whole.matrix, pieces.matrix, atol=1e-5)
    assert pieces.norm == pytest.approx(whole.norm)


def test_other_tokenizers_have_no_vocab(model: Any, words: Any) -> None:
    theirs = tokenizer_of([MANY_WORDS[n] for n in shuffled()])
    with pytest.raises(ConfigError, match=r"vocab needs one tokenizer, but 'one' and 'other'.*--link overlap"):
        fit_vocab(ends(model, words, "one"), ends(model, theirs, "other"))


def test_too_few_common_tokens_are_counted(words: Any) -> None:
    few = tokenizer_of([*MANY_WORDS[:99], *(f"none{n}" for n in range(61))])
    model = model_of(len(MANY_WORDS))
    with pytest.raises(ConfigError, match=r"needs 100 tokens .* 99 in common.*--link perceiver or text"):
        fit_overlap(ends(model, words, "one"), ends(model, few, "other"))


def test_states_of_another_width_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"\(S, 4\) states of its sender, got \(2, 5\)"):
        LinearLink("vocab", torch.eye(4), 1.0, 9).carry(torch.ones(2, 5))
