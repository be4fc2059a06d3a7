"""A link's file: whole, and for the two models it was made for."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from two_models import MANY_WORDS, ends, model_of, tokenizer_of

from gcache.errors import DataError
from gcache.links import link_file
from gcache.links.link import ModelEnds
from gcache.links.link_file import kept_at, linear_link, read_link, write_link


@pytest.fixture
def pair(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> tuple[ModelEnds, ModelEnds]:
    monkeypatch.setenv("GCACHE_HOME", str(tmp_path / "home"))
    words = tokenizer_of(MANY_WORDS)
    one, other = model_of(len(MANY_WORDS)), model_of(len(MANY_WORDS), seed=2)
    return ends(one, words, "one"), ends(other, words, "other")


def counted(monkeypatch: pytest.MonkeyPatch, name: str) -> list[str]:
    """Notes every time a link is computed."""
    made: list[str] = []
    fit = link_file._FITS[name]

    def noted(*args: Any) -> Any:
        made.append(name)
        return fit(*args)

    monkeypatch.setitem(link_file._FITS, name, noted)
    return made


@pytest.mark.parametrize("name", ["vocab", "overlap"])
def test_what_was_computed_is_kept(name: str, pair: tuple[ModelEnds, ModelEnds], monkeypatch: Any) -> None:
    made = counted(monkeypatch, name)
    first, again = linear_link(name, *pair), linear_link(name, *pair)
    assert made == [name]
    assert torch.equal(first.matrix, again.matrix)
    assert (first.name, first.norm, first.tokens) == (again.name, again.norm, again.tokens) == (name, first.norm, 160)


def test_it_is_kept_by_all_it_depends_on(pair: tuple[ModelEnds, ModelEnds]) -> None:
    one, other = pair
    files = {
        kept_at("vocab", one, other), kept_at("overlap", one, other), kept_at("vocab", other, one),
        kept_at("vocab", replace(one, fingerprint="new"), other),
        kept_at("vocab", one, replace(other, w_in=other.w_in.double())),
        kept_at("vocab", one, replace(other, tokenizer=tokenizer_of(MANY_WORDS[:-1]))),
    }  # fmt: skip
    assert len(files) == 6
    assert kept_at("vocab", one, other) == kept_at("vocab", replace(one, label="renamed"), other)


@pytest.mark.parametrize("harm", ["cut", "others", "no matrix"])
def test_a_broken_one_is_computed_again(
    harm: str, pair: tuple[ModelEnds, ModelEnds], monkeypatch: Any, caplog: pytest.LogCaptureFixture
) -> None:
    first = linear_link("vocab", *pair)
    path = kept_at("vocab", *pair)
    if harm == "cut":
        path.write_bytes(path.read_bytes()[:100])
    elif harm == "others":
        write_link(path, "vocab", "of nobody", "of other", {"matrix": first.matrix}, {"norm": 1.0, "tokens": 1})
    else:
        write_link(path, "vocab", "of one", "of other", {}, {"norm": 1.0, "tokens": 1})
    made = counted(monkeypatch, "vocab")
    with caplog.at_level(logging.WARNING):
        again = linear_link("vocab", *pair)
    assert made == ["vocab"]
    assert "computing it again" in caplog.text
    assert torch.equal(first.matrix, again.matrix)
    assert linear_link("vocab", *pair).tokens == 160
    assert made == ["vocab"]  # and it was mended


def test_where_nothing_can_be_kept_it_is_computed(
    pair: tuple[ModelEnds, ModelEnds], monkeypatch: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("GCACHE_HOME", str(tmp_path / "file"))
    with caplog.at_level(logging.WARNING):
        assert linear_link("vocab", *pair).tokens == 160
    assert "cannot be kept" in caplog.text


@pytest.mark.parametrize(
    ("what", "error"),
    [
        ("missing", r"no link file '.*x\.safetensors'; make one with `gcache fit-perceiver`"),
        ("broken", r"link file .*x\.safetensors cannot be read \(.*\); make it anew"),
        ("foreign", r"link file .*x\.safetensors cannot be read \(KeyError: 'gcache'\); make it anew"),
        ("format", r"has format 99, not 1; make it anew"),
        ("kind", r"is of the link vocab, not perceiver; pass --link vocab"),
        ("sender", r"made for the sender of nobody, but 'one' is of one; make it anew for these two models"),
        ("receiver", r"made for the receiver of nobody, but 'other' is of other; make it anew"),
    ],
)
def test_a_file_that_does_not_fit_is_one_line(
    what: str, error: str, pair: tuple[ModelEnds, ModelEnds], tmp_path: Path
) -> None:
    path, tensors = tmp_path / "x.safetensors", {"a": torch.ones(2)}
    if what == "broken":
        path.write_bytes(b"nothing of the kind")
    elif what == "foreign":
        from safetensors.torch import save_file

        save_file(tensors, path)
    elif what != "missing":
        sender = "of nobody" if what == "sender" else "of one"
        receiver = "of nobody" if what == "receiver" else "of other"
        rest = {"format": 99} if what == "format" else {}
        write_link(path, "vocab" if what == "kind" else "perceiver", sender, receiver, tensors, rest)
    with pytest.raises(DataError, match=error) as caught:
        read_link(path, "perceiver", *pair)
    assert "\n" not in str(caught.value)


def test_what_was_written_is_read(pair: tuple[ModelEnds, ModelEnds], tmp_path: Path) -> None:
    path = tmp_path / "new" / "x.safetensors"
    write_link(path, "perceiver", "of one", "of other", {"a": torch.ones(2)}, {"k": 16})
    tensors, header = read_link(path, "perceiver", *pair)
    assert torch.equal(tensors["a"], torch.ones(2))
    assert header["k"] == 16
    assert [entry.name for entry in path.parent.iterdir()] == ["x.safetensors"]  # nothing half-written beside it


def test_any_byte_of_it_is_missed(pair: tuple[ModelEnds, ModelEnds], tmp_path: Path) -> None:
    path, tensors = tmp_path / "x.safetensors", {"a": torch.randn(5, 3), "b": torch.arange(4.0)}
    write_link(path, "perceiver", "of one", "of other", tensors, {"config": {"queries": 3}})
    whole, expected = path.read_bytes(), read_link(path, "perceiver", *pair)[1]
    refused = 0
    for place in range(len(whole)):
        for spoiled in (
            whole[:place], whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :],
            whole[:place] + bytes([whole[place] ^ 0x80]) + whole[place + 1 :],
        ):  # fmt: skip
            path.write_bytes(spoiled)
            try:
                found, header = read_link(path, "perceiver", *pair)
            except DataError as error:
                refused += 1
                assert "x.safetensors" in str(error) and "\n" not in str(error)
            else:
                assert header == expected and all(torch.equal(found[name], tensors[name]) for name in tensors)
    assert refused > 2.9 * len(whole)


@pytest.mark.parametrize("harm", ["not finite", "another shape", "no norm"])
def test_a_kept_one_that_cannot_be_used_is_computed_again(
    harm: str, pair: tuple[ModelEnds, ModelEnds], caplog: pytest.LogCaptureFixture
) -> None:
    first = linear_link("vocab", *pair)
    matrix = {"not finite": first.matrix * float("nan"), "another shape": first.matrix[:3]}.get(harm, first.matrix)
    rest = {"norm": 0.0 if harm == "no norm" else 1.0, "tokens": 160}
    write_link(kept_at("vocab", *pair), "vocab", "of one", "of other", {"matrix": matrix}, rest)
    with caplog.at_level(logging.WARNING):
        assert torch.equal(linear_link("vocab", *pair).matrix, first.matrix)
    assert "computing it again" in caplog.text
