"""What comes of an agent's turn: its own slots, what it hands on, and what it says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gcache.cache.fused_cache import FusedCache
from gcache.cache.kv_cache import KVCache
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
        said: its text, where it speaks; asked_to_speak: the tokens before it.
        outputs: (P, E) last hidden states of its prompt, where another model might hear it.
    """

    own: KVCache
    handed: KVCache
    states: Tensor | None
    said: Generation | None
    asked_to_speak: tuple[int, ...]
    outputs: Tensor | None = None


async def think(
    parts: Parts,
    agent_model: AgentModel,
    request: ThinkRequest,
    wants_states: bool,
    crosses: bool,
    question: str | None,
    variables: str,
    context: Sequence[int],
) -> Thought:
    """Take an agent's turn.

    Args:
        request: its prompt on what it received.
        wants_states: whether somebody wants the states of its latent steps; crosses: and of its prompt.
        question: where it speaks too; None where it says nothing.
        variables: of the chat template.
        context: the question's tokens, from which words are guessed.
    """
    states: list[Tensor] = []
    outputs: list[Tensor] = []
    if wants_states:
        request = replace(request, watch=states.append, watch_prompt=outputs.append if crosses else None)
    own = await agent_model.llm.think(request)
    received = request.past
    assert received is not None
    with torch.no_grad():
        handed = handed_on(agent_model.fuser, own, received, parts.config.transfer)
    for part in FusedCache.plain(handed).parts:
        if all(part is not known for known in (own, *received.parts)):
            parts.llm.ledger.hold(part)
    said: Generation | None = None
    asked: tuple[int, ...] = ()
    if question is not None:
        asked = agent_model.speak_tokens(question, variables)
        whole = FusedCache.join([received, FusedCache.plain(own)])
        # greedy: an agent's words are part of the environment, only the answer is drawn
        said = await agent_model.llm.generate(
            GenerateRequest(asked, whole, parts.config.speak_tokens, context=tuple(context))
        )
    return Thought(own, handed, states[-1] if states else None, said, asked, outputs[-1] if outputs else None)
