"""What a run took: sums over traces, over the passes with gradient, and over the report's rows."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from toy import ToyTask, lines, toy_built

from gcache.build import Built
from gcache.evaluation.evaluate import evaluate, evaluate_text
from gcache.evaluation.one_prompt import answer_all_in_one_prompt
from gcache.evaluation.read_questions import question_tokens, read_questions
from gcache.graph.result import TOKENS, RunResult
from gcache.graph.run_config import GraphConfig
from gcache.llm.local import LocalLLM
from gcache.llm.requests import GenerateRequest, Generation, LogProbRequest, ThinkRequest
from gcache.llm.scheduler import BatchingLLM
from gcache.training import costs, rollouts
from gcache.training.config import TrainConfig
from gcache.training.costs import GRADIENT, LIKELIEST, ROLLOUTS, PhaseCost, of_row, of_run, of_steps
from gcache.training.trainer import Reinforce

CONFIG = TrainConfig(
    iterations=3, batch_size=3, rollouts=3, lr=0.2, seed=3, fuser_gradient="decision", stop_when_right=3
)  # fmt: skip


@pytest.fixture
def llm(tiny_llama: Any, tiny_tokenizer: Any) -> LocalLLM:
    return LocalLLM(tiny_llama, tiny_tokenizer)


@pytest.fixture
def built(llm: LocalLLM, tiny_tokenizer: Any) -> Built:
    """With short texts."""
    return toy_built(llm, tiny_tokenizer, graph=GraphConfig(latent_steps=0, max_new_tokens=3))


@pytest.fixture
def mixed(monkeypatch: pytest.MonkeyPatch) -> ToyTask:
    """Some texts of the untrained tiny model are right, others are not; the most likely topology is always asked."""
    monkeypatch.setattr(rollouts, "is_worth_asking", lambda utility: True)
    return ToyTask()


def trained(built: Built, task: ToyTask, out: Path, config: TrainConfig = CONFIG) -> tuple[Reinforce, list[Any]]:
    """A trainer that has trained, and what its steps' rollouts left."""
    trainer = Reinforce(built, task, config, out)
    real, graded = trainer.rollouts.run, []

    def run(step: int, questions: Sequence[Any]) -> Any:
        graded.append(real(step, questions))
        return graded[-1]

    trainer.rollouts.run = run  # type: ignore[method-assign]
    trainer.train(progress=False)
    return trainer, graded


def over_traces(results: Sequence[RunResult]) -> dict[str, int]:
    return {kind: sum(getattr(step, kind) for result in results for step in result.trace) for kind in TOKENS}


def kinds(cost: PhaseCost) -> dict[str, int]:
    return {kind: getattr(cost, kind) for kind in TOKENS}


def test_steps_cost_what_their_traces_say(built: Built, mixed: ToyTask, tmp_path: Path) -> None:
    _, graded = trained(built, mixed, tmp_path)
    found = {cost.phase: cost for cost in of_steps(lines(tmp_path))}
    drawn = over_traces([result for step in graded for group in step.groups for result in group])
    assert kinds(found[ROLLOUTS]) == drawn and drawn["prefilled"] > 0 and drawn["generated"] > 0
    likeliest = over_traces([result for step in graded for result in step.likeliest])
    assert kinds(found[LIKELIEST]) == likeliest and likeliest["generated"] > 0, "it was never asked"
    assert found[ROLLOUTS].seconds > 0 and found[LIKELIEST].seconds > 0 and found[GRADIENT].seconds > 0


