"""Learning across models: the fuser of the decision maker's model and every edge's weight, exactly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from exact import assert_slopes_of, awake, doubled
from toy import QUESTIONS, ToyTask
from two_models import MANY_WORDS, QUESTION, across, ends, model_of, tokenizer_of

from gcache.build import Built
from gcache.cache.fusers.registry import FUSERS
from gcache.config import GraphSpec
from gcache.errors import ConfigError, TrainingError
from gcache.gnn.providers import PolicyProvider
from gcache.gnn.topology import Edge, Topology
from gcache.graph.cache_graph import CacheGraph
from gcache.links.linear import fit_vocab
from gcache.training.config import TrainConfig
from gcache.training.objective import LossWeights, Objective
from gcache.training.replay import Replay, log_probs
from gcache.training.trainer import Reinforce

WORDS = tokenizer_of(MANY_WORDS)
BIG, SMALL = model_of(160, tied=False, hidden_size=48, head_dim=12), model_of(160, seed=2)
UP = fit_vocab(ends(SMALL, WORDS, "small"), ends(BIG, WORDS, "big"))
BOTH = Topology(2, (Edge(0, 2, 0.5), Edge(1, 2, 0.8)))


DOWN = fit_vocab(ends(BIG, WORDS, "big"), ends(SMALL, WORDS, "small"))


def graph(link: Any = UP, on: tuple[int, ...] = (1, 0), **config: Any) -> CacheGraph:
    return across((BIG, WORDS), (SMALL, WORDS), link, on=on, back=DOWN, **config)


def llm_of(made: CacheGraph) -> Any:
    return made.llm.llm


@pytest.mark.parametrize("fuser", sorted(FUSERS))
@pytest.mark.parametrize("on", [(1, 0), (1, 1)])
def test_the_gradient_is_that_of_finite_differences(fuser: str, on: tuple[int, ...]) -> None:
    big, small = doubled(BIG), doubled(SMALL)  # where slopes are not lost in rounding
    made = across((big, WORDS), (small, WORDS), UP, on=on, back=DOWN, fuser=fuser)
    awake(made.fuser)
    result = made.run(QUESTION, topology=BOTH, temperature=1.0)
    weights = {edge.key: torch.tensor(edge.weight, requires_grad=True) for edge in BOTH.edges}

    def value() -> torch.Tensor:
        return log_probs(made, llm_of(made), [Replay(result, weights)])[0]

    value().backward()
    assert float(value().detach()) == pytest.approx(result.text_log_prob, abs=1e-4)
    places = [(f"w{key}", weight, 0) for key, weight in weights.items()]
    assert assert_slopes_of(value, places, made.fuser, step=0.01, noise=1e-3) == (1 if fuser == "first" else 2)


@pytest.mark.parametrize(
    ("edges", "texts"),
    [
        ((Edge(0, 2, 0.5),), 0),  # the planner's words, over no link
        ((Edge(1, 2, 0.5),), 2),  # the critic shares the decision maker's model
        ((Edge(0, 2, 0.5), Edge(1, 2, 0.5)), 2),
        ((Edge(0, 1, 0.5),), 0),
    ],
)
def test_only_texts_on_a_cache_are_replayed(edges: tuple[Edge, ...], texts: int) -> None:
    made = graph(link=None)
    results = [made.run(QUESTION, topology=Topology(2, edges), temperature=1.0, seed=seed) for seed in (0, 1)]
    assert results[0].answer != results[1].answer
    objective = Objective(made, llm_of(made), LossWeights())
    assert objective.backward([results], torch.tensor([[0.5, -0.5]]))["replayed"] == texts
    reached = [parameter.grad is not None for parameter in made.fuser.parameters()]
    assert all(reached) if texts else not any(reached)


def learned(on: tuple[int, ...] = (1, 0)) -> Built:
    """A graph across models whose topology is learned."""
    from gcache.gnn.features import make_encoder
    from gcache.gnn.policy import TopologyPolicy

    encoder = make_encoder("hash")
    policy = TopologyPolicy(encoder.dim, 8, 0.6, 0.4)
    made = graph(on=on)
    made.topology_provider = PolicyProvider(policy, encoder)
    return Built(GraphSpec(encoder="hash", hidden_dim=8), made, llm_of(made), policy, "big+small")


def test_a_mixed_graph_trains(tmp_path: Path) -> None:
    built = learned()
    before = {name: p.detach().clone() for name, p in built.graph.fuser.named_parameters()}  # type: ignore[attr-defined]
    history = Reinforce(built, ToyTask(right=frozenset(MANY_WORDS[3:80])), TrainConfig(
        iterations=3, batch_size=2, rollouts=4, checkpoint_every=3, fuser_lr=0.1
    ), tmp_path).train(progress=False)  # fmt: skip
    assert sum(line["replayed"] for line in history) > 0
    moved = {
        name: not torch.equal(before[name], p) for name, p in built.graph.fuser.named_parameters()  # type: ignore[attr-defined]
    }
    assert all(moved[name] for name in ("gate", "key_up", "value_up"))


def test_the_frozen_models_get_no_gradient() -> None:
    made = graph()
    results = [made.run(QUESTIONS[0], topology=BOTH, temperature=1.0, seed=seed) for seed in (0, 1)]
    Objective(made, llm_of(made), LossWeights()).backward([results], torch.tensor([[0.5, -0.5]]))
    assert all(p.grad is None for agent_model in made.models for p in agent_model.llm.llm.model.parameters())  # type: ignore[attr-defined]
    assert all(p.grad is None for p in made.models[1].fuser.parameters())


def test_what_cannot_be_learned_is_refused() -> None:
    made = graph()
    result = made.run(QUESTION, topology=BOTH)
    with pytest.raises(ConfigError, match=r"'full' goes back through one model.*use decision"):
        log_probs(made, llm_of(made), [Replay(result, {})], "full")
    result.kept.release()
    with pytest.raises(TrainingError, match=r"let go before it was learned from.*raise --max_cache_gb"):
        log_probs(made, llm_of(made), [Replay(result, {})])
