"""A training that ends before its last step, since its most likely topology is right already."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from toy import ToyTask, lines, toy_built

from gcache.errors import ConfigError, QuestionError
from gcache.gnn.topology import Topology
from gcache.llm.local import LocalLLM
from gcache.tasks.example import Example, Grade
from gcache.training import early_stop, rollouts
from gcache.training import trainer as trainers
from gcache.training.checkpoint import read
from gcache.training.config import TrainConfig
from gcache.training.early_stop import ASKED, RIGHT, why_done
from gcache.training.trainer import Reinforce

CONFIG = TrainConfig(
    iterations=6, batch_size=2, rollouts=2, lr=0.2, checkpoint_every=1, seed=3, stop_when_right=2
)  # fmt: skip


def asked(*right: int | None, of: int = 4) -> list[dict[str, Any]]:
    """Metrics of steps in which the most likely topology was right so often; None where it was not asked."""
    return [{"step": step} if n is None else {"step": step, ASKED: of, RIGHT: n} for step, n in enumerate(right)]


def ends(*right: int | None, steps: int | None = 2, iterations: int = 10) -> bool:
    return bool(why_done(asked(*right), steps, iterations))


def test_all_questions_of_the_last_steps_have_to_be_right() -> None:
    assert ends(None, 4, 4)
    assert ends(4, 0, 4, 4)
    assert not ends(4, 3), "one question was wrong"
    assert not ends(4, 4, 3), "it was right, and is not any more"
    assert not ends(4, None), "it was not asked"
    assert not ends(4, 4, None)
    assert ends(4, steps=1) and not ends(4, steps=2), "there are not so many steps yet"
    assert not ends(), "nothing has been trained"


def test_without_the_setting_no_training_ends_early() -> None:
    assert not ends(4, 4, 4, steps=None) and TrainConfig().stop_when_right is None


def test_the_last_step_is_no_early_end() -> None:
    assert not ends(4, 4, iterations=2)


def test_the_reason_has_the_numbers() -> None:
    assert why_done(asked(None, 4, 4), 2, 40).startswith("training ends after 3 of 40 steps: ")
    assert "all 8 questions of the last 2 steps right" in why_done(asked(None, 4, 4), 2, 40)


def test_a_question_with_no_answer_is_not_right() -> None:
    assert not bool(why_done([{ASKED: 0, RIGHT: 0}], 1, 5)), "nobody was asked"


@pytest.mark.parametrize("steps", [0, -1])
def test_a_number_of_steps_below_one_is_refused(steps: int) -> None:
    with pytest.raises(ConfigError, match="stop_when_right must be 1 or more"):
        TrainConfig(stop_when_right=steps)


class Easy(ToyTask):
    """Everything is right."""

    def grade(self, text: str, example: Example) -> Grade:
        return Grade("right", text)


@pytest.fixture
def llm(tiny_llama: Any, tiny_tokenizer: Any) -> LocalLLM:
    return LocalLLM(tiny_llama, tiny_tokenizer)


@pytest.fixture
def make(llm: LocalLLM, tiny_tokenizer: Any) -> Any:
    def made(out: Path, config: TrainConfig = CONFIG, task: ToyTask | None = None) -> Reinforce:
        return Reinforce(toy_built(llm, tiny_tokenizer), task or Easy(), config, out)

    return made


def weights(out: Path) -> dict[str, torch.Tensor]:
    found = read(out)
    return {**found.weights, **{f"moment {name}": value for name, value in found.optimizer.items()}}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def no_seconds(out: Path) -> list[dict[str, Any]]:
    return [{k: v for k, v in line.items() if not k.startswith("seconds")} for line in lines(out)]


def test_training_ends_and_says_so(make: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "gcache")
    trainer = make(tmp_path)
    history = trainer.train(progress=False)
    assert [metrics["step"] for metrics in history] == [0, 1] and read(tmp_path).step == 2
    assert all((line[ASKED], line[RIGHT]) == (2, 2) for line in lines(tmp_path))
    assert trainer.early == caplog.messages[-1] and trainer.early.startswith("training ends after 2 of 6 steps")
    assert not trainer.stopped


def test_the_question_is_asked_on_the_most_likely_topology_before_the_step(make: Any, tmp_path: Path) -> None:
    trainer = make(tmp_path, replace(CONFIG, iterations=1))
    questions = trainer.rollouts.draw(list(Easy().train()), 0)
    before: list[Topology] = [trainer.built.graph.likeliest(trainer.built.graph.distribution(q))[0] for q in questions]
    real, seen = trainer.rollouts.run, []

    def run(step: int, some: Sequence[Example]) -> Any:
        seen.append(real(step, some))
        return seen[-1]

    trainer.rollouts.run = run
    trainer.step(0, questions)
    (graded,) = seen
    assert [result.topology for result in graded.likeliest] == before
    assert [result.example for result in graded.likeliest] == questions
    assert all(result.temperature == 0 and result.kept.released for result in graded.likeliest)


def test_being_asked_changes_nothing_of_what_is_learned(make: Any, tmp_path: Path) -> None:
    make(tmp_path / "asked", replace(CONFIG, iterations=3, stop_when_right=3)).train(progress=False)
    make(tmp_path / "not", replace(CONFIG, iterations=3, stop_when_right=None)).train(progress=False)
    assert same(weights(tmp_path / "asked"), weights(tmp_path / "not"))
    more = set(lines(tmp_path / "asked")[0]) - set(lines(tmp_path / "not")[0])
    assert {ASKED, RIGHT, "seconds_likeliest", "likeliest_tokens_prefilled"} <= more
    assert all(name in (ASKED, RIGHT) or "likeliest" in name for name in more)


def test_while_few_rollouts_are_right_nobody_is_asked(make: Any, tmp_path: Path) -> None:
    make(tmp_path, task=ToyTask(right=frozenset())).train(progress=False)
    assert len(lines(tmp_path)) == 6 and not any(ASKED in line for line in lines(tmp_path))
    assert early_stop.is_worth_asking(0.5) and not early_stop.is_worth_asking(0.49)


@pytest.mark.parametrize("killed", [0, 1])
def test_a_run_resumed_before_its_early_end_ends_there_too(make: Any, tmp_path: Path, killed: int) -> None:
    make(tmp_path / "whole").train(progress=False)
    trainer = make(tmp_path / "killed")
    real = trainer.step

    def step(number: int, questions: Sequence[Example]) -> Any:
        if number == killed:
            raise KeyboardInterrupt
        return real(number, questions)

    trainer.step = step
    with pytest.raises(KeyboardInterrupt):
        trainer.train(progress=False)
    resumed = make(tmp_path / "killed")
    assert [metrics["step"] for metrics in resumed.train(progress=False)] == list(range(killed, 2))
    assert resumed.early
    assert same(weights(tmp_path / "killed"), weights(tmp_path / "whole"))
    assert no_seconds(tmp_path / "killed") == no_seconds(tmp_path / "whole")


def test_a_line_without_its_checkpoint_ends_nothing(
    make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run is killed after the line of the last step, before its checkpoint: the step is done again."""
    make(tmp_path / "whole").train(progress=False)
    with monkeypatch.context() as patched:
        real = trainers.checkpoints.write

        def write(out: Path, state: Any) -> Path:
            if state.step == 2:
                raise SystemExit(1)
            return real(out, state)

        patched.setattr(trainers.checkpoints, "write", write)
        with pytest.raises(SystemExit):
            make(tmp_path / "killed").train(progress=False)
    assert len(lines(tmp_path / "killed")) == 2 and read(tmp_path / "killed").step == 1
    resumed = make(tmp_path / "killed")
    assert len(resumed.train(progress=False)) == 1 and resumed.early
    assert same(weights(tmp_path / "killed"), weights(tmp_path / "whole"))


