"""OpenAI's response bodies, whole and in pieces."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from gcache.serve.deltas import Answer, Choice
from gcache.serve.scores import Scored, chat_scores, text_scores

DONE = b"data: [DONE]\n\n"


def sse(body: dict[str, Any]) -> bytes:
    """One server-sent event."""
    return b"data: " + as_bytes(body) + b"\n\n"


def as_bytes(body: Any) -> bytes:
    """JSON in UTF-8; half characters, which UTF-8 has no form for, become question marks."""
    return json.dumps(body, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode("utf-8", "replace")


def usage(answer: Answer) -> dict[str, int]:
    return {
        "prompt_tokens": answer.read, "completion_tokens": answer.written,
        "total_tokens": answer.read + answer.written,
    }  # fmt: skip


@dataclass(frozen=True)
class Form:
    """How the answer to one request is written down.

    Attributes:
        chat: a chat completion; else a text completion.
        include_usage: whether a stream ends with the tokens' counts.
        n: choices of a chat.
    """

    model: str
    created: int
    chat: bool = True
    include_usage: bool = False
    n: int = 1
    id: str = field(default_factory=lambda: secrets.token_hex(12))

    # -- whole ----------------------------------------------------------------------------------

    def whole(self, answer: Answer, steps: list[dict[str, Any]]) -> dict[str, Any]:
        """The body of a response that is no stream; `steps`: of a trace, where one is asked for."""
        choices: list[dict[str, Any]] = [
            {
                "index": index, **self._content(choice), "logprobs": self._scores(choice.scored),
                "finish_reason": choice.finish,
            }
            for index, choice in enumerate(answer.choices)
        ]  # fmt: skip
        body = self._body("chat.completion" if self.chat else "text_completion", choices)
        body["usage"] = usage(answer)
        if answer.trace is not None:
            trace = [{name: step[name] for name in step if name != "kind"} for step in steps if step["kind"] == "step"]
            body["gcache"] = {**answer.trace, "trace": trace}
        return body

    def _content(self, choice: Choice) -> dict[str, Any]:
        if not self.chat:
            return {"text": choice.text}
        thought = {"reasoning_content": choice.reasoning} if choice.reasoning else {}
        return {"message": {"role": "assistant", "content": choice.text, **thought, "refusal": None}}

    def _scores(self, scored: Sequence[Scored] | None) -> dict[str, Any] | None:
        if scored is None:
            return None
        return chat_scores(scored) if self.chat else text_scores(scored)

    # -- in pieces ------------------------------------------------------------------------------

    def opening(self) -> Iterator[bytes]:
        for index in range(self.n if self.chat else 0):
            yield sse(self._chunk({"role": "assistant", "content": ""}, index=index))

    def text(self, more: str, index: int = 0, scored: Sequence[Scored] = (), reasoning: str = "") -> bytes:
        thought = {"reasoning_content": reasoning} if reasoning else {}
        said = {"content": more} if more or not reasoning else {}
        return sse(self._chunk({**thought, **said} if self.chat else more, index=index, scored=scored or None))

    def event(self, event: dict[str, Any]) -> bytes:
        body = self._body(self._piece, [])
        return sse({**body, **({"usage": None} if self.include_usage else {}), "gcache": event})

    def closing(self, answer: Answer) -> Iterator[bytes]:
        for index, choice in enumerate(answer.choices):
            yield sse(self._chunk({} if self.chat else "", choice.finish, index))
        if self.include_usage:
            yield sse({**self._body(self._piece, []), "usage": usage(answer)})
        yield DONE

    @property
    def _piece(self) -> str:
        return "chat.completion.chunk" if self.chat else "text_completion"

    def _chunk(
        self, more: Any, finish: str | None = None, index: int = 0, scored: Sequence[Scored] | None = None
    ) -> dict[str, Any]:
        content = {"delta": more} if self.chat else {"text": more}
        choice = {"index": index, **content, "logprobs": self._scores(scored), "finish_reason": finish}
        body = self._body(self._piece, [choice])
        return {**body, "usage": None} if self.include_usage else body

    def _body(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        name = f"chatcmpl-{self.id}" if self.chat else f"cmpl-{self.id}"
        return {"id": name, "object": kind, "created": self.created, "model": self.model, "choices": choices}
