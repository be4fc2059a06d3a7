"""What every step's metrics say of the edges: how likely they were before it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from toy import QUESTIONS, ToyTask, lines, toy_built

from gcache.gnn.summary import learned_edges
from gcache.gnn.topology import DECISION
from gcache.llm.local import LocalLLM
from gcache.training import trainer as trainers
from gcache.training.config import TrainConfig
from gcache.training.trainer import Reinforce

CONFIG = TrainConfig(iterations=3, batch_size=2, rollouts=3, lr=0.2, checkpoint_every=1, seed=3)


@pytest.fixture
def llm(tiny_llama: Any, tiny_tokenizer: Any) -> LocalLLM:
    return LocalLLM(tiny_llama, tiny_tokenizer)


def test_each_steps_line_has_the_edges_of_before_it(llm: LocalLLM, tiny_tokenizer: Any, tmp_path: Path) -> None:
    built = toy_built(llm, tiny_tokenizer)
    trainer = Reinforce(built, ToyTask(), CONFIG, tmp_path)
    before: list[list[Any]] = []
    real = trainer.step

    def step(number: int, questions: Any) -> dict[str, Any]:
        before.append([edge.ends_and_chances() for edge in learned_edges(built.graph, ToyTask().train())])
        return real(number, questions)

    trainer.step = step  # type: ignore[method-assign]
    history = trainer.train(progress=False)
    found = [line["learned_edges"] for line in lines(tmp_path)]
    assert found == before == [metrics["learned_edges"] for metrics in history]
    untrained = learned_edges(toy_built(llm, tiny_tokenizer).graph, ToyTask().train())
    assert found[0] == [edge.ends_and_chances() for edge in untrained]
    assert found[0] != found[1] != found[2], "nothing was learned, so before and after are the same"
    assert len(found[0]) == 3 * 3  # three into the decision maker, six among agents
    assert {row[1] for row in found[0][:3]} == {DECISION}
    for source, target, probability, low, high, kept in (row for line in found for row in line):
        assert isinstance(source, str) and isinstance(target, str)
        assert 0 <= low <= probability <= high <= 1 and 0 <= kept <= 1


def test_only_the_first_questions_are_watched(
    llm: LocalLLM, tiny_tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainers, "WATCHED", 2)
    built = toy_built(llm, tiny_tokenizer)
    expected = [edge.ends_and_chances() for edge in learned_edges(built.graph, ToyTask().train(2))]
    of_all = [edge.ends_and_chances() for edge in learned_edges(built.graph, ToyTask().train())]
    Reinforce(built, ToyTask(), TrainConfig(iterations=1, batch_size=2, rollouts=2), tmp_path).train(progress=False)
    assert lines(tmp_path)[0]["learned_edges"] == expected != of_all
    assert len(QUESTIONS) > 2


def test_a_fixed_topology_has_none(llm: LocalLLM, tiny_tokenizer: Any, tmp_path: Path) -> None:
    built = toy_built(llm, tiny_tokenizer, topology="star")
    Reinforce(built, ToyTask(), TrainConfig(iterations=1, batch_size=2, rollouts=2), tmp_path).train(progress=False)
    assert lines(tmp_path)[0]["learned_edges"] == []


def test_a_resumed_run_has_the_lines_of_one_that_was_not_stopped(
    llm: LocalLLM, tiny_tokenizer: Any, tmp_path: Path
) -> None:
    def trained(out: Path, stop: int | None = None) -> list[Any]:
        trainer = Reinforce(toy_built(llm, tiny_tokenizer), ToyTask(), CONFIG, out)
        real = trainer.step

        def step(number: int, questions: Any) -> dict[str, Any]:
            if number == stop:
                raise KeyboardInterrupt
            return real(number, questions)

        trainer.step = step  # type: ignore[method-assign]
        if stop is None:
            trainer.train(progress=False)
        else:
            with pytest.raises(KeyboardInterrupt):
                trainer.train(progress=False)
        return [line["learned_edges"] for line in lines(out)]

    whole = trained(tmp_path / "whole")
    assert trained(tmp_path / "stopped", stop=2) == whole[:2]
    assert trained(tmp_path / "stopped") == whole