def test_started_again_after_its_end_it_trains_nothing(
    make: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make(tmp_path).train(progress=False)
    before = weights(tmp_path)
    caplog.set_level(logging.INFO, "gcache")
    again = make(tmp_path)
    assert again.train(progress=False) == [] and again.early and same(before, weights(tmp_path))
    assert any(message.startswith(f"{tmp_path} is complete: training ends after 2 of 6") for message in caplog.messages)


def test_without_the_rule_it_goes_on_as_if_it_had_never_ended(make: Any, tmp_path: Path) -> None:
    """So nobody who wants the other steps has to train the first ones again."""
    make(tmp_path / "ended").train(progress=False)
    on = replace(CONFIG, stop_when_right=None)
    assert [metrics["step"] for metrics in make(tmp_path / "ended", on).train(progress=False)] == [2, 3, 4, 5]
    make(tmp_path / "whole", on).train(progress=False)
    assert same(weights(tmp_path / "ended"), weights(tmp_path / "whole"))


def test_a_question_that_fails_for_good_ends_nothing(
    make: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = make(tmp_path, replace(CONFIG, iterations=1, stop_when_right=1))
    real = trainer.built.graph.arun

    async def arun(example: Example, **options: Any) -> Any:
        if not options.get("sample"):
            raise QuestionError("no answer")
        return await real(example, **options)

    trainer.rollouts.graph.arun = arun
    trainer.train(progress=False)
    assert ASKED not in lines(tmp_path)[0] and any("no answer" in message for message in caplog.messages)
    assert rollouts.logger.name in {record.name for record in caplog.records}
