"""When a training run writes checkpoints, and what of it is kept when it ends early."""

from __future__ import annotations

import errno
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from toy import ToyTask, lines, toy_built

from gcache.commands import flags
from gcache.errors import CheckpointError, ConfigError, TrainingError, WriteError
from gcache.graph.run_config import GraphConfig
from gcache.llm.local import LocalLLM
from gcache.training import checkpoint as checkpoints
from gcache.training import trainer as trainers
from gcache.training.config import TrainConfig
from gcache.training.moments import moments_of, require_moments
from gcache.training.stopping import terminable
from gcache.training.trainer import Reinforce


def learner(llama: Any, tokenizer: Any, out: Path, every: int | None = None, steps: int = 5) -> Reinforce:
    config = TrainConfig(iterations=steps, batch_size=2, rollouts=2, checkpoint_every=every)
    graph = GraphConfig(latent_steps=0, max_new_tokens=3)
    return Reinforce(toy_built(LocalLLM(llama, tokenizer), tokenizer, graph=graph), ToyTask(), config, out)


def written(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The steps of the checkpoints that are written from now on."""
    steps: list[int] = []
    real = checkpoints.write

    def write(out: Path, state: checkpoints.State, keep: int = 2) -> Path:
        steps.append(state.step)
        return real(out, state, keep)

    monkeypatch.setattr(checkpoints, "write", write)
    return steps


def weights(out: Path) -> dict[str, bytes]:
    return {name: tensor.numpy().tobytes() for name, tensor in checkpoints.read(out).weights.items()}


@pytest.mark.parametrize(
    ("every", "seconds", "expected"),
    [
        (None, 0.0, [1, 2, 3, 4, 5]),  # steps that are longer than what is between two
        (None, 1e9, [5]),  # shorter ones
        (1, 1e9, [1, 2, 3, 4, 5]),
        (2, 0.0, [2, 4, 5]),
        (10, 0.0, [5]),
    ],
)
def test_after_which_steps(
    tiny_llama: Any, tiny_tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, every: int | None,
    seconds: float, expected: list[int],
) -> None:  # fmt: skip
    monkeypatch.setattr(trainers, "SECONDS_BETWEEN", seconds)
    steps = written(monkeypatch)
    learner(tiny_llama, tiny_tokenizer, tmp_path / "out", every).train(progress=False)
    assert steps == expected
    assert len(list((tmp_path / "out" / "checkpoints").glob("step-*"))) == min(2, len(expected))
    monkeypatch.setattr(trainers, "SECONDS_BETWEEN", 1e9)
    learner(tiny_llama, tiny_tokenizer, tmp_path / "other").train(progress=False)
    assert weights(tmp_path / "out") == weights(tmp_path / "other"), "when it is kept changed what is learned"


def test_half_a_minute_counts_from_the_last_one(
    tiny_llama: Any, tiny_tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock of which every step takes 13 seconds."""
    made = learner(tiny_llama, tiny_tokenizer, tmp_path, steps=8)
    steps, real, now = written(monkeypatch), made.step, [0.0]

    def step(number: int, questions: Any) -> Any:
        now[0] += 13.0
        return real(number, questions)

    made.step = step  # type: ignore[method-assign]
    monkeypatch.setattr(trainers.time, "monotonic", lambda: now[0])
    made.train(progress=False)
    assert steps == [3, 6, 8]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, TrainingError, MemoryError])
def test_whatever_ends_a_run_its_whole_steps_are_kept(
    tiny_llama: Any, tiny_tokenizer: Any, tmp_path: Path, error: type[BaseException]
) -> None:
    """The step in which it came may have changed the weights already."""
    made = learner(tiny_llama, tiny_tokenizer, tmp_path / "out")
    real, after_three = made.step, {}

    def step(number: int, questions: Any) -> Any:
        if number == 3:
            after_three.update({name: value.clone() for name, value in made.parts.state_dict().items()})
            real(number, questions)
            raise error
        return real(number, questions)

    made.step = step  # type: ignore[method-assign]
    with pytest.raises(error):
        made.train(progress=False)
    found = checkpoints.read(tmp_path / "out")
    assert found.step == 3 == len(lines(tmp_path / "out"))
    assert all(torch.equal(found.weights[name], value) for name, value in after_three.items())
    learner(tiny_llama, tiny_tokenizer, tmp_path / "out").train(progress=False)
    learner(tiny_llama, tiny_tokenizer, tmp_path / "whole").train(progress=False)
    assert weights(tmp_path / "out") == weights(tmp_path / "whole")