def test_the_model_computes_what_is_counted(
    built: Built, mixed: ToyTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against the requests that reach the model, so that no trace and no phase can be forgotten."""
    seen: Counter[str] = Counter()
    think, generate, log_prob = BatchingLLM.think, BatchingLLM.generate, LocalLLM.log_prob

    def thinking(front: BatchingLLM, request: ThinkRequest) -> Any:
        seen["prefilled"] += len(request.tokens)
        return think(front, request)

    async def generating(front: BatchingLLM, request: GenerateRequest) -> Generation:
        seen["prefilled"] += len(request.tokens)
        written = await generate(front, request)
        seen["generated"] += len(written.tokens)
        return written

    def scoring(llm: LocalLLM, requests: Sequence[LogProbRequest]) -> Any:
        seen["with_gradient"] += sum(len(r.tokens) + len(r.completion) for r in requests)
        return log_prob(llm, requests)

    monkeypatch.setattr(BatchingLLM, "think", thinking)
    monkeypatch.setattr(BatchingLLM, "generate", generating)
    monkeypatch.setattr(LocalLLM, "log_prob", scoring)
    trained(built, mixed, tmp_path)
    whole = costs.total(of_steps(lines(tmp_path)))
    assert seen["with_gradient"] == whole.with_gradient > 0
    assert (seen["prefilled"], seen["generated"]) == (whole.prefilled, whole.generated)


def test_the_exact_gradient_counts_what_agents_think_again(
    llm: LocalLLM, tiny_tokenizer: Any, mixed: ToyTask, tmp_path: Path
) -> None:
    full = replace(CONFIG, fuser_gradient="full", iterations=1)
    graph = GraphConfig(latent_steps=0, max_new_tokens=3)
    trained(toy_built(llm, tiny_tokenizer, graph=graph), mixed, tmp_path / "full", full)
    last = replace(full, fuser_gradient="decision")
    trained(toy_built(llm, tiny_tokenizer, graph=graph), mixed, tmp_path / "last", last)
    assert lines(tmp_path / "full")[0]["tokens_replayed"] > lines(tmp_path / "last")[0]["tokens_replayed"] > 0


def test_a_row_costs_what_its_questions_do(built: Built, mixed: ToyTask) -> None:
    graph, questions = built.graph, list(mixed.test())
    row = evaluate(graph, mixed, questions, "a row", progress=False)
    assert kinds(of_row(row)) == over_traces(graph.run_all(questions))
    text = evaluate_text(graph, mixed, questions, "as text", progress=False)
    written = answer_all_in_one_prompt(graph, questions)
    assert of_row(text).prefilled == sum(prompt for _, prompt in written) > 0
    assert of_row(text).generated == sum(len(generation.tokens) for generation, _ in written) > 0
    assert of_row(text).seconds == text.seconds > 0


def test_questions_that_were_read_are_not_counted_again(built: Built, mixed: ToyTask) -> None:
    graph, questions = built.graph, list(mixed.test())
    once = question_tokens(graph, questions)
    for measure in (partial(evaluate, graph), partial(evaluate_text, graph)):
        alone = measure(mixed, questions, name="a row", progress=False)
        behind = measure(mixed, questions, name="a row", progress=False, read=read_questions(graph, questions))
        assert of_row(alone).prefilled - of_row(behind).prefilled == once > 0
        assert [row.text for row in alone.rows] == [row.text for row in behind.rows]
        assert of_row(alone).generated == of_row(behind).generated


def test_the_phases_of_a_run_stand_in_its_order(built: Built, mixed: ToyTask, tmp_path: Path) -> None:
    row = evaluate(built.graph, mixed, list(mixed.test()), "before", progress=False)
    trained(built, mixed, tmp_path)
    found = of_run([row], lines(tmp_path), [replace(row, name="after")])
    assert [cost.phase for cost in found] == ["before", ROLLOUTS, LIKELIEST, GRADIENT, "after"]
    whole = costs.total(found)
    assert whole.tokens == sum(cost.tokens for cost in found)
    assert whole.seconds == pytest.approx(sum(cost.seconds for cost in found))
    json.dumps([cost.to_json() for cost in found])


def test_lines_of_a_version_that_did_not_count_still_add_up() -> None:
    old = {"tokens_prefilled": 5, "tokens_generated": 2, "seconds_rollouts": 1.5, "seconds_gradient": 0.5}
    (drawn, gradient) = of_run([], [old, old], [])
    assert (drawn.prefilled, drawn.generated, drawn.seconds) == (10, 4, 3.0)
    assert (gradient.phase, gradient.with_gradient, gradient.seconds) == (GRADIENT, 0, 1.0)


def test_the_table_has_shares_and_a_sum_and_no_empty_column() -> None:
    table = costs.markdown([PhaseCost("one", 1000, 0, 200, seconds=1.4), PhaseCost("two", 0, 0, 0, 2800, seconds=2.4)])
    head, _, *rows = table.strip().splitlines()
    assert head == "| tokens of | prefilled | written | with gradient | of all tokens | seconds |"
    assert rows == [
        "| one | 1,000 | 200 | 0 | 30% | 1 |", "| two | 0 | 0 | 2,800 | 70% | 2 |",
        "| in all | 1,000 | 200 | 2,800 | 100% | 4 |",
    ]  # fmt: skip
