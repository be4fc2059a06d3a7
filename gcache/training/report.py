"""The report of a training run: what the learned graph is worth beside what it could have been."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from gcache.build import Built
from gcache.errors import BudgetSpent
from gcache.evaluation import tables
from gcache.evaluation.evaluate import Evaluation, evaluate, evaluate_text
from gcache.evaluation.read_questions import ReadQuestions, can_be_shared, question_tokens, read_questions
from gcache.files import write_json, write_text
from gcache.gnn.fixed import FixedTopology
from gcache.gnn.summary import (
    LearnedConsulting,
    LearnedEdge,
    LearnedSteps,
    learned_consulting,
    learned_edges,
    learned_steps,
)
from gcache.gnn.topology import Topology
from gcache.graph.cache_graph import CacheGraph
from gcache.runtime.streams import stream
from gcache.tasks.example import Example, Task
from gcache.training.checkpoint import learned
from gcache.training.config import COMPARED
from gcache.training.costs import PhaseCost
from gcache.training.kept_rows import PART, KeptRows, Measure, joined

#: How the rows of fixed topologies are called, where their own name says too little.
LABELS = {"none": "no edges", "star": "all to the decision maker", "full": "full graph"}
#: What the phase is called in which the questions are read that the rows before training share.
READING = "questions, read once for the rows before training"

#: The topology of each question.
Chosen = Callable[[Example], Topology]


class Report:
    """Evaluations of one graph before and after training, on the same questions.

    Call `before` on the untrained graph, train, then call `after`. The rows with fixed topologies
    are measured before training, with the fuser untrained. They share their questions, which are read once
    (`gcache.evaluation.read_questions`).

    Args:
        kept: takes up what an earlier run measured, and keeps what is measured now; None to keep nothing.
        on_error: see `evaluate`.
    """

    def __init__(
        self,
        built: Built,
        task: Task,
        examples: Sequence[Example],
        topologies: Sequence[str] = COMPARED,
        progress: bool = True,
        kept: KeptRows | None = None,
        on_error: str = "stop",
    ) -> None:
        self.on_error = on_error
        self.built, self.task, self.examples, self.progress = built, task, examples, progress
        self.kept = kept or KeptRows(None, {})
        self.topologies = tuple(topologies)
        self.rows: list[Evaluation] = []
        #: Whether the rows before training share their questions; known once these rows are.
        self._shares = False
        self._read: tuple[Sequence[Example], ReadQuestions] | None = None
        self._seconds_reading = 0.0
        #: What was learned, on its questions; known once it is written.
        self.edges: list[LearnedEdge] = []

    def before(self) -> None:
        """No edges, fixed graphs, all words in one prompt, and the untrained policy."""
        rows = [self._graph_row(LABELS.get(name, name), self._fixed(name)) for name in self.topologies]
        graph, task = self.built.graph, self.task
        # an API's rows would be compared with another model's text
        if isinstance(graph, CacheGraph) and graph.mode == "local":
            label, on_error = "full text in one prompt", self.on_error

            def as_text(some: Sequence[Example]) -> Evaluation:
                return evaluate_text(
                    graph, task, some, label, progress=False, on_error=on_error, read=self._questions(some)
                )  # fmt: skip

            rows.append((label, as_text))
        if self.built.policy is not None:
            rows.append(self._graph_row("untrained policy (drawn)", self._untrained()))
        self._shares = bool(rows) and can_be_shared(graph)
        self._measure("before training", rows)
        self._read = None

    def after(self) -> None:
        """The trained graph."""
        label = "trained policy" if self.built.policy is not None else "trained fuser"
        self._measure(label, [self._graph_row(label, None)])

    @property
    def reading(self) -> PhaseCost | None:
        """What it took to read the questions that the rows before training share; None where they share none.

        The tokens are those of a report that nothing interrupted.
        """
        if not self._shares:
            return None
        parts = [self.examples[first : first + PART] for first in range(0, len(self.examples), PART)]
        tokens = sum(question_tokens(self.built.graph, some) for some in parts)
        return PhaseCost(READING, prefilled=tokens, seconds=self._seconds_reading)

    def _fixed(self, name: str) -> Chosen:
        def choose(example: Example) -> Topology:
            agents = len(example.notes) or len(self.built.graph.agents)
            return FixedTopology(name, agents, self.built.spec.seed).most_likely()[0]

        return choose

    def _untrained(self) -> Chosen:
        """The untrained policy draws its topologies: its most likely one, with every edge under
        one half, would only repeat the row without edges."""
        drawn: dict[str, Topology] = {}
        with torch.no_grad():
            for number, example in enumerate(self.examples):
                drawing = stream("untrained topology", self.built.spec.seed, number)
                drawn[example.id] = self.built.graph.distribution(example).sample(drawing)[0]
        return lambda example: drawn[example.id]

    def _graph_row(self, label: str, topology: Chosen | None) -> tuple[str, Measure]:
        """A row of the graph on these topologies; None for those it has learned, which no other row is measured with,
        so it reads its questions itself."""
        graph, task, on_error = self.built.graph, self.task, self.on_error

        def measure(some: Sequence[Example]) -> Evaluation:
            read = None if topology is None else self._questions(some)
            return evaluate(graph, task, some, label, topology, progress=False, on_error=on_error, read=read)

        return label, measure

    def _questions(self, some: Sequence[Example]) -> ReadQuestions | None:
        """A part's questions, read once for all rows; only one part's caches are held."""
        if not self._shares:
            return None
        if self._read is None or self._read[0] is not some:
            self._read = None  # before the next part takes room
            started = time.perf_counter()
            self._read = (some, read_questions(self.built.graph, some))
            self._seconds_reading += time.perf_counter() - started
        return self._read[1]

    def _measure(self, what: str, rows: Sequence[tuple[str, Measure]]) -> None:
        """Measure rows in parts, of which some may be known; all rows of a part before the next part. A row that a
        spent budget ends has fewer questions.

        Args:
            what: is measured, for the progress bar.
        """
        found: dict[str, list[Evaluation]] = {label: [] for label, _ in rows}
        state = learned(self.built)
        total = len(rows) * len(self.examples)
        with tqdm(total=total, desc=what, unit="question", disable=not self.progress) as bar:
            for first in range(0, max(1, len(self.examples)), PART):
                some = self.examples[first : first + PART]
                for label, measure in rows:
                    self._part(found[label], label, first, some, state, measure)
                    bar.update(len(some))
        self.rows += [joined(label, parts) for label, parts in found.items()]

    def _part(
        self, parts: list[Evaluation], label: str, first: int, some: Sequence[Example], state: str, measure: Measure
    ) -> None:
        """One more part of a row, unless a spent budget has ended it."""
        if parts and parts[-1].stopped:
            return
        try:
            parts.append(self.kept.part(self.task, label, first, some, state, measure))
        except BudgetSpent as error:
            if not parts:
                raise
            parts[-1] = replace(parts[-1], stopped=str(error))

    def write(self, out: Path, settings: dict[str, Any]) -> str:
        """Write report.json, which begins with `settings`, and report.md to `out`; returns the table as text."""
        self.edges = edges = learned_edges(self.built.graph, self.examples)
        steps = learned_steps(self.built.graph, self.examples)
        parts = [markdown(self.rows), *([edges_markdown(edges)] if edges else [])]
        parts += [steps_markdown(steps)] if steps else []
        consulting = learned_consulting(self.built.graph, self.examples)
        parts += [consulting_markdown(consulting)] if consulting else []
        table = "\n".join(parts)
        rows = [row.to_json() for row in self.rows]
        learned: dict[str, Any] = {
            "learned_edges": [asdict(e) for e in edges],
            "learned_steps": [asdict(s) for s in steps],
        }
        if consulting:
            learned["learned_consulting"] = asdict(consulting)
        write_json(out / "report.json", {**settings, "rows": rows, **learned})
        write_text(out / "report.md", table)
        return table


def markdown(rows: Sequence[Evaluation]) -> str:
    """The evaluations as a Markdown table."""
    head = [
        "condition", "accuracy", "95 % interval", "n", "unparsed", "unstated", "cut", "edges per question",
        "of full graph", "seconds",
    ]  # fmt: skip
    cells = [
        [
            r.name, f"{r.accuracy:.3f}", f"{r.low:.3f} to {r.high:.3f}", str(r.n), str(r.unparsed), str(r.unstated),
            f"{r.cut_share:.3f}", f"{r.edges:.2f}", f"{r.edges_kept:.0%}", f"{r.seconds:.0f}",
        ]
        for r in rows
    ]  # fmt: skip
    return tables.with_f1(head, cells, [row.f1s for row in rows])


def edges_markdown(edges: Sequence[LearnedEdge]) -> str:
    """The learned edges as a Markdown table, with the mean probability of each channel where that is a choice."""
    channels = list(edges[0].channels) if edges else []
    kept = f"kept ({edges[0].topologies if edges else 'most likely'})"
    head = ["from", "to", "mean probability", "middle 90 %", kept, "pairs", *channels]
    cells = [
        [
            e.source, e.target, f"{e.probability:.3f}", f"{e.low:.3f} to {e.high:.3f}", f"{e.kept:.1%}", str(e.pairs),
            *_chances(e.channels),
        ]
        for e in edges
    ]  # fmt: skip
    return tables.markdown(head, cells)


def steps_markdown(steps: Sequence[LearnedSteps]) -> str:
    """The learned numbers of latent steps as a Markdown table."""
    head = ["agent", *(f"{count} steps" for count in steps[0].chances)]
    return tables.markdown(head, [[row.agent, *_chances(row.chances)] for row in steps])


def _chances(of: Mapping[Any, float]) -> list[str]:
    return [f"{chance:.3f}" for chance in of.values()]


def consulting_markdown(row: LearnedConsulting) -> str:
    """How likely the decision maker is to consult anybody, as a Markdown table."""
    head = ["the decision maker consults anybody", "middle 90 %"]
    return tables.markdown(head, [[f"{row.probability:.3f}", f"{row.low:.3f} to {row.high:.3f}"]])
