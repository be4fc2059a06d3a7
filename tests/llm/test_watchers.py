"""Whoever watches a text or a thought may wait for other threads: no turn is held while it is told."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from typing import Any

import pytest
from toy import QUESTIONS, toy_built

from gcache.graph.events import Event
from gcache.graph.run_config import GraphConfig
from gcache.llm.local import LocalLLM
from gcache.llm.requests import GenerateRequest, ThinkRequest
from gcache.llm.scheduler import BatchingLLM

#: Seconds after which two threads wait for each other for ever.
PATIENCE = 20.0
PROMPT = (5, 9, 4)
ASKED = {
    "a token": ("generate", lambda watch: GenerateRequest(PROMPT, max_new_tokens=6, watch=watch)),
    "the last token": ("generate", lambda watch: GenerateRequest(PROMPT, max_new_tokens=1, watch=watch)),
    "a thought": ("think", lambda watch: ThinkRequest(PROMPT, latent_steps=2, watch=watch)),
    "a prompt": ("think", lambda watch: ThinkRequest(PROMPT, watch_prompt=watch)),
}


def in_time(calls: list[Callable[[], Any]]) -> None:
    """Run each in a thread of its own, all of which must end."""
    errors: list[BaseException] = []

    def one(call: Callable[[], Any]) -> None:
        try:
            call()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=one, args=(call,), daemon=True) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    waiting = sum(thread.is_alive() for thread in threads)
    assert not waiting, f"{waiting} of {len(threads)} threads wait for ever"
    assert not errors, errors


@pytest.mark.parametrize("in_a_loop", [False, True])
@pytest.mark.parametrize("what", ASKED)
def test_a_watcher_may_wait_for_a_thread_that_uses_the_same_model(
    tiny_llm: LocalLLM, what: str, in_a_loop: bool
) -> None:
    tiny_llm.stop_tokens = frozenset()
    call, make = ASKED[what]
    asked: queue.Queue[Any] = queue.Queue()
    answered: queue.Queue[Any] = queue.Queue()

    def watch(told: Any) -> None:
        asked.put(told)
        answered.get(timeout=PATIENCE)  # until the other thread has used the model

    def tell() -> None:
        if in_a_loop:
            asyncio.run(_ask(BatchingLLM(tiny_llm), call, make(watch)))
        else:
            getattr(tiny_llm, call)([make(watch)])
        asked.put(None)

    def use() -> None:
        while asked.get(timeout=PATIENCE) is not None:
            tiny_llm.think([ThinkRequest(PROMPT, latent_steps=1)])
            answered.put(True)

    in_time([tell, use])


async def _ask(front: BatchingLLM, call: str, request: Any) -> Any:
    return await getattr(front, call)(request)


@pytest.mark.parametrize("kind", ["turn", "step", "text"])
def test_a_watcher_of_a_run_may_hand_what_it_hears_to_a_thread_that_asks_the_same_graph(
    tiny_llm: LocalLLM, tiny_tokenizer: Any, kind: str
) -> None:
    tiny_llm.stop_tokens = frozenset()
    graph = toy_built(tiny_llm, tiny_tokenizer, graph=GraphConfig(latent_steps=1, max_new_tokens=6)).graph
    told: queue.Queue[Event | None] = queue.Queue(maxsize=1)

    def run() -> None:
        graph.run(QUESTIONS[0], watch=lambda event: told.put(event, timeout=PATIENCE) if event.kind == kind else None)
        told.put(None)

    def follow() -> None:
        while told.get(timeout=PATIENCE) is not None:
            graph.run(QUESTIONS[1])

    in_time([run, follow])


async def test_a_watcher_that_gives_up_another_text_leaves_the_rest_alone(tiny_llm: LocalLLM) -> None:
    tiny_llm.stop_tokens = frozenset()
    front, heard = BatchingLLM(tiny_llm), dict.fromkeys(range(4), ())
    texts: list[asyncio.Future[Any]] = []

    def watch(number: int) -> Callable[[tuple[int, ...]], None]:
        def hear(tokens: tuple[int, ...]) -> None:
            assert tokens[: len(heard[number])] == heard[number] and len(tokens) > len(heard[number])
            heard[number] = tokens
            if number == 0 and len(tokens) > 2:
                texts[1].cancel()
            if number == 2 and len(tokens) > 2:
                raise ValueError("enough")

        return hear

    prompts = [(5, 9, 4), (7, 8), (11, 3, 20, 6), (30,)]
    alone = [tiny_llm.generate([GenerateRequest(prompt, max_new_tokens=9)])[0] for prompt in prompts]
    texts += [
        asyncio.ensure_future(front.generate(GenerateRequest(prompt, max_new_tokens=9, watch=watch(number))))
        for number, prompt in enumerate(prompts)
    ]
    found = await asyncio.gather(*texts, return_exceptions=True)
    assert [found[0].text, found[3].text] == [alone[0].text, alone[3].text]
    assert isinstance(found[1], asyncio.CancelledError) and len(heard[1]) < 9
    assert isinstance(found[2], ValueError) and len(heard[2]) < 9
    assert heard[0] == alone[0].tokens and heard[3] == alone[3].tokens
