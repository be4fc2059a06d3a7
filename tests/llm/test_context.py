"""A question that a model has no positions for is refused by name, or counted as failed, wherever it is asked."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from toy import QUESTIONS, ToyTask, toy_built

from gcache.build import assemble
from gcache.cache.fused_cache import FusedCache
from gcache.config import GraphSpec
from gcache.errors import ContextError, QuestionError
from gcache.evaluation.evaluate import evaluate, evaluate_text
from gcache.evaluation.methods import METHODS, MethodSettings, make_method
from gcache.graph.run_config import GraphConfig
from gcache.llm.requests import GenerateRequest, LogProbRequest, ThinkRequest
from gcache.llm.scheduler import BatchingLLM
from gcache.tasks.example import Example
from gcache.training.config import TrainConfig
from gcache.training.trainer import Reinforce

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gcache.build import Built
    from gcache.llm.local import LocalLLM

LONG = " ".join(["how many apples ?"] * 300)  # 1,200 tokens; the model has 512 positions
MESSAGE = r"takes 1[0-9]{3} positions or more, [0-9]+ of them for the (answer|text), but the model's context has 512"


class LongTask(ToyTask):
    """One of whose questions is too long."""

    def train(self, limit: int | None = None, seed: int = 0) -> Sequence[Example]:
        return [Example("long", LONG, ""), *super().train(limit, seed)]


@pytest.fixture
def made(tiny_llm: LocalLLM, tiny_tokenizer: Any) -> Built:
    return toy_built(tiny_llm, tiny_tokenizer)


def test_a_run_names_the_question(made: Built, tiny_llm: LocalLLM, tiny_tokenizer: Any) -> None:
    with pytest.raises(ContextError, match=f"question 'long' {MESSAGE}") as caught:
        made.graph.run(Example("long", LONG, ""))
    assert len(str(caught.value).splitlines()) == 1
    config = GraphConfig(hands="text", max_new_tokens=3)
    talk = assemble(GraphSpec(topology="chain", encoder="hash", graph=config), tiny_llm, tiny_tokenizer)
    with pytest.raises(ContextError, match=MESSAGE):
        talk.graph.run(LONG)


def test_an_evaluation_stops_or_counts_it_as_failed(made: Built) -> None:
    task, graph = LongTask(), made.graph
    for measure in (evaluate, evaluate_text):
        found = measure(graph, task, task.test(), "row", progress=False, on_error="skip")
        assert (found.n, found.failed, found.unparsed) == (len(QUESTIONS), 1, measure(
            graph, ToyTask(), ToyTask().test(), "row", progress=False).unparsed)  # fmt: skip
        with pytest.raises(ContextError, match=MESSAGE):
            measure(graph, task, task.test(), "row", progress=False)


def test_training_stops_or_leaves_it_out(made: Built, tmp_path: Path) -> None:
    config = {"iterations": 1, "batch_size": len(QUESTIONS) + 1, "rollouts": 2}
    (metrics,) = Reinforce(made, LongTask(), TrainConfig(**config, on_error="skip"), tmp_path / "skip").train(
        progress=False
    )
    assert (metrics["failed"], metrics["rollouts"]) == (1, 2 * len(QUESTIONS))
    with pytest.raises(ContextError, match=MESSAGE):
        Reinforce(made, LongTask(), TrainConfig(**config), tmp_path / "stop").train(progress=False)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_of_a_comparison(name: str, made: Built, tiny_llm: LocalLLM, tiny_tokenizer: Any) -> None:
    settings = MethodSettings("maths", 3, latent_steps=1, graph=made.graph)
    with pytest.raises(ContextError, match=r"but the model's context has 512"):
        make_method(name, tiny_llm, tiny_tokenizer, settings).answer([Example("long", LONG, "")])


async def test_whatever_else_asks_the_model(tiny_llm: LocalLLM) -> None:
    front, tokens = BatchingLLM(tiny_llm), tuple([5] * 500)
    past = tiny_llm.think([ThinkRequest(tokens)])[0]
    full = FusedCache.plain(past)
    with pytest.raises(ContextError, match="this takes 513 positions or more, 3 of them for latent steps"):
        await front.think(ThinkRequest(tuple([5] * 10), full, 3))
    with pytest.raises(ContextError, match="this takes 519 positions"):
        await front.generate(GenerateRequest((5,), full, 19))
    with pytest.raises(ContextError, match="this takes 519 positions"):
        await front.log_prob(LogProbRequest((5,), tuple([6] * 19), full))
    assert (await front.generate(GenerateRequest((5,), full, 11))).tokens


def test_a_failure_of_a_question_is_one_family() -> None:
    assert issubclass(ContextError, QuestionError)
