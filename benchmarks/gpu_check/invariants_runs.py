"""What must hold of whole runs: concurrent as in turn, and the same seed gives the same (2 and 8)."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from benchmarks.gpu_check.checks import Check, worst
from benchmarks.gpu_check.small import AGENTS, ASKED, DECISION, Small, apart
from gcache.build import Built, assemble
from gcache.config import LEARNED, GraphSpec
from gcache.graph.cache_graph import CacheGraph
from gcache.graph.result import RunResult
from gcache.graph.run_config import GraphConfig
from gcache.llm.local import LocalLLM
from gcache.tasks.example import Example, Grade
from gcache.training.config import TrainConfig
from gcache.training.trainer import Reinforce

#: What the weights of two trainings may be apart: nothing on a CPU. A GPU adds some gradients up in any order.
SAME_TRAINING = {"cpu": 0.0, "cuda": 1e-4}


@dataclass(frozen=True)
class Lengths:
    """A task that is learned by luck alone: right is a text with an even number of characters."""

    name: str = "lengths"
    domain: str = "maths"
    max_new_tokens: int = 3

    def train(self, limit: int | None = None, seed: int = 0) -> Sequence[Example]:
        return [Example(f"asked-{number}", question, "") for number, question in enumerate(ASKED)]

    def test(self, limit: int | None = None, seed: int = 0) -> Sequence[Example]:
        return self.train(limit, seed)

    def grade(self, text: str, example: Example) -> Grade:
        return Grade("wrong" if len(text) % 2 else "right", text)


def _built(llm: LocalLLM) -> Built:
    """Three agents with a topology that is learned."""
    config = GraphConfig(latent_steps=2, max_new_tokens=6)
    spec = GraphSpec(
        domain="maths", topology=LEARNED, encoder="hash", hidden_dim=8, decision_probability=0.6, agent_probability=0.4,
        graph=config,
    )  # fmt: skip
    made = assemble(spec, llm, llm.tokenizer)
    provider = made.graph.topology_provider
    assert isinstance(made.graph, CacheGraph)
    graph = CacheGraph(llm, llm.tokenizer, AGENTS, DECISION, provider, made.graph.fuser, config, made.graph.writer)
    return Built(made.spec, graph, llm, made.policy, made.fingerprint)


def concurrency(small: Small) -> Iterator[Check]:
    """Eight runs at once give what they give one after another; in float64, so that no draw turns on a rounding."""
    graph = _built(small.double).graph
    asked = [(question, seed) for question in ASKED for seed in (1, 2)]

    async def together() -> list[RunResult]:
        return list(await asyncio.gather(*(graph.arun(q, sample=True, temperature=0.7, seed=s) for q, s in asked)))

    at_once = asyncio.run(together())
    alone = [graph.run(q, sample=True, temperature=0.7, seed=s) for q, s in asked]
    pairs = list(zip(at_once, alone, strict=True))
    other = sum(_said(a) != _said(b) for a, b in pairs)
    yield Check(2, "runs of 8 whose topology, text or bytes differ at once and in turn", small.family, other, 0)
    off = worst(apart(a.caches[node].keys, cache.keys) for a, b in pairs for node, cache in b.caches.items())
    yield Check(2, "their agents' caches", small.family, off, 1e-9)
    drawn = len({result.topology.pairs for result in at_once})
    yield Check(2, "different topologies among them", small.family, drawn, 3, at_least=True)


def _said(result: RunResult) -> tuple[object, ...]:
    texts = tuple(spoken.generation.tokens for spoken in result.spoken if spoken.generation)
    return result.topology, texts, tuple(sorted(result.edge_bytes.items()))


def same_seed(small: Small) -> Iterator[Check]:
    """A run and a training, each done twice."""
    graph = _built(small.single).graph
    one, other = (graph.run_all(Lengths().train(), sample=True, temperature=1.0, seed=3) for _ in range(2))
    differ = sum(_said(a) != _said(b) for a, b in zip(one, other, strict=True))
    yield Check(8, "runs that differ when done again", small.family, differ, 0)
    first, moved = _trained(small.single)
    second, _ = _trained(small.single)
    off = worst(apart(value, second[name]) for name, value in first.items())
    bar = SAME_TRAINING.get(small.device.type, 1e-4)
    yield Check(8, "weights after two trainings of the same seed", small.family, off, bar)
    yield Check(8, "how far they were trained", small.family, moved, 1e-3, at_least=True)


def _trained(llm: LocalLLM) -> tuple[dict[str, Tensor], float]:
    """What a step makes of the policy and the fuser, and how far it moved them."""
    with tempfile.TemporaryDirectory() as folder:
        config = TrainConfig(iterations=1, batch_size=3, rollouts=3, fuser_lr=0.05, seed=7, fuser_gradient="full")
        trainer = Reinforce(_built(llm), Lengths(), config, Path(folder))
        before = {name: value.detach().clone() for name, value in trainer.parts.state_dict().items()}
        trainer.train(progress=False)
        after = {name: value.detach().clone() for name, value in trainer.parts.state_dict().items()}
    return after, max(apart(after[name], value) for name, value in before.items())


#: What is asked of whole runs.
ALL = (concurrency, same_seed)
