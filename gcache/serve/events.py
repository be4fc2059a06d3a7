"""What happens in a run, as JSON: who hands to whom, whose turn it is, what came of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gcache.agents.roles import Agent
from gcache.gnn.topology import DECISION, Topology
from gcache.graph.events import Event
from gcache.graph.result import Step
from gcache.llm.local import LocalLLM

#: Tokens that are read from each latent step.
READ = 5
#: Fields of a step, as they are told.
STEP = (
    "agent", "role", "round", "what", "started", "ended", "prefilled", "latent", "generated", "received", "note",
    "stored",
)  # fmt: skip


def agents_json(agents: Sequence[Agent]) -> list[dict[str, Any]]:
    """The agents by number, the decision maker last."""
    return [{"number": i, "role": role} for i, role in enumerate([*(a.role for a in agents), DECISION])]


def edges_json(topology: Topology) -> list[dict[str, Any]]:
    return [
        {
            "source": edge.source, "target": edge.target, "weight": edge.weight, "probability": edge.probability,
            "delay": edge.delay, "channel": edge.payload,
        }
        for edge in topology.edges
    ]  # fmt: skip


def probabilities_json(topology: Topology) -> list[dict[str, Any]]:
    """Of all edges that could have been; none for a fixed topology."""
    found = []
    for *key, probability in topology.probabilities:
        source, target, *delay = (int(part) for part in key)
        ends = {"source": source, "target": target, "delay": delay[0] if delay else 0}
        found.append({**ends, "probability": probability})
    return found


def edge_bytes_json(edge_bytes: Mapping[tuple[int, int], int]) -> list[dict[str, int]]:
    return [{"source": s, "target": t, "bytes": size} for (s, t), size in sorted(edge_bytes.items())]


def step_json(step: Step, reading: Sequence[Sequence[str]]) -> dict[str, Any]:
    return {**{name: getattr(step, name) for name in STEP}, "reading": [list(words) for words in reading]}


def event_json(event: Event, agents: Sequence[Agent], llm: LocalLLM | None) -> dict[str, Any]:
    """An event of a run that is no text.

    Args:
        llm: reads latent steps; in the thread of the run.
    """
    if event.topology is not None:
        return {"kind": "topology", "agents": agents_json(agents), "edges": edges_json(event.topology)}
    if event.step is not None:
        thought = llm is not None and event.states is not None and len(event.states)
        reading = llm.lens(event.states, READ) if thought and llm is not None and event.states is not None else []
        return {"kind": "step", **step_json(event.step, reading)}
    return {"kind": "turn", "round": event.round, "agent": event.agent}
