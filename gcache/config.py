"""Everything that can be configured, as records that are checked where they are made."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gcache.agents.decision import decision_maker
from gcache.agents.roles import DOMAINS, pick_agents
from gcache.cache.fusers.registry import FUSERS
from gcache.cache.positions import check_positions
from gcache.errors import CheckpointError, ConfigError, unknown
from gcache.gnn.features import ENCODERS
from gcache.gnn.fixed import TOPOLOGIES
from gcache.gnn.policy import check_choices, check_probabilities
from gcache.gnn.topology import AGENT_PROBABILITY, DECISION_PROBABILITY
from gcache.graph.run_config import GraphConfig
from gcache.graph.writers.hints import HINTS
from gcache.graph.writers.prompt_embeds import ENDPOINTS
from gcache.graph.writers.registry import GENERATION_MODES
from gcache.links.link import AUTO
from gcache.links.negotiate import check_link
from gcache.links.registry import LINKS
from gcache.runtime.plugin_files import permitted
from gcache.runtime.typed import mistyped
from gcache.tasks.example import Task
from gcache.tasks.registry import make_task

#: `topology` of a configuration whose topology is learned.
LEARNED = "learned"
#: Fields of a `GraphSpec` that are tuples, which JSON knows as lists.
TUPLES = ("roles", "channels", "latent_choices", "agent_models", "agent_quantizations", "link_files")
#: Fields of a `GraphSpec` that name an entry of a registry, which may be a plug-in.
NAMES = ("fuser", "topology", "link")
#: Fields of a `GraphSpec` that make no sense without a learned topology.
CHOICES = ("temporal", "channels", "latent_choices", "consult_probability")


@dataclass(frozen=True)
class GraphSpec:
    """Everything a graph is made from; stored with its checkpoints.

    Attributes:
        llm_name: "smollm2", a Hugging Face id, a local folder or a .gguf file.
        domain: the set of roles.
        roles: names of the domain's roles; empty for the first `agent_nums`, or all.
        topology: "learned", or the name of a fixed one.
        encoder: of role and query features.
        decision_probability, agent_probability: how likely an edge is before training.
        consult_probability: how likely it is before training that the decision maker consults anybody, as a choice of
            its own; None where it is none (see `gcache.gnn.policy`).
        temporal: whether edges from the round before are learned too.
        channels: what may go over each edge, as a choice (see `gcache.gnn.topology.CHANNELS`); () for what
            `graph.hands` says, everywhere.
        latent_choices: numbers of latent steps that each agent chooses from; () for `graph.latent_steps`.
        generation_mode: who writes the decision maker's text; see `gcache.graph.writers.registry`.
        hint: what the API is told in the mode api_hint; see `gcache.graph.writers.hints`.
        latent_space_realign: whether latent steps go through W_a; see `gcache.llm.forward.alignment`.
        embeds_endpoint: of the server in the mode api_embeds; see `gcache.graph.writers.prompt_embeds`.
        api_model, base_url: of the API in modes that ask one; None for what the environment says.
        agent_models: what the agents think with, where that is another model than the decision maker's, which is
            `llm_name`: one name per agent, or one for all; see `gcache.graph.agent_models`.
        agent_quantizations: of these models, one each or one for all; () for `quantization`.
        link: between two models; see `gcache.links`.
        link_files: of learned links.
        route: "none", or "auto": questions that ask for a label go over the perceiver, others over `link`, as a router
            says (see `gcache.links.router`); route_file: the router's.
        seed: of the policy's first weights and of random topologies.
        The rest: see `GraphConfig`, `load_model` and the fusers.
    """

    llm_name: str = "smollm2"
    dtype: str = "auto"
    device: str = "cpu"
    device_map: str | None = None
    quantization: str = "none"
    domain: str = "maths"
    roles: tuple[str, ...] = ()
    agent_nums: int | None = None
    topology: str = LEARNED
    decision_method: str = "refer"
    fuser: str = "concat"
    positions: str = "parallel"
    encoder: str = "minilm"
    hidden_dim: int = 64
    decision_probability: float = DECISION_PROBABILITY
    agent_probability: float = AGENT_PROBABILITY
    temporal: bool = False
    channels: tuple[str, ...] = ()
    latent_choices: tuple[int, ...] = ()
    consult_probability: float | None = None
    generation_mode: str = "local"
    hint: str = "meta"
    latent_space_realign: bool = True
    embeds_endpoint: str = "completions"
    api_model: str | None = None
    base_url: str | None = None
    agent_models: tuple[str, ...] = ()
    agent_quantizations: tuple[str, ...] = ()
    link: str = AUTO
    link_files: tuple[str, ...] = ()
    route: str = "none"
    route_file: str | None = None
    seed: int = 0
    graph: GraphConfig = field(default_factory=GraphConfig)

    def __post_init__(self) -> None:
        """Refuse every bad value before a model is loaded."""
        for what, name, allowed in (
            ("domain", self.domain, DOMAINS),
            ("fuser", self.fuser, FUSERS),
            ("encoder", self.encoder, ENCODERS),
            ("generation mode", self.generation_mode, GENERATION_MODES),
            ("hint", self.hint, HINTS),
            ("endpoint of prompt embeddings", self.embeds_endpoint, ENDPOINTS),
        ):
            if name not in allowed:
                raise unknown(what, name, allowed)
        if self.topology != LEARNED and self.topology not in TOPOLOGIES:
            raise unknown("topology", self.topology, {LEARNED, *TOPOLOGIES})
        if self.generation_mode == "api_hint" and self.hint == "text" and self.graph.hands != "both":
            raise ConfigError("the hint 'text' is what agents said, but they hand on caches alone; add --hands both")
        if self.generation_mode == "api" and self.graph.hands != "text":
            raise ConfigError("in the mode 'api' the agents hand on text alone; add --hands text")
        if self.graph.hands == "text" and self.generation_mode not in ("local", "api"):
            raise ConfigError(
                f"the mode {self.generation_mode!r} reads caches, but the agents hand on text alone; use --hands cache "
                "or both, or the mode local or api"
            )
        if self.generation_mode == "api_embeds" and self.graph.latent_steps == 0:
            raise ConfigError("the mode 'api_embeds' sends latent thoughts, but latent_steps is 0; set it to 1 or more")
        check_positions(self.positions)
        decision_maker(self.domain, self.decision_method)
        pick_agents(self.domain, self.roles, self.agent_nums)
        self._check_choices()
        self._check_models()
        check_probabilities(
            decision=self.decision_probability, agent=self.agent_probability, consult=self.consult_probability
        )
        if self.hidden_dim < 1:
            raise ConfigError(f"hidden_dim must be 1 or more, got {self.hidden_dim}")

    def _check_choices(self) -> None:
        """Refuse choices that nobody makes, or that would change nothing."""
        check_choices(self.channels, self.latent_choices)
        chosen = [name for name in CHOICES if getattr(self, name)]
        if chosen and self.topology != LEARNED:
            raise ConfigError(
                f"{chosen[0]} is learned with the topology, but that is {self.topology!r}; use --topology {LEARNED}"
            )
        if self.temporal and self.graph.rounds == 1:
            raise ConfigError("edges from the round before need one: set the number of rounds to 2 or more")
        if (self.channels or self.latent_choices) and (self.graph.hands, self.graph.transfer) != ("cache", "own"):
            raise ConfigError(
                f"channels and latent_choices are chosen per edge and agent, so they need hands='cache' and "
                f"transfer='own', got {self.graph.hands!r} and {self.graph.transfer!r}"
            )
        if set(self.channels) == {"text"}:
            raise ConfigError("with the channel 'text' alone no cache goes over any edge; use hands='text' instead")
        if "latents" in self.channels and not max(self.latent_choices, default=self.graph.latent_steps):
            raise ConfigError("the channel 'latents' hands on latents, but there are 0 latent steps; set 1 or more")

    def _check_models(self) -> None:
        """Refuse models of agents that could not be linked, or would not be used."""
        check_link(self.link)
        if self.route not in ("none", "auto"):
            raise unknown("route", self.route, ("none", "auto"))
        if self.route == "none" and self.route_file is not None:
            raise ConfigError("a router's file is named, but nothing is routed; add --route auto")
        if self.route == "auto" and not (self.agent_models and self.link_files and self.route_file):
            raise ConfigError(
                "--route auto sends some questions over a perceiver; name the agents' models by --agent_models, its "
                "file by --link_file, and the router's by --route_file (`gcache fit-router` makes one)"
            )
        if not self.agent_models:
            for name in ("agent_quantizations", "link_files"):
                if getattr(self, name):
                    raise ConfigError(f"{name} is for agents on other models, but none is named; add --agent_models")
            return
        if self.graph.hands == "text":
            raise ConfigError(
                "agents that hand on text alone share one model or an API; leave out --agent_models, or use --link text"
            )
        agents = len(pick_agents(self.domain, self.roles, self.agent_nums))
        if agents and len(self.agent_models) not in (1, agents):
            raise ConfigError(
                f"there are {agents} agents, but {len(self.agent_models)} models for them; name one for each, or one "
                "for all"
            )
        if len(self.agent_quantizations) not in (0, 1, len(self.agent_models)):
            raise ConfigError(
                f"there are {len(self.agent_models)} models of agents, but {len(self.agent_quantizations)} "
                "quantizations for them; name one for each, or one for all"
            )
        fitted = "" if self.link == AUTO else LINKS[self.link].fitted
        if fitted and not self.link_files:
            raise ConfigError(
                f"the link {self.link} is learned, and needs its fitted file; {fitted}, or use --link auto"
            )
        if self.link_files and not fitted and self.route == "none":
            raise ConfigError(
                f"--link_file names a fitted link, but --link is {self.link}, which does not use it; add "
                "--link perceiver (or --route auto), or leave it out"
            )

    def agent_quantization(self) -> tuple[str, ...]:
        """One per model of `agent_models`."""
        named = self.agent_quantizations or (self.quantization,)
        return named * len(self.agent_models) if len(named) == 1 else named

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> GraphSpec:
        """The inverse of `to_json`, of a checkpoint. A file that it names is run only if the user named it too.

        Raises:
            ConfigError: unknown or missing fields, or values that are not allowed.
            PluginError: a plug-in that cannot be used, or must not be run.
        """
        try:
            graph = GraphConfig(**values["graph"])
            tuples = {name: tuple(values.get(name, ())) for name in TUPLES}
            names = {name: permitted(values[name], "the checkpoint") for name in NAMES if _is_text(values, name)}
            made = cls(**{**values, "graph": graph, **tuples, **names})
        except (TypeError, KeyError, AttributeError) as error:
            raise ConfigError(f"not the description of a graph: {error}") from error
        wrong = mistyped(made)
        if wrong:
            raise ConfigError(f"not the description of a graph: {wrong}")
        return made


def _is_text(values: Mapping[str, Any], name: str) -> bool:
    return isinstance(values.get(name), str)


@dataclass(frozen=True)
class TaskSpec:
    """How to make a task: its name, a data file, its options.

    Attributes:
        read_from: the checkpoint that says so, if one does; a file that it names is run only if the user named it too.
    """

    name: str = "split_facts"
    data: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    read_from: str = field(default="", compare=False)

    def make(self) -> Task:
        name = permitted(self.name, self.read_from) if self.read_from else self.name
        return make_task(name, self.data, **self.options)

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "data": self.data, "options": dict(self.options)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any], where: object) -> TaskSpec:
        """The inverse of `to_json`.

        Args:
            where: what it was read from, for the error.

        Raises:
            CheckpointError: it names no task, or has fields of other kinds.
        """
        name, data, options = values.get("name"), values.get("data"), values.get("options", {})
        fits = isinstance(name, str) and isinstance(data, str | None) and isinstance(options, dict)
        if not fits or values.keys() - {"name", "data", "options"}:
            raise CheckpointError(
                f"{where} does not say which task it was trained on: name, data and options must be a text, a text or "
                f"null, and an object, got {repr(dict(values))[:200]}; name the task, or take a whole copy"
            )
        return cls(str(name), data, options, read_from=f"the checkpoint {where}")
