"""What the estimator and the gradients are compared with: every outcome in turn, and finite differences."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from toy import ToyTask

from gcache.build import Built
from gcache.cache.fusers.registry import make_fuser
from gcache.cache.fusers.relevance import MATCH_GAIN, PRIOR_GAIN
from gcache.cache.rope import Rope
from gcache.gnn.distribution import EdgeDistribution
from gcache.gnn.topology import Edge, Topology, is_acyclic
from gcache.graph.result import RunResult, Spoken
from gcache.llm.local import LocalLLM
from gcache.llm.requests import Generation
from gcache.tasks.example import Example
from gcache.training.objective import LossWeights, Objective
from gcache.training.replay import Replay, log_probs

#: How far two ways to compute one thing in float64 may be apart: rounding (1e-16), through tiny models that make it
#: 1e5 times larger at the most (in float32 they come to 1e-4 on some processors, and to more on others).
CLOSE_IN_DOUBLE = 1e-9
#: Log-probabilities of written tokens are kept in float32: two roundings (2^-24 each) of numbers below 8.
CLOSE_AS_KEPT = 1e-6


def doubled(model: Any) -> Any:
    """A copy of a model in float64, its norms too: transformers computes these in float32 whatever the model is in."""
    made = copy.deepcopy(model).double()
    for module in made.modules():
        if type(module).__name__.endswith("RMSNorm"):
            module.forward = partial(_norm, module)
    return made


def double(llm: LocalLLM) -> LocalLLM:
    """The same model in float64."""
    made = LocalLLM(doubled(llm.model), llm.tokenizer, "double")
    made.stop_tokens = llm.stop_tokens
    return made


def _norm(module: Any, states: Tensor) -> Tensor:
    scale = torch.rsqrt(states.square().mean(-1, keepdim=True) + module.variance_epsilon)
    normed: Tensor = module.weight * (states * scale)
    return normed


def learns(fuser: str) -> bool:
    """Whether a fuser of the registry has parameters."""
    rope = Rope(torch.tensor([1.0, 0.1]))
    return any(True for _ in make_fuser(fuser, (2, 2, 4), "parallel", rope).parameters())


def reach(name: str) -> float:
    """How far a parameter of a fuser may be moved; the relevance fuser has gains on two of its own."""
    return 0.1 / {"match": MATCH_GAIN, "prior": PRIOR_GAIN}.get(name, 1.0)


def awake(fuser: torch.nn.Module) -> None:
    """Away from the identity, where half of the gradients are zero."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in fuser.named_parameters():
            parameter.add_(reach(name) * torch.randn(parameter.shape, generator=generator))


def slope(value: Callable[[], Tensor], tensor: Tensor, index: int, step: float = 2e-3) -> float:
    """The central difference of a value along one entry of a tensor."""
    flat = tensor.detach().reshape(-1)
    before = float(flat[index])
    ends = []
    for sign in (1, -1):
        flat[index] = before + sign * step
        with torch.no_grad():
            ends.append(float(value()))
    flat[index] = before
    return (ends[0] - ends[1]) / (2 * step)


def assert_slopes(built: Built, llm: LocalLLM, result: RunResult) -> int:
    """The gradient of log pi, all the way back, is that of finite differences: for every edge's weight, and for
    each fuser parameter where its gradient is largest. Returns how many weights the text depends on."""
    weights = {e.key: torch.tensor(e.weight, requires_grad=True) for e in result.topology.edges}

    def value() -> Tensor:
        return log_probs(built.graph, llm, [Replay(result, weights)], "full")[0]

    value().backward()
    assert float(value().detach()) == pytest.approx(result.text_log_prob, abs=1e-4)
    places: list[tuple[str, Tensor, int]] = [(f"w{key}", w, 0) for key, w in weights.items()]
    # fusers compute in float32: the slope's noise is 1e-6 over twice the step
    return assert_slopes_of(value, places, built.graph.fuser, step=0.02, noise=5e-4)


