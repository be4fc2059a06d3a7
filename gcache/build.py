"""From a configuration to a working graph: the one place that knows all rooms below training."""

from __future__ import annotations

import dataclasses
import logging
from dataclasses import dataclass, field, replace
from datetime import date
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gcache.agents.chat_template import ChatTemplate
from gcache.agents.decision import DecisionMaker, decision_maker
from gcache.agents.prompts import LAYOUTS
from gcache.agents.roles import Agent, pick_agents
from gcache.cache.fusers.registry import make_fuser
from gcache.cache.fusers.side_by_side import SideBySideFuser
from gcache.config import LEARNED, GraphSpec
from gcache.errors import ConfigError
from gcache.gnn.features import Encoder, make_encoder
from gcache.gnn.policy import TopologyPolicy
from gcache.gnn.providers import FixedProvider, PolicyProvider, TopologyProvider
from gcache.graph.agent_graph import AgentGraph
from gcache.graph.agent_models import AgentModel, AgentModels
from gcache.graph.cache_graph import CacheGraph
from gcache.graph.run_config import GraphConfig
from gcache.graph.text_backends import ApiTextBackend, LocalTextBackend
from gcache.graph.text_graph import TextGraph
from gcache.graph.writers.registry import make_writer
from gcache.links.link import Link, ModelEnds
from gcache.links.negotiate import make_link, negotiated
from gcache.links.router import Router
from gcache.llm.api.client import ApiLLM, ApiSettings
from gcache.llm.cache_budget import GB, Limits
from gcache.llm.cache_store import MEMORY_BYTES, CacheStore, ModelStore
from gcache.llm.kept_scores import KeptScores
from gcache.llm.kept_slots import KeptSlots
from gcache.llm.kept_texts import KeptTexts
from gcache.llm.load.fingerprint import every_byte, quantized
from gcache.llm.load.loading import LoadedModel, load_model
from gcache.llm.local import LocalLLM
from gcache.runtime.settings import settings_of
from gcache.runtime.streams import derive

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Part:
    """Something that learns. Optimizer, gradient check, checkpoint and metrics go over all parts there are.

    Attributes:
        lr, weight_decay: of the optimizer: a number, or the name of a field of `TrainConfig`.
        learns: whether a gradient reaches it in the graph's mode; a part that none reaches is kept as it is, and the
            run says so.
    """

    module: nn.Module
    lr: str | float = "lr"
    weight_decay: str | float = 0.0
    learns: bool = True


@dataclass(frozen=True)
class Built:
    """A graph with what training reaches into; without a local model where an API says all.

    Attributes:
        parts: what learns, under the names that checkpoints use.
    """

    spec: GraphSpec
    graph: AgentGraph
    llm: LocalLLM | None
    policy: TopologyPolicy | None
    fingerprint: str
    parts: dict[str, Part] = field(default_factory=dict)

    def __post_init__(self) -> None:
        own: dict[str, Part] = {}
        if isinstance(self.graph, CacheGraph):
            # where an API alone writes the text, or edges are hard, no log-probability of it reaches the fuser
            own["fuser"] = Part(self.graph.fuser, "fuser_lr", learns=self.graph.learns)
        if self.policy is not None:
            own["policy"] = Part(self.policy, "lr", "weight_decay")
        object.__setattr__(self, "parts", {**own, **self.parts})


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
        return _built(spec, TextGraph(ApiTextBackend(api), *team_of(spec), spec.graph, spec.generation_mode))
    # before a model is loaded
    kept = None if limits is None else _kept(limits)
    store = None if limits is None else _store(spec, limits)
    loaded = load_model(spec.llm_name, spec.dtype, spec.device, spec.device_map, spec.quantization)
    spec = dated(spec, loaded.tokenizer)
    llm = LocalLLM(
        loaded.model, loaded.tokenizer, loaded.label, limits, realign=spec.latent_space_realign,
        template=spec.graph.template,
    )  # fmt: skip
    _keep(llm, spec, quantized(loaded.fingerprint, spec.quantization), spec.llm_name, kept, store)
    if not spec.agent_models:
        return assemble(spec, llm, loaded.tokenizer, loaded.fingerprint, api)
    agent_models = load_agent_models(spec, llm, loaded)
    return assemble(spec, llm, loaded.tokenizer, "+".join(agent_models.fingerprints), api, agent_models)


