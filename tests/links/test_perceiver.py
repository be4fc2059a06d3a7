"""The learned link: soft tokens of any thoughts, the same whatever else is in the batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from two_models import MANY_WORDS, ends, model_of, tokenizer_of

from gcache.errors import ConfigError, DataError
from gcache.links.link import Link, ModelEnds
from gcache.links.negotiate import make_link
from gcache.links.perceiver import Perceiver, PerceiverConfig, embedding_statistics

SMALL = PerceiverConfig(queries=5, width=16, heads=2, blocks=2)


@pytest.fixture(scope="module")
def pair() -> tuple[ModelEnds, ModelEnds]:
    words = tokenizer_of(MANY_WORDS)
    one, other = model_of(160), model_of(160, hidden_size=48, head_dim=12, seed=2)
    return ends(one, words, "one"), ends(other, words, "other")


@pytest.fixture
def perceiver(pair: tuple[ModelEnds, ModelEnds]) -> Perceiver:
    made = Perceiver(SMALL, 32, embedding_statistics(pair[1]))
    made.observe(torch.randn(100, 32) * 3 + 1)
    return made


def test_it_is_a_link_to_so_many_embeddings(perceiver: Perceiver, pair: tuple[ModelEnds, ModelEnds]) -> None:
    assert isinstance(perceiver, Link)
    for length in (1, 7, 40):
        carried = perceiver.carry(torch.randn(length, 32))
        assert carried.shape == (5, 48)
        norm = pair[1].w_in.norm(dim=1).mean()
        assert torch.allclose(carried.norm(dim=1), norm.expand(5), rtol=1e-4)
    assert perceiver.carry(torch.randn(3, 32, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_padding_changes_nothing(perceiver: Perceiver) -> None:
    states = [torch.randn(length, 32) for length in (3, 11, 1)]
    together = perceiver(states)
    for number, each in enumerate(states):
        assert torch.allclose(together[number], perceiver([each])[0], atol=1e-5)


def test_order_and_content_of_thoughts_count(perceiver: Perceiver) -> None:
    states = torch.randn(6, 32)
    assert not torch.allclose(perceiver.carry(states), perceiver.carry(states.flip(0)), atol=1e-4)
    assert not torch.allclose(perceiver.carry(states), perceiver.carry(states + 1), atol=1e-4)


def test_states_are_standardised_by_what_was_observed(perceiver: Perceiver) -> None:
    """The scale and the offset that a sender's states have are told apart from what they say."""
    states = torch.randn(50, 32)
    first = Perceiver(SMALL, 32, (torch.zeros(48), torch.ones(48), 1.0))
    second = Perceiver(SMALL, 32, (torch.zeros(48), torch.ones(48), 1.0))
    second.load_state_dict(first.state_dict())
    first.observe(states)
    for part in (states[:20], states[20:]):  # piece by piece is the same
        second.observe(part * 7 - 3)
    assert torch.allclose(first.carry(states), second.carry(states * 7 - 3), atol=1e-3)
    assert torch.allclose(first._standardised(states).mean(dim=0), torch.zeros(32), atol=1e-4)
    assert torch.allclose(first._standardised(states).std(dim=0, correction=0), torch.ones(32), atol=1e-3)


def test_every_parameter_is_reached(perceiver: Perceiver) -> None:
    perceiver([torch.randn(4, 32), torch.randn(9, 32)])[..., 0].square().sum().backward()
    for name, parameter in perceiver.named_parameters():
        assert parameter.grad is not None and bool(parameter.grad.any()), name


@pytest.mark.parametrize("shape", [(4,), (0, 32), (3, 31), (1, 3, 32)])
def test_other_states_are_refused(perceiver: Perceiver, shape: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match=r"carries \(S, 32\) states of its sender, got"):
        perceiver.carry(torch.zeros(shape))


@pytest.mark.parametrize(
    "values", [{"queries": 0}, {"blocks": -1}, {"heads": True}, {"width": 1.5}, {"width": 10, "heads": 4}, {"width": 9}]
)
def test_a_bad_shape_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        PerceiverConfig(**values)


def test_what_was_saved_is_loaded(perceiver: Perceiver, pair: tuple[ModelEnds, ModelEnds], tmp_path: Path) -> None:
    path, states = tmp_path / "p.safetensors", torch.randn(6, 32)
    perceiver.save(path, "of one", "of other")
    again = Perceiver.load(path, *pair)
    assert torch.allclose(again.carry(states), perceiver.carry(states), atol=1e-5)
    assert again.config == SMALL
    assert not any(p.requires_grad for p in again.parameters())
    found: Any = make_link("perceiver", *pair, files=(str(path),))
    assert torch.allclose(found.carry(states), perceiver.carry(states), atol=1e-5)


def test_the_file_for_a_pair_is_found_among_several(
    perceiver: Perceiver, pair: tuple[ModelEnds, ModelEnds], tmp_path: Path
) -> None:
    files = [str(tmp_path / f"{name}.safetensors") for name in ("a", "b")]
    for file, (sender, receiver) in zip(files, (("of one", "of other"), ("of two", "of other")), strict=True):
        perceiver.save(Path(file), sender, receiver)
    assert make_link("perceiver", *pair, files=files) is not None
    assert make_link("perceiver", *pair, files=files[::-1]) is not None
    with pytest.raises(DataError, match="made for the sender of two, but 'one' is of one"):
        make_link("perceiver", *pair, files=files[1:])


@pytest.mark.parametrize("harm", ["missing", "cut", "no config", "another shape", "no weights"])
def test_a_broken_file_is_one_line(
    harm: str, perceiver: Perceiver, pair: tuple[ModelEnds, ModelEnds], tmp_path: Path
) -> None:
    from gcache.links.link_file import write_link

    path = tmp_path / "p.safetensors"
    config = {"queries": 5, "width": 16, "heads": 2, "blocks": 2}
    if harm == "cut":
        perceiver.save(path, "of one", "of other")
        path.write_bytes(path.read_bytes()[:-50])
    elif harm != "missing":
        config["queries"] = 4 if harm == "another shape" else 5
        rest = {} if harm == "no config" else {"config": config}
        state = {} if harm == "no weights" else perceiver.state_dict()
        write_link(path, "perceiver", "of one", "of other", state, rest)
    with pytest.raises(DataError, match=r"p\.safetensors") as caught:
        Perceiver.load(path, *pair)
    assert "\n" not in str(caught.value)
