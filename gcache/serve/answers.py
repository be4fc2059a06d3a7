"""How a request is worked on in the engine: a question by the whole graph, prompts by its model alone.

Both tell what they have as they go, and end with an `Answer`. They run in the engine's thread, where the
model, its tokenizer and the graph live.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from gcache.graph.events import Event
from gcache.graph.greedy import topology_name
from gcache.graph.records import RunResult, Spoken
from gcache.llm.decoding import first_stop
from gcache.llm.local import LocalLLM
from gcache.llm.requests import GenerateRequest
from gcache.serve.events import agents_json, edge_bytes_json, edges_json, event_json, probabilities_json
from gcache.serve.growing import Growing
from gcache.serve.prompts import Prompt, read_prompt
from gcache.serve.refusals import Refused
from gcache.serve.room import check_characters, check_completion, check_room
from gcache.serve.served import Served
from gcache.tasks.example import Example

T = TypeVar("T")


@dataclass(frozen=True)
class Draw:
    """How a text is drawn.

    Attributes:
        max_tokens: None for the graph's own.
    """

    max_tokens: int | None = None
    temperature: float = 0.0
    seed: int = 0
    stop: tuple[str, ...] = ()


@dataclass(frozen=True)
class Told:
    """Something that is known before the answer is whole: more of its text, or an event.

    Attributes:
        choice: which text it is of.
    """

    text: str = ""
    event: dict[str, Any] | None = None
    choice: int = 0


@dataclass(frozen=True)
class Choice:
    """A text that was asked for.

    Attributes:
        finish: "stop" or "length".
    """

    text: str
    finish: str


@dataclass(frozen=True)
class Answer:
    """What came of a request.

    Attributes:
        choices: one for a question; one a prompt for completions.
        read, written: tokens of the prompts and of the answers, as a client counts them.
        prefilled, generated: tokens that the local model computed in all.
        trace: of a run, what `gcache.trace` asks for.
    """

    choices: tuple[Choice, ...]
    read: int
    written: int
    prefilled: int
    generated: int
    trace: dict[str, Any] | None = None

    @property
    def text(self) -> str:
        """Of the first choice, which is the only one of a question."""
        return self.choices[0].text


#: Gets what is told, in the engine's thread.
Tell = Callable[[Told], None]
#: Works on a request, in the engine's thread.
Work = Callable[[Served, Tell], Coroutine[Any, Any, Answer]]


@dataclass(frozen=True)
class AskGraph:
    """A question for the graph's agents.

    Attributes:
        trace: whether what happens is told, and what latent steps can be read as.
        most: tokens that an answer may have; the graph's own number is cut to it.
        stream: whether the text is told as it grows. Where nobody reads it yet, that would cost every step of the batch
            a decoding of each text and a call into another thread.
    """

    example: Example
    draw: Draw
    most: int
    trace: bool = False
    stream: bool = True

    async def __call__(self, served: Served, tell: Tell) -> Answer:
        graph = served.graph
        _check_example(served, self.example)
        agents = graph.agents_of(self.example)
        topology = graph.topology(self.example)
        most = self.draw.max_tokens or min(self.most, graph.config.max_new_tokens)
        check_room(served, self.example.question, agents, topology, most)
        growing = Growing(self.draw.stop, served.tidied)
        tell(Told())  # it has begun

        def watch(event: Event) -> None:
            if event.kind == "text" and served.llm is not None:
                if self.stream and (more := growing.grow(served.llm.text(event.tokens))):
                    tell(Told(more))
            elif self.trace and event.kind != "text":
                tell(Told(event=event_json(event, agents, served.llm)))

        result = await graph.arun(
            self.example, topology=topology, temperature=self.draw.temperature, seed=self.draw.seed,
            keep_caches=False, max_new_tokens=most, stop=self.draw.stop,
            watch=watch if self.stream or self.trace else None, keep_states=self.trace,
        )  # fmt: skip
        answer = _answer(result, self.draw.stop, self.trace)
        if self.stream and (more := growing.finish(answer.text)):
            tell(Told(more))
        if self.trace:
            tell(Told(event={"kind": "done", "edge_bytes": edge_bytes_json(result.edge_bytes)}))
        return answer


@dataclass(frozen=True)
class AskModel:
    """Prompts for the local model alone: no agents, no template.

    Attributes:
        stream: as of `AskGraph`.
    """

    prompts: tuple[Prompt, ...]
    draw: Draw
    stream: bool = True

    async def __call__(self, served: Served, tell: Tell) -> Answer:
        batching = served.batching
        if batching is None or served.llm is None:
            raise Refused(400, "this graph has no local model, so there is nothing that completes a prompt")
        requests = [self._request(served, served.llm, number, tell) for number in range(len(self.prompts))]
        tell(Told())
        done = await _all_of([batching.generate(request) for request, _ in requests])
        for number, ((_, growing), text) in enumerate(zip(requests, done, strict=True)):
            if self.stream and (more := growing.finish(text.text)):
                tell(Told(more, choice=number))
        read, written = sum(r.prompt_slots for r, _ in requests), sum(len(text.tokens) for text in done)
        choices = tuple(Choice(text.text, "stop" if text.finished else "length") for text in done)
        return Answer(choices, read, written, read, written)

    def _request(self, served: Served, llm: LocalLLM, number: int, tell: Tell) -> tuple[GenerateRequest, Growing]:
        """One prompt on its way to the model, and its text as far as it is told.

        Raises:
            Refused: it cannot be read, or leaves the answer no room.
        """
        tokens, embeds = read_prompt(self.prompts[number], served, llm)
        growing = Growing(self.draw.stop, served.tidied)

        def watch(written: tuple[int, ...]) -> None:
            if more := growing.grow(llm.text(written)):
                tell(Told(more, choice=number))

        most = check_completion(served, len(tokens) if embeds is None else len(embeds), self.draw.max_tokens or 1)
        request = GenerateRequest(
            tokens, None, most, self.draw.temperature, self.draw.seed, stop=self.draw.stop,
            watch=watch if self.stream else None, embeds=embeds,
        )  # fmt: skip
        return request, growing


async def _all_of(works: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """What all of them give. Where one fails, or whoever waits is cancelled, the others are ended first."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@dataclass(frozen=True)
class AskTopology:
    """Who would hand to whom on a question, without asking it."""

    example: Example

    async def __call__(self, served: Served) -> dict[str, Any]:
        _check_example(served, self.example)
        topology = served.graph.topology(self.example)
        return {
            "question": self.example.question, "agents": agents_json(served.graph.agents_of(self.example)),
            "edges": edges_json(topology), "probabilities": probabilities_json(topology),
            "called": topology_name(served.graph, self.example),
        }  # fmt: skip


