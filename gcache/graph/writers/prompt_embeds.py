"""Latent thoughts as prompt embeddings, for a server that runs the agents' own model.

A latent thought is an embedding that no token has: what `Alignment` makes of a hidden state. Servers
that take embeddings instead of text (vLLM, started with --enable-prompt-embeds) can read it as it is:

    completions   the whole chat-templated prompt as embeddings, base64 of a saved tensor (S, E):
                  | turn opens, question | thoughts of agent 0 | ... | the decision maker's words, turn closes |
    chat          a message of parts, of which the thoughts are one; the server lays the template round it

Only the thoughts arrive, not what else the agents' caches hold, and nothing that was drawn depends
on a cache: the topology learns, the fuser does not. The server must run the same weights: embeddings of another model
mean nothing to it, and only their width can be checked.
"""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from gcache.errors import ApiError, BudgetSpent
from gcache.graph.memo import RolloutMemo
from gcache.graph.result import Spoken
from gcache.graph.writers.base import WriterInput
from gcache.llm.api.client import ApiLLM, ApiText, Content
from gcache.llm.scheduler import BatchingLLM

#: Rows of the embeddings that a server is tried with.
PROBE = 48


def encoded(embeds: Tensor) -> str:
    """Base64 of a saved tensor (S, E), as servers take it."""
    buffer = io.BytesIO()
    torch.save(embeds.detach().cpu().contiguous().clone(), buffer)
    return base64.b64encode(buffer.getvalue()).decode("ascii")


@dataclass(frozen=True)
class EmbedsWriter:
    """The API, given the question and the agents' latent thoughts as embeddings.

    Args:
        layout: of the prompt, where the whole of it is embedded.
        endpoint: one of `gcache.graph.run_config.ENDPOINTS`.
    """

    api: ApiLLM
    layout: Any
    endpoint: str = "completions"
    mode: str = "api_embeds"
    learns: bool = False
    wants_states: bool = True
    _probed: RolloutMemo = field(default_factory=RolloutMemo, repr=False)

    async def write(self, llm: BatchingLLM, asked: WriterInput) -> Spoken:
        model: Any = llm.llm
        thoughts = [model.alignment(h.states) for h in asked.heard if h.states is not None and len(h.states)]
        heard, most, temperature, seed = (
            tuple(h.agent for h in asked.heard), asked.max_new_tokens, asked.temperature, asked.seed
        )  # fmt: skip
        await self._probe(model)
        if self.endpoint == "chat":
            parts: list[dict[str, Any]] = [{"type": "text", "text": asked.question}]
            parts += [part(thought) for thought in thoughts]
            talk: list[tuple[str, Content]] = [("system", asked.instructions), ("user", parts)]
            del asked
            text = await self.api.chat(talk, most, temperature, seed)
        else:
            words = self.layout.decision(asked.instructions, turn="same", question=asked.question)
            before, after = (model.embedding(torch.tensor(t, device=model.device)) for t in (asked.context, words))
            del asked
            text = await self.api.complete(encoded(torch.cat((before, *thoughts, after))), most, temperature, seed)
        return Spoken(heard, (), None, text)

    async def _probe(self, model: Any) -> None:
        """Once: whether the server reads embeddings.

        Raises:
            ApiError: it refuses them, or passes over them.
        """
        await self._probed.once("asked", lambda: self._try(model))

    async def _try(self, model: Any) -> None:
        embeds = model.embedding(torch.zeros(PROBE, dtype=torch.long, device=model.device))
        way_out = (
            f"api_embeds needs a server that takes prompt embeddings at its {self.endpoint} endpoint and runs the same "
            "model, such as vLLM with --enable-prompt-embeds; or use the mode api_hint"
        )
        try:
            if self.endpoint == "chat":
                text: ApiText = await self.api.chat([("user", [part(embeds)])], 1)
            else:
                text = await self.api.complete(encoded(embeds), 1)
        except BudgetSpent:
            raise
        except ApiError as error:
            raise ApiError(f"the server takes no prompt embeddings ({error}); {way_out}") from error
        if text.prompt_tokens is None or text.prompt_tokens < PROBE:
            raise ApiError(
                f"the server passes over prompt embeddings: it was sent {PROBE} and counts {text.prompt_tokens} prompt "
                f"tokens; {way_out}"
            )


def part(embeds: Tensor) -> dict[str, Any]:
    """Embeddings as a part of a chat message."""
    return {"type": "prompt_embeds", "data": encoded(embeds)}
