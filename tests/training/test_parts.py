"""A new part that learns is one entry in `Built.parts`, and nothing else."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from toy import ToyTask, toy_built

from gcache.build import Built, Part
from gcache.cache.fused_cache import FusedCache
from gcache.cache.fusers.concat import ConcatFuser
from gcache.cache.kv_cache import KVCache
from gcache.errors import TrainingError
from gcache.llm.local import LocalLLM
from gcache.training import checkpoint as checkpoints
from gcache.training.config import TrainConfig
from gcache.training.trainer import Reinforce

CONFIG = TrainConfig(iterations=2, batch_size=2, rollouts=4)


class Louder(nn.Module):
    """Moves the log-weight of everything that arrives."""

    def __init__(self) -> None:
        super().__init__()
        self.by = nn.Parameter(torch.zeros(()))


class WithLouder(ConcatFuser):
    """A fuser that uses a part which is not its own."""

    louder: list[Louder]  # in a list, so that it is none of the fuser's modules

    def merge(self, shared: KVCache, incoming: Any) -> Any:
        found = super().merge(shared, incoming)
        return [FusedCache.plain(each).weighted(self.louder[0].by) for each in found]


def built_with(llm: LocalLLM, tokenizer: Any, **part: Any) -> tuple[Built, Louder]:
    made = toy_built(llm, tokenizer)
    fuser, louder = WithLouder(*llm.cache_shape, rope=llm.rope), Louder()
    fuser.louder = [louder]
    made.graph.fuser = fuser  # type: ignore[attr-defined]
    made.graph.models[0].fuser = fuser  # type: ignore[attr-defined]
    return replace(made, parts={"fuser": Part(fuser, "fuser_lr"), "louder": Part(louder, **part)}), louder


def train(built: Built, out: Path) -> tuple[Reinforce, list[dict[str, Any]]]:
    trainer = Reinforce(built, ToyTask(), CONFIG, out)
    return trainer, trainer.train(progress=False)


def test_a_new_part_is_one_entry(tiny_llm: LocalLLM, tiny_tokenizer: Any, tmp_path: Path) -> None:
    built, louder = built_with(tiny_llm, tiny_tokenizer, lr=0.25, weight_decay="weight_decay")
    trainer, history = train(built, tmp_path)
    (group,) = [group for group in trainer.optimizer.param_groups if group["params"][0] is louder.by]
    assert (group["base"], group["weight_decay"]) == (0.25, CONFIG.weight_decay)
    assert float(louder.by) and not trainer.not_trained and not trainer.unreached
    assert all(line["gradient_norm_louder"] > 0 and "gradient_snr_louder" in line for line in history)
    found = checkpoints.read(tmp_path)
    assert float(load_file(found.folder / "weights.safetensors")["louder.by"]) == float(louder.by)
    again, other = built_with(tiny_llm, tiny_tokenizer, lr=0.25)
    checkpoints.restore(found, again)
    assert float(other.by) == float(louder.by)


def test_one_that_no_gradient_reaches_ends_the_run(
    tiny_llm: LocalLLM, tiny_tokenizer: Any, tmp_path: Path
) -> None:
    built, _ = built_with(tiny_llm, tiny_tokenizer)
    idle = replace(built, parts={**built.parts, "idle": Part(Louder())})
    with pytest.raises(TrainingError, match=r"get no gradient: idle\.by"):
        train(idle, tmp_path)


def test_one_that_cannot_learn_is_kept_and_named(tiny_llm: LocalLLM, tiny_tokenizer: Any, tmp_path: Path) -> None:
    built, louder = built_with(tiny_llm, tiny_tokenizer, learns=False)
    trainer, history = train(built, tmp_path)
    assert trainer.not_trained == ["louder"] and all(line["not_trained"] == ["louder"] for line in history)
    assert not float(louder.by)
    kept = load_file(checkpoints.read(tmp_path).folder / "weights.safetensors")
    assert isinstance(kept["louder.by"], Tensor) and json.loads((tmp_path / "metrics.jsonl").read_text().split("\n")[0])
