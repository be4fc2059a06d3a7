"""Where the last hop's gradient is the whole one, and what a training run takes."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from exact import assert_slopes_of, awake, double
from torch import Tensor
from toy import AGENTS, QUESTIONS, ToyTask, toy_built
from two_models import MANY_WORDS, across, ends, model_of, tokenizer_of

from gcache.build import Built
from gcache.cache.fusers.registry import FUSERS
from gcache.errors import CheckpointError
from gcache.gnn.providers import FixedProvider
from gcache.gnn.topology import Edge, Topology
from gcache.graph.cache_graph import CacheGraph
from gcache.graph.run_config import GraphConfig
from gcache.links.linear import fit_vocab
from gcache.llm.cache_budget import Limits
from gcache.llm.local import LocalLLM
from gcache.training import checkpoint as checkpoints
from gcache.training.config import TrainConfig
from gcache.training.fuser_gradient import decision_is_exact, is_exact_on, most_replayed, take_gradient
from gcache.training.replay import Replay, log_probs, replayed_tokens
from gcache.training.trainer import Reinforce

EXAMPLES = ToyTask().train()
STAR = (Edge(0, 3, 0.4), Edge(1, 3, 0.6), Edge(2, 3, 0.8))
CHAIN = (Edge(0, 1, 0.4), Edge(1, 2, 0.6), Edge(2, 3, 0.8))
TOPOLOGIES: dict[str, tuple[Edge, ...]] = {
    "star": STAR,
    "chain": CHAIN,
    "one heard": (Edge(1, 3, 0.5),),
    "one edge among agents": (Edge(0, 2, 0.5), *STAR),
    "an edge nobody hears": (Edge(0, 1, 0.5), Edge(0, 3, 0.4), Edge(2, 3, 0.8)),
    "from the round before": (Edge(0, 2, 0.5, delay=1), *STAR),
    "words among agents": (Edge(0, 2, 0.5, payload="text"), *STAR),
    "words to the decision maker": (Edge(0, 1, 0.5), Edge(1, 3, 0.6, payload="text"), Edge(2, 3, 0.8)),
    "latents": (Edge(0, 2, 0.5, payload="latents"), Edge(2, 3, 0.8, payload="latents")),
}


@pytest.fixture
def llm(tiny_llm: LocalLLM) -> LocalLLM:
    return double(tiny_llm)


def built_for(llm: LocalLLM, tokenizer: Any, rounds: int, transfer: str = "own", **spec: Any) -> Built:
    config = GraphConfig(latent_steps=1, num_rounds=rounds, transfer=transfer, max_new_tokens=3, speak_tokens=2)
    built = toy_built(llm, tokenizer, graph=config, **spec)
    awake(built.graph.fuser)
    return built


def gradients(built: Built, llm: LocalLLM, edges: tuple[Edge, ...], learned: bool, *how: str) -> Tensor:
    """Of log pi, to the fuser and, where they are learned, to the edges' weights; on one run, whatever is asked."""
    if not learned:  # a fixed topology's
        edges = tuple(replace(edge, weight=1.0) for edge in edges)
    result = built.graph.run(QUESTIONS[0], topology=Topology(3, edges), temperature=1.0, seed=1)
    weights = {edge.key: torch.tensor(edge.weight, requires_grad=learned) for edge in edges}
    parameters = [*built.graph.fuser.parameters(), *(weights.values() if learned else ())]
    (value,) = log_probs(built.graph, llm, [Replay(result, weights)], *how)
    if not value.requires_grad:
        return torch.zeros(sum(p.numel() for p in parameters))
    return torch.cat([g.reshape(-1) for g in torch.autograd.grad(value, parameters, materialize_grads=True)])


def distance(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).norm() / wanted.norm()) if wanted.numel() and float(wanted.norm()) else 0.0


def test_in_two_rounds_of_a_star_the_default_is_the_whole_gradient(llm: LocalLLM, tiny_tokenizer: Any) -> None:
    built = built_for(llm, tiny_tokenizer, rounds=2)
    wanted = gradients(built, llm, STAR, False, "full")
    assert distance(gradients(built, llm, STAR, False, "decision"), wanted) > 0.1
    assert distance(gradients(built, llm, STAR, False), wanted) < 1e-5


def test_the_gradient_a_run_takes_by_default_is_that_of_finite_differences(
    llm: LocalLLM, tiny_tokenizer: Any, tmp_path: Path
) -> None:
    built = built_for(llm, tiny_tokenizer, rounds=2, topology="star")
    trainer = Reinforce(built, ToyTask(), TrainConfig(), tmp_path)
    result = built.graph.run(QUESTIONS[0], temperature=1.0, seed=1)
    replay = Replay(result, {edge.key: torch.ones(()) for edge in result.topology.edges})

    def value() -> Tensor:
        return log_probs(built.graph, llm, [replay], trainer.objective.gradient)[0]

    value().backward()
    assert_slopes_of(value, [], built.graph.fuser, step=0.02, noise=5e-4)