def _kept(limits: Limits) -> KeptTexts | None:
    """The texts in the file of some limits, and their slots, whichever models wrote them."""
    if limits.texts is None:
        return None
    file = Path(limits.texts)
    if not limits.kept_gb:
        return KeptTexts("", file)
    slots = KeptSlots(file.with_name(f"{file.name}.slots"), limits.kept_gb * GB)
    return KeptTexts("", file, slots=slots, scores=KeptScores(file.with_name(f"{file.name}.scores")))


def _store(spec: GraphSpec, limits: Limits) -> CacheStore | None:
    """Where caches are kept, if they are."""
    if limits.store is None:
        return None
    if spec.graph.question_order == "first":
        logger.warning("with --question first caches depend on the question, so none are kept in %s", limits.store)
        return None
    memory = MEMORY_BYTES if limits.max_cache_bytes is None else min(MEMORY_BYTES, limits.max_cache_bytes / 4)
    return CacheStore(Path(limits.store), limits.store_gb * GB, memory)


def _keep(
    llm: LocalLLM, spec: GraphSpec, fingerprint: str, name: str, kept: KeptTexts | None, store: CacheStore | None
) -> None:
    """Let a model keep texts and caches. Models share a file and a folder: no two have anything in common there."""
    if kept is None and store is None:
        return
    model = f"{fingerprint} {str(llm.dtype).removeprefix('torch.')}"
    if whole := every_byte(name):
        model += f" {whole}"
    latents = "realigned" if spec.latent_space_realign else "as they are"
    if store is not None:
        llm.store = ModelStore(store, model, latents)
    if kept is not None:
        if spec.graph.chat_template_kwargs.strip():  # where texts end is otherwise the model's own
            model += f" {sorted(llm.stop_tokens)} {sorted(llm.stop_words)}"
        vocabulary = int(llm.model.get_input_embeddings().weight.shape[0])
        llm.kept_texts = KeptTexts(model, kept.file, latents, kept.texts, kept.slots, kept.scores, vocabulary)


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
    agent_models: AgentModels | None = None,
) -> Built:
    """Put a graph together around a model that is there already, and others where the agents have their own."""
    agents, decision, provider = team_of(spec)
    if spec.graph.payload.slots is None:
        backend = LocalTextBackend(llm, tokenizer, spec.graph.template)
        speaking = TextGraph(backend, agents, decision, provider, spec.graph)
        return _built(spec, speaking, llm, fingerprint)
    fuser = make_fuser(spec.fuser, llm.cache_shape, spec.positions, llm.rope).to(llm.device)
    if spec.graph.rereads and not isinstance(fuser, SideBySideFuser):
        raise ConfigError(
            f"{spec.graph.rereads} is for fusers that put caches side by side, which {spec.fuser!r} does not; use "
            f"--fuser concat, or --{spec.graph.rereads} 0"
        )
    fuser.slot_temperature, fuser.slot_scale = spec.slot_temperature, spec.slot_scale
    layout = LAYOUTS[spec.graph.question_order].of(tokenizer, spec.graph.template)
    writer = make_writer(spec.generation_mode, api, spec.hint, layout, spec.embeds_endpoint)
    graph = CacheGraph(llm, tokenizer, agents, decision, provider, fuser, spec.graph, writer, agent_models)
    return _built(spec, graph, llm, fingerprint)


def _built(spec: GraphSpec, graph: AgentGraph, llm: LocalLLM | None = None, fingerprint: str = "") -> Built:
    provider = graph.topology_provider
    return Built(spec, graph, llm, provider.policy if isinstance(provider, PolicyProvider) else None, fingerprint)


def team_of(spec: GraphSpec) -> tuple[tuple[Agent, ...], DecisionMaker, TopologyProvider]:
    """Who the agents are, who decides, and where topologies come from."""
    provider = PolicyProvider(*_policy(spec)) if spec.topology == LEARNED else FixedProvider(spec.topology, spec.seed)
    agents = pick_agents(spec.domain, spec.roles, spec.agent_nums)
    return agents, decision_maker(spec.domain, spec.decision_method), provider


def _policy(spec: GraphSpec) -> tuple[TopologyPolicy, Encoder]:
    encoder = make_encoder(spec.encoder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive("policy", spec.seed))
        policy = TopologyPolicy(
            encoder.dim, spec.hidden_dim, spec.decision_probability, spec.agent_probability, spec.optimized_temporal,
            spec.channels, spec.latent_choices, spec.consult_probability, spec.cues, spec.heard,
            spec.hard_edges,
        )  # fmt: skip
    return policy, encoder


