from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from toy import ToyTask, toy_built

from gcache.graph.run_config import GraphConfig
from gcache.llm.local import LocalLLM
from gcache.training import checkpoint as checkpoints
from gcache.training.config import TrainConfig
from gcache.training.trainer import Reinforce


def test_a_policy_that_did_not_look_at_receivers_says_what_it_said(
    tiny_llm: LocalLLM, tiny_tokenizer: Any, tmp_path: Path
) -> None:
    config = TrainConfig(iterations=2, batch_size=2, rollouts=2)
    built = toy_built(tiny_llm, tiny_tokenizer, graph=GraphConfig(latent_steps=0, max_new_tokens=3))
    Reinforce(built, ToyTask(), config, tmp_path).train(progress=False)
    folder = checkpoints.read(tmp_path).folder
    for name in ("weights", "optimizer"):
        tensors = load_file(folder / f"{name}.safetensors")
        cut = {k: v[:2].clone() if k.startswith("policy.agreement") and v.dim() else v for k, v in tensors.items()}
        save_file(cut, folder / f"{name}.safetensors")
    old = checkpoints.read(tmp_path)
    assert old.weights["policy.agreement"].tolist()[2:] == [0.0]
    again = toy_built(tiny_llm, tiny_tokenizer, graph=GraphConfig(latent_steps=0, max_new_tokens=3))
    learner = Reinforce(again, ToyTask(), config, tmp_path / "elsewhere")
    checkpoints.restore(old, again, learner.optimizer)
    assert again.policy is not None and built.policy is not None
    parameter = again.policy.agreement
    before, after = built.policy.agreement.detach(), parameter.detach()
    assert torch.equal(after[:2], before[:2]) and float(after[2]) == 0.0
    assert learner.optimizer.state[parameter]["exp_avg"].shape == (3,)
    assert bool(after[:2].any()), "untrained weights would show nothing"


def test_other_shapes_are_refused_as_ever(tiny_llm: LocalLLM, tiny_tokenizer: Any, tmp_path: Path) -> None:
    built = toy_built(tiny_llm, tiny_tokenizer, graph=GraphConfig(latent_steps=0, max_new_tokens=3))
    checkpoints.write(tmp_path, checkpoints.take(1, built, None, {}, {}))
    wider = toy_built(tiny_llm, tiny_tokenizer, graph=GraphConfig(latent_steps=0, max_new_tokens=3), hidden_dim=9)
    with pytest.raises(checkpoints.CheckpointError, match="of another shape"):
        checkpoints.restore(checkpoints.read(tmp_path), wider)