@pytest.mark.parametrize(("name", "transfer"), [
    (name, transfer) for name, edges in TOPOLOGIES.items() for transfer in ("own", "latent", "context")
    if transfer == "own" or not any(edge.payload for edge in edges)  # channels are of one's own slots
])  # fmt: skip
@pytest.mark.parametrize("fuser", sorted(FUSERS))
def test_what_is_said_of_the_last_hops_gradient_is_so(
    tiny_llama: Any, tiny_tokenizer: Any, fuser: str, name: str, transfer: str
) -> None:
    """Both ways: where it is said to be exact it equals the whole gradient, and nowhere else that a cache is heard."""
    edges, llm = TOPOLOGIES[name], double(LocalLLM(tiny_llama, tiny_tokenizer))
    # `first` hears what an agent remembers, at weight 1, and drops what comes over the edge
    dropped = fuser == "first" and name == "from the round before"
    said = []
    for rounds, learned in itertools.product((1, 2), (False, True)):
        built = built_for(llm, tiny_tokenizer, rounds, transfer, fuser=fuser)
        carrying = [edge.key for edge in edges if edge.payload != "text"]
        exact = is_exact_on(built.graph, 3, carrying, learned)  # type: ignore[arg-type]
        wanted = gradients(built, llm, edges, learned, "full")
        gap = distance(gradients(built, llm, edges, learned, "decision"), wanted)
        assert gap < 1e-4 if exact or dropped else gap > 1e-3, (rounds, learned, gap)
        said.append(exact)
    assert any(said) or name in ("chain", "one edge among agents", "latents")
    if fuser == "concat":
        assert not said[2], "in a second round an agent hears itself through the fuser"


@pytest.mark.parametrize(
    ("rounds", "settings", "expected"),
    [
        (1, {}, False),
        (2, {}, False),
        (1, {"n_agents": 1}, True),
        (2, {"n_agents": 1}, False),
        (2, {"n_agents": 1, "fuser": "first"}, True),
        (1, {"fuser": "first"}, False),
        (1, {"topology": "star"}, True),
        (2, {"topology": "star"}, False),
        (2, {"topology": "none"}, True),
        (1, {"topology": "chain"}, False),
        (1, {"topology": "chain", "n_agents": 1}, True),
        (1, {"topology": "debate"}, False),
        (2, {"optimized_temporal": True, "fuser": "weighted_sum"}, False),
        (1, {"channels": ("cache", "text")}, False),
    ],
)
def test_what_may_be_drawn_decides(
    tiny_llama: Any, tiny_tokenizer: Any, rounds: int, settings: dict[str, Any], expected: bool
) -> None:
    llm = LocalLLM(tiny_llama, tiny_tokenizer)
    built = built_for(llm, tiny_tokenizer, rounds, **settings)
    assert isinstance(built.graph, CacheGraph)
    assert decision_is_exact(built.graph, EXAMPLES) == expected
    taken = take_gradient("auto", built.graph, EXAMPLES, llm.limits)
    assert taken.name == ("decision" if expected else "full")
    assert taken.why.startswith("exact:") == expected
    assert [take_gradient(name, built.graph, ()).name for name in ("decision", "full")] == ["decision", "full"]


def test_agents_on_several_models_learn_by_the_last_hop_and_it_says_what_that_is() -> None:
    words = tokenizer_of(MANY_WORDS)
    big, small = model_of(160, tied=False, hidden_size=48, head_dim=12), model_of(160, seed=2)
    up, down = (fit_vocab(ends(a, words, "a"), ends(b, words, "b")) for a, b in ((small, big), (big, small)))

    def mixed_graph(on: tuple[int, int] = (1, 0), **config: Any) -> CacheGraph:
        return across((big, words), (small, words), up, on=on, back=down, **config)

    for topology, exact in (("star", True), ("chain", False)):
        made = mixed_graph()
        made.topology_provider = FixedProvider(topology)
        taken = take_gradient("auto", made, EXAMPLES)
        assert taken.name == "decision"
        assert taken.why.startswith("exact:" if exact else "an approximation: agents hand to each other")
    # an agent on the other model remembers through a fuser that does not learn, one on the first through one that does
    for on, exact in (((1, 1), True), ((1, 0), False)):
        made = mixed_graph(on=on, num_rounds=2)
        made.topology_provider = FixedProvider("star")
        assert decision_is_exact(made, EXAMPLES) == exact


def test_where_nothing_is_learned_from_texts_there_is_nothing_to_choose(llm: LocalLLM, tiny_tokenizer: Any) -> None:
    from gcache.build import assemble
    from gcache.config import GraphSpec

    words = assemble(GraphSpec(encoder="hash", graph=GraphConfig(hands="text")), llm, tiny_tokenizer)
    taken = take_gradient("auto", words.graph, EXAMPLES, Limits(max_gradient_tokens=1))
    assert (taken.name, taken.why.split(":")[0]) == ("decision", "exact")


