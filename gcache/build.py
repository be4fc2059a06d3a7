"""From a configuration to a working graph: the one place that knows all rooms below training."""

from __future__ import annotations

import dataclasses
import logging
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Any

import torch

from gcache.agent_models import load_mixture
from gcache.agents.chat_template import ChatTemplate
from gcache.agents.decision import DecisionMaker, decision_maker
from gcache.agents.prompts import ChatLayout
from gcache.agents.roles import DOMAINS, Agent, pick_agents
from gcache.cache.fusers.registry import FUSERS, make_fuser
from gcache.cache.positions import check_positions
from gcache.errors import ConfigError, unknown
from gcache.gnn.features import ENCODERS, Encoder, make_encoder
from gcache.gnn.fixed import TOPOLOGIES
from gcache.gnn.policy import TopologyPolicy, check_choices, check_probabilities
from gcache.gnn.providers import FixedSource, PolicySource, TopologySource
from gcache.gnn.topology import AGENT_PROBABILITY, DECISION_PROBABILITY
from gcache.graph.agent_graph import AgentGraph
from gcache.graph.agent_models import Mixture
from gcache.graph.cache_graph import CacheGraph
from gcache.graph.result import GraphConfig
from gcache.graph.speakers import ApiSpeaker, LocalSpeaker
from gcache.graph.text_graph import SpeakingGraph
from gcache.graph.writers.hints import HINTS
from gcache.graph.writers.prompt_embeds import ENDPOINTS
from gcache.graph.writers.registry import GENERATION_MODES, make_writer
from gcache.links.link import AUTO
from gcache.links.negotiate import CHOICES as LINK_CHOICES
from gcache.llm.api.client import ApiLLM, ApiSettings
from gcache.llm.cache_budget import Limits
from gcache.llm.load.loading import load_model
from gcache.llm.local import LocalLLM
from gcache.runtime.streams import derive
from gcache.runtime.typed import mistyped

logger = logging.getLogger(__name__)

#: `topology` of a configuration whose topology is learned.
LEARNED = "learned"
#: Fields of a `GraphSpec` that are tuples, which JSON knows as lists.
TUPLES = ("roles", "channels", "latent_choices", "agent_models", "agent_quantizations", "link_files")
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
            ("topology", self.topology, {LEARNED, *TOPOLOGIES}),
            ("encoder", self.encoder, ENCODERS),
            ("generation mode", self.generation_mode, GENERATION_MODES),
            ("hint", self.hint, HINTS),
            ("endpoint of prompt embeddings", self.embeds_endpoint, ENDPOINTS),
        ):
            if name not in allowed:
                raise unknown(what, name, allowed)
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
        if self.link not in LINK_CHOICES:
            raise unknown("link", self.link, LINK_CHOICES)
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
        if self.link == "perceiver" and not self.link_files:
            raise ConfigError(
                "the link perceiver is learned, and needs its fitted file; make one with `gcache fit-perceiver` and "
                "pass it by --link_file, or use --link auto"
            )
        if self.link_files and self.link != "perceiver" and self.route == "none":
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
        """The inverse of `to_json`.

        Raises:
            ConfigError: unknown or missing fields, or values that are not allowed.
        """
        try:
            graph = GraphConfig(**values["graph"])
            tuples = {name: tuple(values.get(name, ())) for name in TUPLES}
            rest = {**values, "graph": graph, **tuples}
            made = cls(**rest)
        except (TypeError, KeyError, AttributeError) as error:
            raise ConfigError(f"not the description of a graph: {error}") from error
        wrong = mistyped(made)
        if wrong:
            raise ConfigError(f"not the description of a graph: {wrong}")
        return made


@dataclass(frozen=True)
class Built:
    """A graph with the parts that training reaches into; without a local model where an API says all."""

    spec: GraphSpec
    graph: AgentGraph
    llm: LocalLLM | None
    policy: TopologyPolicy | None
    fingerprint: str


