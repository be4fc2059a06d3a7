"""The rollouts of a step: which questions are asked, their runs all at once, and what these were worth.

Every draw is a function of (seed, step, question, rollout).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from gcache.errors import BudgetSpent, GradingError, QuestionError
from gcache.graph.agent_graph import AgentGraph
from gcache.graph.loops import run_to_end
from gcache.graph.memo import RolloutMemo
from gcache.graph.result import RunResult
from gcache.graph.writers.registry import api_tokens
from gcache.runtime.streams import derive, stream
from gcache.tasks.example import Example, Grade, Task, grade_text
from gcache.training.config import TrainConfig
from gcache.training.early_stop import is_worth_asking
from gcache.training.objective import Values

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Graded:
    """A step's rollouts.

    Attributes:
        groups: of each question; those whose API or grader failed for good are left out, and counted in `failed`.
        utilities, net: (Q, K), as graded, and less the prices. Of a run that chose among answers, the mean of what they
            are worth, by their probabilities.
        values: what each of these answers is worth; None where a text was written.
        likeliest: the same questions on the most likely topology, greedily, where that was asked; see
            `gcache.training.early_stop`.
        right: how many of these are right.
        seconds: that asking these took.
    """

    groups: list[list[RunResult]]
    grades: list[list[Grade]]
    utilities: torch.Tensor
    net: torch.Tensor
    failed: int
    values: list[list[Values]]
    likeliest: tuple[RunResult, ...] = ()
    right: int = 0
    seconds: float = 0.0


class Rollouts:
    """Runs and grades what a step learns from.

    Args:
        graph: answers the questions.
        task: grades the answers.
    """

    def __init__(self, graph: AgentGraph, task: Task, config: TrainConfig) -> None:
        self.graph, self.task, self.config = graph, task, config

    def draw(self, questions: Sequence[Example], step: int) -> list[Example]:
        """The step's questions: passes over all of them, shuffled anew each time."""
        chosen: list[Example] = []
        for index in range(step * self.config.batch_size, (step + 1) * self.config.batch_size):
            sweep, place = divmod(index, len(questions))
            order = stream("pass over the questions", self.config.seed, sweep).permutation(len(questions))
            chosen.append(questions[int(order[place])])
        return chosen

    def run(self, step: int, questions: Sequence[Example]) -> Graded:
        """The rollouts of a step's questions, all at once, and what they were worth.

        Raises:
            QuestionError: all of them failed for good.
        """
        memos = [RolloutMemo() for _ in questions]
        asked = run_to_end(
            lambda: self._run(step, questions, memos), "training", "await asyncio.to_thread(train, ...)"
        )
        graded = [(group, found) for group in asked if group and (found := self._grades(step, group))]
        groups, grades, values = [g for g, _ in graded], [found[0] for _, found in graded], [f[1] for _, f in graded]
        failed = len(asked) - len(groups)
        if not groups:
            raise QuestionError(
                f"something failed for good for all {failed} questions of step {step}; see the messages above"
            )
        utilities = torch.tensor([
            [_expected(result, grade, worth) for result, grade, worth in zip(*rows, strict=True)]
            for rows in zip(groups, grades, values, strict=True)
        ])  # fmt: skip
        costs = torch.tensor([[self.cost(result, step) for result in group] for group in groups])
        of_step = Graded(groups, grades, utilities, utilities - costs, failed, values)
        if self.config.stop_when_right is None or not is_worth_asking(float(utilities.mean())):
            return of_step
        return self._with_likeliest(of_step, questions, memos)

    def _with_likeliest(
        self, found: Graded, questions: Sequence[Example], memos: Sequence[RolloutMemo]
    ) -> Graded:
        """With the questions on the most likely topology; what the rollouts have thought is not thought again."""
        started = time.perf_counter()

        async def together() -> list[RunResult]:
            asked = (
                self.graph.arun(
                    example, memo=memo, keep_caches=False, lenient=self.config.on_error == "skip",
                    words_seed=self.config.words_seed, alone_seed=self._alone_seed,
                )
                for example, memo in zip(questions, memos, strict=True)
            )
            return list(await asyncio.gather(*asked))

        try:
            results = run_to_end(together, "training", "await asyncio.to_thread(train, ...)")
            grades = [grade_text(self.task, r.answer, r.example, r.cut) for r in results]
        except BudgetSpent:
            raise
        except QuestionError as error:  # a step more is cheaper than a run that ends here
            logger.warning("the most likely topology has no answer to a question: %s", error)
            return found
        right = sum(grade.outcome == "right" for grade in grades)
        return replace(found, likeliest=tuple(results), right=right, seconds=time.perf_counter() - started)

    def _grades(self, step: int, group: Sequence[RunResult]) -> tuple[list[Grade], list[Values]] | None:
        """The grades of a question's rollouts, and what their answers are worth; None where what grades them failed and
        the question is left out."""
        try:
            grades = [grade_text(self.task, r.answer, r.example, r.cut) for r in group]
            return grades, [self._values(result) for result in group]
        except GradingError as error:
            if self.config.on_error == "stop":
                raise
            logger.warning("question %s is left out of step %d: %s", group[0].example.id, step, error)
            return None

    def _values(self, result: RunResult) -> Values:
        """What each answer is worth that a run could have chosen."""
        if result.ballot is None:
            return None
        graded = (grade_text(self.task, option.text, result.example, option.cut) for option in result.ballot.options)
        return tuple(grade.utility for grade in graded)

    def cost(self, result: RunResult, step: int) -> float:
        """What a rollout's utility is less by, at a step's prices."""
        # not the trace's counts, in which what another rollout thought already is free
        local = sum(len(s.generation.tokens) for s in result.spoken if s.generation)
        generated = local + api_tokens(result.spoken)[1] + result.thinking
        carried = sum(result.edge_bytes.values()) / 2**20
        return self.config.scheduled("token_price", step) * generated / 1000 + self.config.mib_price * carried

    @property
    def _alone_seed(self) -> int | None:
        """Where agents reason, the decision maker's text too is the same in all rollouts in which it hears nobody."""
        return self.config.words_seed if self.graph.may_reason else None

    async def _run(
        self, step: int, questions: Sequence[Example], memos: Sequence[RolloutMemo]
    ) -> list[list[RunResult]]:
        """All of a batch's rollouts at once; those of a question share equal thoughts.

        With `on_error="skip"`, a question of which a rollout failed for good has none.
        """
        graph, config = self.graph, self.config
        temperature = config.scheduled("temperature", step)

        async def of_one(number: int, example: Example) -> list[RunResult]:
            memo = memos[number]
            seeds = [derive("rollout", config.seed, step, number, k) for k in range(config.rollouts)]
            runs = [
                graph.arun(
                    example, sample=True, temperature=temperature, seed=seed, memo=memo,
                    lenient=config.on_error == "skip", words_seed=config.words_seed,
                    alone_seed=self._alone_seed,
                )
                for seed in seeds
            ]
            try:
                return list(await asyncio.gather(*runs))
            except BudgetSpent:
                raise
            except QuestionError as error:
                if config.on_error == "stop":
                    raise
                logger.warning("question %s is left out of step %d: %s", example.id, step, error)
                return []

        return list(await asyncio.gather(*(of_one(q, example) for q, example in enumerate(questions))))


def _expected(result: RunResult, grade: Grade, values: Values) -> float:
    """What a run is worth: as graded, or in the mean over the answers that it could have chosen."""
    if values is None or result.ballot is None:
        return grade.utility
    return float(sum(chance * value for chance, value in zip(result.ballot.probabilities, values, strict=True)))