@pytest.mark.parametrize("more", [{}, {"channels": ("cache", "text")}, {"latent_choices": (0, 4)}])
@pytest.mark.parametrize("rounds", [1, 2])
def test_a_pass_must_hold_one_run(
    tiny_llama: Any, tiny_tokenizer: Any, rounds: int, more: dict[str, Any]
) -> None:
    llm = LocalLLM(tiny_llama, tiny_tokenizer)
    graph = built_for(llm, tiny_tokenizer, rounds, **more).graph
    assert isinstance(graph, CacheGraph)
    most = most_replayed(graph, EXAMPLES)
    runs = [graph.run(QUESTIONS[2], sample=True, temperature=1.0, seed=seed) for seed in range(12)]
    assert 0.3 * most < max(replayed_tokens(run, "full") for run in runs) <= most
    assert take_gradient("auto", graph, EXAMPLES, Limits(max_gradient_tokens=most)).name == "full"
    taken = take_gradient("auto", graph, EXAMPLES, Limits(max_gradient_tokens=most - 1))
    assert taken.name == "decision"
    assert taken.why.startswith("an approximation:") and str(most) in taken.why and str(most - 1) in taken.why


# -- a training run -------------------------------------------------------------------------------


def trainer(llm: LocalLLM, tokenizer: Any, out: Path, **settings: Any) -> Reinforce:
    built = toy_built(llm, tokenizer, graph=GraphConfig(latent_steps=1, num_rounds=2, max_new_tokens=3))
    config = TrainConfig(**{"iterations": 2, "batch_size": 2, "rollouts": 2, "checkpoint_every": 1, **settings})
    return Reinforce(built, ToyTask(), config, out)


def stopped_after_a_step(made: Reinforce) -> None:
    real = made.step

    def step(number: int, questions: Any) -> Any:
        if number:
            raise KeyboardInterrupt
        return real(number, questions)

    made.step = step  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        made.train(progress=False)


def recorded(out: Path) -> list[str]:
    lines = [json.loads(line)["fuser_gradient"] for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [*lines, checkpoints.read(out).training["fuser_gradient"]]


@pytest.mark.parametrize("most", [4096, 16])
def test_a_run_says_what_it_took_and_goes_on_with_it_whatever_the_limits_are(
    tiny_llm: LocalLLM, tiny_tokenizer: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch, most: int,
) -> None:  # fmt: skip
    taken = "full" if most > 16 else "decision"
    monkeypatch.setattr(tiny_llm, "limits", Limits(max_gradient_tokens=most))
    with caplog.at_level("INFO", logger="gcache"):
        stopped_after_a_step(trainer(tiny_llm, tiny_tokenizer, tmp_path))
    (line,) = [r.getMessage() for r in caplog.records if "fuser gradient" in r.getMessage()]
    assert line.startswith(f"fuser gradient: {taken} (") and str(most) in line
    assert ("approximation" in line) == (taken == "decision")
    assert recorded(tmp_path) == [taken, taken]
    monkeypatch.setattr(tiny_llm, "limits", Limits(max_gradient_tokens=4112 - most))
    again = trainer(tiny_llm, tiny_tokenizer, tmp_path)
    again.train(progress=False)
    assert again.objective.gradient == taken
    assert recorded(tmp_path) == [taken] * 3


@pytest.mark.parametrize("known", [True, False])
def test_a_run_from_before_there_was_a_choice_goes_on_with_the_last_hop(
    tiny_llm: LocalLLM, tiny_tokenizer: Any, tmp_path: Path, known: bool
) -> None:
    stopped_after_a_step(trainer(tiny_llm, tiny_tokenizer, tmp_path, fuser_gradient="decision"))
    record = checkpoints.read(tmp_path).folder / "checkpoint.json"
    old = json.loads(record.read_text())
    assert old["training"]["fuser_gradient"] == "decision"
    if not known:
        del old["training"]["fuser_gradient"]
        record.write_text(json.dumps(old))
    with pytest.raises(CheckpointError, match="fuser_gradient='decision', this one has 'full'"):
        trainer(tiny_llm, tiny_tokenizer, tmp_path, fuser_gradient="full").train(progress=False)
    again = trainer(tiny_llm, tiny_tokenizer, tmp_path)
    again.train(progress=False)
    assert again.objective.gradient == "decision"
    assert recorded(tmp_path) == ["decision"] * 3


def test_questions_with_more_agents_count(tiny_llama: Any, tiny_tokenizer: Any) -> None:
    """One agent alone hands to nobody; in another question there are three."""
    built = built_for(LocalLLM(tiny_llama, tiny_tokenizer), tiny_tokenizer, 1, n_agents=1)
    graph = built.graph
    assert isinstance(graph, CacheGraph)
    casts = {example.id: AGENTS[:1] for example in EXAMPLES}
    graph.agents_of = lambda example: casts[example.id]  # type: ignore[method-assign]
    assert decision_is_exact(graph, EXAMPLES)
    alone = most_replayed(graph, EXAMPLES)
    casts[EXAMPLES[-1].id] = AGENTS
    assert not decision_is_exact(graph, EXAMPLES)
    assert most_replayed(graph, EXAMPLES) > alone
