"""Several methods on the same questions: how often each is right, and what it costs.

accuracy     right answers of all questions, with its Wilson interval
difference   to the first method, paired over questions, with an interval that heeds the pairs
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain
from typing import Any

from tqdm import tqdm

from gcache.errors import ConfigError
from gcache.evaluation import tables
from gcache.evaluation.documents import needed, set_f1
from gcache.evaluation.intervals import paired_difference, wilson
from gcache.evaluation.method import Answer, Method
from gcache.tasks.example import Example, Grade, Task, f1s_of, grade_text


@dataclass(frozen=True)
class Compared:
    """One method's row.

    Attributes:
        accuracy, low, high: right answers per question and its 95 % interval; a text that states
            no answer is not right.
        difference, difference_low, difference_high: of accuracies, to the first method's, paired.
        unparsed: texts that have no answer.
        unstated: texts whose answer is only the number that stands last, see `gcache.tasks.grading`; not right, unless
            the task's option accepts it.
        cut: texts that a length limit cut off, those of agents included; texts: how many there are.
        generated, prefilled, latent: tokens per question; stored: those whose caches a store keeps, which are read once
            for all questions and are not among the prefilled.
        seconds: in all; of texts that were kept (`gcache.llm.kept_texts`), those that writing them took.
        cache_bytes: that went over edges, per question.
        answers: (question, outcome, what was stated, text) each.
        f1s: of each answer, where the task grades by overlap; else ().
        documents: of each question, the numbers of its notes that had a way into the answer; () where there are none.
        document_f1s: F1 of these beside the documents that the data says are needed; () where it says nothing.
    """

    name: str
    n: int
    accuracy: float
    low: float
    high: float
    difference: float
    difference_low: float
    difference_high: float
    unparsed: int
    generated: float
    prefilled: float
    latent: float
    seconds: float
    cache_bytes: float
    answers: tuple[tuple[str, str, str | None, str], ...]
    unstated: int = 0
    cut: int = 0
    texts: int = 0
    f1s: tuple[float, ...] = ()
    documents: tuple[tuple[int, ...], ...] = ()
    document_f1s: tuple[float, ...] = ()
    stored: float = 0.0

    @property
    def cut_share(self) -> float:
        """Of its texts."""
        return self.cut / max(self.texts, 1)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def compare(
    methods: Sequence[Method],
    task: Task,
    examples: Sequence[Example],
    progress: bool = True,
    on_rows: Callable[[Sequence[Compared]], None] | None = None,
    kept_seconds: Callable[[], float] = lambda: 0.0,
) -> list[Compared]:
    """Every method on every question, one method after another.

    Args:
        on_rows: called with the rows so far after each method, so that a long comparison that is stopped has
            what was measured.
        kept_seconds: that texts took which were kept, and are not written again; of all so far.

    Raises:
        ConfigError: no question, no method, or a method twice.
    """
    if not examples:
        raise ConfigError("there is no question to compare on; raise the limit")
    names = [method.name for method in methods]
    if not names or len(set(names)) != len(names):
        raise ConfigError(f"methods to compare must be one or more, each once, got {', '.join(names) or 'none'}")
    rows: list[Compared] = []
    first: list[bool] = []
    for method in methods:
        before = kept_seconds()
        row, right = _measured(method, task, examples, first, progress)
        row = replace(row, seconds=row.seconds + kept_seconds() - before)
        first = first or right
        rows.append(row)
        tables.warn_of_cut(row.name, row.cut, row.texts)
        if on_rows:
            on_rows(rows)
    return rows


def _measured(
    method: Method, task: Task, examples: Sequence[Example], first: Sequence[bool], progress: bool
) -> tuple[Compared, list[bool]]:
    started = time.perf_counter()
    with tqdm(total=len(examples), desc=method.name, unit="question", disable=not progress) as bar:
        answers = method.answer(examples, bar.update)
    seconds, n = time.perf_counter() - started, len(examples)
    grades: list[Grade] = [grade_text(task, a.text, e, a.cut) for a, e in zip(answers, examples, strict=True)]
    right = [grade.outcome == "right" for grade in grades]
    low, high = wilson(sum(right), n)
    difference, difference_low, difference_high = paired_difference(first or right, right)

    texts = [answer.cuts or (answer.cut,) for answer in answers]

    def mean(kind: str) -> float:
        return sum(answer.tokens[kind] for answer in answers) / n

    row = Compared(
        method.name, n, sum(right) / n, low, high, difference, difference_low, difference_high,
        sum(grade.outcome == "unparsed" for grade in grades), mean("generated"), mean("prefilled"), mean("latent"),
        seconds, sum(answer.cache_bytes for answer in answers) / n,
        tuple((e.id, g.outcome, g.answer, a.text) for e, g, a in zip(examples, grades, answers, strict=True)),
        sum(grade.unstated for grade in grades), sum(sum(cuts) for cuts in texts), sum(map(len, texts)),
        f1s_of(grades), *_documents(answers),
        sum(answer.stored for answer in answers) / n,
    )  # fmt: skip
    return row, right


def _documents(answers: Sequence[Answer]) -> tuple[tuple[tuple[int, ...], ...], tuple[float, ...]]:
    """Which documents each had, and the F1 of these; () where that is not known of all."""
    had = tuple(answer.documents for answer in answers if answer.documents is not None)
    if len(had) < len(answers):
        return (), ()
    wanted = [needed(answer.example) for answer in answers]
    return had, tuple(map(set_f1, had, wanted)) if all(wanted) else ()


def markdown(rows: Sequence[Compared]) -> str:
    """The rows as a Markdown table."""
    head = [
        "method", "accuracy", "95 % interval", "difference to the first", "95 % interval", "unparsed", "unstated",
        "cut", "generated", "prefilled", "latent", "cache, MiB", "seconds",
    ]  # fmt: skip
    cells = [_cells(row, first=number == 0) for number, row in enumerate(rows)]
    more: list[list[list[str]]] = []
    if any(row.stored for row in rows):
        more.append([["stored"], *([f"{row.stored:.1f}"] for row in rows)])
    if all(row.documents for row in rows):
        more.append([["documents"], *([f"{sum(map(len, row.documents)) / row.n:.2f}"] for row in rows)])
    if all(row.document_f1s for row in rows):
        scores = [row.document_f1s for row in rows]
        more.append(tables.score_columns("F1 of documents", scores, [scores[0]] * len(rows)))
    for line, *own in zip([head, *cells], *more, strict=True):
        line += chain(*own)
    f1s = [row.f1s for row in rows]
    return tables.with_f1(head, cells, f1s, [f1s[0]] * len(rows))


def _cells(row: Compared, first: bool) -> list[str]:
    """A line of the table; the first row differs from nothing."""
    difference = ["", ""] if first else tables.difference(row.difference, row.difference_low, row.difference_high)
    return [
        row.name, f"{row.accuracy:.3f}", f"{row.low:.3f} to {row.high:.3f}", *difference, str(row.unparsed),
        str(row.unstated), f"{row.cut_share:.3f}", f"{row.generated:.1f}", f"{row.prefilled:.1f}", f"{row.latent:.1f}",
        f"{row.cache_bytes / 2**20:.2f}", f"{row.seconds:.0f}",
    ]  # fmt: skip
