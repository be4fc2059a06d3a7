"""One graph that several threads ask, or code that already runs in an event loop."""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
import warnings
from collections.abc import Callable
from typing import Any

import pytest
from threads import at_once
from toy import AGENTS, DECISION, QUESTIONS, toy_built
from two_models import MANY_WORDS, QUESTION, across, model_of, tokenizer_of

from gcache.errors import GcacheError
from gcache.evaluation.one_prompt import answer_all_in_one_prompt
from gcache.gnn.providers import FixedProvider
from gcache.graph.agent_graph import AgentGraph
from gcache.graph.memo import RolloutMemo
from gcache.graph.result import RunResult
from gcache.graph.run_config import GraphConfig
from gcache.graph.text_backends import LocalTextBackend
from gcache.graph.text_graph import TextGraph
from gcache.graph.writers.prompt_embeds import PROBE, EmbedsWriter
from gcache.inspect.readings import readings
from gcache.links.linear import fit_vocab
from gcache.links.link import ModelEnds
from gcache.llm.api.client import ApiText
from gcache.llm.local import LocalLLM
from gcache.tasks.example import Example

THREADS, EACH = 8, 20


def said(result: RunResult) -> tuple[Any, ...]:
    """All that was drawn in a run."""
    texts = [(s.text, s.generation and (s.generation.tokens, s.generation.log_probs)) for s in result.spoken]
    return result.answer, texts, result.topology, result.topology_log_prob, sorted(result.said.items())


def asked(graph: AgentGraph, seeds: range) -> list[tuple[Any, ...]]:
    """One run after another: drawn topologies and texts."""
    return [
        said(graph.run(QUESTIONS[seed % len(QUESTIONS)], sample=True, temperature=0.8, seed=seed)) for seed in seeds
    ]


def test_eight_threads_that_ask_one_graph_get_what_one_gets(tiny_llm: LocalLLM, tiny_tokenizer: Any) -> None:
    config = GraphConfig(latent_steps=1, max_new_tokens=6)
    graph = toy_built(tiny_llm, tiny_tokenizer, graph=config).graph
    again = toy_built(tiny_llm, tiny_tokenizer, graph=config).graph  # of the same policy's weights or of others
    again.topology_provider = graph.topology_provider
    alone = asked(graph, range(THREADS * EACH))

    def ask(number: int) -> Callable[[], list[Any]]:
        mine = range(number * EACH, (number + 1) * EACH)
        return lambda: asked(again if number % 4 == 3 else graph, mine)  # two graphs around one model

    found = at_once([ask(number) for number in range(THREADS)])
    for number, texts in enumerate(found):
        assert texts == alone[number * EACH : (number + 1) * EACH], f"thread {number}"


@pytest.mark.parametrize("hands", ["text", "both"])
def test_threads_that_ask_a_graph_whose_agents_speak(tiny_llm: LocalLLM, tiny_tokenizer: Any, hands: str) -> None:
    config = GraphConfig(latent_steps=1, max_new_tokens=6, hands=hands, speak_tokens=4)
    graph: AgentGraph
    if hands == "text":
        speaker = LocalTextBackend(tiny_llm, tiny_tokenizer)
        graph = TextGraph(speaker, AGENTS, DECISION, FixedProvider("chain"), config)
    else:
        graph = toy_built(tiny_llm, tiny_tokenizer, topology="chain", graph=config).graph
    expected = asked(graph, range(4))
    assert at_once([lambda: asked(graph, range(4))] * 4) == [expected] * 4


def test_threads_that_ask_a_graph_across_two_models() -> None:
    tokenizer = tokenizer_of(MANY_WORDS)
    one, other = model_of(160, seed=1), model_of(160, seed=2)
    link = fit_vocab(*(ModelEnds.of(model, tokenizer, "tiny", "") for model in (other, one)))
    graph = across((one, tokenizer), (other, tokenizer), link)

    def ask() -> list[Any]:
        return [said(graph.run(QUESTION, temperature=1.0, seed=seed)) for seed in range(5)]

    expected = ask()
    assert at_once([ask] * 4) == [expected] * 4


def test_threads_that_ask_for_many_questions_each(tiny_llm: LocalLLM, tiny_tokenizer: Any) -> None:
    graph = toy_built(tiny_llm, tiny_tokenizer, graph=GraphConfig(latent_steps=1, max_new_tokens=9)).graph
    examples = [Example(str(number), question, "") for number, question in enumerate(QUESTIONS)]

    def ask() -> list[Any]:
        return [said(result) for result in graph.run_all(examples, max_concurrent=5, temperature=0.5)]

    expected = ask()
    assert at_once([ask] * 3) == [expected] * 3


# -- inside of a loop ------------------------------------------------------------------------


