"""Everything that can be configured, as records that are checked where they are made."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gcache.agents.decision import DECISIONS, decision_maker
from gcache.agents.roles import DOMAINS, pick_agents
from gcache.cache.fusers.registry import FUSERS
from gcache.cache.position_names import POSITIONS
from gcache.errors import CheckpointError, ConfigError
from gcache.gnn.cue_names import CUES, check_cues
from gcache.gnn.features import ENCODERS
from gcache.gnn.fixed import TOPOLOGIES, FixedTopology
from gcache.gnn.topology import AGENT_PROBABILITY, CHANNELS, DECISION_PROBABILITY, check_choices
from gcache.graph.run_config import ENDPOINTS, GENERATION_MODES, GraphConfig
from gcache.graph.writers.hints import HINTS
from gcache.links.link import AUTO
from gcache.links.registry import CHOICES as LINK_CHOICES
from gcache.links.registry import LINKS
from gcache.llm.load import device as devices
from gcache.runtime.plugin_files import permitted
from gcache.runtime.settings import Settings, current_names, setting
from gcache.runtime.typed import mistyped
from gcache.tasks.example import Task
from gcache.tasks.registry import TASKS, make_task

#: `topology` of a configuration whose topology is learned.
LEARNED = "learned"
#: Fields of a `GraphSpec` that are tuples, which JSON knows as lists.
TUPLES = ("roles", "channels", "latent_choices", "cues", "agent_models", "agent_quantization", "link_file")
#: Fields of a `GraphSpec` that name an entry of a registry, which may be a plug-in.
NAMES = ("fuser", "topology", "link")
#: Fields of a `GraphSpec` that make no sense without a learned topology.
CHOICES = ("optimized_temporal", "channels", "latent_choices", "consult_probability", "cues", "heard", "hard_edges")


#: What `route` may be.
ROUTES = ("none", "auto")


@dataclass(frozen=True)
class GraphSpec(Settings):
    """Everything a graph is made from; stored with its checkpoints. Each field says in its help text what it is.

    Raises:
        ConfigError: a value that is not allowed, or two that do not go together; before a model is loaded.
    """

    llm_name: str = setting(
        "smollm2", help="smollm2 (embedded), a Hugging Face id, a local folder or a .gguf file", group="model"
    )
    dtype: str = setting("auto", help="of the model's weights", group="model", choices=lambda: devices.DTYPES)
    device: str = setting("cpu", help="cpu, auto, or another device of torch such as cuda:1", group="model")
    device_map: str | None = setting(
        None, help="passed on to transformers, for models over several devices", group="model"
    )
    quantization: str = setting(
        "none", help="of the model, by bitsandbytes", group="model", choices=lambda: devices.QUANTIZATIONS
    )
    domain: str = setting("maths", help="the set of roles; the task says which", choices=DOMAINS)
    roles: tuple[str, ...] = setting((), help="which of the domain's roles", group="team", unset="all")
    agent_nums: int | None = setting(
        None, help="so many agents, of the domain's roles in turn", group="team", unset="one for each role",
        metavar="N",
    )
    topology: str = setting(
        LEARNED, help="who hands to whom: learned, or a fixed one, of which the fuser alone is trained", group="team",
        choices=TOPOLOGIES, also=(LEARNED,),
    )
    decision_method: str = setting(
        "refer", help="how the decision maker comes to an answer: by one text on all caches (refer) or on the heaviest "
        "(direct), a text on each of which the answer that weighs most wins (vote), or no text, but the probabilities "
        "of the answers that there are under each cache (marginal)",
        group="team", choices=DECISIONS,
    )
    fuser: str = setting("concat", help="how caches that arrive are joined", group="team", choices=FUSERS)
    positions: str = setting(
        "parallel", help="where handed-on slots go: beside each other, or one cache after another", group="graph",
        choices=POSITIONS,
    )
    slot_temperature: float = setting(
        1.0, help="attention to handed-over slots has its logits divided by this; below 1 it is sharper, a repair of "
        "caches that were read side by side",
        group="graph", above=0,
    )
    slot_scale: float = setting(
        1.0, help="each handed-over slot counts for so many; below 1 what is handed over gets less attention in all",
        group="graph", above=0,
    )
    encoder: str = setting("minilm", help="of roles and questions, for the policy", group="team", choices=ENCODERS)
    hidden_dim: int = setting(64, help="width of the policy's layers", group="team", at_least=1)
    decision_probability: float = setting(
        DECISION_PROBABILITY, help="of an edge into the decision maker, before training", group="team", above=0, below=1
    )
    agent_probability: float = setting(
        AGENT_PROBABILITY, help="of an edge among agents, before training; 0: agents hear nobody, now and later",
        group="team", at_least=0, below=1,
    )
    optimized_temporal: bool = setting(
        False, help="learn edges from the round before, too", group="choices", was="temporal"
    )
    channels: tuple[str, ...] = setting(
        (), help="what goes over each edge, chosen per question; no edge (none) is always a choice", group="choices",
        what="channel", choices=CHANNELS, metavar="CHANNEL", unset="what --hands says, over every edge",
    )
    latent_choices: tuple[int, ...] = setting(
        (), help="numbers of latent steps that each agent chooses from", group="choices", metavar="STEPS",
        unset="--latent_steps for all",
    )
    cues: tuple[str, ...] = setting(
        (), help="what the policy sees beside embeddings, for agents that hold documents: words of the question in an "
        "agent's description (overlap) or in all that it alone knows (content), whether the question names it "
        "(named), whether it is named by, or names, one that is likely heard (cited, citing)",
        group="choices", what="cue", metavar="CUE", choices=CUES, unset="embeddings alone",
    )
    heard: float | None = setting(
        None, help="so many agents the decision maker hears in the mean over draws, before training and after: who "
        "they are is learned, and not how many; in place of --decision_probability, for many agents. The most likely "
        "topology has those that are likelier heard than not: before training perhaps nobody",
        group="choices", metavar="K", above=0, unset="as many as is learned",
    )
    hard_edges: bool = setting(
        False, help="an edge that is drawn weighs 1, whatever its probability; then the policy learns from how well "
        "topologies did alone, exactly, and the fuser not at all: no text is read again with gradient, so that a step "
        "costs little more than its rollouts",
        group="choices",
    )
    consult_probability: float | None = setting(
        None, help="make hearing nobody one choice: before training the decision maker consults its agents with this "
        "probability, and each of them then with --decision_probability; for tasks that it may do better alone",
        group="choices", metavar="C", above=0, below=1, unset="no such choice",
    )
    generation_mode: str = setting(
        "local", help="local: the local model writes on the fused cache; hybrid: it drafts and the API refines; "
        "api_hint: the API writes, told of the caches by --hint; api_embeds: a server of the same model that takes "
        "prompt embeddings writes, given the latent thoughts; api: the API alone, agents handing on text",
        group="modes", choices=GENERATION_MODES,
    )
    hint: str = setting(
        "meta", help="of the mode api_hint. meta: one line of numbers; lens: the words nearest to each latent step; "
        "draft: a short local reading of the cache; text: what the agents said, with --hands both",
        group="modes", choices=HINTS,
    )
    latent_space_realign: bool = setting(
        True, help="latent steps feed back the hidden state through W_a; false: the hidden state itself, at the norm "
        "of an embedding",
        group="team",
    )
    embeds_endpoint: str = setting(
        "completions", help="of the mode api_embeds: completions (the whole prompt as embeddings) or chat (a content "
        "part)",
        group="modes", what="endpoint of prompt embeddings", choices=ENDPOINTS,
    )
    api_model: str | None = setting(
        None, help="the model's name at the server", group="text", unset="API_MODEL in the environment or .env"
    )
    base_url: str | None = setting(
        None, help="of an OpenAI-compatible API, up to and with /v1", group="text",
        unset="BASE_URL in the environment or .env",
    )
    agent_models: tuple[str, ...] = setting(
        (), help="what the agents think with: one name per agent, or one for all; each is loaded once", group="models",
        metavar="NAME", unset="--llm_name",
    )
    agent_quantization: tuple[str, ...] = setting(
        (), help="of these models, one each or one for all", group="models", metavar="Q", was="agent_quantizations",
        what="quantization", choices=lambda: devices.QUANTIZATIONS, unset="--quantization",
    )
    link: str = setting(
        AUTO, help="what goes from one model to another: vocab (one tokenizer: hidden states through a linear map), "
        "overlap (two tokenizers with 100 tokens in common: likewise), perceiver (learned soft tokens, see "
        "--link_file), text; auto: the cache itself for equal weights, else the first of vocab, overlap and text that "
        "the two models allow",
        group="models", choices=LINK_CHOICES,
    )
    link_file: tuple[str, ...] = setting(
        (), help="of fitted perceivers, one for each pair of models", group="models", metavar="FILE", was="link_files"
    )
    route: str = setting(
        "none", help="auto: questions that ask for one of some labels go over the perceiver, others over --link, as "
        "the router in --route_file says; none: all go over --link",
        group="models", choices=ROUTES,
    )
    route_file: str | None = setting(
        None, help="of a router; `gcache fit-router` makes one", group="models", metavar="FILE"
    )
    seed: int = setting(0, help="of the policy's first weights and of random topologies")
    graph: GraphConfig = field(default_factory=GraphConfig)

    def __post_init__(self) -> None:
        """Refuse every bad value before a model is loaded."""
        super().__post_init__()
        if self.generation_mode == "api_hint" and self.hint == "text" and self.graph.hands not in ("both", "reasoning"):
            raise ConfigError(
                "the hint 'text' is what agents said, but they hand on caches alone; add --hands both or reasoning"
            )
        if self.generation_mode == "api" and self.graph.hands != "text":
            raise ConfigError("in the mode 'api' the agents hand on text alone; add --hands text")
        if self.graph.hands == "text" and self.generation_mode not in ("local", "api"):
            raise ConfigError(
                f"the mode {self.generation_mode!r} reads caches, but the agents hand on text alone; use --hands cache "
                "or both, or the mode local or api"
            )
        if self.generation_mode == "api_embeds" and self.graph.latent_steps == 0:
            raise ConfigError("the mode 'api_embeds' sends latent thoughts, but latent_steps is 0; set it to 1 or more")
        if (self.slot_temperature, self.slot_scale) != (1, 1) and self.graph.transfer == "context":
            raise ConfigError(
                "slot_temperature and slot_scale are for slots that are handed over once, but with transfer='context' "
                "they go on from agent to agent; use transfer='own', or leave them at 1"
            )
        if self.graph.rereads:
            self._check_reread(self.graph.rereads)
        self._check_marginal()
        pick_agents(self.domain, self.roles, self.agent_nums)
        self._check_choices()
        self._check_models()

    def _check_reread(self, how: str) -> None:
        """Refuse what has nothing to read again, or would lose something by it."""
        if self.channels or self.agent_models or self.decision_method != "refer":
            raise ConfigError(
                f"{how} computes slots again that are heard together, of agents on one model that hand on their own "
                f"caches; leave out --channels, --agent_models and --decision_method, or use --{how} 0"
            )
        if self.generation_mode not in ("local", "hybrid"):
            raise ConfigError(
                f"{how} is for texts on caches, but in the mode {self.generation_mode!r} the API writes without them; "
                f"use --generation_mode local or hybrid, or --{how} 0"
            )
        learned = self.topology == LEARNED
        among = self.agent_probability > 0 if learned else any(
            target != n  # a random topology depends on their number
            for n in range(2, 9) for _, target in FixedTopology(self.topology, n, self.seed).most_likely()[0].pairs
        )
        if among or self.graph.num_rounds > 1:
            raise ConfigError(
                f"{how} computes slots again without what their agents heard, so these must hear nobody; use "
                f"{'--agent_probability 0' if learned else '--topology star'} and one round, or --{how} 0"
            )
        if learned and not self.hard_edges:
            raise ConfigError(
                f"texts on caches that were read again are not learned from; add --hard_edges true, or use --{how} 0"
            )

    def _check_marginal(self) -> None:
        """Refuse a decision without texts where nothing is read, or where nobody says which answers there are."""
        decision = decision_maker(self.domain, self.decision_method)
        if self.decision_method != "marginal":
            return
        if self.generation_mode != "local" or self.graph.hands == "text":
            raise ConfigError(
                "the decision method 'marginal' asks the local model how likely answers are on caches; use "
                "--generation_mode local and --hands cache, both or reasoning, or another decision method"
            )
        told = self.graph.hands in ("both", "reasoning") or {"text", "reasoning"} & set(self.channels)
        if decision.states != "choice" and not told:
            raise ConfigError(
                f"the decision method 'marginal' chooses among answers that agents state, but the agents of the domain "
                f"{self.domain!r} hand on caches alone; add --hands reasoning (or both), or use another decision method"
            )

    def _check_choices(self) -> None:
        """Refuse choices that nobody makes, or that would change nothing."""
        check_choices(self.channels, self.latent_choices)
        check_cues(self.cues)
        chosen = [name for name in CHOICES if getattr(self, name)]
        if chosen and self.topology != LEARNED:
            raise ConfigError(
                f"{chosen[0]} is learned with the topology, but that is {self.topology!r}; use --topology {LEARNED}"
            )
        if self.optimized_temporal and not self.agent_probability:
            raise ConfigError(
                "optimized_temporal learns edges among agents, which agent_probability 0 leaves out; raise it, or "
                "leave out optimized_temporal"
            )
        if self.optimized_temporal and self.graph.num_rounds == 1:
            raise ConfigError("edges from the round before need one: set the number of rounds to 2 or more")
        if (self.channels or self.latent_choices) and (self.graph.hands, self.graph.transfer) != ("cache", "own"):
            raise ConfigError(
                f"channels and latent_choices are chosen per edge and agent, so they need hands='cache' and "
                f"transfer='own', got {self.graph.hands!r} and {self.graph.transfer!r}"
            )
        if self.graph.question_order == "last" and "reasoning" in self.channels:
            raise ConfigError(
                "the channel 'reasoning' hands on solutions of a question that agents have not read with "
                "question='last'; leave it out, or use question='first'"
            )
        if set(self.channels) == {"text"}:
            raise ConfigError("with the channel 'text' alone no cache goes over any edge; use hands='text' instead")
        if "latents" in self.channels and not max(self.latent_choices, default=self.graph.latent_steps):
            raise ConfigError("the channel 'latents' hands on latents, but there are 0 latent steps; set 1 or more")

    def _check_models(self) -> None:
        """Refuse models of agents that could not be linked, or would not be used."""
        if self.route == "none" and self.route_file is not None:
            raise ConfigError("a router's file is named, but nothing is routed; add --route auto")
        if self.route == "auto" and not (self.agent_models and self.link_file and self.route_file):
            raise ConfigError(
                "--route auto sends some questions over a perceiver; name the agents' models by --agent_models, its "
                "file by --link_file, and the router's by --route_file (`gcache fit-router` makes one)"
            )
        if not self.agent_models:
            for name in ("agent_quantization", "link_file"):
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
        if len(self.agent_quantization) not in (0, 1, len(self.agent_models)):
            raise ConfigError(
                f"there are {len(self.agent_models)} models of agents, but {len(self.agent_quantization)} "
                "quantizations for them; name one for each, or one for all"
            )
        fitted = "" if self.link == AUTO else LINKS[self.link].fitted
        if fitted and not self.link_file:
            raise ConfigError(
                f"the link {self.link} is learned, and needs its fitted file; {fitted}, or use --link auto"
            )
        if self.link_file and not fitted and self.route == "none":
            raise ConfigError(
                f"--link_file names a fitted link, but --link is {self.link}, which does not use it; add "
                "--link perceiver (or --route auto), or leave it out"
            )

    @property
    def quantization_of_each(self) -> tuple[str, ...]:
        """One per model of `agent_models`."""
        named = self.agent_quantization or (self.quantization,)
        return named * len(self.agent_models) if len(named) == 1 else named

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> GraphSpec:
        """The inverse of `to_json`, of a checkpoint; fields may stand under the names that they had before. A file that
        it names is run only if the user named it too.

        Raises:
            ConfigError: unknown or missing fields, or values that are not allowed.
            PluginError: a plug-in that cannot be used, or must not be run.
        """
        try:
            values = current_names(cls, values)
            graph = GraphConfig(**current_names(GraphConfig, values["graph"]))
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

    name: str = setting("split_facts", help="what is asked", flag="task", group="task", choices=TASKS)
    data: str | None = setting(
        None, help="data file of a task that reads one: JSONL, JSON or CSV, may be gzipped", group="task",
        unset="what the task brings",
    )
    options: dict[str, Any] = field(default_factory=dict)
    read_from: str = field(default="", compare=False)

    def make(self) -> Task:
        name = permitted(self.name, self.read_from) if self.read_from else self.name
        return make_task(name, self.data, **self.options)

    def whole(self) -> TaskSpec:
        """With all rows of its data file, where it has one and nothing else is asked for: for who learns nothing."""
        if self.data is None:
            return self
        return dataclasses.replace(self, options={"whole_file": True, **self.options})

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
