from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from exact import awake
from toy import ToyTask, toy_built

from gcache.errors import ConfigError
from gcache.gnn.distribution import EdgeDistribution, candidate_edges
from gcache.graph.run_config import GraphConfig
from gcache.llm.cache_budget import Limits
from gcache.llm.local import LocalLLM
from gcache.training.config import TrainConfig
from gcache.training.metrics import EMA, IDLE, signal_to_noise
from gcache.training.objective import LossWeights, Objective, advantages
from gcache.training.replay import replayed, replayed_tokens
from gcache.training.trainer import Reinforce


def test_baselines_by_hand() -> None:
    utilities = torch.tensor([[1.0, 0.0, 0.5], [0.0, 0.0, 0.0]])
    assert advantages(utilities, "none").tolist() == utilities.tolist()
    assert advantages(utilities, "ema", 0.25).tolist() == [[0.75, -0.25, 0.25], [-0.25, -0.25, -0.25]]
    expected = [[1 - 0.25, 0 - 0.75, 0.5 - 0.5], [0.0, 0.0, 0.0]]
    assert advantages(utilities, "leave_one_out", 9.0).tolist() == expected


def test_one_rollout_will_do_for_a_running_baseline() -> None:
    TrainConfig(baseline="ema", rollouts=1)
    with pytest.raises(ConfigError, match="--baseline none"):
        TrainConfig(rollouts=1)
    with pytest.raises(ConfigError, match=r"'mean'.*ema"):
        TrainConfig(baseline="mean")


def trainer(llm: LocalLLM, tokenizer: Any, out: Path, **settings: Any) -> Reinforce:
    config = TrainConfig(**{"iterations": 3, "batch_size": 2, "rollouts": 2, **settings})
    built = toy_built(llm, tokenizer, graph=GraphConfig(latent_steps=0, max_new_tokens=3))
    return Reinforce(built, ToyTask(), config, out)


def noise_of(learner: Reinforce) -> dict[str, float]:
    return signal_to_noise(learner.optimizer, learner._named_parts())


def test_the_running_mean_is_of_net_utilities(tiny_llm: LocalLLM, tiny_tokenizer: Any, tmp_path: Path) -> None:
    learner = trainer(tiny_llm, tiny_tokenizer, tmp_path, baseline="ema", token_price=10.0)
    history = learner.train(progress=False)
    first, second, third = (line["net_utility"] for line in history)
    assert learner.running == pytest.approx(EMA * (EMA * first + (1 - EMA) * second) + (1 - EMA) * third)


def test_prices_are_of_the_answers_tokens_and_of_bytes_handed_over(
    tiny_llm: LocalLLM, tiny_tokenizer: Any, tmp_path: Path
) -> None:
    learner = trainer(tiny_llm, tiny_tokenizer, tmp_path, token_price=100.0, mib_price=2.0)
    result = learner.built.graph.run("what is 2 + 3 ?", sample=True, temperature=1.0, seed=3)
    (spoken,) = result.spoken
    assert spoken.generation is not None and result.edge_bytes
    mib = sum(result.edge_bytes.values()) / 2**20
    assert learner.rollouts.cost(result, 0) == pytest.approx(0.1 * len(spoken.generation.tokens) + 2.0 * mib)
    (line, *_) = learner.train(progress=False)
    assert line["net_utility"] < line["utility"]


def test_a_price_that_rises_is_that_of_its_step(tiny_llm: LocalLLM, tiny_tokenizer: Any, tmp_path: Path) -> None:
    learner = trainer(tiny_llm, tiny_tokenizer, tmp_path, token_price=0.0, token_price_end=50.0, entropy_bonus=0.0)
    result = learner.built.graph.run("what is 2 + 3 ?", sample=True, temperature=1.0, seed=3)
    (spoken,) = result.spoken
    assert spoken.generation is not None
    of_text = len(spoken.generation.tokens) / 1000
    costs = [learner.rollouts.cost(result, step) for step in range(3)]
    assert costs == pytest.approx([0.0, 25.0 * of_text, 50.0 * of_text])
    lines = learner.train(progress=False)
    charged = [line["utility"] - line["net_utility"] for line in lines]
    written = [line["tokens_generated"] / 4 / 1000 for line in lines]  # a mean over two rollouts of two questions
    assert charged == pytest.approx([0.0, 25.0 * written[1], 50.0 * written[2]], abs=1e-6)