def test_a_call_inside_of_a_running_loop_names_the_way_out(tiny_llm: LocalLLM, tiny_tokenizer: Any) -> None:
    graph = toy_built(tiny_llm, tiny_tokenizer, topology="chain").graph
    examples = [Example("1", QUESTIONS[0], "")]
    result = graph.run(QUESTIONS[0])

    async def notebook() -> list[str]:
        calls: list[tuple[Callable[[], Any], str]] = [
            (lambda: graph.run(QUESTIONS[0]), "await graph.arun("),
            (lambda: graph.run_all(examples), "await graph.arun_all("),
            (lambda: answer_all_in_one_prompt(graph, examples), "await asyncio.to_thread(answer_all_in_one_prompt,"),
            (lambda: readings(graph, tiny_llm, [result]), "await asyncio.to_thread(readings,"),
        ]
        for call, way_out in calls:
            with pytest.raises(GcacheError) as refused:
                call()
            assert isinstance(refused.value, RuntimeError)  # as asyncio's own error is
            assert way_out in str(refused.value) and "\n" not in str(refused.value)
        assert (await graph.arun(QUESTIONS[0])).answer == result.answer
        there = await asyncio.to_thread(graph.run, QUESTIONS[0])
        return [there.answer]

    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing was made that is never awaited
        assert asyncio.run(notebook()) == [result.answer]


# -- what rollouts share ---------------------------------------------------------------------


def test_thoughts_are_known_in_every_loop() -> None:
    thoughts, made = RolloutMemo(), []

    async def make() -> str:
        made.append(1)
        await asyncio.sleep(0)
        return "thought"

    def once() -> Any:
        return asyncio.run(thoughts.once("key", make))

    assert once() == ("thought", True)
    assert once() == ("thought", False) and len(made) == 1
    assert [value for value, _ in at_once([once] * 4)] == ["thought"] * 4  # type: ignore[misc]


def test_a_thought_that_is_being_made_in_one_loop_is_made_in_another() -> None:
    thoughts = RolloutMemo()
    first, second = asyncio.new_event_loop(), asyncio.new_event_loop()

    async def make() -> str:
        for _ in range(3):
            await asyncio.sleep(0)
        return "thought"

    async def begin() -> asyncio.Task[Any]:
        task = asyncio.ensure_future(thoughts.once("key", make))
        await asyncio.sleep(0)
        return task

    try:
        waiting = first.run_until_complete(begin())
        assert second.run_until_complete(thoughts.once("key", make)) == ("thought", True)
        assert first.run_until_complete(waiting) == ("thought", True)
    finally:
        first.close()
        second.close()


def test_a_thought_that_failed_fails_for_all_and_one_that_was_cancelled_is_made_anew() -> None:
    thoughts, made = RolloutMemo(), []

    async def fails() -> str:
        made.append(1)
        raise RuntimeError("no thought")

    async def waits() -> str:
        made.append(1)
        await asyncio.sleep(60)
        return "never"

    async def comes() -> str:
        return "thought"

    for _ in range(3):
        with pytest.raises(RuntimeError, match="no thought"):
            asyncio.run(thoughts.once("failed", fails))
    assert len(made) == 1

    async def give_up() -> None:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(thoughts.once("late", waits), 0.01)

    asyncio.run(give_up())
    assert asyncio.run(thoughts.once("late", comes)) == ("thought", True)


def test_names_of_thoughts_differ_in_all_threads() -> None:
    thoughts = RolloutMemo()

    def name(first: int) -> Callable[[], list[int]]:
        return lambda: [thoughts.name((first + number) % 2000) for number in range(2000)]

    names = at_once([name(500 * number) for number in range(4)])
    expected = {(500 * n + place) % 2000: value for n, own in enumerate(names) for place, value in enumerate(own)}  # type: ignore[arg-type]
    assert len(set(expected.values())) == 2000
    for number, own in enumerate(names):
        assert own == [expected[(500 * number + place) % 2000] for place in range(2000)]


def test_a_probe_of_a_server_that_was_given_up_is_made_anew(tiny_llm: LocalLLM) -> None:
    class Slow:
        """Answers from the second time on."""

        asked = 0

        async def complete(self, prompt_embeds: str, max_new_tokens: int) -> ApiText:
            self.asked += 1
            if self.asked == 1:
                await asyncio.sleep(60)
            return ApiText("four", PROBE, 1, "stop", 1)

    api = Slow()
    writer = EmbedsWriter(api, None)  # type: ignore[arg-type]

    async def give_up() -> None:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(writer._probe(tiny_llm), 0.01)

    asyncio.run(give_up())
    for _ in range(3):
        asyncio.run(writer._probe(tiny_llm))
    assert api.asked == 2


def test_a_loop_that_is_closed_half_way_raises_nothing_where_nobody_can_catch_it(
    tiny_llm: LocalLLM, tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python prints what is raised while a coroutine is thrown away."""
    tiny_llm.stop_tokens = frozenset()
    ignored: list[str] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda what: ignored.append(f"{what.exc_value!r} in {what.object!r}"))
    monkeypatch.setattr(logging.getLogger("asyncio"), "disabled", True)  # it tells of tasks that never ended
    config = GraphConfig(latent_steps=1, max_new_tokens=8, hands="both", speak_tokens=4)
    graph = toy_built(tiny_llm, tiny_tokenizer, graph=config).graph
    examples = [Example(str(number), QUESTIONS[number], "") for number in range(2)]
    for turns in range(1, 160, 17):
        loop = asyncio.new_event_loop()
        tasks = [
            loop.create_task(graph.arun(QUESTIONS[0], memo=RolloutMemo())),
            loop.create_task(graph.arun_all(examples)),
        ]  # fmt: skip
        for _ in range(turns):
            loop.run_until_complete(asyncio.sleep(0))
        loop.close()
        del tasks, loop
        gc.collect()
    assert not ignored, ignored[0]
    assert asyncio.run(graph.arun(QUESTIONS[0])).answer == graph.run(QUESTIONS[0]).answer
