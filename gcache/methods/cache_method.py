"""A graph of agents that hand each other caches, as a method: gcache itself, and latent pipelines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gcache.graph.cache_graph import IN_FLIGHT, CacheGraph
from gcache.methods.method import Answer
from gcache.tasks.example import Example


@dataclass(frozen=True)
class CacheMethod:
    """Greedy answers on the graph's most likely topology.

    Args:
        in_flight: questions at once.
    """

    name: str
    graph: CacheGraph
    in_flight: int = IN_FLIGHT

    def answer(self, examples: Sequence[Example], on_answer: Callable[[], None] = lambda: None) -> list[Answer]:
        """See `Method`."""
        results = self.graph.run_all(examples, in_flight=self.in_flight, on_result=lambda *_: on_answer())
        return [
            Answer(
                r.example, r.answer, r.tokens, sum(r.edge_bytes.values()),
                tuple((r.agents[agent].role, text) for (_, agent), text in sorted(r.said.items())),
            )
            for r in results
        ]  # fmt: skip
