"""Accuracy of a graph on questions, with its interval and what it cost."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from tqdm import tqdm

from gcache.agents.thinking import split_thinking
from gcache.errors import BudgetSpent, ConfigError, GradingError, QuestionError
from gcache.evaluation import tables
from gcache.evaluation.heard import warn_of_unheard
from gcache.evaluation.intervals import wilson
from gcache.evaluation.one_prompt import answer_all_in_one_prompt
from gcache.evaluation.read_questions import ReadQuestions
from gcache.gnn.greedy import warn_where_greedy
from gcache.gnn.topology import EdgeKey, Topology
from gcache.graph.agent_graph import AgentGraph, Ask
from gcache.graph.cache_graph import CacheGraph
from gcache.graph.result import MAX_CONCURRENT, TOKENS, RunResult
from gcache.tasks.example import Example, Grade, Task, f1s_of, grade_text

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Row:
    """One graded question; `cut` where a length limit cut its text off; `f1` where the task grades by overlap."""

    id: str
    outcome: str
    answer: str | None
    text: str
    edges: tuple[EdgeKey, ...] = ()
    cut: bool = False
    f1: float | None = None


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found.

    Attributes:
        accuracy: right answers per answered question, unparsed and unstated ones counted as not right.
        low, high: its 95 % interval (Wilson).
        n: answered questions.
        unparsed: of these, those whose text had no answer.
        unstated: those whose answer is only the number that stands last, see `gcache.tasks.grading`.
        cut: texts that a length limit cut off, agents' and answers; texts: of so many.
        failed: questions that failed for good, by their API, their grader or their length; they are not graded.
        stopped: why further questions were not asked, "" where all were.
        edges: mean number of edges per question.
        edges_kept: that, as a share of the edges of the full graph.
        tokens: computed per question, by kind.
        seconds: in all.
    """

    name: str
    accuracy: float
    low: float
    high: float
    n: int
    unparsed: int
    edges: float
    edges_kept: float
    tokens: dict[str, float]
    seconds: float
    rows: tuple[Row, ...]
    failed: int = 0
    stopped: str = ""
    unstated: int = 0
    cut: int = 0
    texts: int = 0

    @property
    def cut_share(self) -> float:
        """Of its texts."""
        return self.cut / max(self.texts, 1)

    @property
    def f1s(self) -> tuple[float, ...]:
        """Of each question; () where answers are right or not."""
        return f1s_of(self.rows)

    def to_json(self, rows: bool = True) -> dict[str, Any]:
        values = asdict(self)
        if not rows:
            del values["rows"]
        return values


def evaluate(
    graph: AgentGraph,
    task: Task,
    examples: Sequence[Example],
    name: str = "graph",
    topology: Callable[[Example], Topology] | None = None,
    max_concurrent: int = MAX_CONCURRENT,
    progress: bool = True,
    on_error: str = "stop",
    ask: Ask | None = None,
    read: ReadQuestions | None = None,
) -> Evaluation:
    """Greedy answers on the most likely topology, with many agents the greedy one, or on `topology(example)`.

    `ask` runs a question, where it is not the graph itself that does. Questions in `read` are not read again, and
    their tokens not counted.

    A run that fails raises, or, with `on_error="skip"`, is left out if it was the API, the grader or the
    context that failed for good; a failure is never graded. Once the API's budget is spent, what was answered counts.

    Raises:
        QuestionError: no question was answered and graded at all.
    """
    _require_questions(examples)
    if topology is None and ask is None:
        warn_where_greedy(graph, examples)
    if read is not None and ask is None:
        ask = _on_read_questions(graph, read, lenient=on_error == "skip")
    started = time.perf_counter()
    failures: list[QuestionError] = []

    def failed(number: int, error: QuestionError) -> None:
        if on_error == "stop" and not isinstance(error, BudgetSpent):
            raise error
        logger.warning("question %s has no answer: %s", examples[number].id, error)
        failures.append(error)

    def grade(result: RunResult) -> Grade | None:
        return _grade(task, result.answer, result.example, result.cut, on_error, failures)

    with tqdm(total=len(examples), desc=name, unit="question", disable=not progress) as bar:
        results = graph.run_all(
            examples, max_concurrent=max_concurrent, topology=topology, on_result=lambda *_: bar.update(),
            on_failure=failed, lenient=on_error == "skip", ask=ask,
        )  # fmt: skip
    if not results:
        raise failures[-1]
    spent = [str(error) for error in failures if isinstance(error, BudgetSpent)]
    grades = [grade(result) for result in results]
    graded = [(r.example, r.answer, g) for r, g in zip(results, grades, strict=True) if g is not None]
    results = [result for result, g in zip(results, grades, strict=True) if g is not None]
    if not results:
        raise failures[-1]
    if topology is None:
        warn_of_unheard(name, graph, results)
    edges = [tuple(sorted(r.topology.pairs)) for r in results]
    most = [_most_edges(r.topology) for r in results]
    tokens = {kind: _mean([r.tokens[kind] for r in results]) for kind in TOKENS}
    cut = [r.cut for r in results]
    texts = [each for r in results for each in r.texts]
    found = _evaluation(name, graded, edges, most, tokens, time.perf_counter() - started, cut, texts)
    return replace(found, failed=len(failures) - len(spent), stopped=spent[-1] if spent else "")


