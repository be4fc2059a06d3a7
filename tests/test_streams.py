"""No two random purposes draw the same numbers, and what is drawn for one says nothing of another."""

from __future__ import annotations

import ast
import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor
from toy import AGENTS, DECISION, QUESTIONS, ToyTask, toy_built

import gcache
from gcache.agents.decision import DecisionMaker
from gcache.cache.fusers.concat import ConcatFuser
from gcache.gnn.distribution import EdgeDistribution
from gcache.gnn.providers import FixedProvider
from gcache.gnn.topology import Edge, Topology
from gcache.graph.cache_graph import CacheGraph
from gcache.graph.memo import RolloutMemo
from gcache.graph.result import RunResult
from gcache.graph.run_config import GraphConfig
from gcache.llm.local import LocalLLM
from gcache.runtime import streams
from gcache.runtime.streams import derive, generator, shuffler, stream, uniforms
from gcache.tasks.registry import make_task
from gcache.training.config import TrainConfig
from gcache.training.replay import Replay, log_probs
from gcache.training.trainer import Reinforce

if TYPE_CHECKING:
    from conftest import ScriptedLLM


@dataclass(frozen=True)
class OneEdge:
    """One agent, who hands to the decision maker with a given probability."""

    chance: float

    def distribution(self, agents: Sequence[Any], decision: DecisionMaker, question: str) -> EdgeDistribution:
        return EdgeDistribution(1, ((0, 1),), torch.logit(torch.tensor([self.chance])))


def _draws(graph: CacheGraph, count: int) -> list[RunResult]:
    """Runs of one question, each with its own drawn topology and text."""

    async def all_of_them() -> list[RunResult]:
        shared = RolloutMemo()
        found: list[RunResult] = []
        for first in range(0, count, 500):
            runs = (
                graph.arun(QUESTIONS[0], sample=True, temperature=1.0, seed=seed, memo=shared)
                for seed in range(first, min(first + 500, count))
            )
            found += await asyncio.gather(*runs)
        return found

    return asyncio.run(all_of_them())


def _first_token(graph: CacheGraph, llm: LocalLLM, topology: Topology) -> Tensor:
    """(V,) probabilities of the first token on a topology."""
    result = graph.run(QUESTIONS[0], topology=topology, max_new_tokens=1)
    (spoken,) = result.spoken
    assert spoken.generation is not None
    vocabulary = range(llm.model.config.vocab_size)
    token = replace(spoken.generation, tokens=(0,))
    runs = [
        replace(result, spoken=(replace(spoken, generation=replace(token, tokens=(y,))),), temperature=1.0)
        for y in vocabulary
    ]
    weights = {edge.key: torch.tensor(edge.weight) for edge in topology.edges}
    with torch.no_grad():
        return torch.stack(log_probs(graph, llm, [Replay(run, weights) for run in runs], "full")).exp()


@pytest.mark.parametrize("chance", [0.1, 0.3])
def test_a_text_depends_on_the_topology_only_through_what_it_hands_over(
    tiny_llama: Any, tiny_tokenizer: Any, chance: float
) -> None:
    """With utilities that like late ids, P(U | edge) and the REINFORCE estimate are those of the exact distribution."""
    llm = LocalLLM(tiny_llama, tiny_tokenizer)
    made = toy_built(llm, tiny_tokenizer, graph=GraphConfig(latent_steps=0, max_new_tokens=1)).graph
    graph = CacheGraph(llm, tiny_tokenizer, AGENTS[:1], DECISION, OneEdge(chance), made.fuser, made.config, made.writer)
    with_edge = _first_token(graph, llm, Topology(1, (Edge(0, 1, chance, chance),)))
    without = _first_token(graph, llm, Topology(1))
    late = with_edge.cumsum(0) > 0.6
    likes = {y for y in range(len(late)) if bool(late[y])}
    exact, otherwise = float(with_edge[late].sum()), float(without[late].sum())
    assert 0.3 < exact < 0.5

    runs = _draws(graph, 6000)
    drawn = torch.tensor([float(bool(run.topology.edges)) for run in runs], dtype=torch.float64)
    first = [spoken.generation.tokens[0] for run in runs for spoken in run.spoken if spoken.generation]
    utility = torch.tensor([float(token in likes) for token in first], dtype=torch.float64)
    assert abs(float(drawn.mean()) - chance) < 4 * (chance * (1 - chance) / len(runs)) ** 0.5
    heard = utility[drawn == 1]
    z = (float(heard.mean()) - exact) / (exact * (1 - exact) / len(heard)) ** 0.5
    assert abs(z) < 4, f"P(U | edge) is {float(heard.mean()):.3f}, exactly {exact:.3f}: {z:.1f} standard errors"

    estimates = (utility - utility.mean()) * (drawn - chance)  # REINFORCE, by the logit of the edge
    slope = chance * (1 - chance) * (exact - otherwise)
    z = (float(estimates.mean()) - slope) / (float(estimates.std()) / len(runs) ** 0.5)
    assert abs(z) < 4, f"the gradient is {float(estimates.mean()):.4f}, exactly {slope:.4f}: {z:.1f} standard errors"


