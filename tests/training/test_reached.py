"""What a step's texts can teach the fuser: only texts that were written on somebody's cache."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from toy import QUESTIONS, ToyTask, toy_built

from gcache.gnn.topology import Edge, Topology
from gcache.graph.run_config import GraphConfig
from gcache.llm.local import LocalLLM
from gcache.tasks.example import Grade
from gcache.training.config import TrainConfig
from gcache.training.objective import LossWeights, Objective
from gcache.training.trainer import Reinforce


@pytest.mark.parametrize(
    ("edges", "texts"),
    [
        ((Edge(0, 3, 0.5, channel="cache"),), 2),
        ((Edge(0, 1, 0.5, channel="cache"), Edge(1, 3, 0.5, channel="cache")), 2),
        ((Edge(0, 1, 0.5, channel="cache"),), 0),  # heard by an agent whom nobody hears
        ((Edge(0, 3, 0.5, channel="text"),), 0),
        ((Edge(0, 1, 0.5, channel="cache"), Edge(0, 3, 0.5, channel="text")), 0),
        ((), 0),
    ],
)
def test_only_texts_on_a_cache_are_replayed(
    tiny_llm: LocalLLM, tiny_tokenizer: Any, edges: tuple[Edge, ...], texts: int
) -> None:
    graph = GraphConfig(latent_steps=1, max_new_tokens=4, speak_tokens=2)
    built = toy_built(tiny_llm, tiny_tokenizer, graph=graph, channels=("cache", "text"))
    topology = Topology(3, edges)
    results = [built.graph.run(QUESTIONS[0], topology=topology, temperature=1.0, seed=seed) for seed in (0, 1)]
    assert results[0].answer != results[1].answer
    objective = Objective(built.graph, tiny_llm, LossWeights())
    measured = objective.backward([results], torch.tensor([[0.5, -0.5]]))
    assert measured["replayed"] == texts
    reached = [parameter.grad is not None for parameter in built.graph.fuser.parameters()]
    assert all(reached) if texts else not any(reached)


def test_a_step_in_which_nobody_is_heard_does_not_end_a_run(
    tiny_llm: LocalLLM, tiny_tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = toy_built(tiny_llm, tiny_tokenizer)
    config = TrainConfig(iterations=1, batch_size=2, rollouts=3)
    trainer = Reinforce(built, ToyTask(), config, tmp_path)
    unheard = Topology(3, (Edge(0, 1, 0.5),))
    real = built.graph.arun

    async def run(example: Any, **options: Any) -> Any:
        return await real(example, **{**options, "sample": False, "topology": unheard})

    monkeypatch.setattr(built.graph, "arun", run)
    grades = iter(["right", "wrong", "wrong"] * 2)  # so that rollouts are told apart
    monkeypatch.setattr(ToyTask, "grade", lambda *_: Grade(next(grades)))
    (metrics,) = trainer.train(progress=False)
    assert metrics["told_apart"] == 1.0 and metrics["replayed"] == 0
