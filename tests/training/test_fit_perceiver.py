"""Fitting the learned link: from the receiver's own loss, and from nothing else."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import CHAT_TEMPLATE
from exact import doubled
from safetensors.torch import load_file
from two_models import MANY_WORDS, across, ends, model_of, tokenizer_of

from gcache.commands.main import main
from gcache.errors import ConfigError, DataError
from gcache.graph.cache_graph import CacheGraph
from gcache.links.perceiver import Perceiver, PerceiverConfig, embedding_statistics
from gcache.tasks.example import Example, Note
from gcache.training.fit_perceiver import FitConfig, PerceiverFit, local

WORDS = tokenizer_of(MANY_WORDS)
BIG, SMALL = model_of(160, tied=False, hidden_size=48, head_dim=12), model_of(160, seed=2)
SHAPE = PerceiverConfig(queries=3, width=16, heads=2, blocks=1)
COLOURS = ("red", "blue", "green")
EXAMPLES = [
    Example(str(n), "what is the box ?", COLOURS[n % 3], (Note("reader", "reads", f"the box is {COLOURS[n % 3]} {n}"),))
    for n in range(12)
]


def fit(graph: CacheGraph | None = None, **config: Any) -> PerceiverFit:
    made = graph or across((BIG, WORDS), (SMALL, WORDS), None, "star", on=(1,), latent_steps=1)
    torch.manual_seed(0)
    perceiver = Perceiver(SHAPE, 32, embedding_statistics(ends(BIG, WORDS, "big")))
    settings = {"steps": 30, "batch_size": 6, "lr": 1e-2, "held_out": 3, **config}
    return PerceiverFit(made, perceiver, FitConfig(SHAPE, **settings))


def test_the_receivers_loss_falls(tmp_path: Path) -> None:
    fitting = fit(steps=60)
    seen = fitting.see(EXAMPLES, progress=False)
    before = fitting.held_out(seen[:3])
    history = fitting.fit(seen, tmp_path / "metrics.jsonl", progress=False)
    assert history[-1]["loss"] < 0.5 * history[0]["loss"]
    assert history[-1]["held_out_loss"] < before
    assert [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == history
    assert not any(p.requires_grad for p in fitting.perceiver.parameters())


def test_the_same_seed_is_the_same_fit() -> None:
    losses = []
    for _ in range(2):
        fitting = fit(steps=4)
        losses.append([line["loss"] for line in fitting.fit(fitting.see(EXAMPLES, progress=False), progress=False)])
    assert losses[0] == losses[1]


def test_the_answer_is_not_in_what_the_perceiver_reads() -> None:
    """Another answer: the same states, the same soft tokens; only the loss is another."""
    fitting = fit()
    one, other = EXAMPLES[0], replace(EXAMPLES[0], answer="green")
    seen = [fitting.see([example], progress=False)[0] for example in (one, other)]
    assert all(torch.equal(a, b) for a, b in zip(seen[0].states, seen[1].states, strict=True))
    assert seen[0].answer != seen[1].answer
    losses = [float(fitting.loss([each]).detach()) for each in seen]
    assert losses[0] != pytest.approx(losses[1])


def test_states_are_those_that_a_run_carries() -> None:
    """What is learned from is what the link gets in use: the same states, and the same log-probabilities behind it."""
    fitting = fit()
    example = EXAMPLES[4]
    (seen,) = fitting.see([example], progress=False)
    carried: list[torch.Tensor] = []

    class Noted:
        name = "perceiver"

        def carry(self, states: torch.Tensor) -> torch.Tensor:
            carried.append(states)
            return fitting.perceiver.carry(states)

    graph = across((BIG, WORDS), (SMALL, WORDS), Noted(), "star", on=(1,), latent_steps=1)
    result = graph.run(example)
    assert torch.allclose(carried[0], seen.states[0], atol=1e-5)
    text = result.spoken[0].generation
    assert text is not None
    (scored,) = fitting.log_probs([seen], [text.tokens])
    assert scored.tolist() == pytest.approx(list(text.log_probs), abs=1e-4)


def test_states_of_many_are_those_of_one_at_a_time() -> None:
    fitting = fit()
    together = fitting.see(EXAMPLES, progress=False)
    for example, each in zip(EXAMPLES, together, strict=True):
        (alone,) = fitting.see([example], progress=False)
        assert torch.allclose(alone.states[0], each.states[0], atol=1e-4)


def test_gradient_is_that_of_finite_differences() -> None:
    """Through the soft tokens, the receiver's cache of them, and its reading of that cache."""
    big, small = (doubled(model_of(160, seed=seed)) for seed in (1, 2))
    graph = across((big, WORDS), (small, WORDS), None, "star", on=(1,), latent_steps=1)
    perceiver = Perceiver(SHAPE, 32, embedding_statistics(ends(big, WORDS, "big"))).double()
    fitting = PerceiverFit(graph, perceiver, FitConfig(SHAPE))
    seen = fitting.see(EXAMPLES[:2], progress=False)
    fitting.loss(seen).backward()
    for name, parameter in perceiver.named_parameters():
        assert parameter.grad is not None, name
        flat, index = parameter.detach().reshape(-1), int(parameter.grad.abs().argmax())
        ends_ = []
        for sign in (1, -1):
            flat[index] += sign * 1e-3
            with torch.no_grad():
                ends_.append(float(fitting.loss(seen)))
            flat[index] -= sign * 1e-3
        exact, found = float(parameter.grad.reshape(-1)[index]), (ends_[0] - ends_[1]) / 2e-3
        assert exact == pytest.approx(found, rel=0.02, abs=5e-4), name