def load_agent_models(spec: GraphSpec, main: LocalLLM, loaded: LoadedModel) -> AgentModels:
    """The models of `spec.agent_models`.

    Where none differs from the decision maker's, there is one model.

    Args:
        main: the decision maker's model; its limits and its count of cache bytes are for all.
        loaded: what it was made of.

    Raises:
        ModelError: a model cannot be had.
        ConfigError: two models do not allow the link that is asked for.
        DataError: a link's file is missing, broken, or made for other weights.
    """
    models = [(main, _marked(loaded, spec.quantization))]
    known = {(spec.llm_name, spec.quantization): 0}
    on: list[int] = []
    for name, quantization in zip(spec.agent_models, spec.quantization_of_each, strict=True):
        if (name, quantization) not in known:
            known[name, quantization] = _number(spec, name, quantization, models)
        on.append(known[name, quantization])
    ends = [ModelEnds.of(llm.model, made.tokenizer, made.label, made.fingerprint) for llm, made in models]
    pairs = [(a, b) for a in sorted(set(on)) for b in sorted({0, *on}) if a != b]
    links = {(a, b): _link(spec, spec.link, ends[a], ends[b]) for a, b in pairs}
    # only the decision maker's fuser is reached by the text's log-probability; the others join what arrives as it is
    others = [
        AgentModel(
            llm, made.tokenizer, make_fuser("concat", llm.cache_shape, spec.positions, llm.rope).to(llm.device),
            spec.graph.template, spec.graph.question_order,
        )
        for llm, made in models[1:]
    ]
    agent_models = AgentModels(tuple(others), tuple(on), links, tuple(made.fingerprint for _, made in models))
    if spec.route == "none" or not others:
        return agent_models
    assert spec.route_file is not None
    learned = {(a, b): _link(spec, "perceiver", ends[a], ends[b]) for a, b in pairs}
    routed = {"classification": replace(agent_models, links=learned), "reasoning": agent_models}
    return replace(agent_models, router=Router.load(Path(spec.route_file)), routed=routed)


def _marked(loaded: LoadedModel, quantization: str) -> LoadedModel:
    """The same, told apart from the same model in another quantization."""
    return replace(loaded, fingerprint=quantized(loaded.fingerprint, quantization))


def _number(spec: GraphSpec, name: str, quantization: str, models: list[tuple[LocalLLM, LoadedModel]]) -> int:
    """Of a model that may be there already under another name; it is loaded to find that out."""
    made = _marked(load_model(name, spec.dtype, spec.device, spec.device_map, quantization), quantization)
    for number, (_, other) in enumerate(models):
        if other.fingerprint == made.fingerprint:
            return number
    main = models[0][0]
    llm = LocalLLM(
        made.model, made.tokenizer, made.label, main.limits, realign=spec.latent_space_realign, ledger=main.ledger,
        template=spec.graph.template,
    )  # fmt: skip
    _keep(llm, spec, made.fingerprint, name, main.kept_texts, None if main.store is None else main.store.store)
    models.append((llm, made))
    return len(models) - 1


def _link(spec: GraphSpec, wanted: str, sender: ModelEnds, receiver: ModelEnds) -> Link | None:
    name = negotiated(sender, receiver, wanted)
    link = make_link(name, sender, receiver, spec.link_file)
    logger.info("agents on %s reach those on %s by the link %s", sender.label, receiver.label, name)
    return link


def make_graph(llm_name: str = "smollm2", topology: str = "chain", **settings: Any) -> AgentGraph:
    """An untrained graph: a model by name and a topology by name.

    Args:
        llm_name: "smollm2" (embedded), a Hugging Face id, a local folder or a .gguf file.
        topology: "learned", or the name of a fixed topology (`gcache.gnn.fixed.TOPOLOGIES`).
        settings: further fields of `GraphSpec`, for example `domain="maths"`.

    Raises:
        ConfigError: a setting that does not exist, or a value that is not allowed.
        ModelError: the model cannot be had, or its caches cannot be shifted.
    """
    known = {field.name for field in dataclasses.fields(GraphSpec)}
    running = {field.name for field in dataclasses.fields(GraphConfig)}
    former = {about.was for _, about in settings_of(GraphSpec)}  # which the record answers with the name of today
    for name in sorted(settings.keys() - known - former):
        if name in running:
            raise ConfigError(f"{name} is a setting of how a graph runs; pass graph=GraphConfig({name}=...)")
        near = get_close_matches(name, [*known, *running], 1)
        raise ConfigError(
            f"{name} is not a setting of a graph" + (f"; did you mean {near[0]}?" if near else "")
            + f"; there are {', '.join(sorted(known))}"
        )
    spec = GraphSpec(llm_name=llm_name, topology=topology, **settings)
    return build(spec).graph