def test_where_nothing_can_be_kept_the_error_is_the_first(
    tiny_llama: Any, tiny_tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    made = learner(tiny_llama, tiny_tokenizer, tmp_path)
    real = made.step

    def step(number: int, questions: Any) -> Any:
        if number == 2:
            monkeypatch.setattr(os, "replace", full)
            raise KeyboardInterrupt
        return real(number, questions)

    made.step = step  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        made.train(progress=False)
    assert "the steps after step 0 are lost: the checkpoint of step 2 cannot be written" in caplog.text


def full(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_ends_a_run_in_one_line_and_it_goes_on_later(
    tiny_llama: Any, tiny_tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = learner(tiny_llama, tiny_tokenizer, tmp_path / "out", every=2)
    real = made.step

    def step(number: int, questions: Any) -> Any:
        if number == 3:
            patched.setattr(os, "fsync", full)
        return real(number, questions)

    made.step = step  # type: ignore[method-assign]
    refused = pytest.raises((CheckpointError, WriteError), match="No space left")
    with monkeypatch.context() as patched, refused as caught:
        made.train(progress=False)
    assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)
    assert checkpoints.read(tmp_path / "out").step == 2
    learner(tiny_llama, tiny_tokenizer, tmp_path / "out", every=2).train(progress=False)
    learner(tiny_llama, tiny_tokenizer, tmp_path / "whole").train(progress=False)
    assert weights(tmp_path / "out") == weights(tmp_path / "whole")


def test_out_that_is_a_file_is_one_line(tiny_llama: Any, tiny_tokenizer: Any, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(WriteError, match="cannot be written"):
        learner(tiny_llama, tiny_tokenizer, tmp_path / "out").train(progress=False)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_signal_is_an_exit_within_a_run_and_what_it_was_before_and_after(name: str) -> None:
    number = getattr(signal, name)
    before = signal.getsignal(number)
    try:
        signal.signal(number, signal.SIG_DFL)
        with pytest.raises(SystemExit) as caught, terminable():
            os.kill(os.getpid(), number)
        assert caught.value.code == 128 + number and signal.getsignal(number) is signal.SIG_DFL
        heard: list[int] = []
        signal.signal(number, lambda got, _: heard.append(got))
        with terminable():
            os.kill(os.getpid(), number)
        assert heard == [number], "who handles a signal goes on to"
    finally:
        signal.signal(number, before)


def test_the_flag_says_steps() -> None:
    import argparse

    parser = argparse.ArgumentParser()
    flags.add(parser, TrainConfig)
    assert parser.parse_args([]).checkpoint_every is None
    assert parser.parse_args(["--checkpoint_every", "7"]).checkpoint_every == 7
    assert TrainConfig().checkpoint_every is None
    with pytest.raises(ConfigError, match="checkpoint_every must be 1 or more, got 0"):
        TrainConfig(checkpoint_every=0)


def test_moments_go_where_their_parameter_is(tmp_path: Path) -> None:
    layer = nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(layer.parameters())
    layer(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    found = moments_of(layer, optimizer)
    elsewhere = nn.Linear(3, 2, device="meta")
    names = frozenset({"weight", "bias"})
    made = require_moments(tmp_path, found, names, 1, elsewhere, torch.optim.AdamW(elsewhere.parameters()))
    assert made[elsewhere.weight]["exp_avg"].device.type == "meta"
    assert made[elsewhere.weight]["step"].device.type == "cpu" and float(made[elsewhere.weight]["step"]) == 1.0
