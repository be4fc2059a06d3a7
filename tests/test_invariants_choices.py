"""What must always hold, where the policy chooses more than edges within a round: edges from the round before,
what goes over each edge, and how long each agent thinks."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from exact import all_topologies, assert_objective_is_exact, assert_slopes, awake, double
from torch import Tensor
from toy import QUESTIONS, ToyTask, toy_built

from gcache.build import Built
from gcache.cache.fusers.registry import FUSERS
from gcache.gnn.distribution import EdgeDistribution, candidate_edges
from gcache.gnn.topology import Edge, Topology
from gcache.graph.result import RunResult
from gcache.graph.run_config import GraphConfig
from gcache.llm.local import LocalLLM
from gcache.training.config import TrainConfig
from gcache.training.trainer import Reinforce

#: Name -> (rounds, the settings of the graph).
CHOICES: dict[str, tuple[int, dict[str, Any]]] = {
    "rounds": (2, {"optimized_temporal": True}),
    "channels": (1, {"channels": ("cache", "latents")}),
    "text": (1, {"channels": ("cache", "text")}),
    "latent steps": (1, {"latent_choices": (0, 2)}),
    "consulting": (1, {"consult_probability": 0.6}),
    "all": (
        2,
        {
            "optimized_temporal": True, "channels": ("cache", "latents", "text"), "latent_choices": (1, 2),
            "consult_probability": 0.8,
        },
    ),
}


def built_for(choice: str, llm: LocalLLM, tokenizer: Any, n_agents: int = 3, tokens: int = 4, **more: Any) -> Built:
    rounds, settings = CHOICES[choice]
    graph = GraphConfig(latent_steps=1, num_rounds=rounds, max_new_tokens=tokens, speak_tokens=2)
    return toy_built(llm, tokenizer, n_agents=n_agents, graph=graph, **settings, **more)


@pytest.mark.parametrize("choice", sorted(CHOICES))
def test_concurrent_runs_equal_sequential_runs(tiny_llm: LocalLLM, tiny_tokenizer: Any, choice: str) -> None:
    """In float64, as its fellow without choices."""
    graph = built_for(choice, double(tiny_llm), tiny_tokenizer, tokens=6).graph
    asked = [(question, 10 * i + seed) for i, question in enumerate(QUESTIONS[:4]) for seed in (1, 2, 3)]

    async def together() -> list[RunResult]:
        return list(await asyncio.gather(*(graph.arun(q, sample=True, temperature=0.7, seed=s) for q, s in asked)))

    seen = set()
    for (question, seed), at_once in zip(asked, asyncio.run(together()), strict=True):
        alone = graph.run(question, sample=True, temperature=0.7, seed=seed)
        assert at_once.topology == alone.topology
        assert [s.generation.tokens for s in at_once.spoken] == [s.generation.tokens for s in alone.spoken]
        assert (at_once.edge_bytes, at_once.said, at_once.thinking) == (alone.edge_bytes, alone.said, alone.thinking)
        for node, cache in alone.caches.items():
            torch.testing.assert_close(at_once.caches[node].keys, cache.keys, atol=1e-9, rtol=0)
        seen.add(at_once.topology.choices)
    assert len(seen) > 5


@pytest.mark.parametrize("choice", sorted(CHOICES))
def test_rollouts_that_share_thoughts_get_what_they_get_alone(
    tiny_llm: LocalLLM, tiny_tokenizer: Any, choice: str
) -> None:
    """A thought that depends on a choice must not be taken for one of another choice."""
    from gcache.graph.memo import RolloutMemo

    graph = built_for(choice, double(tiny_llm), tiny_tokenizer).graph
    shared, fresh, all_of_them = RolloutMemo(), 0, 0

    async def together() -> list[RunResult]:
        return list(
            await asyncio.gather(*(
                graph.arun(QUESTIONS[2], sample=True, temperature=1.0, seed=s, memo=shared) for s in range(30)
            ))
        )  # fmt: skip

    for seed, result in enumerate(asyncio.run(together())):
        alone = graph.run(QUESTIONS[2], sample=True, temperature=1.0, seed=seed)
        assert result.topology == alone.topology
        assert result.text_log_prob == pytest.approx(alone.text_log_prob, abs=1e-9)
        assert result.thinking == alone.thinking and result.said == alone.said
        fresh += sum(step.what == "think" for step in result.trace)
        all_of_them += sum(step.what == "think" for step in alone.trace)
        for node, cache in alone.caches.items():
            torch.testing.assert_close(result.caches[node].keys, cache.keys, atol=1e-9, rtol=0)
    assert fresh < all_of_them - 30, "but for the question, nothing was shared, so nothing was compared"


#: Two layers deep, so a weight is felt two hops on at most: every edge here is within that.
RICH = Topology(
    3,
    (
        Edge(0, 1, 0.5, payload="latents"), Edge(1, 3, 0.8, payload="cache"), Edge(2, 3, 0.6, payload="text"),
        Edge(2, 1, 0.7, delay=1, payload="cache"), Edge(0, 2, 0.9, delay=1, payload="cache"),
        Edge(0, 3, 0.4, payload="latents"),
    ),
    latent_steps=(2, 1, 2),
)  # fmt: skip


@pytest.mark.parametrize("fuser", sorted(FUSERS))
def test_the_gradient_of_log_pi_equals_finite_differences(
    tiny_llm: LocalLLM, tiny_tokenizer: Any, fuser: str
) -> None:
    llm = double(tiny_llm)
    built = built_for("all", llm, tiny_tokenizer, fuser=fuser)
    awake(built.graph.fuser)
    result = built.graph.run(QUESTIONS[2], topology=RICH, temperature=1.0, seed=5)
    # words have no weight, and what agent 2 heard reaches the decision maker in words alone; `first` hears agent 1
    # and what it remembers, and so agent 0 in the round before
    assert assert_slopes(built, llm, result) == (2 if fuser == "first" else 4)


@pytest.mark.parametrize("choice", ["rounds", "channels", "text", "latent steps", "consulting"])
def test_the_objective_over_all_outcomes_by_their_probability_is_the_exact_gradient(
    tiny_llama: Any, tiny_tokenizer: Any, choice: str
) -> None:
    """The estimator without its noise: sum p U grad log p = grad E[U], for policy and fuser."""
    llm = LocalLLM(tiny_llama, tiny_tokenizer)
    task = ToyTask()
    built = built_for(choice, llm, tiny_tokenizer, n_agents=2, tokens=1)
    awake(built.graph.fuser)
    assert 0.02 < assert_objective_is_exact(built, llm, task) < 0.98


def _two_agents(seed: int, consults: bool = False) -> EdgeDistribution:
    candidates = tuple(candidate_edges(2, temporal=True))
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *shape: 2 * torch.randn(shape, generator=generator)  # noqa: E731
    return EdgeDistribution(
        2, candidates, draw(len(candidates)), ("cache", "text"), draw(len(candidates), 2), (0, 1, 4), draw(2, 3),
        draw() if consults else None,
    )  # fmt: skip


@pytest.mark.parametrize("consults", [False, True])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_probabilities_of_all_choices_sum_to_one(seed: int, consults: bool) -> None:
    every = all_topologies(_two_agents(seed, consults))
    # per edge into the decision maker or from the round before: none or one of two channels; 1 + 2 x 2 within
    assert len(every) == 3**2 * (1 + 2 * 2) * 3**2 * 3**2
    assert float(torch.stack([log_p for _, log_p in every]).exp().sum()) == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize("consults", [False, True])
def test_choices_are_drawn_as_often_as_they_say(consults: bool) -> None:
    distribution = _two_agents(4, consults)
    generator = torch.Generator().manual_seed(0)
    counts: dict[Any, int] = {}
    for _ in range(4000):
        topology, log_p = distribution.sample(generator)
        assert float(log_p) == pytest.approx(float(distribution.log_prob(topology)), abs=1e-4)
        counts[topology.choices] = counts.get(topology.choices, 0) + 1
    compared = 0
    for topology, log_p in all_topologies(distribution):
        p = float(log_p.exp())
        spread = max((4000 * p * (1 - p)) ** 0.5, 1.0)
        assert abs(counts.get(topology.choices, 0) - 4000 * p) < 5 * spread
        compared += p > 0.01
    assert compared > 10


@pytest.mark.parametrize("consults", [False, True])
def test_the_entropy_is_that_of_all_choices(consults: bool) -> None:
    """Without an edge that a cycle could force out, it is minus the mean of log p."""
    distribution = _two_agents(5, consults).without({(1, 0)})
    logs = torch.stack([log_p for _, log_p in all_topologies(distribution)])
    assert float(distribution.entropy) == pytest.approx(-float((logs.exp() * logs).sum()), rel=1e-4)


def _trained(llm: LocalLLM, tokenizer: Any, out: Path, stop: int = 0) -> tuple[dict[str, Tensor], list[Any], Any]:
    config = TrainConfig(
        iterations=6, batch_size=3, rollouts=3, checkpoint_every=1, fuser_lr=0.05, seed=7, pruning_rate=0.3,
        token_price=5.0, mib_price=5.0,
    )  # fmt: skip
    trainer = Reinforce(built_for("all", llm, tokenizer, seed=7), ToyTask(), config, out)
    if stop:
        real = trainer.step

        def step(number: int, questions: Any) -> Any:
            if number == stop:
                raise KeyboardInterrupt
            return real(number, questions)

        trainer.step = step  # type: ignore[method-assign]
        with pytest.raises(KeyboardInterrupt):
            trainer.train(progress=False)
        return {}, [], None
    trainer.train(progress=False)
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    kept = [{k: v for k, v in line.items() if not k.startswith("seconds")} for line in lines]
    pruned = trainer.built.graph.topology_provider.pruned
    return {k: v.clone() for k, v in trainer.parts.state_dict().items()}, kept, pruned


@pytest.mark.parametrize("stop", [2, 3, 5])
def test_a_run_with_every_choice_and_pruning_is_resumed_to_the_bit(
    tiny_llm: LocalLLM, tiny_tokenizer: Any, tmp_path: Path, stop: int
) -> None:
    """Stopped while edges are watched, just before they are cut, and after."""
    weights, metrics, pruned = _trained(tiny_llm, tiny_tokenizer, tmp_path / "once")
    _trained(tiny_llm, tiny_tokenizer, tmp_path / "stopped", stop)
    resumed, rest, again = _trained(tiny_llm, tiny_tokenizer, tmp_path / "stopped")
    assert any(line["replayed"] for line in metrics), "no text was learned from, so nothing was compared"
    assert metrics == rest
    assert pruned == again and pruned
    for name, value in weights.items():
        assert torch.equal(value, resumed[name]), name