def test_a_run_that_learns_nothing_from_answers_says_so(
    tiny_llm: LocalLLM, tiny_tokenizer: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    built = toy_built(tiny_llm, tiny_tokenizer, graph=GraphConfig(latent_steps=0, max_new_tokens=3))
    never = ToyTask(right=frozenset())
    config = TrainConfig(iterations=IDLE + 2, batch_size=2, rollouts=3)
    with caplog.at_level("WARNING", logger="gcache"):
        history = Reinforce(built, never, config, tmp_path).train(progress=False)
    assert [line["told_apart"] for line in history] == [0.0] * (IDLE + 2)
    (warning,) = [r.getMessage() for r in caplog.records if "worth the same" in r.getMessage()]
    assert f"last {IDLE} steps" in warning and "mean 0.000" in warning and "--decision_probability" in warning


def test_questions_told_apart_by_hand(
    tiny_llm: LocalLLM, tiny_tokenizer: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    learner = trainer(tiny_llm, tiny_tokenizer, tmp_path)
    same, one = torch.tensor([[1.0, 1.0], [0.0, 0.0]]), torch.tensor([[1.0, 0.5], [0.0, 0.0]])
    with caplog.at_level("WARNING", logger="gcache"):
        for _ in range(IDLE - 1):
            assert learner.idleness.mixed_groups(same) == 0.0
        assert learner.idleness.mixed_groups(one) == 0.5
        for _ in range(IDLE - 1):
            assert learner.idleness.mixed_groups(same) == 0.0
        assert not caplog.records
        learner.idleness.mixed_groups(same)
    assert len(caplog.records) == 1


def test_the_signal_to_noise_of_known_gradients(tiny_llm: LocalLLM, tiny_tokenizer: Any, tmp_path: Path) -> None:
    """Gradients that are all alike give 1; signs by the toss of a coin give (1 - b1) / (1 + b1)."""
    learner = trainer(tiny_llm, tiny_tokenizer, tmp_path)
    assert noise_of(learner) == {"gradient_snr_fuser": 0.0, "gradient_snr_policy": 0.0}
    parameters = list(learner.parts.parameters())
    for _ in range(60):
        for parameter in parameters:
            parameter.grad = torch.full_like(parameter, 0.3)
        learner.optimizer.step()
    assert noise_of(learner)["gradient_snr_policy"] == pytest.approx(1.0, abs=1e-4)
    for _ in range(60):
        for parameter in parameters:
            parameter.grad = 0.3 * torch.where(torch.rand_like(parameter) < 0.5, 1.0, -1.0)
        learner.optimizer.step()
    assert noise_of(learner)["gradient_snr_policy"] == pytest.approx(0.1 / 1.9, rel=0.1)


@pytest.mark.parametrize("gradient", ["decision", "full"])
def test_passes_of_few_tokens_add_up_to_the_same_gradient(
    gradient: str, tiny_llm: LocalLLM, tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = toy_built(tiny_llm, tiny_tokenizer, graph=GraphConfig(latent_steps=1, max_new_tokens=3))
    awake(built.graph.fuser)
    runs = [built.graph.run("what is 2 + 3 ?", sample=True, temperature=1.0, seed=seed) for seed in range(8)]
    advantage = torch.tensor([[1.0, -0.5, 0.25, 2.0, -1.0, 0.5, -2.0, 0.75]])
    of_all = sum(replayed_tokens(run, gradient) for run in runs)
    of_one = max(replayed_tokens(run, gradient) for run in runs)
    seen: list[int] = []

    def counted(graph: Any, llm: Any, replays: Any, how: str) -> Any:
        seen.append(sum(replayed_tokens(replay.result, how) for replay in replays))
        return replayed(graph, llm, replays, how)

    monkeypatch.setattr("gcache.training.objective.replayed", counted)
    found = []
    for most in (of_all, 2 * of_one, 1):
        monkeypatch.setattr(tiny_llm, "limits", Limits(max_gradient_tokens=most))
        built.graph.fuser.zero_grad()
        built.policy.zero_grad()
        seen.clear()
        Objective(built.graph, tiny_llm, LossWeights(), gradient).backward([runs], advantage)
        parameters = [*built.graph.fuser.parameters(), *built.policy.parameters()]
        found.append((torch.cat([p.grad.flatten() for p in parameters if p.grad is not None]), list(seen)))
    (whole, one_pass), (halves, passes), (singles, runs_alone) = found
    assert len(one_pass) == 1 < len(passes) < len(runs_alone)
    assert max(passes) <= 2 * of_one and max(runs_alone) <= of_one
    assert float(whole.norm()) > 0
    for parted in (halves, singles):
        assert float((parted - whole).norm()) < 1e-5 * float(whole.norm())


@pytest.mark.parametrize("name", ["token_price", "mib_price"])
@pytest.mark.parametrize("value", [-1.0, float("nan")])
def test_a_bad_price_is_refused(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"{name} must be a finite number of 0 or more"):
        TrainConfig(**{name: value})


def test_the_distance_to_an_anchor_by_hand() -> None:
    # 0 -> decision maker, 1 -> decision maker, 0 -> 1, 1 -> 0
    chances = torch.tensor([0.9, 0.3, 0.2, 0.4])
    distribution = EdgeDistribution(2, tuple(candidate_edges(2)), torch.logit(chances))
    star = LossWeights(anchor="star").distance(distribution)
    assert float(star) == pytest.approx(0.1**2 + 0.7**2 + 0.2**2 + 0.4**2)
    chain = LossWeights(anchor="chain").distance(distribution)  # 0 -> 1 -> decision maker
    assert float(chain) == pytest.approx(0.9**2 + 0.7**2 + 0.8**2 + 0.4**2)
    assert float(LossWeights().distance(distribution)) == 0.0


def test_an_anchor_pulls(tiny_llm: LocalLLM, tiny_tokenizer: Any, tmp_path: Path) -> None:
    settings = {"iterations": 40, "lr": 0.05, "weight_decay": 0.0, "edge_price": 0.0, "entropy_bonus": 0.0}
    learner = trainer(tiny_llm, tiny_tokenizer, tmp_path, **settings, anchor="star", anchor_strength=50.0)
    learner.train(progress=False)
    distribution = learner.built.graph.distribution("what is 2 + 3 ?")
    assert isinstance(distribution, EdgeDistribution)
    into = dict(zip(distribution.candidates, distribution.probabilities.tolist(), strict=True))
    assert all((chance > 0.9) == (pair[1] == 3) for pair, chance in into.items()), into
    assert all(chance < 0.1 for pair, chance in into.items() if pair[1] != 3), into


def test_schedules_are_lines() -> None:
    config = TrainConfig(iterations=5, temperature=1.0, temperature_end=0.2, entropy_bonus=0.1)
    assert [config.scheduled("temperature", step) for step in range(5)] == pytest.approx([1.0, 0.8, 0.6, 0.4, 0.2])
    assert [config.scheduled("entropy_bonus", step) for step in (0, 4)] == [0.1, 0.1]
    rising = TrainConfig(iterations=3, token_price=0.0, token_price_end=0.2)
    assert [rising.scheduled("token_price", step) for step in range(3)] == pytest.approx([0.0, 0.1, 0.2])
    assert TrainConfig(iterations=1, temperature_end=0.5).scheduled("temperature", 0) == 1.0


def test_the_temperature_of_a_step_is_that_of_its_rollouts(
    tiny_llm: LocalLLM, tiny_tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = trainer(tiny_llm, tiny_tokenizer, tmp_path, temperature=1.0, temperature_end=0.5)
    seen: list[float] = []
    real = learner.objective.backward

    def backward(groups: Any, *rest: Any) -> Any:
        seen.extend({result.temperature for group in groups for result in group})
        return real(groups, *rest)

    monkeypatch.setattr(Objective, "backward", lambda self, *given: backward(*given))
    learner.train(progress=False)
    assert seen == [1.0, 0.75, 0.5]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"anchor": "ring", "anchor_strength": 1.0}, "unknown topology 'ring'"),
        ({"anchor": "star"}, "pass both, or neither"),
        ({"anchor_strength": 1.0}, "pass both, or neither"),
        ({"temperature_end": 0.0}, "temperature_end must be a finite number above 0"),
        ({"token_price_end": -1.0}, "token_price_end must be a finite number of 0 or more"),
        ({"entropy_bonus_end": -1.0}, "entropy_bonus_end must be a finite number of 0 or more"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TrainConfig(**settings)
