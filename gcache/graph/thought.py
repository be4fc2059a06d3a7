"""What comes of an agent's turn: its own slots, what it hands on, and what it says."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gcache.cache.fused_cache import FusedCache
from gcache.cache.kv_cache import SHARED, KVCache
from gcache.graph.agent_models import AgentModel
from gcache.graph.hand_over import handed_on
from gcache.graph.parts import Parts
from gcache.llm.requests import GenerateRequest, Generation, ThinkRequest


@dataclass(frozen=True)
class Thought:
    """What came of an agent's turn.

    Attributes:
        own: its own slots; handed: what it hands on.
        states: (S, E) of its latent steps, where somebody wants them.
        said: its text, where it speaks or writes a solution; asked_to_speak: the tokens before it, if there are any.
        outputs: (P, E) last hidden states of its prompt, where another model might hear it.
        kept: whether its own slots are in a store.
    """

    own: KVCache
    handed: KVCache
    states: Tensor | None
    said: Generation | None
    asked_to_speak: tuple[int, ...]
    outputs: Tensor | None = None
    kept: bool = False


@dataclass(frozen=True)
class Turn:
    """What an agent is asked.

    Attributes:
        request: its prompt on what it received.
        context: the question's tokens, from which words are guessed.
        wants_states: whether somebody wants the states of its latent steps; crosses: and of its prompt.
        solution_seed: what its solution is drawn by; None where it writes none.
        question: where it speaks too; None where it says nothing.
        variables: of the chat template.
    """

    request: ThinkRequest
    context: tuple[int, ...]
    wants_states: bool
    crosses: bool
    solution_seed: int | None
    question: str | None
    variables: str


async def think(parts: Parts, agent_model: AgentModel, turn: Turn) -> Thought:
    """Take an agent's turn."""
    states: list[Tensor] = []
    outputs: list[Tensor] = []
    request, received = turn.request, turn.request.past
    assert received is not None
    said: Generation | None = None
    asked: tuple[int, ...] = ()
    kept = False
    if turn.solution_seed is not None:
        said = await agent_model.llm.generate(_solution(parts, turn, states))
        assert said.slots is not None
        own, said = said.slots, replace(said, slots=None)
    else:
        if turn.wants_states and (request.latent_steps or turn.crosses):  # else there are none, and a store may serve
            request = replace(request, watch=states.append, watch_prompt=outputs.append if turn.crosses else None)
        request = replace(request, past_tokens=_known_past(turn))
        kept = agent_model.llm.keeps(request)
        own = await agent_model.llm.think(request)
    with torch.no_grad():
        handed = handed_on(agent_model.fuser, own, received, parts.config.payload)
    for part in FusedCache.plain(handed).parts:
        if all(part is not known for known in (own, *received.parts)):
            parts.llm.ledger.hold(part)
    if turn.question is not None:
        asked = agent_model.speak_tokens(turn.question, turn.variables)
        whole = FusedCache.join([received, FusedCache.plain(own)])
        # greedy: what an agent tells others is part of the environment
        said = await agent_model.llm.generate(
            GenerateRequest(asked, whole, parts.config.speak_tokens, context=turn.context)
        )
    none = own.values.new_zeros(0, 0) if turn.wants_states else None
    return Thought(own, handed, states[-1] if states else none, said, asked, outputs[-1] if outputs else None, kept)


def _solution(parts: Parts, turn: Turn, states: list[Tensor]) -> GenerateRequest:
    """What writes an agent's solution behind its prompt and its latent steps; their states go to `states`."""
    request = turn.request
    return GenerateRequest(
        request.tokens, request.past, parts.config.reason_tokens, parts.config.agent_temperature,
        turn.solution_seed or 0, turn.context, latent_steps=request.latent_steps, alignment=request.alignment,
        watch_latents=states.append if turn.wants_states else None, owner=request.owner,
        past_tokens=_known_past(turn),
    )  # fmt: skip


def _known_past(turn: Turn) -> tuple[int, ...] | None:
    """The tokens that an agent's words stand behind, where it hears nobody."""
    past = turn.request.past
    return turn.context if past is not None and past.makers <= {SHARED} else None
