"""Prompts for the local model alone: no agents, no template."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from gcache.llm.local import LocalLLM
from gcache.llm.requests import GenerateRequest, Generation
from gcache.serve.choice_stream import ChoiceStream
from gcache.serve.context_length import check_completion, check_told
from gcache.serve.deltas import Answer, Choice, Delta, SamplingParams, Tell
from gcache.serve.model import ServedModel
from gcache.serve.prompts import Prompt, ReadPrompt, read_prompt
from gcache.serve.refusals import Refused

T = TypeVar("T")


@dataclass(frozen=True)
class AskModel:
    """Prompts to be completed.

    Attributes:
        stream: whether texts are told as they grow.
        echo: whether each choice begins with its prompt, and log-probabilities with those of the prompt's tokens.
        specials: whether texts are read with the tokenizer's special tokens round them.
    """

    prompts: tuple[Prompt, ...]
    draw: SamplingParams
    stream: bool = True
    echo: bool = False
    specials: bool = True

    async def __call__(self, served: ServedModel, tell: Tell) -> Answer:
        batching, llm = served.batching, served.llm
        if batching is None or llm is None:
            raise Refused(400, "this graph has no local model, so there is nothing that completes a prompt")
        prompts = [read_prompt(prompt, served, llm, self.specials) for prompt in self.prompts]
        repeated = sum(prompt.slots for prompt in prompts) if self.echo else 0
        written = len(prompts) * (1 if self.draw.max_tokens is None else self.draw.max_tokens)
        check_told(self.draw.n * (repeated + written), self.draw.top_log_probs)
        writings = [
            _Writing.of(self, served, llm, prompt, seed, tell, number * self.draw.n + of_prompt)
            for number, prompt in enumerate(prompts)
            for of_prompt, seed in enumerate(self.draw.seeds)
        ]
        tell(Delta())
        done = await all_of([batching.generate(writing.request) for writing in writings])
        choices = tuple(writing.choice(self, text) for writing, text in zip(writings, done, strict=True))
        read, written = sum(prompt.slots for prompt in prompts), sum(len(text.tokens) for text in done)
        told = 0 if self.draw.max_tokens == 0 else written
        return Answer(choices, read, told, read * self.draw.n, written)


@dataclass(frozen=True)
class _Writing:
    """One choice, as it is asked of the model, and as far as it is told."""

    request: GenerateRequest
    telling: ChoiceStream
    echoed: str

    @classmethod
    def of(
        cls, ask: AskModel, served: ServedModel, llm: LocalLLM, prompt: ReadPrompt, seed: int, tell: Tell, number: int
    ) -> _Writing:
        """Raises Refused where the prompt leaves no room."""
        draw = ask.draw
        most = check_completion(served, prompt.slots, 1 if draw.max_tokens is None else draw.max_tokens)
        echoed = prompt.text(llm) if ask.echo else ""
        telling = ChoiceStream(served, draw, tell, number, echoed, prompt.tokens if ask.echo else ())
        watched, scored = ask.stream and most > 0, draw.top_log_probs is not None
        request = GenerateRequest(
            prompt.tokens, None, max(1, most), draw.temperature, seed, stop=draw.stop,
            watch=telling.written if watched else None, embeds=prompt.embeds, top_p=draw.top_p,
            top_log_probs=draw.top_log_probs, score_prompt=scored and ask.echo,
            watch_scores=telling.scores if watched and scored else None,
        )  # fmt: skip
        return cls(request, telling, echoed)

    def choice(self, ask: AskModel, text: Generation) -> Choice:
        """What came of it. Where no token is asked for, the one that the model wrote is left out."""
        none = ask.draw.max_tokens == 0
        written = "" if none else text.text
        scored = self.telling.finish(written, text.scores[:-1] if none else text.scores, ask.stream)
        finish = "stop" if text.finished and not none else "length"
        return Choice(self.echoed + written, finish, scored)


async def all_of(works: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """What all of them give. Where one fails, or whoever waits is cancelled, the others are ended first."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
