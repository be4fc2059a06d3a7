"""Services around tiny models, on a free port of this machine, and one whose answers come when a test says so."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2
import pytest
from toy import DECISION, toy_built
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from gcache.build import Built
from gcache.gnn.providers import FixedProvider
from gcache.graph.run_config import GraphConfig
from gcache.graph.text_backends import Prompt, TextOutput
from gcache.graph.text_graph import TextGraph
from gcache.llm.api.client import ApiText
from gcache.llm.local import LocalLLM
from gcache.serve.model import ServedModel
from gcache.serve.server import Serving, listening
from gcache.serve.service import Service
from gcache.serve.settings import ServeSettings

#: Seconds after which a test that waits for something has failed.
PATIENCE = 20.0


@dataclass(frozen=True)
class Running:
    """A service that answers."""

    url: str
    service: Service
    stop: Callable[[], Any]

    def post(self, path: str = "/v1/chat/completions", **body: Any) -> httpx2.Response:
        return httpx2.post(self.url + path, json=body, timeout=PATIENCE)

    def ask(self, question: str, **more: Any) -> dict[str, Any]:
        """The whole body of an answer."""
        answer = self.post(messages=[{"role": "user", "content": question}], **more)
        assert answer.status_code == 200, answer.text
        body: dict[str, Any] = answer.json()
        return body


@contextmanager
def running(name: str, settings: ServeSettings, make: Callable[[], ServedModel]) -> Iterator[Running]:
    """A service in a thread, from when it answers to its end in good order."""
    service = Service(name, settings)
    loop = asyncio.new_event_loop()
    ready = threading.Event()
    with listening(settings) as listener:
        serving = Serving(service, listener)

        def serve() -> None:
            loop.run_until_complete(serving.go(make, lambda url: ready.set()))
            loop.close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            assert ready.wait(PATIENCE)
            yield Running(serving.url, service, lambda: loop.call_soon_threadsafe(serving.stop))
        finally:
            if not service.draining:
                loop.call_soon_threadsafe(serving.stop)
            thread.join(PATIENCE)
        assert not thread.is_alive()


@dataclass
class Held:
    """Says something only when it is let.

    Attributes:
        asked: one release for every question that came.
        given_up: set when a question was cancelled.
    """

    answer: str = "at last"
    error: Exception | None = None
    asked: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    given_up: threading.Event = field(default_factory=threading.Event)
    open: bool = False
    _waiting: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = field(default_factory=list)

    async def say(self, prompt: Prompt) -> TextOutput:
        event = asyncio.Event()
        self._waiting.append((asyncio.get_running_loop(), event))
        self.asked.release()
        try:
            if not self.open:
                await event.wait()
        except asyncio.CancelledError:
            self.given_up.set()
            raise
        if self.error is not None:
            raise self.error
        return TextOutput((), api=ApiText(self.answer, 3, 2, "stop", 1))

    def came(self, count: int = 1) -> None:
        """Wait until so many questions are here."""
        for _ in range(count):
            assert self.asked.acquire(timeout=PATIENCE)

    def let_go(self) -> None:
        """Answer all that wait, and all that come."""
        self.open = True
        for loop, event in self._waiting:
            loop.call_soon_threadsafe(event.set)

    def served(self) -> ServedModel:
        graph = TextGraph(self, (), DECISION, FixedProvider("none"), GraphConfig(hands="text"), "api")
        return ServedModel("held", graph, None)


Start = Callable[..., Running]


@pytest.fixture(scope="session")
def toy(tiny_llama: LlamaForCausalLM, tiny_tokenizer: PreTrainedTokenizerFast) -> Callable[..., Built]:
    """Makes a toy graph of its own."""

    def make(llm: LocalLLM | None = None, **spec: Any) -> Built:
        spec.setdefault("topology", "chain")
        spec.setdefault("graph", GraphConfig(latent_steps=2, max_new_tokens=12))
        return toy_built(llm or LocalLLM(tiny_llama, tiny_tokenizer, "tiny"), tiny_tokenizer, **spec)

    return make


@pytest.fixture(scope="session")
def server(toy: Callable[..., Built]) -> Iterator[Running]:
    """A toy graph behind a service, for tests that leave it as it was."""
    settings = ServeSettings(port=0, allow_prompt_embeds=True, max_tokens=200)
    with running("toy", settings, lambda: ServedModel.of(toy(), "toy")) as found:
        yield found


@pytest.fixture
def start(toy: Callable[..., Built]) -> Iterator[Start]:
    """Starts services with settings of their own."""
    with ExitStack() as stack:

        def started(make: Callable[[], ServedModel] | None = None, **settings: Any) -> Running:
            chosen = make or (lambda: ServedModel.of(toy(), "toy"))
            return stack.enter_context(running("toy", ServeSettings(port=0, **settings), chosen))

        yield started


@pytest.fixture
def held() -> Iterator[Held]:
    """Answers that come when a test says so."""
    made = Held()
    yield made
    made.let_go()


@pytest.fixture(scope="session")
def until() -> Callable[[Callable[[], bool]], None]:
    """Waits for something that another thread does and nobody tells of."""

    def wait(true: Callable[[], bool]) -> None:
        end = time.monotonic() + PATIENCE
        while not true():
            assert time.monotonic() < end, "it never came"
            time.sleep(0.01)

    return wait