def test_both_models_stay_frozen() -> None:
    fitting = fit(steps=1)
    before = [p.clone() for t in fitting.graph.models for p in local(t).model.parameters()]
    fitting.fit(fitting.see(EXAMPLES, progress=False), progress=False)
    after = [p for t in fitting.graph.models for p in local(t).model.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert all(p.grad is None for p in after)


def test_the_rate_rises_and_falls() -> None:
    rates = [FitConfig(steps=100, warmup=0.1).rate(step) for step in range(100)]
    assert max(rates) == rates[10] == 1.0
    assert rates[:10] == sorted(rates[:10]) and rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] < 0.001


@pytest.mark.parametrize("values", [{"steps": 0}, {"lr": 0.0}, {"lr": float("nan")}, {"warmup": 1.0}, {"held_out": -1}])
def test_bad_settings_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        FitConfig(**values)


def test_what_there_is_not_to_learn_from_is_refused() -> None:
    fitting = fit()
    with pytest.raises(ConfigError, match="2 questions are too few to hold out 3 and learn from 6"):
        fitting.fit(fitting.see(EXAMPLES[:2], progress=False), progress=False)
    with pytest.raises(DataError, match="no answer in words"):
        fitting.see([replace(EXAMPLES[0], answer=" ")], progress=False)
    with pytest.raises(ConfigError, match="from one model to another"):
        fit(across((BIG, WORDS), (SMALL, WORDS), None, "star", on=(1, 0)))


def test_from_the_command_line(tmp_path: Path, monkeypatch: Any, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("GCACHE_HOME", str(tmp_path / "home"))
    for name, model in (("big", BIG), ("small", SMALL)):
        model.save_pretrained(tmp_path / name)
        WORDS.chat_template = CHAT_TEMPLATE
        WORDS.save_pretrained(tmp_path / name)
    rows = "text,category\n" + "".join(f"what is word{n} ?,{COLOURS[n % 3]}\n" for n in range(40))
    (tmp_path / "train.csv").write_text(rows)
    out = tmp_path / "link.safetensors"
    models = ["--llm_name", str(tmp_path / "big"), "--agent_models", str(tmp_path / "small"), "--dtype", "float32"]
    task = ["--task", "banking77", "--data", str(tmp_path / "train.csv")]
    fit_it = ["fit-perceiver", *task, *models, "--out", str(out), "--steps", "3", "--held_out", "4", "--width", "16"]
    assert main(fit_it) == 0
    assert "nats a token" in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.glob("link*")) == ["link.jsonl", "link.safetensors"]
    assert main([*fit_it, "--queries", "2", "3"]) == 0
    assert {path.name for path in tmp_path.glob("link-*.safetensors")} == {"link-2.safetensors", "link-3.safetensors"}
    again = ["--start", str(out), "--out", str(tmp_path / "on.safetensors"), "--lr", "1e-9", "--weight_decay", "0"]
    assert main([*fit_it, *again]) == 0
    before, after = load_file(out), load_file(tmp_path / "on.safetensors")
    assert before["seen"] == after["seen"] > 0 and before["queries"].shape[0] == 16
    assert all(torch.allclose(before[key], after[key], atol=1e-6) for key in before)
    capsys.readouterr()
    ask = ["run", "what is it ?", "--link", "perceiver", "--link_file", str(out), "--max_new_tokens", "3"]
    assert main([*ask, *models]) == 0
    turned = ["--llm_name", str(tmp_path / "small"), "--agent_models", str(tmp_path / "big"), "--dtype", "float32"]
    for wrong, error in (
        ([*ask, *turned], "made for the sender weights:"),
        ([*ask[:4], *models], "needs its fitted file"),
        ([*fit_it, "--link", "vocab"], "leave them out"),
        ([*fit_it[:-8], "--out", "link.bin"], ".safetensors file"),
        ([*fit_it, "--agent_models", str(tmp_path / "big")], "from one model to another"),
        ([*fit_it, "--steps", "0"], "steps must be 1 or more"),
        ([*fit_it, "--start", str(out), "--queries", "5"], "queries=16"),
        ([*fit_it, "--start", str(tmp_path / "none")], "no link file"),
    ):
        assert main(wrong) == 2
        err = capsys.readouterr().err
        assert error in err
        assert len([line for line in err.splitlines() if line.startswith("error") or error in line]) == 1