def assert_slopes_of(
    value: Callable[[], Tensor], places: Sequence[tuple[str, Tensor, int]], fuser: torch.nn.Module, step: float,
    noise: float,
) -> int:  # fmt: skip
    """The gradients that a backward pass left are the central differences of a value: at each (name, tensor, entry) of
    `places`, and for each fuser parameter where its gradient is largest. Where a place changes nothing at all, its
    gradient must be none or 0. Returns at how many places the value depends on."""
    wanted = list(places)
    for name, parameter in fuser.named_parameters():
        assert parameter.grad is not None, name
        wanted.append((name, parameter, int(parameter.grad.abs().argmax())))
    depends = 0
    for number, (name, tensor, index) in enumerate(wanted):
        exact = 0.0 if tensor.grad is None else float(tensor.grad.reshape(-1)[index])
        # a gain moves the value so little that only a longer step stands out of float32's noise
        longer = 5 if name in ("match", "prior") else 1
        found = slope(value, tensor, index, longer * step * reach(name))
        if number < len(places) and found == 0.0:
            assert exact == 0.0, name
            continue
        depends += number < len(places)
        assert exact != 0.0, f"{name} has no gradient"
        assert exact == pytest.approx(found, rel=0.02, abs=noise), name
    return depends


def assert_objective_is_exact(built: Built, llm: LocalLLM, task: ToyTask) -> float:
    """The objective over all outcomes by their probability has the gradient of the expected utility: sum p U grad
    log p = grad E[U], for policy and fuser. Returns that utility."""
    assert built.policy is not None
    outcomes, chances = enumerated(built, task, task.train()[0])
    exact = gradient(built, chances.sum())
    shares = chances.detach()[None] * len(outcomes)
    Objective(built.graph, llm, LossWeights(), gradient="full").backward([outcomes], shares)
    size = sum(p.numel() for p in built.policy.parameters())
    for part in (slice(None, size), slice(size, None)):
        found, wanted = -gradient(built)[part], exact[part]
        assert float(wanted.norm()) > 1e-3
        assert float((found - wanted).norm() / wanted.norm()) < 1e-3
    return float(chances.sum().detach())


def all_topologies(distribution: EdgeDistribution) -> list[tuple[Topology, Tensor]]:
    """Every topology that can be drawn, channels and latent steps included, weighted as drawn, with log p(G)."""
    n, found = distribution.n_agents, []
    chances = dict(zip(distribution.candidates, distribution.probabilities.tolist(), strict=True))
    thinking = list(itertools.product(distribution.latent_choices, repeat=n)) if distribution.latent_choices else [None]
    for size in range(len(distribution.candidates) + 1):
        for keys in itertools.combinations(distribution.candidates, size):
            if not is_acyclic(n, [(key[0], key[1]) for key in keys if len(key) == 2]):
                continue
            for channels in itertools.product(distribution.channels or (None,), repeat=size):
                edges = tuple(
                    Edge(key[0], key[1], weight=chances[key], delay=len(key) - 2, channel=channel)
                    for key, channel in zip(keys, channels, strict=True)
                )
                for steps in thinking:
                    topology = Topology(n, edges, latent_steps=steps)
                    found.append((topology, distribution.log_prob(topology)))
    return found


def enumerated(built: Built, task: ToyTask, example: Example) -> tuple[list[RunResult], Tensor]:
    """Every outcome of utility 1, as a run of one written token, and (N,) their probabilities with gradient."""
    distribution = built.graph.distribution(example)
    assert isinstance(distribution, EdgeDistribution)
    assert built.llm is not None
    vocabulary = range(built.llm.model.config.vocab_size)
    useful = [y for y in vocabulary if task.grade(built.llm.text([y]), example).utility]
    outcomes: list[RunResult] = []
    chances: list[Tensor] = []
    for topology, log_p in all_topologies(distribution):
        result = built.graph.run(example, topology=topology)
        (spoken,) = result.spoken
        for token in useful:
            text = Spoken(spoken.heard, spoken.tokens, Generation("", (token,), (0.0,), True))
            outcomes.append(RunResult(**{**result.__dict__, "spoken": (text,), "temperature": 1.0}))
            replay = Replay(outcomes[-1], distribution.weights(topology))
            chances.append((log_p + log_probs(built.graph, built.llm, [replay], "full")[0]).exp())
    return outcomes, torch.stack(chances)


def gradient(built: Built, loss: Tensor | None = None) -> Tensor:
    """(P,) of the policy's parameters, then the fuser's: of a loss, or what they hold."""
    assert built.policy is not None
    parameters = [*built.policy.parameters(), *built.graph.fuser.parameters()]
    if loss is not None:
        found = torch.autograd.grad(loss, parameters, materialize_grads=True)
        return torch.cat([g.reshape(-1) for g in found])
    return torch.cat([torch.zeros_like(p).reshape(-1) if p.grad is None else p.grad.reshape(-1) for p in parameters])
