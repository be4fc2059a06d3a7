"""What a graph costs beside its model: tasks, batching, tokenising, fusing, records.

The model costs nothing here (`benchmarks.costless`), so all that is measured is the graph. The
reference is the least that many concurrent calls can cost in Python: for every call one asyncio
task that gives way once.
"""

from __future__ import annotations

import asyncio
from dataclasses import asdict, dataclass
from typing import Any

from tqdm import tqdm

from benchmarks.costless import SHAPE, CostlessLLM, word_tokenizer
from benchmarks.setting import DOMAIN
from benchmarks.timing import interleaved, ratios
from gcache.agents.decision import decision_maker
from gcache.agents.roles import Agent, pick_agents
from gcache.cache.fusers.concat import ConcatFuser
from gcache.gnn.fixed import FixedTopology
from gcache.gnn.providers import FixedProvider
from gcache.graph.cache_graph import CacheGraph
from gcache.graph.run_config import GraphConfig
from gcache.tasks.example import Example

TOPOLOGIES = ("star", "chain", "full")


@dataclass(frozen=True)
class Load:
    """How much is asked of the graphs.

    Attributes:
        in_flight: questions at once, of `agents` agents.
        growth: numbers of agents, at `growth_in_flight` questions at once.
    """

    in_flight: int = 1000
    agents: int = 4
    growth_in_flight: int = 100
    growth: tuple[int, ...] = (4, 8, 16, 32)


@dataclass(frozen=True)
class Cost:
    """One graph's cost; lists have one figure per repeat.

    Attributes:
        calls: of the model, thoughts and texts, over all questions.
        edges: of one question's topology.
        total_ms, call_ms, edge_ms: of all questions, per call, and per edge of a question.
        bare_call_ms: of the reference, per call.
        ratio: of call_ms to it.
    """

    topology: str
    agents: int
    in_flight: int
    calls: int
    edges: int
    total_ms: list[float]
    call_ms: list[float]
    edge_ms: list[float]
    bare_call_ms: list[float]
    ratio: list[float]


def measure(repeats: int, load: Load | None = None, device: str = "cpu") -> dict[str, Any]:
    """Costs at many questions in flight, then with growing numbers of agents; `device`: where the caches are."""
    load = load or Load()
    cost(TOPOLOGIES[0], load.agents, 2, 1, device)  # warms up
    many = [(name, load.agents, load.in_flight) for name in TOPOLOGIES]
    growing = [(name, agents, load.growth_in_flight) for name in TOPOLOGIES for agents in load.growth]
    bar = tqdm([*many, *growing], desc="orchestration", unit="graph", leave=False)
    rows = [asdict(cost(name, agents, in_flight, repeats, device)) for name, agents, in_flight in bar]
    return {
        "reference": "an asyncio task per call that gives way once",
        "in_flight": rows[: len(many)],
        "growth": rows[len(many) :],
    }


def cost(topology: str, agents: int, in_flight: int, repeats: int, device: str = "cpu") -> Cost:
    """Run `in_flight` questions at once on a graph of so many agents."""
    llm = CostlessLLM(agents, device)
    graph = _graph(llm, topology, agents, device)
    questions = [Example(str(number), f"what is {number} ?", "1") for number in range(in_flight)]
    graph.run_all(questions[:1], max_concurrent=1)
    calls = llm.calls * in_flight
    found = interleaved(
        {
            "graph": lambda: len(graph.run_all(questions, max_concurrent=in_flight)),
            "bare": lambda: asyncio.run(_bare(calls)),
        },
        repeats,
    )
    total = [seconds * 1e3 for seconds, _ in found["graph"]]
    bare = [seconds * 1e3 for seconds, _ in found["bare"]]
    edges = len(FixedTopology(topology, agents).most_likely()[0].edges)
    return Cost(
        topology,
        agents,
        in_flight,
        calls,
        edges,
        total_ms=total,
        call_ms=[ms / calls for ms in total],
        edge_ms=[ms / (edges * in_flight) for ms in total],
        bare_call_ms=[ms / calls for ms in bare],
        ratio=ratios(total, bare),
    )


def _graph(llm: CostlessLLM, topology: str, agents: int, device: str) -> CacheGraph:
    roles = pick_agents(DOMAIN)
    people = [
        Agent(f"{role.role} {number}", role.description, role.instructions)
        for number, role in ((i, roles[i % len(roles)]) for i in range(agents))
    ]
    config = GraphConfig(latent_steps=1)
    fuser = ConcatFuser(*SHAPE).to(device)
    return CacheGraph(llm, word_tokenizer(), people, decision_maker(DOMAIN), FixedProvider(topology), fuser, config)


async def _bare(calls: int) -> int:
    await asyncio.gather(*(asyncio.create_task(asyncio.sleep(0)) for _ in range(calls)))
    return calls
