"""What the agents of a graph think with: one model for all, or several that links join.

An agent thinks with its own model, in that model's tokens and caches, and knows nothing of the others. Where an edge
leads to another model, what the sender hands on is carried over by the link between the two (`gcache.links`) and read
by the receiver's model behind its own question; from there on it is a cache like any other that arrives.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from gcache.agents.chat_template import TemplateSettings
from gcache.agents.prompts import ChatLayout, Layouts, Tokens, with_said
from gcache.cache.fused_cache import FusedCache
from gcache.cache.fusers.base import CacheFuser
from gcache.cache.kv_cache import KVCache, SlotKind
from gcache.errors import ConfigError
from gcache.gnn.topology import EdgeKey
from gcache.graph.hand_over import Weights, fused_for
from gcache.links.link import Link
from gcache.links.router import Router
from gcache.llm.requests import ThinkRequest
from gcache.llm.scheduler import LLM, BatchingLLM

#: What an agent is asked for its text.
SPEAK = "Say in a few sentences what you found, for the others to go on from."
#: Prompts whose tokens are remembered.
KNOWN_PROMPTS = 1000


class AgentModel:
    """One model of a graph, its tokens, and how caches become one in it.

    Args:
        llm: its calls are batched over all runs in flight.
        tokenizer: with a chat template.
        template: what that may read.
        question_order: see `gcache.agents.prompts`.
    """

    def __init__(
        self,
        llm: LLM,
        tokenizer: Any,
        fuser: CacheFuser,
        template: TemplateSettings | None = None,
        question_order: str = "first",
    ) -> None:
        self.llm = BatchingLLM(llm)
        self.layouts = Layouts(tokenizer, template or TemplateSettings(), question_order)
        self.fuser = fuser
        self._prompts: dict[tuple[str, str, bool, str], Tokens] = {}  # tokens of prompts, which repeat

    @property
    def layout(self) -> ChatLayout:
        return self.layouts.of()

    def agent_tokens(
        self, words: str, said: Sequence[tuple[str, str]], thinks: bool, question: str, variables: str = ""
    ) -> Tokens:
        """An agent's prompt behind a question, with what others said, as (role, words), before its own words.

        Args:
            variables: see `Layouts.of`.
        """
        key = (variables, with_said(words, said), thinks, question)
        tokens = self._prompts.get(key)
        if tokens is None:
            if len(self._prompts) >= KNOWN_PROMPTS:
                self._prompts.clear()  # which another thread may do at any moment
            tokens = self._prompts[key] = self.layouts.of(variables).agent(*key[1:])
        return tokens

    def speak_tokens(self, question: str, variables: str = "") -> Tokens:
        """What an agent that has thought is asked, so that it says what it hands on."""
        return self.layouts.of(variables).decision(SPEAK, question=question)

    def fuse(
        self, shared: KVCache, arriving: Sequence[tuple[KVCache, EdgeKey | None]], weights: Weights
    ) -> FusedCache:
        """Fuse without gradient."""
        with torch.no_grad():
            return fused_for(self.fuser, shared, arriving, weights)

    async def read(self, embeds: torch.Tensor, shared: KVCache, owner: int) -> KVCache:
        """What a link brought, (S, E) embeddings, as slots of this model behind its question, before its fuser has
        prepared them."""
        past = FusedCache.plain(shared)
        return await self.llm.think(ThinkRequest((), past, 0, owner, SlotKind.LATENT, embeds=embeds))


@dataclass(frozen=True)
class AgentModels:
    """Which agents think with which model. Number 0 is the decision maker's model.

    Attributes:
        others: the models from number 1 on.
        on: the number of each agent's model; one number for all agents.
        links: (sender's number, receiver's number) -> the link between two different models; None where the sender's
            words go instead.
        fingerprints: of the content of each model's weights, from number 0 on; () where nothing is known of it.
        router: says which of `routed` a question is for; None where all go over `links`.

    Raises:
        ConfigError: a number without a model, or two models without a link.
    """

    others: tuple[AgentModel, ...] = ()
    on: tuple[int, ...] = (0,)
    links: Mapping[tuple[int, int], Link | None] = field(default_factory=dict)
    fingerprints: tuple[str, ...] = ()
    router: Router | None = None
    routed: Mapping[str, AgentModels] = field(default_factory=dict)

    def __post_init__(self) -> None:
        count = len(self.others) + 1
        if not self.on or any(not 0 <= number < count for number in self.on):
            raise ConfigError(f"agents are on models 0 to {count - 1}, got {self.on}")
        for pair in ((a, b) for a in range(count) for b in range(count) if a != b):
            if pair[0] in self.on and pair not in self.links:
                raise ConfigError(f"no link from model {pair[0]} to model {pair[1]}; pass None for text")

    def for_question(self, question: str) -> AgentModels:
        """The one with the links that a question goes over."""
        return self if self.router is None else self.routed[self.router.route(question)]

    def numbers(self, n_agents: int) -> tuple[int, ...]:
        """The model of each agent, and of the decision maker at last.

        Raises:
            ConfigError: it names the models of another number of agents.
        """
        on = self.on * n_agents if len(self.on) == 1 else self.on
        if len(on) != n_agents:
            raise ConfigError(
                f"the question has {n_agents} agents, but models are named for {len(on)}; name one model per agent, or "
                "one for all"
            )
        return (*on, 0)

    def tells(self, sender: int, receiver: int) -> bool:
        """Whether words alone go from one model to another."""
        return sender != receiver and self.links[sender, receiver] is None

    def carries(self, sender: int) -> bool:
        """Whether anything is carried from a model to another."""
        return any(link is not None for (a, _), link in self.links.items() if a == sender)