def build(spec: GraphSpec, limits: Limits | None = None, api: ApiLLM | None = None) -> Built:
    """Load the model and put the graph together.

    Args:
        limits: how much the model may take at once.
        api: what is asked in modes that ask an API; None for one of the spec's and the
            environment's settings.

    Raises:
        ModelError: the model cannot be had, or its caches cannot be shifted.
        ConfigError: the mode needs an API, and nothing says which.
    """
    if api is None and spec.generation_mode != "local":
        api = ApiLLM(ApiSettings.found(spec.api_model, spec.base_url))
    if spec.generation_mode == "api":
        assert api is not None
        return _built(spec, SpeakingGraph(ApiSpeaker(api), *cast_of(spec), spec.graph, spec.generation_mode))
    loaded = load_model(spec.llm_name, spec.dtype, spec.device, spec.device_map, spec.quantization)
    spec = dated(spec, loaded.tokenizer)
    llm = LocalLLM(
        loaded.model, loaded.tokenizer, loaded.label, limits, realign=spec.latent_space_realign
    )
    if not spec.agent_models:
        return assemble(spec, llm, loaded.tokenizer, loaded.fingerprint, api)
    mixture = load_mixture(spec, llm, loaded)
    return assemble(spec, llm, loaded.tokenizer, "+".join(mixture.fingerprints), api, mixture)


def dated(spec: GraphSpec, tokenizer: Any) -> GraphSpec:
    """With the date that its chat templates are told, where they ask for one: the same for as long as a run lasts,
    and for whoever resumes it or asks its checkpoint.

    Of agents' other models nothing is known yet, so their date is fixed in any case.
    """
    if spec.graph.prompt_date:
        return spec
    template = ChatTemplate(tokenizer, spec.graph.template)
    if not template.reads_date and not spec.agent_models:
        return spec
    today = date.today().isoformat()
    if template.reads_date:
        logger.info("the chat template asks for the date: prompts say %s from here on (see --prompt_date)", today)
    return replace(spec, graph=replace(spec.graph, prompt_date=today))


def assemble(
    spec: GraphSpec,
    llm: LocalLLM,
    tokenizer: Any,
    fingerprint: str = "",
    api: ApiLLM | None = None,
    mixture: Mixture | None = None,
) -> Built:
    """Put a graph together around a model that is there already, and others where there is a mixture."""
    agents, decision, source = cast_of(spec)
    if spec.graph.hands == "text":
        speaker = LocalSpeaker(llm, tokenizer, spec.graph.template)
        speaking = SpeakingGraph(speaker, agents, decision, source, spec.graph)
        return _built(spec, speaking, llm, fingerprint)
    fuser = make_fuser(spec.fuser, llm.cache_shape, spec.positions, llm.rope).to(llm.device)
    layout = ChatLayout.of(tokenizer, spec.graph.template)
    writer = make_writer(spec.generation_mode, api, spec.hint, layout, spec.embeds_endpoint)
    graph = CacheGraph(llm, tokenizer, agents, decision, source, fuser, spec.graph, writer, mixture)
    return _built(spec, graph, llm, fingerprint)


def _built(spec: GraphSpec, graph: AgentGraph, llm: LocalLLM | None = None, fingerprint: str = "") -> Built:
    source = graph.source_of_topologies
    return Built(spec, graph, llm, source.policy if isinstance(source, PolicySource) else None, fingerprint)


def cast_of(spec: GraphSpec) -> tuple[tuple[Agent, ...], DecisionMaker, TopologySource]:
    """Who the agents are, who decides, and where topologies come from."""
    source = PolicySource(*_policy(spec)) if spec.topology == LEARNED else FixedSource(spec.topology, spec.seed)
    agents = pick_agents(spec.domain, spec.roles, spec.agent_nums)
    return agents, decision_maker(spec.domain, spec.decision_method), source


def _policy(spec: GraphSpec) -> tuple[TopologyPolicy, Encoder]:
    encoder = make_encoder(spec.encoder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive("policy", spec.seed))
        policy = TopologyPolicy(
            encoder.dim, spec.hidden_dim, spec.decision_probability, spec.agent_probability, spec.temporal,
            spec.channels, spec.latent_choices, spec.consult_probability,
        )  # fmt: skip
    return policy, encoder
