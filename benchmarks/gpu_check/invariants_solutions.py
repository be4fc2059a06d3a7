"""What must hold of agents that write solutions and hand on their slots, and of a choice among what they state."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch

from benchmarks.gpu_check.checks import Check, worst
from benchmarks.gpu_check.small import AGENTS, ASKED, DECISION, Small, apart, awake, thought, tokens
from gcache.cache.fusers.registry import make_fuser
from gcache.gnn.fixed import FixedTopology
from gcache.gnn.providers import FixedProvider
from gcache.gnn.topology import Topology
from gcache.graph.cache_graph import CacheGraph
from gcache.graph.run_config import GraphConfig
from gcache.llm.local import LocalLLM
from gcache.llm.requests import GenerateRequest, Generation, ThinkRequest
from gcache.training.replay import Replay, log_probs

ROWS = 9
REASONING = GraphConfig(latent_steps=1, hands="reasoning", reason_tokens=6, max_new_tokens=4)
#: Every solution is an answer of its own.
CHOOSING = replace(DECISION, method="marginal", states="words")


def slots(small: Small) -> Iterator[Check]:
    """The slots of texts that were written, alone and beside others, are those of reading them anew."""
    llm = small.single
    past = thought(llm, tokens(12, "past"))
    asked = [
        GenerateRequest(
            tokens(3 + row % 5, "asked", row), past if row % 2 else None, 5 + row, 0.8, seed=row, latent_steps=row % 3,
            owner=row,
        )
        for row in range(ROWS)
    ]  # fmt: skip
    together = llm.generate(asked)
    alone = [llm.generate([request])[0] for request in asked]
    other = sum(a.tokens != b.tokens for a, b in zip(together, alone, strict=True))
    yield Check(1, "solutions of 9 that differ alone and in a batch", small.family, other, 0)
    again = [
        ThinkRequest(r.tokens, r.past, r.latent_steps, r.owner or 0, text=text.tokens)
        for r, text in zip(asked, together, strict=True)
    ]  # fmt: skip
    off = worst(_slots_apart(text, llm, request) for text, request in zip(together, again, strict=True))
    yield Check(1, "slots of solutions, written and read anew", small.family, off, 1e-4)


def _slots_apart(text: Generation, llm: LocalLLM, again: ThinkRequest) -> float:
    assert text.slots is not None
    (read,) = llm.think([again])
    if text.slots.positions.tolist() != read.positions.tolist() or text.slots.kinds.tolist() != read.kinds.tolist():
        return float("inf")
    return max(apart(text.slots.keys, read.keys), apart(text.slots.values, read.values))


def choices(small: Small) -> Iterator[Check]:
    """A choice has the probability that its replay gives it, and solutions that were drawn on caches count in full."""
    llm = small.double
    for name in ("concat", "trust"):
        fuser = make_fuser(name, llm.cache_shape, "parallel", llm.rope).to(llm.device)
        awake(fuser)
        graph = CacheGraph(llm, llm.tokenizer, AGENTS, CHOOSING, FixedProvider("star"), fuser, REASONING)
        for wired, gradient in (("star", "decision"), ("full", "full")):
            topology: Topology = FixedTopology(wired, len(AGENTS)).most_likely()[0]
            runs = [graph.run(question, topology=topology, temperature=1.0, seed=4) for question in ASKED]
            ones = {edge.key: torch.ones(()) for edge in topology.edges}
            with torch.no_grad():
                found = log_probs(graph, llm, [Replay(run, ones) for run in runs], gradient)
            expected = [
                run.text_log_prob + sum(
                    said.log_prob for node, said in run.solutions.items()
                    if gradient == "full" and any(a.slots is not None for a in run.arrivals[node])
                )
                for run in runs
            ]  # fmt: skip
            off = worst(abs(float(one) - other) for one, other in zip(found, expected, strict=True))
            yield Check(5, f"log-probability of a choice, replayed ({name}, {wired})", small.family, off, 1e-4)


#: What is asked of solutions.
ALL = (slots, choices)
