"""How a graph runs its questions."""

from __future__ import annotations

from dataclasses import dataclass

from gcache.agents.chat_template import TemplateSettings
from gcache.agents.prompts import DECISION_TURNS, QUESTION_ORDERS
from gcache.errors import ConfigError
from gcache.gnn.payload import TEXT, Payload
from gcache.runtime.settings import Settings, setting

TRANSFERS = ("own", "latent", "context")
#: What goes over an edge: the agent's cache, what it says, both, or its cache with a solution that it writes.
HANDS = ("cache", "text", "both", "reasoning")
#: Who writes the decision maker's text; see `gcache.graph.writers.registry`.
GENERATION_MODES = ("local", "hybrid", "api_hint", "api_embeds", "api")
#: Where a server takes prompt embeddings; see `gcache.graph.writers.prompt_embeds`.
ENDPOINTS = ("completions", "chat")


@dataclass(frozen=True)
class GraphConfig(Settings):
    """How a graph runs. Each field says in its help text what it is.

    Raises:
        ConfigError: a value that is not allowed, or latents handed on where there are none.
    """

    latent_steps: int = setting(
        2, help="of each agent; 0: caches are handed over without any", group="graph", at_least=0
    )
    transfer: str = setting(
        "own", help="what an agent's cache is: its own slots, only its latents (latent), or all it had (context)",
        group="graph", choices=TRANSFERS,
    )
    num_rounds: int = setting(
        1, help="rounds of thinking; from the second on each agent also hears itself", group="choices", was="rounds",
        at_least=1,
    )
    max_new_tokens: int = setting(256, help="the most tokens of an answer", group="graph", at_least=1)
    decision_turn: str = setting(
        "new", help="whether the decision maker opens a chat turn of its own, or goes on in the question's (same)",
        group="graph", choices=DECISION_TURNS,
    )
    question_order: str = setting(
        "first", help="where the question stands: before all words (first), so that agents read theirs knowing it, or "
        "behind those of the agents (last), whose caches are then the same for every question and can be kept by "
        "--store",
        group="graph", flag="question", choices=QUESTION_ORDERS,
    )
    reread: int = setting(
        0, help="so many first slots of every cache but the first one that a receiver hears are computed again behind "
        "the caches before it, a repair of caches that were read side by side; for runs, and training with "
        "--hard_edges",
        group="graph", at_least=0, metavar="SLOTS",
    )
    reread_share: float = setting(
        0.0, help="this share of the slots of all caches but the first one, those that deviate most in the second "
        "layer, are computed again likewise; with --reread, beside the first slots",
        group="graph", at_least=0, at_most=1, metavar="SHARE",
    )
    hands: str = setting(
        "cache", help="what goes over an edge: the agent's cache; a text that it says, which stands in its successors' "
        "prompts; both; or its cache with the slots of a solution that it writes (reasoning), whose words nobody reads "
        "again",
        group="graph", what="kind of hand-over", choices=HANDS,
    )
    speak_tokens: int = setting(128, help="the most tokens of an agent's text", group="graph", at_least=1)
    reason_tokens: int = setting(
        768, help="the most tokens of an agent's solution, with --hands reasoning", group="graph", at_least=1
    )
    agent_temperature: float = setting(
        0.7, help="of agents' solutions; 0 is greedy", group="graph", at_least=0
    )
    chat_template_kwargs: str = setting(
        "", help="variables of the local model's chat template, as servers have them: '{\"enable_thinking\": false}' "
        "keeps a model from thinking aloud",
        group="graph", metavar="JSON",
    )
    prompt_date: str = setting(
        "", help="the date that a chat template is told where it asks, such as 2026-01-31; a run and its checkpoint "
        "keep it",
        group="graph", metavar="DATE", unset="the day on which it begins",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.transfer == "latent" and self.latent_steps == 0:
            raise ConfigError("transfer='latent' hands on latents, but latent_steps is 0; set it to 1 or more")
        if self.hands == "reasoning" and self.transfer != "own":
            raise ConfigError(
                f"hands='reasoning' hands on an agent's own slots and its solution's, got transfer={self.transfer!r}; "
                "use transfer='own'"
            )
        if self.question_order == "last" and self.hands in ("text", "reasoning"):
            raise ConfigError(
                f"question='last' is for agents that hand on what they read, got hands={self.hands!r}; use "
                "hands='cache', or question='first'"
            )
        if self.rereads and (self.hands, self.transfer) != ("cache", "own"):
            raise ConfigError(
                f"{self.rereads} computes slots of agents' prompts again, got hands={self.hands!r} and "
                f"transfer={self.transfer!r}; use hands='cache' and transfer='own', or {self.rereads}=0"
            )
        _ = self.template

    @property
    def rereads(self) -> str:
        """The setting by which slots that arrive are computed again; empty where none are."""
        return "reread" if self.reread else "reread_share" if self.reread_share else ""

    @property
    def payload(self) -> Payload:
        """What goes over an edge that chooses nothing of its own: `hands` and `transfer` as one."""
        if self.hands == "text":
            return TEXT
        if self.hands == "reasoning":
            return Payload("reasoning")
        slots = {"own": "cache", "latent": "latents", "context": "context"}[self.transfer]
        return Payload(slots, words=self.hands == "both")

    @property
    def template(self) -> TemplateSettings:
        """What chat templates may read; see `gcache.agents.chat_template`."""
        return TemplateSettings(self.chat_template_kwargs, self.prompt_date)
