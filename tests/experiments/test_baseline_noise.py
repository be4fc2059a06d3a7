from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from baseline_noise import _noise, compare_baselines
from toy import ToyTask, toy_built

from gcache.errors import ConfigError
from gcache.graph.run_config import GraphConfig
from gcache.llm.local import LocalLLM
from gcache.training.config import TrainConfig
from gcache.training.trainer import Reinforce


def test_signal_and_noise_of_known_vectors() -> None:
    """Draws of mean (3, 4) with a variance of 1 and 4 along the axes: noise 5, signal 25."""
    generator = torch.Generator().manual_seed(0)
    drawn = torch.tensor([3.0, 4.0]) + torch.randn(400, 2, generator=generator) * torch.tensor([1.0, 2.0])
    found = {
        ("policy", "leave_one_out"): list(drawn[:200]),
        ("policy", "none"): list(torch.tensor([3.0, 4.0]) + 3 * (drawn[200:] - torch.tensor([3.0, 4.0]))),
    }
    first, second = (_noise("policy", name, found) for name in ("leave_one_out", "none"))
    assert (first.noise, first.signal) == (pytest.approx(5, rel=0.2), pytest.approx(25, rel=0.1))
    assert (first.ratio, first.low, first.high) == (1.0, 1.0, 1.0)
    assert second.noise == pytest.approx(45, rel=0.2) and second.signal == pytest.approx(25, rel=0.3)
    assert second.low < 9 < second.high and second.high - second.low < 6


def trainer(llm: LocalLLM, tokenizer: Any, out: Path, **settings: Any) -> Reinforce:
    config = TrainConfig(**{"iterations": 3, "batch_size": 3, "rollouts": 4, **settings})
    built = toy_built(llm, tokenizer, graph=GraphConfig(latent_steps=0, max_new_tokens=3))
    return Reinforce(built, ToyTask(), config, out)


def test_every_part_under_every_baseline_and_nothing_moves(
    tiny_llm: LocalLLM, tiny_tokenizer: Any, tmp_path: Path
) -> None:
    learner = trainer(tiny_llm, tiny_tokenizer, tmp_path)
    before = {name: value.clone() for name, value in learner.parts.state_dict().items()}
    rows = compare_baselines(learner, ToyTask().train(), 6, progress=False)
    assert {(r.part, r.baseline) for r in rows} == {
        (part, name) for part in ("policy", "fuser") for name in ("leave_one_out", "ema", "none")
    }
    assert all(r.noise > 0 and r.batches == 6 and r.low <= r.ratio * 1.01 for r in rows)
    assert len({round(r.noise, 12) for r in rows if r.part == "policy"}) == 3
    assert not list(tmp_path.iterdir())
    for name, value in learner.parts.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_too_few_batches_or_rollouts_are_refused(tiny_llm: LocalLLM, tiny_tokenizer: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="2 or more batches and rollouts"):
        compare_baselines(trainer(tiny_llm, tiny_tokenizer, tmp_path), ToyTask().train(), 1)
    lonely = trainer(tiny_llm, tiny_tokenizer, tmp_path, rollouts=1, baseline="none")
    with pytest.raises(ConfigError, match="got 5 and 1"):
        compare_baselines(lonely, ToyTask().train(), 5)
