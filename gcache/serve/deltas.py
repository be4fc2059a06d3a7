"""What is asked of a text, what is told while it is written, and what came of it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from gcache.runtime.streams import derive
from gcache.serve.model import ServedModel
from gcache.serve.scores import Scored


@dataclass(frozen=True)
class SamplingParams:
    """How texts are drawn.

    Attributes:
        max_tokens: None for the graph's own; 0 for none, where only the prompt is asked about.
        top_p: see `gcache.llm.decode.sampling`.
        n: texts of each prompt.
        top_log_probs: likeliest tokens that are told beside each token; None tells no log-probabilities.
    """

    max_tokens: int | None = None
    temperature: float = 0.0
    seed: int = 0
    stop: tuple[str, ...] = ()
    top_p: float = 1.0
    n: int = 1
    top_log_probs: int | None = None

    @property
    def seeds(self) -> tuple[int, ...]:
        """Of each text of a prompt. The first is the request's own: it is the text that is drawn where n is 1."""
        return (self.seed, *(derive("choice", self.seed, number) for number in range(1, self.n)))


@dataclass(frozen=True)
class Delta:
    """Something that is known before the answer is whole: more of its text, or an event.

    Attributes:
        choice: which text it is of.
        scored: the tokens that came since the last time, where log-probabilities are told.
        reasoning: more of what stands in think tags.
    """

    text: str = ""
    event: dict[str, Any] | None = None
    choice: int = 0
    scored: tuple[Scored, ...] = ()
    reasoning: str = ""


@dataclass(frozen=True)
class Choice:
    """A text that was asked for.

    Attributes:
        finish: "stop" or "length".
        scored: its tokens, where log-probabilities are told.
        reasoning: what stands in think tags, which is no part of the text.
    """

    text: str
    finish: str
    scored: tuple[Scored, ...] | None = None
    reasoning: str = ""


@dataclass(frozen=True)
class Answer:
    """What came of a request.

    Attributes:
        choices: n of a question, or n of each prompt in turn.
        read, written: tokens of the prompts, each once, and of all choices, as a client counts them.
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
        """Of the first choice."""
        return self.choices[0].text


#: Gets what is told, in the engine's thread.
Tell = Callable[[Delta], None]
#: Works on a request, in the engine's thread.
Work = Callable[[ServedModel, Tell], Coroutine[Any, Any, Answer]]
