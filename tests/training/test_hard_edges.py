"""Edges that weigh 1 once they are drawn: the policy learns from topologies alone, and exactly."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from toy import QUESTIONS, ToyTask, lines, toy_built

from gcache.build import Built
from gcache.config import GraphSpec
from gcache.errors import ConfigError
from gcache.gnn.distribution import EdgeDistribution
from gcache.gnn.topology import Topology
from gcache.graph.run_config import GraphConfig
from gcache.llm.local import LocalLLM
from gcache.training import checkpoint as checkpoints
from gcache.training.config import TrainConfig
from gcache.training.objective import LossWeights, Objective
from gcache.training.trainer import Reinforce


def star(llm: LocalLLM, tokenizer: Any, **spec: Any) -> Built:
    """Two agents that hear nobody."""
    settings = {"agent_probability": 0.0, "hard_edges": True, **spec}
    return toy_built(llm, tokenizer, n_agents=2, graph=GraphConfig(latent_steps=0, max_new_tokens=2), **settings)


def distribution(built: Built) -> EdgeDistribution:
    found = built.graph.distribution(QUESTIONS[0])
    assert isinstance(found, EdgeDistribution)
    return found


def topologies(built: Built) -> list[tuple[Topology, Tensor]]:
    """All four, as the sampler makes them, with their log-probabilities."""
    found: dict[Any, tuple[Topology, Tensor]] = {}
    source = torch.Generator().manual_seed(0)
    for _ in range(200):
        topology, log_prob = distribution(built).sample(source)
        found.setdefault(topology.pairs, (topology, log_prob))
    assert len(found) == 4
    return list(found.values())


def move(built: Built, by: float) -> None:
    """Make every edge likelier, or less likely."""
    assert built.policy is not None
    with torch.no_grad():
        built.policy.heads[-1][-1].bias += by  # type: ignore[index, operator]


def test_only_the_weights_are_others(tiny_llm: LocalLLM, tiny_tokenizer: Any) -> None:
    hard, soft = star(tiny_llm, tiny_tokenizer), star(tiny_llm, tiny_tokenizer, hard_edges=False)
    assert torch.equal(distribution(hard).logits, distribution(soft).logits)
    for (one, log_prob), (other, same) in zip(topologies(hard), topologies(soft), strict=True):
        assert one.choices == other.choices and torch.equal(log_prob, same)
        assert all(edge.weight == 1 for edge in one.edges)
        assert all(edge.weight == edge.probability != 1 for edge in other.edges)
        assert set(map(float, distribution(hard).weights(one).values())) <= {1.0}


def test_a_text_depends_on_the_policy_through_the_topology_alone(tiny_llm: LocalLLM, tiny_tokenizer: Any) -> None:
    for hard in (True, False):
        built = star(tiny_llm, tiny_tokenizer, hard_edges=hard)
        before = {t.pairs: built.graph.run(QUESTIONS[0], topology=t).text_log_prob for t, _ in topologies(built)}
        move(built, -1.5)
        after = {t.pairs: built.graph.run(QUESTIONS[0], topology=t).text_log_prob for t, _ in topologies(built)}
        gaps = [abs(before[pairs] - after[pairs]) for pairs in before if pairs]
        assert max(gaps) == 0 if hard else min(gaps) > 1e-6


def test_the_gradient_over_all_topologies_is_that_of_the_expected_utility(
    tiny_llm: LocalLLM, tiny_tokenizer: Any
) -> None:
    """Finite differences of E[U], whose every term is run anew, beside what the objective says without a replay."""
    built = star(tiny_llm, tiny_tokenizer)
    assert built.policy is not None
    bias: Tensor = built.policy.heads[-1][-1].bias  # type: ignore[index, assignment]

    def runs() -> tuple[list[Any], Tensor, Tensor]:
        found = topologies(built)
        results = [built.graph.run(QUESTIONS[0], topology=topology) for topology, _ in found]
        # a utility that tells every topology apart
        utilities = torch.tensor([result.text_log_prob + len(result.topology.pairs) for result in results])
        return results, utilities, torch.stack([log_prob for _, log_prob in found]).exp().detach()

    def expected() -> float:
        _, utilities, chances = runs()
        assert float(chances.sum()) == pytest.approx(1, abs=1e-5)
        return float((chances.double() * utilities.double()).sum())

    results, utilities, chances = runs()
    built.policy.zero_grad()
    found = Objective(built.graph, tiny_llm, LossWeights()).backward([results], 4 * (chances * utilities)[None])
    assert found["replayed"] == 0 and found["tokens_replayed"] == 0
    move(built, 1e-2)
    above = expected()
    move(built, -2e-2)
    below = expected()
    assert bias.grad is not None
    assert -float(bias.grad) == pytest.approx((above - below) / 2e-2, rel=1e-2)
    assert abs(float(bias.grad)) > 0.05


def test_the_fuser_is_left_alone_and_the_run_says_so(
    tiny_llm: LocalLLM, tiny_tokenizer: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    built = toy_built(tiny_llm, tiny_tokenizer, hard_edges=True, cues=("overlap", "cited"), heard=1.5)
    before = [parameter.detach().clone() for parameter in built.graph.fuser.parameters()]  # type: ignore[attr-defined]
    trainer = Reinforce(built, ToyTask(), TrainConfig(iterations=3, batch_size=4, rollouts=4), tmp_path)
    trainer.train(progress=False)
    assert trainer.not_trained == ["fuser"]
    assert "the fuser is not trained: with hard_edges the policy alone learns, from topologies" in caplog.text
    assert all(map(torch.equal, before, built.graph.fuser.parameters()))  # type: ignore[attr-defined]
    steps = lines(tmp_path)
    assert all(line["replayed"] == 0 and line["gradient_norm_policy"] > 0 for line in steps)
    assert all(line["expected_edges"] >= 1.5 for line in steps), "1.5 into the decision maker, and those among agents"


def test_a_checkpoint_keeps_cues_the_number_heard_and_hard_edges(
    tiny_llm: LocalLLM, tiny_tokenizer: Any, tmp_path: Path
) -> None:
    spec: dict[str, Any] = {"hard_edges": True, "cues": ("overlap", "named", "cited"), "heard": 1.5}
    built = toy_built(tiny_llm, tiny_tokenizer, **spec)
    Reinforce(built, ToyTask(), TrainConfig(iterations=2, batch_size=2, rollouts=2), tmp_path).train(progress=False)
    found = checkpoints.read(tmp_path)
    assert GraphSpec.from_json(json.loads(json.dumps(built.spec.to_json()))) == built.spec
    again = toy_built(tiny_llm, tiny_tokenizer, **spec)
    checkpoints.restore(found, again)
    assert built.policy is not None and again.policy is not None
    assert torch.equal(distribution(built).logits, distribution(again).logits)
    assert built.policy.cue_weights is not None and bool((built.policy.cue_weights != 0).any())


@pytest.mark.parametrize("spec", [{"cues": ("named",)}, {"heard": 2.0}, {"hard_edges": True}])
def test_what_a_policy_learns_with_is_refused_where_none_learns(spec: dict[str, Any]) -> None:
    (name,) = spec
    with pytest.raises(ConfigError, match=f"{name} is learned with the topology, but that is 'star'"):
        GraphSpec(topology="star", **spec)


@pytest.mark.parametrize(
    ("spec", "message"),
    [({"cues": ("near",)}, "unknown cue 'near'"), ({"heard": 0.0}, "heard"), ({"heard": -1.0}, "heard")],
)
def test_bad_values_are_refused_before_a_model_is_loaded(spec: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        GraphSpec(**spec)


def test_how_many_are_heard_does_not_go_with_pruning(tiny_llm: LocalLLM, tiny_tokenizer: Any, tmp_path: Path) -> None:
    built = star(tiny_llm, tiny_tokenizer, heard=1.0)
    with pytest.raises(ConfigError, match="pruning_rate cuts edges"):
        Reinforce(built, ToyTask(), TrainConfig(pruning_rate=0.3), tmp_path)


def test_cues_that_say_nothing_are_told_of(
    tiny_llm: LocalLLM, tiny_tokenizer: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Reinforce(star(tiny_llm, tiny_tokenizer, cues=("overlap", "cited")), ToyTask(), TrainConfig(), tmp_path)
    assert "no agent of the first questions names another, so the cues cited say nothing" in caplog.text
    caplog.clear()
    Reinforce(star(tiny_llm, tiny_tokenizer, cues=("overlap",)), ToyTask(), TrainConfig(), tmp_path)
    assert "names another" not in caplog.text
    built = star(tiny_llm, tiny_tokenizer, cues=("content",))
    Reinforce(built, ToyTask(), TrainConfig(), tmp_path)
    assert "alone knows anything" not in caplog.text
    built.graph.agents = tuple(replace(agent, private="") for agent in built.graph.agents)
    Reinforce(built, ToyTask(), TrainConfig(), tmp_path)
    assert "no agent of the first questions alone knows anything, so the cue content says nothing" in caplog.text
