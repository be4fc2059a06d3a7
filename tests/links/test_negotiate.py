"""Which link two models get."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from two_models import MANY_WORDS, ends, model_of, tokenizer_of

from gcache.errors import ConfigError
from gcache.links.link import Link, ModelEnds
from gcache.links.negotiate import make_link, negotiated
from gcache.links.registry import CHOICES

OTHERS = (*MANY_WORDS[:3], *(f"none{n}" for n in range(157)))


@pytest.fixture
def one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModelEnds:
    monkeypatch.setenv("GCACHE_HOME", str(tmp_path))
    return ends(model_of(len(MANY_WORDS)), tokenizer_of(MANY_WORDS), "one")


@pytest.fixture
def others(one: ModelEnds) -> dict[str, ModelEnds]:
    """What each kind is for."""
    again = replace(one, label="again")
    vocab = ends(model_of(len(MANY_WORDS), seed=2), one.tokenizer, "vocab")
    overlap = replace(vocab, tokenizer=tokenizer_of(tuple(reversed(MANY_WORDS))), label="overlap")
    return {"same": again, "vocab": vocab, "overlap": overlap, "text": replace(vocab, tokenizer=tokenizer_of(OTHERS))}


def test_auto_takes_what_loses_least(one: ModelEnds, others: dict[str, ModelEnds]) -> None:
    assert {kind: negotiated(one, other) for kind, other in others.items()} == {kind: kind for kind in others}


@pytest.mark.parametrize("wanted", [choice for choice in CHOICES if choice != "auto"])
def test_a_flag_decides(wanted: str, one: ModelEnds, others: dict[str, ModelEnds]) -> None:
    assert {negotiated(one, other, wanted) for other in others.values()} == {wanted}


def test_models_of_unknown_content_are_not_the_same(one: ModelEnds) -> None:
    assert negotiated(replace(one, fingerprint=""), replace(one, fingerprint="")) == "vocab"


def test_an_unknown_link_is_refused(one: ModelEnds) -> None:
    with pytest.raises(ConfigError, match="unknown link 'telepathy'; choose one of: auto, overlap, perceiver, text, v"):
        negotiated(one, one, "telepathy")


@pytest.mark.parametrize("kind", ["same", "text"])
def test_nothing_is_carried_where_a_cache_or_words_go(kind: str, one: ModelEnds) -> None:
    assert make_link(kind, one, one) is None


@pytest.mark.parametrize("kind", ["vocab", "overlap"])
def test_the_others_are_links(kind: str, one: ModelEnds, others: dict[str, ModelEnds]) -> None:
    link: Any = make_link(kind, one, others[kind])
    assert isinstance(link, Link)
    assert link.name == kind


@pytest.mark.parametrize(
    ("kind", "other", "error"),
    [
        ("vocab", "overlap", "needs one tokenizer"),
        ("overlap", "text", "3 in common"),
        ("perceiver", "vocab", r"from 'one' to 'vocab' needs its fitted file; make one with `gcache fit-perceiver`"),
    ],
)
def test_a_wrong_pair_is_refused(
    kind: str, other: str, error: str, one: ModelEnds, others: dict[str, ModelEnds]
) -> None:
    with pytest.raises(ConfigError, match=error) as caught:
        make_link(kind, one, others[other])
    assert "\n" not in str(caught.value)
