"""What a run begins with."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Any

from gcache.agents.roles import Agent
from gcache.errors import ConfigError
from gcache.gnn.topology import Topology
from gcache.graph.events import Watch
from gcache.graph.memo import RolloutMemo
from gcache.graph.passing import Intervention
from gcache.llm.forward.alignment import Alignment
from gcache.llm.requests import require_top_p
from gcache.tasks.example import Example


@dataclass(frozen=True)
class Start:
    """What a run begins with.

    Attributes:
        topology_log_prob: log p(G | q) of `topology`.
        memo: what the rollouts of this question share; None where there are no others.
        keep_caches: whether the result holds the caches.
        lenient: whether an agent whose API fails for good is gone on without.
        intervention: what becomes of every cache on its way; see `gcache.evaluation.interventions`.
        alignment: what latent steps feed back instead of the model's own `Alignment`.
        max_new_tokens: the most tokens of the answer; None for the graph's.
        stop: words at which a text of the local model ends.
        watch: told of every event of the run; see `gcache.graph.events`.
        keep_states: whether the result holds the hidden states of latent steps.
        variables: of the chat template, as JSON, that are otherwise for this question.
        words_alone: whether agents hand on their words instead of slots; those that write solutions, these.
        words_seed: what solutions of agents that hear nobody are drawn by; `seed` is for all other draws.
        alone_seed: what the decision maker's text is drawn by where it hears nobody, and then rollouts share it; None
            for `seed`, and nothing shared.
        top_p, top_log_probs: of a text of the local model; see `GenerateRequest`.
    """

    example: Example
    agents: tuple[Agent, ...]
    topology: Topology
    topology_log_prob: float = 0.0
    temperature: float = 0.0
    seed: int = 0
    memo: RolloutMemo | None = None
    keep_caches: bool = True
    lenient: bool = False
    intervention: Intervention | None = None
    alignment: Alignment | None = None
    max_new_tokens: int | None = None
    stop: tuple[str, ...] = ()
    watch: Watch | None = None
    keep_states: bool = False
    top_p: float = 1.0
    top_log_probs: int | None = None
    variables: str = ""
    words_seed: int = 0
    words_alone: bool = False
    alone_seed: int | None = None

    def __post_init__(self) -> None:
        if self.max_new_tokens is not None and self.max_new_tokens < 1:
            raise ConfigError(f"max_new_tokens must be 1 or more, got {self.max_new_tokens}")
        require_top_p(self.top_p)
        if self.memo is not None and self.keep_states:
            raise ConfigError("runs that share thoughts keep no states: who thought first need not have kept them")
        if self.memo is not None and (self.intervention or self.alignment or self.words_alone):
            raise ConfigError("runs that share thoughts must not differ in an intervention, an alignment or payloads")

    async def once(self, key: Hashable, make: Callable[[], Awaitable[Any]]) -> tuple[Any, bool]:
        """See `RolloutMemo.once`; where nothing is shared, nothing is remembered."""
        return (await make(), True) if self.memo is None else await self.memo.once(key, make)
