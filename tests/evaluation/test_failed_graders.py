"""A grader that fails costs its own question: it is never graded, and ends the run only where that was asked for."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from toy import QUESTIONS, ToyTask, toy_built

from gcache.errors import GradingError, QuestionError
from gcache.evaluation.evaluate import evaluate, evaluate_text
from gcache.tasks import sandbox
from gcache.tasks.code import HumanEval
from gcache.tasks.example import Example, Grade
from gcache.training.config import TrainConfig
from gcache.training.report import Report
from gcache.training.trainer import Reinforce

if TYPE_CHECKING:
    from gcache.build import Built
    from gcache.llm.local import LocalLLM

N = len(QUESTIONS)


@dataclass(frozen=True)
class Failing(ToyTask):
    """Whose grader fails for questions with a word in them."""

    word: str = "blue"

    def grade(self, text: str, example: Example) -> Grade:
        if self.word in example.question:
            raise GradingError("the grader is down")
        return super().grade(text, example)


@pytest.fixture
def made(tiny_llm: LocalLLM, tiny_tokenizer: Any) -> Built:
    return toy_built(tiny_llm, tiny_tokenizer)


def test_an_evaluation(made: Built) -> None:
    assert sum("blue" in question for question in QUESTIONS) == 1
    task = Failing()
    for measure in (evaluate, evaluate_text):
        whole = measure(made.graph, ToyTask(), task.test(), "row", progress=False)
        found = measure(made.graph, task, task.test(), "row", progress=False, on_error="skip")
        assert (found.n, found.failed, whole.n) == (N - 1, 1, N)
        kept = tuple(
            row for row, example in zip(whole.rows, task.test(), strict=True) if "blue" not in example.question
        )
        assert found.rows == kept
        with pytest.raises(GradingError, match="the grader is down"):
            measure(made.graph, task, task.test(), "row", progress=False)
        with pytest.raises(GradingError, match="the grader is down"):
            measure(made.graph, Failing(word=""), task.test(), "row", progress=False, on_error="skip")


def test_training_and_its_report(made: Built, tmp_path: Path) -> None:
    config = {"iterations": 1, "batch_size": N, "rollouts": 2}
    trained = Reinforce(made, Failing(), TrainConfig(**config, on_error="skip"), tmp_path / "skip")
    (metrics,) = trained.train(progress=False)
    assert (metrics["failed"], metrics["rollouts"]) == (1, 2 * (N - 1))
    report = Report(made, Failing(), Failing().test(), progress=False, on_error="skip")
    report.before()
    report.after()
    assert {(row.n, row.failed) for row in report.rows} == {(N - 1, 1)} and len(report.rows) >= 4
    with pytest.raises(GradingError, match="the grader is down"):
        Reinforce(made, Failing(), TrainConfig(**config), tmp_path / "stop").train(progress=False)
    nothing = Reinforce(made, Failing(word=""), TrainConfig(**config, on_error="skip"), tmp_path / "nothing")
    with pytest.raises(QuestionError, match=f"failed for good for all {N} questions"):
        nothing.train(progress=False)


def test_a_sandbox_that_cannot_begin_is_such_a_failure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refused(*_: Any) -> Any:
        raise OSError(errno.EAGAIN, "no process is left")

    monkeypatch.setattr(sandbox, "_tried", refused)
    monkeypatch.setattr(sandbox.time, "sleep", lambda _: None)
    row = '{"task_id": "one", "prompt": "def f():\\n", "entry_point": "f", "test": "def check(f): assert f()"}\n'
    data = tmp_path / "programs.jsonl"
    data.write_text(row)
    task = HumanEval(data, whole_file=True)
    with pytest.raises(GradingError, match="no process can be started"):
        task.grade("```python\ndef f():\n    return 1\n```", task.test()[0])