def _check_example(served: Served, example: Example) -> None:
    """Refuse what need not be looked at closer.

    Raises:
        Refused: a question without agents where the graph has none, or texts beyond any context.
    """
    if not example.notes and not served.brings_agents:
        raise Refused(
            400,
            "this graph has no agents of its own: every question brings them, as "
            '"gcache": {"agents": [{"role": ..., "description": ..., "note": ...}, ...]}',
            "gcache.agents",
        )
    check_characters(served, "\n".join([example.question, *(note.text for note in example.notes)]))


def _answer(result: RunResult, stop: tuple[str, ...], trace: bool) -> Answer:
    """Of a run. Where others than the local model write, a stop word is looked for when all is there."""
    cut = first_stop(result.answer, stop) if stop else None
    text = result.answer if cut is None else result.answer[:cut]
    chosen = next((spoken for spoken in result.spoken if spoken.text == result.answer), result.spoken[0])
    tokens = result.tokens
    whole = cut is not None or not chosen.cut
    told = {
        "agents": agents_json(result.agents),
        "topology": {"edges": edges_json(result.topology), "probabilities": probabilities_json(result.topology)},
        "edge_bytes": edge_bytes_json(result.edge_bytes),
    }
    return Answer(
        (Choice(text, "stop" if whole else "length"),), tokens["prefilled"] + tokens["api_read"], _written(chosen),
        tokens["prefilled"], tokens["generated"], told if trace else None,
    )  # fmt: skip


def _written(spoken: Spoken) -> int:
    if spoken.api is not None:
        return spoken.api.completion_tokens or 0
    return 0 if spoken.generation is None else len(spoken.generation.tokens)