def _on_read_questions(graph: AgentGraph, read: ReadQuestions, lenient: bool) -> Ask:
    """Runs a question behind what was read of it."""

    async def ask(example: Example, topology: Topology | None) -> RunResult:
        memo = read.memos.get(example.question)
        return await graph.arun(example, topology=topology, keep_caches=False, lenient=lenient, memo=memo)

    return ask


def evaluate_text(
    graph: CacheGraph,
    task: Task,
    examples: Sequence[Example],
    name: str,
    max_concurrent: int = MAX_CONCURRENT,
    progress: bool = True,
    topology: Callable[[Example], Topology] | None = None,
    on_error: str = "stop",
    read: ReadQuestions | None = None,
) -> Evaluation:
    """The baseline of `gcache.evaluation.one_prompt` on the same questions: the words of all agents, or
    of those that are heard on `topology(example)`. `on_error`, `read`, and what it raises: see `evaluate`."""
    _require_questions(examples)
    started = time.perf_counter()
    graded: list[tuple[Example, str, Grade]] = []
    prefilled: list[float] = []
    heard = (lambda e: topology(e).heard(graph.config.num_rounds)) if topology else None
    generated: list[float] = []
    cut: list[bool] = []
    failures: list[QuestionError] = []
    with tqdm(total=len(examples), desc=name, unit="question", disable=not progress) as bar:
        for first in range(0, len(examples), max_concurrent):
            chunk = examples[first : first + max_concurrent]
            answers = answer_all_in_one_prompt(graph, chunk, heard, read)
            for example, answer in zip(chunk, answers, strict=True):
                if isinstance(answer, QuestionError):
                    _leave_out(example, answer, on_error, failures)
                    continue
                generation, prompt = answer
                whole = generation.finished
                text = split_thinking(generation.text, graph.layout.thinks).answer
                found = _grade(task, text, example, not whole, on_error, failures)
                if found is None:
                    continue
                graded.append((example, text, found))
                cut.append(not whole)
                prefilled.append(prompt)
                generated.append(len(generation.tokens))
            bar.update(len(chunk))
    if not graded:
        raise failures[-1]
    tokens = {**dict.fromkeys(TOKENS, 0.0), "prefilled": _mean(prefilled), "generated": _mean(generated)}
    none: list[tuple[tuple[int, int], ...]] = [()] * len(graded)
    made = _evaluation(name, graded, none, [1.0] * len(graded), tokens, time.perf_counter() - started, cut, cut)
    return replace(made, failed=len(failures))


def _grade(
    task: Task, text: str, example: Example, cut: bool, on_error: str, failures: list[QuestionError]
) -> Grade | None:
    """The text's grade; None, and a failure more, where what grades it failed and that does not end the run."""
    try:
        return grade_text(task, text, example, cut)
    except GradingError as error:
        _leave_out(example, error, on_error, failures)
        return None


def _leave_out(example: Example, error: QuestionError, on_error: str, failures: list[QuestionError]) -> None:
    """Count a failure, or raise it where failures end the run."""
    if on_error == "stop":
        raise error
    logger.warning("question %s is not graded: %s", example.id, error)
    failures.append(error)


def _most_edges(topology: Topology) -> float:
    """How many the topology could have, those from the round before included where they may be drawn."""
    n = topology.n_agents
    temporal = any(len(row) > 3 for row in topology.probabilities)
    return n * (n + 1) / 2 + (n * (n - 1) if temporal else 0)


def _evaluation(
    name: str,
    graded: Sequence[tuple[Example, str, Grade]],
    edges: Sequence[tuple[EdgeKey, ...]],
    most: Sequence[float],
    tokens: dict[str, float],
    seconds: float,
    cut: Sequence[bool],
    texts: Sequence[bool],
) -> Evaluation:
    """`cut`: of each answer; `texts`: of each text that was written for one."""
    tables.warn_of_cut(name, sum(texts), len(texts))
    right = sum(grade.outcome == "right" for _, _, grade in graded)
    low, high = wilson(right, len(graded))
    rows = tuple(
        Row(example.id, grade.outcome, grade.answer, text, kept, was_cut, grade.f1)
        for (example, text, grade), kept, was_cut in zip(graded, edges, cut, strict=True)
    )
    return Evaluation(
        name,
        right / len(graded),
        low,
        high,
        len(graded),
        sum(grade.outcome == "unparsed" for _, _, grade in graded),
        _mean([len(kept) for kept in edges]),
        _mean([len(kept) / limit for kept, limit in zip(edges, most, strict=True)]),
        tokens,
        seconds,
        rows,
        unstated=sum(grade.unstated for _, _, grade in graded),
        cut=sum(texts),
        texts=len(texts),
    )


def _require_questions(examples: Sequence[Example]) -> None:
    if not examples:
        raise ConfigError("there is no question to evaluate on; raise the limit")


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
