"""A graph of agents as a method: whatever they hand each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gcache.evaluation.documents import every, original
from gcache.evaluation.heard import warn_of_unheard
from gcache.evaluation.method import Answer
from gcache.evaluation.one_prompt import in_one_prompt
from gcache.graph.agent_graph import AgentGraph
from gcache.graph.result import MAX_CONCURRENT, RunResult
from gcache.tasks.example import Example


@dataclass(frozen=True)
class GraphMethod:
    """Greedy answers on the graph's most likely topology; with many agents, on its greedy one.

    Args:
        max_concurrent: questions at once.
        in_one: where notes that a question deals out stand in the one prompt, instead of one agent's each: the question
            "first" or "last"; "" where they are the agents'.
    """

    name: str
    graph: AgentGraph
    max_concurrent: int = MAX_CONCURRENT
    in_one: str = ""

    @property
    def agents_hold_notes(self) -> bool:
        """Whether the notes of a question are its agents."""
        return not self.in_one

    def answer(self, examples: Sequence[Example], on_answer: Callable[[], None] = lambda: None) -> list[Answer]:
        """See `Method`."""
        asked = [in_one_prompt(example, self.in_one) for example in examples] if self.in_one else examples
        results = self.graph.run_all(asked, max_concurrent=self.max_concurrent, on_result=lambda *_: on_answer())
        warn_of_unheard(self.name, self.graph, results)
        return [
            Answer(
                example,
                r.answer,
                r.tokens,
                sum(r.edge_bytes.values()),
                tuple((r.agents[agent].role, text) for (_, agent), text in sorted(r.said.items())),
                r.cut,
                r.texts,
                self._documents(example, r),
                r.stored,
            )
            for example, r in zip(examples, results, strict=True)
        ]

    def _documents(self, example: Example, result: RunResult) -> tuple[int, ...] | None:
        """Those that were heard, or stood in the prompt."""
        if self.in_one or not example.notes:
            return every(example)
        return original(example, {agent for _, agent in result.topology.heard_nodes(self.graph.config.num_rounds)})