def test_no_two_texts_share_a_seed(scripted_llm: ScriptedLLM, tiny_tokenizer: Any) -> None:
    """Votes write several texts in a run; none draws the numbers of another run, question or vote."""
    for method in ("vote", "refer"):
        decision = DecisionMaker("decides", "answer", method=method)
        fuser, config = ConcatFuser(1, 1, 2), GraphConfig(latent_steps=0, max_new_tokens=3)
        graph = CacheGraph(scripted_llm, tiny_tokenizer, AGENTS, decision, FixedProvider("star"), fuser, config)
        for question in QUESTIONS[:2]:
            for seed in range(4):
                graph.run(question, temperature=1.0, seed=seed if method == "refer" else seed + 10)
    seeds = [request.seed for batch in scripted_llm.texts for request in batch]
    assert len(seeds) == len(set(seeds)) == 2 * 4 * (3 + 1)


def test_rollouts_and_the_order_of_questions_share_no_stream(
    tiny_llm: LocalLLM, tiny_tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys: list[tuple[int | str, ...]] = []
    digest = streams._digest

    def noted(key: Sequence[int | str]) -> bytes:
        keys.append(tuple(key))
        return digest(key)

    monkeypatch.setattr(streams, "_digest", noted)
    config = TrainConfig(iterations=3, batch_size=3, rollouts=2)
    Reinforce(toy_built(tiny_llm, tiny_tokenizer, seed=0), ToyTask(), config, tmp_path).train(progress=False)
    count = Counter(key[0] for key in keys)
    assert {"rollout", "topology", "text", "tokens"} <= count.keys()
    for purpose in ("rollout", "topology", "text", "tokens"):
        each = [key for key in keys if key[0] == purpose]
        assert len(set(each)) == len(each) == 3 * 3 * 2, purpose
    numbers = {digest(key)[:8] for key in keys}
    assert len(numbers) == len(set(keys)), "two keys have one number"


# -- the streams themselves ----------------------------------------------------------------


def test_streams_of_different_keys_are_independent() -> None:
    """Correlations of uniforms, and of the fractions of their small multiples, over many neighbouring keys."""
    n = 4000
    one = torch.stack([uniforms((3,), stream("topology", seed, "q")) for seed in range(n)])
    two = torch.stack([uniforms((3,), stream("text", seed, "q")) for seed in range(n)])
    three = torch.stack([uniforms((3,), generator("text", seed, "q")) for seed in range(n)])
    for first in (one, *((one * k) % 1 for k in range(2, 17))):
        for second in (two, three):
            table = torch.corrcoef(torch.cat((first, second), dim=1).T)[:3, 3:]
            assert float(table.abs().max()) < 5 / n**0.5


def test_a_stream_is_its_key() -> None:
    for made in (stream, generator):
        assert torch.equal(uniforms((5,), made("a", 1)), uniforms((5,), made("a", 1)))
        others: list[tuple[int | str, ...]] = [("a", 2), ("b", 1), ("a", "1"), ("a",), ("a", 1, ""), ("a1",), (1, "a")]
        assert all(not torch.equal(uniforms((5,), made("a", 1)), uniforms((5,), made(*key))) for key in others)
    assert shuffler("a", 1).random() == shuffler("a", 1).random() != shuffler("a", 2).random()
    assert stream("\ud800").random() == stream("\ud800").random()  # a question may hold a lone surrogate
    assert uniforms((), None).shape == ()


def test_derived_seeds_are_whole_numbers_that_any_server_takes() -> None:
    seeds = [derive("rollout", seed, step, 0, 0) for seed in range(-2, 30) for step in range(300)]
    assert len(set(seeds)) == len(seeds)
    assert all(isinstance(seed, int) and 0 <= seed < 2**53 for seed in seeds)


def test_generated_questions_are_those_that_were_published() -> None:
    example = make_task("split_facts").test(1)[0]
    assert (example.question, example.answer) == (
        "What is the locker number of the clock tower? Answer with the number only.", "856",
    )  # fmt: skip


MAKERS = {"manual_seed", "Random", "default_rng", "RandomState", "SeedSequence", "Philox", "PCG64", "seed"}


def test_nothing_else_in_the_package_makes_random_numbers_of_its_own() -> None:
    """Streams are made in `gcache.runtime.streams`; anything else could share a number with another purpose."""
    root = Path(gcache.__file__).parent
    found = []
    for file in sorted(root.rglob("*.py")):
        if file.name == "streams.py":
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in MAKERS):
                continue
            derived = [ast.unparse(argument).startswith("derive(") for argument in node.args]
            # a retry's waiting time is no draw of a run
            if derived != [True] and not (file.parts[-2:] == ("api", "client.py") and not node.args):
                found.append(f"{file.relative_to(root)}:{node.lineno}: {ast.unparse(node)}")
    assert not found, found
