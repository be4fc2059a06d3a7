"""What must always hold of runs, fusing, the estimator and training: one test per sentence."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from exact import all_topologies, assert_objective_is_exact, assert_slopes, awake, double, enumerated, gradient, learns
from torch import Tensor
from toy import QUESTIONS, ToyTask, toy_built

from gcache.build import Built
from gcache.cache.fused_cache import FusedCache
from gcache.cache.fusers.base import Incoming
from gcache.cache.fusers.registry import FUSERS, make_fuser
from gcache.cache.kv_cache import SHARED, KVCache, SlotKind
from gcache.gnn.distribution import EdgeDistribution, candidate_edges
from gcache.gnn.topology import Edge, Topology, is_acyclic
from gcache.graph.memo import RolloutMemo
from gcache.graph.result import RunResult
from gcache.graph.run_config import GraphConfig
from gcache.llm.forward.gradient_pass import GradientPass
from gcache.llm.local import LocalLLM
from gcache.llm.requests import LogProbRequest, ThinkRequest
from gcache.tasks.example import Example
from gcache.training.config import TrainConfig
from gcache.training.objective import LossWeights, Objective, advantages
from gcache.training.replay import Replay, log_probs
from gcache.training.trainer import Reinforce

QUESTION, WORDS, LAST = (1, 22, 50, 40), (30, 31, 4, 35, 29), (44, 46, 26)


# -- 2. Concurrent runs equal sequential runs ------------------------------------------------


@pytest.mark.parametrize("rounds", [1, 2])
def test_concurrent_runs_equal_sequential_runs(tiny_llm: LocalLLM, tiny_tokenizer: Any, rounds: int) -> None:
    """In float64: how float32 rounds depends on the machine, and latent steps feed the rounding back."""
    config = GraphConfig(latent_steps=2, num_rounds=rounds, max_new_tokens=8)
    graph = toy_built(double(tiny_llm), tiny_tokenizer, graph=config).graph
    asked = [(question, seed) for question in QUESTIONS for seed in (1, 2)]

    async def together() -> list[RunResult]:
        return list(await asyncio.gather(*(graph.arun(q, sample=True, temperature=0.7, seed=s) for q, s in asked)))

    for (question, seed), at_once in zip(asked, asyncio.run(together()), strict=True):
        alone = graph.run(question, sample=True, temperature=0.7, seed=seed)
        assert at_once.topology == alone.topology
        assert [s.generation.tokens for s in at_once.spoken] == [s.generation.tokens for s in alone.spoken]
        assert at_once.text_log_prob == pytest.approx(alone.text_log_prob, abs=1e-9)
        assert at_once.edge_bytes == alone.edge_bytes
        for node, cache in alone.caches.items():
            torch.testing.assert_close(at_once.caches[node].keys, cache.keys, atol=1e-9, rtol=0)


# -- 4. Fusing one cache with w = 1, and with w -> 0 -------------------------------------------


def _pieces(llm: LocalLLM) -> tuple[KVCache, KVCache]:
    (shared,) = llm.think([ThinkRequest(QUESTION, owner=SHARED, kind=SlotKind.PREFIX)])
    (own,) = llm.think([ThinkRequest(WORDS, FusedCache.plain(shared))])
    return shared, own


@pytest.mark.parametrize("name", sorted(FUSERS))
@pytest.mark.parametrize("positions", ["parallel", "sequential"])
def test_fusing_one_cache_with_weight_one_untrained_is_plain_continuation(
    tiny_llm: LocalLLM, name: str, positions: str
) -> None:
    shared, own = _pieces(tiny_llm)
    fuser = make_fuser(name, tiny_llm.cache_shape, positions, tiny_llm.rope)
    fused = fuser(shared, [Incoming(own, torch.ones(()))])
    written = (5, 30, 61)
    (through,) = tiny_llm.log_prob([LogProbRequest(LAST, written, fused)])
    (plain,) = tiny_llm.log_prob([LogProbRequest(QUESTION + WORDS + LAST, written)])
    torch.testing.assert_close(through, plain, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", sorted(FUSERS))
def test_fusing_with_weight_to_zero_is_no_edge(tiny_llm: LocalLLM, name: str) -> None:
    """Measured at the position where the receiver stands: it continues after the last occupied
    slot, however lightly that slot weighs. In float64: how float32 rounds depends on the processor."""
    llm = double(tiny_llm)
    shared, own = _pieces(llm)
    fuser = make_fuser(name, llm.cache_shape, "parallel", llm.rope)
    embeds, lengths = llm.embed([LAST])
    without = GradientPass(llm.model.model, FusedCache.plain(shared))
    without.next_positions = without.next_positions + own.slots
    reference = without.feed(embeds, lengths)
    gaps = []
    for weight in (1e-2, 1e-4, 1e-8, 0.0):
        fused = fuser(shared, [Incoming(own, torch.tensor(weight))])
        hidden = GradientPass(llm.model.model, fused).feed(embeds, lengths)
        gaps.append(float((hidden - reference).detach().abs().max()))
    assert gaps[0] > gaps[1] > gaps[2]
    assert gaps[0] > 1e-3, "a light edge must still be heard, or this test shows nothing"
    assert gaps[2] < 1e-4
    assert gaps[3] < 1e-9


# -- 5. Gradients equal finite differences -----------------------------------------------------


#: Two layers deep, so a weight is felt two hops on at most: every edge here is within that.
CHAIN = Topology(3, (Edge(0, 1, 0.5), Edge(1, 2, 0.8), Edge(2, 3, 0.6), Edge(1, 3, 0.9)))


@pytest.mark.parametrize("fuser", sorted(FUSERS))
@pytest.mark.parametrize("latent_steps", [0, 2])
def test_the_gradient_of_log_pi_equals_finite_differences(
    tiny_llm: LocalLLM, tiny_tokenizer: Any, latent_steps: int, fuser: str
) -> None:
    llm = double(tiny_llm)
    config = GraphConfig(latent_steps=latent_steps, max_new_tokens=4)
    built = toy_built(llm, tiny_tokenizer, graph=config, fuser=fuser)
    awake(built.graph.fuser)
    result = built.graph.run(QUESTIONS[2], topology=CHAIN, temperature=1.0, seed=5)
    # `first` hears agent 1, over the heavier edge, and so agent 0
    assert assert_slopes(built, llm, result) == (2 if fuser == "first" else 4)


def test_the_decision_gradient_is_exact_where_no_agent_hands_to_another(
    tiny_llm: LocalLLM, tiny_tokenizer: Any
) -> None:
    built = toy_built(tiny_llm, tiny_tokenizer)
    awake(built.graph.fuser)
    star = Topology(3, (Edge(0, 3, 0.4), Edge(1, 3, 0.7), Edge(2, 3, 0.9)))
    result = built.graph.run(QUESTIONS[0], topology=star, temperature=1.0, seed=1)
    found = []
    for how in ("decision", "full"):
        weights = {(e.source, e.target): torch.tensor(e.weight, requires_grad=True) for e in star.edges}
        built.graph.fuser.zero_grad()
        log_probs(built.graph, tiny_llm, [Replay(result, weights)], how)[0].backward()
        grads = [p.grad for p in built.graph.fuser.parameters()] + [w.grad for w in weights.values()]
        found.append(torch.cat([g.reshape(-1) for g in grads if g is not None]))
    assert found[0].abs().max() > 1e-3
    torch.testing.assert_close(found[0], found[1], atol=1e-4, rtol=1e-3)


# -- 6. The mean REINFORCE gradient is the exact one -------------------------------------------


def _exact_gradient(built: Built, task: ToyTask, example: Example) -> Tensor:
    """Of the expected utility, over every topology and every one-token text."""
    expected = enumerated(built, task, example)[1].sum()
    assert 0.02 < float(expected.detach()) < 0.98
    return gradient(built, expected)


def test_the_objective_over_all_outcomes_by_their_probability_is_the_exact_gradient(
    tiny_llm: LocalLLM, tiny_tokenizer: Any
) -> None:
    """The estimator without its noise: sum p U grad log p = grad E[U], for policy and fuser."""
    task = ToyTask()
    built = toy_built(tiny_llm, tiny_tokenizer, n_agents=2, graph=GraphConfig(latent_steps=1, max_new_tokens=1))
    awake(built.graph.fuser)
    assert_objective_is_exact(built, tiny_llm, task)


@pytest.mark.parametrize("baseline", ["leave_one_out", "none"])
def test_the_mean_reinforce_gradient_is_the_exact_one(
    tiny_llama: Any, tiny_tokenizer: Any, baseline: str
) -> None:
    llm = LocalLLM(tiny_llama, tiny_tokenizer)
    task = ToyTask()
    built = toy_built(llm, tiny_tokenizer, n_agents=2, graph=GraphConfig(latent_steps=1, max_new_tokens=1))
    awake(built.graph.fuser)
    assert built.policy is not None
    example = task.train()[0]
    exact = _exact_gradient(built, task, example)

    objective = Objective(built.graph, llm, LossWeights(), gradient="full")
    rollouts, batches = 8, 60

    async def group(batch: int) -> list[RunResult]:
        shared = RolloutMemo()
        seeds = [batch * rollouts + k for k in range(rollouts)]
        runs = (built.graph.arun(example, sample=True, temperature=1.0, seed=s, memo=shared) for s in seeds)
        return list(await asyncio.gather(*runs))

    estimates = []
    for batch in range(batches):
        results = asyncio.run(group(batch))
        utilities = torch.tensor([[task.grade(r.answer, example).utility for r in results]])
        built.policy.zero_grad()
        built.graph.fuser.zero_grad()
        objective.backward([results], advantages(utilities, baseline))
        estimates.append(-gradient(built))
    drawn = torch.stack(estimates)
    policy_size = sum(p.numel() for p in built.policy.parameters())
    probes = _probes(exact, policy_size)
    values = drawn @ probes.T  # (batches, probes)
    error = values.std(dim=0) / batches**0.5
    z = (values.mean(dim=0) - probes @ exact) / error
    assert bool((error > 0).all())
    assert float(z.abs().max()) < 4.0, z.tolist()
    # along the exact gradient the signal must stand out, or the test could not fail
    assert float((probes @ exact / error).abs().max()) > 4.0


def _probes(exact: Tensor, policy_size: int) -> Tensor:
    """Directions to compare along: the exact gradient's, its two parts', and random ones."""
    policy, fuser = exact.clone(), exact.clone()
    policy[policy_size:] = 0
    fuser[:policy_size] = 0
    generator = torch.Generator().manual_seed(0)
    random = [torch.randn(exact.shape, generator=generator) * (exact != 0) for _ in range(5)]
    return torch.stack([direction / direction.norm() for direction in (exact, policy, fuser, *random)])


# -- 7. Topologies are acyclic and their probabilities sum to 1 ---------------------------------


def _three_agents(seed: int) -> EdgeDistribution:
    candidates = tuple(candidate_edges(3))
    generator = torch.Generator().manual_seed(seed)
    return EdgeDistribution(3, candidates, 2 * torch.randn(len(candidates), generator=generator))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_probabilities_of_all_topologies_of_three_agents_sum_to_one(seed: int) -> None:
    every = all_topologies(_three_agents(seed))
    assert len(every) == 8 * 25  # any edges into the decision maker; 25 labelled DAGs on three nodes
    assert float(torch.stack([log_p for _, log_p in every]).exp().sum()) == pytest.approx(1.0, abs=1e-5)


def test_every_drawn_topology_is_acyclic_and_drawn_as_often_as_it_says() -> None:
    distribution = _three_agents(4)
    generator = torch.Generator().manual_seed(0)
    counts: dict[frozenset[tuple[int, int]], int] = {}
    for _ in range(4000):
        topology, log_p = distribution.sample(generator)
        assert is_acyclic(3, topology.pairs)
        assert float(log_p) == pytest.approx(float(distribution.log_prob(topology)), abs=1e-5)
        counts[topology.pairs] = counts.get(topology.pairs, 0) + 1
    for topology, log_p in all_topologies(distribution):
        p = float(log_p.exp())
        spread = max((4000 * p * (1 - p)) ** 0.5, 1.0)
        assert abs(counts.get(topology.pairs, 0) - 4000 * p) < 5 * spread


@pytest.mark.parametrize("n_agents", [2, 5, 8])
def test_dense_draws_are_acyclic(n_agents: int) -> None:
    candidates = tuple(candidate_edges(n_agents))
    distribution = EdgeDistribution(n_agents, candidates, torch.full((len(candidates),), 2.0))
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        assert is_acyclic(n_agents, distribution.sample(generator)[0].pairs)
    assert len(distribution.most_likely()[0].edges) == n_agents * (n_agents + 1) // 2


# -- 8. Same seed, same run; stopped anywhere and resumed, the same again ------------------------


class Stop(Exception):
    """The plug was pulled."""


def _trained(
    llm: LocalLLM, tokenizer: Any, out: Path, stop: str = "", **settings: Any
) -> tuple[dict[str, Tensor], list[Any]]:
    """Train four steps, with a checkpoint after each; weights and metrics without the seconds."""
    config = TrainConfig(
        iterations=4, batch_size=3, rollouts=3, checkpoint_every=1, fuser_lr=0.05, seed=7, **settings
    )  # fmt: skip
    trainer = Reinforce(toy_built(llm, tokenizer, seed=7), ToyTask(), config, out)
    if stop:
        _pull_the_plug(trainer, stop)
        with pytest.raises(Stop):
            trainer.train(progress=False)
        return {}, []
    trainer.train(progress=False)
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    kept = [{k: v for k, v in line.items() if not k.startswith("seconds")} for line in lines]
    return {k: v.clone() for k, v in trainer.parts.state_dict().items()}, kept


def _pull_the_plug(trainer: Reinforce, where: str) -> None:
    real_step, real_save = trainer.step, trainer.save

    def step(number: int, questions: Any) -> Any:
        if where == "before a step" and number == 2:
            raise Stop
        metrics = real_step(number, questions)
        if where == "after a step's update" and number == 2:
            raise Stop
        return metrics

    def save() -> Path:
        if where == "after metrics, before the checkpoint" and trainer.done == 2:
            raise Stop
        return real_save()

    trainer.step, trainer.save = step, save  # type: ignore[method-assign, assignment]


@pytest.mark.parametrize("stop", ["before a step", "after a step's update", "after metrics, before the checkpoint"])
def test_same_seed_same_run_and_resumed_the_same_again(
    tiny_llm: LocalLLM, tiny_tokenizer: Any, tmp_path: Path, stop: str
) -> None:
    weights, metrics = _trained(tiny_llm, tiny_tokenizer, tmp_path / "once")
    again, same = _trained(tiny_llm, tiny_tokenizer, tmp_path / "twice")
    _trained(tiny_llm, tiny_tokenizer, tmp_path / "stopped", stop)
    resumed, rest = _trained(tiny_llm, tiny_tokenizer, tmp_path / "stopped")
    assert any(line["replayed"] for line in metrics), "no text was learned from, so nothing was compared"
    assert metrics == same == rest
    for name, value in weights.items():
        assert torch.equal(value, again[name]), name
        assert torch.equal(value, resumed[name]), name


def test_a_run_with_a_running_baseline_and_prices_is_resumed_to_the_bit(
    tiny_llm: LocalLLM, tiny_tokenizer: Any, tmp_path: Path
) -> None:
    settings = {"baseline": "ema", "token_price": 30.0, "mib_price": 5.0}
    weights, metrics = _trained(tiny_llm, tiny_tokenizer, tmp_path / "once", **settings)
    _trained(tiny_llm, tiny_tokenizer, tmp_path / "stopped", "before a step", **settings)
    resumed, rest = _trained(tiny_llm, tiny_tokenizer, tmp_path / "stopped", **settings)
    assert metrics == rest
    for name, value in weights.items():
        assert torch.equal(value, resumed[name]), name
    other, _ = _trained(tiny_llm, tiny_tokenizer, tmp_path / "other")
    assert any(not torch.equal(value, other[name]) for name, value in weights.items())


@pytest.mark.parametrize("fuser", [name for name in sorted(FUSERS) if learns(name)])
def test_training_moves_every_trainable_parameter(
    tiny_llm: LocalLLM, tiny_tokenizer: Any, tmp_path: Path, fuser: str
) -> None:
    built = toy_built(tiny_llm, tiny_tokenizer, fuser=fuser)
    config = TrainConfig(iterations=4, batch_size=4, rollouts=4, fuser_lr=0.05, weight_decay=0.0)
    trainer = Reinforce(built, ToyTask(), config, tmp_path)
    before = {name: p.detach().clone() for name, p in trainer.parts.named_parameters()}
    trainer.train(progress=False)
    for name, parameter in trainer.parts.named_parameters():
        assert not torch.equal(before[name], parameter), f"{name} was not trained"
