"""How a graph runs its questions."""

from __future__ import annotations

from dataclasses import dataclass

from gcache.agents.chat_template import TemplateSettings
from gcache.agents.prompts import DECISION_TURNS
from gcache.errors import ConfigError, unknown
from gcache.gnn.payload import TEXT, Payload

TRANSFERS = ("own", "latent", "context")
#: What goes over an edge: the agent's cache, what it says, or both.
HANDS = ("cache", "text", "both")


@dataclass(frozen=True)
class GraphConfig:
    """How a graph runs.

    Attributes:
        latent_steps: each agent's latent steps.
        transfer: what an agent's cache is: its own slots, only its latents, or all it had.
        hands: what an agent hands on: its cache, a text, which stands in its successors' prompts, or
            both.
        speak_tokens: the most tokens of an agent's text.
        rounds: how often the agents think; from the second round on each also hears itself.
        max_new_tokens: the most tokens of an answer.
        decision_turn: whether the decision maker opens a user turn of its own ("new") or goes
            on in the question's ("same").
        chat_template_kwargs, prompt_date: what the chat template may read; see `gcache.agents.chat_template`.

    Raises:
        ConfigError: a value that is not allowed, or latents handed on where there are none.
    """

    latent_steps: int = 2
    transfer: str = "own"
    rounds: int = 1
    max_new_tokens: int = 256
    decision_turn: str = "new"
    hands: str = "cache"
    speak_tokens: int = 128
    chat_template_kwargs: str = ""
    prompt_date: str = ""

    def __post_init__(self) -> None:
        if self.latent_steps < 0:
            raise ConfigError(f"latent_steps must be 0 or more, got {self.latent_steps}")
        if self.rounds < 1:
            raise ConfigError(f"rounds must be 1 or more, got {self.rounds}")
        if self.max_new_tokens < 1:
            raise ConfigError(f"max_new_tokens must be 1 or more, got {self.max_new_tokens}")
        if self.transfer not in TRANSFERS:
            raise unknown("transfer", self.transfer, TRANSFERS)
        if self.transfer == "latent" and self.latent_steps == 0:
            raise ConfigError("transfer='latent' hands on latents, but latent_steps is 0; set it to 1 or more")
        if self.hands not in HANDS:
            raise unknown("kind of hand-over", self.hands, HANDS)
        if self.speak_tokens < 1:
            raise ConfigError(f"speak_tokens must be 1 or more, got {self.speak_tokens}")
        if self.decision_turn not in DECISION_TURNS:
            raise unknown("decision turn", self.decision_turn, DECISION_TURNS)
        _ = self.template

    @property
    def payload(self) -> Payload:
        """What goes over an edge that chooses nothing of its own: `hands` and `transfer` as one."""
        if self.hands == "text":
            return TEXT
        slots = {"own": "cache", "latent": "latents", "context": "context"}[self.transfer]
        return Payload(slots, words=self.hands == "both")

    @property
    def template(self) -> TemplateSettings:
        """What chat templates may read."""
        return TemplateSettings(self.chat_template_kwargs, self.prompt_date)
