"""What the estimator and the gradients are compared with: every outcome in turn, and finite differences."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable

import torch
from torch import Tensor
from toy import ToyTask

from gcache.build import Built
from gcache.cache.relevance import MATCH_GAIN, PRIOR_GAIN
from gcache.gnn.distribution import EdgeDistribution
from gcache.gnn.topology import Edge, Topology, is_acyclic
from gcache.graph.records import RunResult, Spoken
from gcache.llm.local import LocalLLM
from gcache.llm.requests import Generation
from gcache.tasks.example import Example
from gcache.training.replay import Replay, log_probs


def double(llm: LocalLLM) -> LocalLLM:
    """The same model in float64."""
    return LocalLLM(copy.deepcopy(llm.model).double(), llm.tokenizer, "double")


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
