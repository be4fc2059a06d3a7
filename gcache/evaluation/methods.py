"""The methods that people compare, by name, on one model and one set of roles.

    single            one prompt, no agents
    self_consistency  several draws of that prompt, and the answer that most state
    best_of_n         the same draws, and the likeliest of them
    text_mas          agents that hand each other text
    latent_mas        agents that hand each other caches after latent steps, in a fixed order, untrained
    gdesigner         a learned topology with text on its edges
    gcache            a learned topology with caches on its edges

text_mas and latent_mas have two forms (`prompt`): sequential (planner, critic, refiner, and a judger
who answers; each has all that came before it) and hierarchical (experts who do not hear each other,
and a summariser who answers).

Where a question deals out what agents know, the methods of one prompt have all of it in that prompt. In the others its
notes are the agents, in their order, and the last to answer has none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from gcache.agents.chat_template import TemplateSettings
from gcache.agents.decision import DecisionMaker, decision_maker
from gcache.agents.roles import EXPERTS, PIPELINE, Agent
from gcache.cache.fusers.registry import make_fuser
from gcache.errors import ConfigError, PluginError, unknown
from gcache.graph.run_config import GraphConfig
from gcache.runtime.registry import Registry, lacks_methods, refuses
from gcache.runtime.settings import Settings, setting

if TYPE_CHECKING:  # methods are named, and their settings made, before torch is there
    from gcache.evaluation.method import Method
    from gcache.evaluation.sampled import Choose
    from gcache.graph.agent_graph import AgentGraph
    from gcache.llm.local import LocalLLM

#: Form of a pipeline -> its agents, its topology for text, and for caches. A text says nothing of
#: what came before it, so in a sequence each reads all earlier ones; a cache carries its context.
FORMS: Mapping[str, tuple[tuple[Agent, ...], str, str]] = {
    "sequential": (PIPELINE, "full", "chain"),
    "hierarchical": (EXPERTS, "star", "star"),
}
#: Methods of one prompt, which have all notes of a question in it. In the others of this package they are the agents.
OF_ONE_PROMPT = ("single", "self_consistency", "best_of_n")
#: Questions in hand for each row of a batch: while some write, others think.
IN_HAND = 2
#: What a reasoning model is put into the mouth.
THINK = "<think>\n"


@dataclass(frozen=True)
class MethodSettings(Settings):
    """What all methods share, and what some of them heed.

    Attributes:
        domain: whose decision maker answers.
        template: what chat templates may read.
        question_order: where a question stands beside its notes, in methods of one prompt.
        graph: gcache's, trained or not; also gives gdesigner its topologies.
        The rest: see the fields' help texts.

    Raises:
        ConfigError: a value that is not allowed, or latents handed on where there are none.
    """

    domain: str
    max_new_tokens: int = setting(help="the most tokens of every text", group="methods", at_least=1)
    prompt: str = setting(
        "sequential", help="of text_mas and latent_mas. sequential: planner, critic, refiner, judger; hierarchical: "
        "experts and a summariser",
        group="methods", choices=FORMS,
    )
    latent_steps: int = setting(
        10, help="per agent; 0: caches are handed over without any", group="methods", at_least=0
    )
    latent_only: bool = setting(False, help="agents hand on their latents alone", group="methods")
    samples: int = setting(
        4, help="draws of self_consistency and best_of_n", group="methods", at_least=1
    )
    sample_temperature: float = setting(
        0.7, help="of the draws of self_consistency and best_of_n", group="methods", above=0
    )
    think: bool = setting(False, help="answers begin with <think>, for reasoning models", group="methods")
    template: TemplateSettings = field(default_factory=TemplateSettings)
    question_order: str = "first"
    graph: AgentGraph | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.latent_only and self.latent_steps == 0:
            raise ConfigError("latent_only hands on latents, but latent_steps is 0; set it to 1 or more")

    @property
    def decision(self) -> DecisionMaker:
        made = decision_maker(self.domain)
        return replace(made, answer_prefix=THINK) if self.think else made

    def the_graph(self, method: str) -> AgentGraph:
        """Raises ConfigError where there is none."""
        if self.graph is None:
            raise ConfigError(f"the method {method!r} needs a graph; pass one, or a checkpoint")
        return self.graph


def _speaking(
    name: str, llm: LocalLLM, tokenizer: Any, settings: MethodSettings, agents: Sequence[Agent], topology: Any,
    in_one: str = "",
) -> Method:  # fmt: skip
    """A method of agents that say what they think.

    Args:
        topology: a fixed one by name, or where topologies come from.
        in_one: see `GraphMethod`.
    """
    from gcache.evaluation.graph_method import GraphMethod
    from gcache.gnn.providers import FixedProvider
    from gcache.graph.text_backends import LocalTextBackend
    from gcache.graph.text_graph import TextGraph

    provider = FixedProvider(topology) if isinstance(topology, str) else topology
    config = GraphConfig(max_new_tokens=settings.max_new_tokens, hands="text", speak_tokens=settings.max_new_tokens)
    graph = TextGraph(LocalTextBackend(llm, tokenizer, settings.template), agents, settings.decision, provider, config)
    return GraphMethod(name, graph, IN_HAND * llm.limits.max_batch_size, in_one)


def _single(llm: LocalLLM, tokenizer: Any, settings: MethodSettings) -> Method:
    """One prompt, no agents."""
    return _speaking("single", llm, tokenizer, settings, (), "none", in_one=settings.question_order)


def _self_consistency(llm: LocalLLM, tokenizer: Any, settings: MethodSettings) -> Method:
    """Several draws of one prompt, and the answer that most of them state."""
    from gcache.evaluation.sampled import most_stated

    return _sampled("self_consistency", most_stated, llm, tokenizer, settings)


def _best_of_n(llm: LocalLLM, tokenizer: Any, settings: MethodSettings) -> Method:
    """Several draws of one prompt, and the likeliest of those that state an answer."""
    from gcache.evaluation.sampled import likeliest

    return _sampled("best_of_n", likeliest, llm, tokenizer, settings)


def _sampled(name: str, choose: Choose, llm: LocalLLM, tokenizer: Any, settings: MethodSettings) -> Method:
    from gcache.evaluation.sampled import Sampled
    from gcache.graph.text_backends import LocalTextBackend

    backend = LocalTextBackend(llm, tokenizer, settings.template)
    return Sampled(
        name, backend, settings.decision, choose, settings.samples, settings.sample_temperature,
        settings.max_new_tokens, settings.question_order,
    )  # fmt: skip


def _text_mas(llm: LocalLLM, tokenizer: Any, settings: MethodSettings) -> Method:
    """Fixed agents that hand each other text."""
    agents, topology, _ = FORMS[settings.prompt]
    return _speaking("text_mas", llm, tokenizer, settings, agents, topology)


def _latent_mas(llm: LocalLLM, tokenizer: Any, settings: MethodSettings) -> Method:
    """Fixed agents that hand each other caches after latent steps, untrained."""
    from gcache.evaluation.graph_method import GraphMethod
    from gcache.gnn.providers import FixedProvider
    from gcache.graph.cache_graph import CacheGraph

    agents, _, topology = FORMS[settings.prompt]
    config = GraphConfig(
        settings.latent_steps, "latent" if settings.latent_only else "context", max_new_tokens=settings.max_new_tokens,
        chat_template_kwargs=settings.template.kwargs, prompt_date=settings.template.date,
    )  # fmt: skip
    fuser = make_fuser("concat", llm.cache_shape, "parallel", llm.rope).to(llm.device)
    graph = CacheGraph(llm, tokenizer, agents, settings.decision, FixedProvider(topology), fuser, config)
    return GraphMethod("latent_mas", graph, IN_HAND * llm.limits.max_batch_size)


def _gdesigner(llm: LocalLLM, tokenizer: Any, settings: MethodSettings) -> Method:
    """The graph's topology with text on its edges."""
    graph = settings.the_graph("gdesigner")
    return _speaking("gdesigner", llm, tokenizer, settings, graph.agents, graph.topology_provider)


def _gcache(llm: LocalLLM, tokenizer: Any, settings: MethodSettings) -> Method:
    """The graph, trained or not, with caches on its edges."""
    from gcache.evaluation.graph_method import GraphMethod

    return GraphMethod("gcache", settings.the_graph("gcache"), IN_HAND * llm.limits.max_batch_size)


_BUILT_IN: dict[str, Callable[[LocalLLM, Any, MethodSettings], Method]] = {
    "single": _single,
    "self_consistency": _self_consistency,
    "best_of_n": _best_of_n,
    "text_mas": _text_mas,
    "latent_mas": _latent_mas,
    "gdesigner": _gdesigner,
    "gcache": _gcache,
}


def _wrong(found: Any) -> str:
    if not callable(found):
        return f"must be a class with answer, got {type(found).__name__}"
    return lacks_methods(found, ("answer",)) or refuses(found, "llm", "tokenizer", "settings")


METHODS: Registry[Callable[[LocalLLM, Any, MethodSettings], Method]] = Registry(
    "method", "gcache.methods", _BUILT_IN, _wrong
)


def make_method(name: str, llm: LocalLLM, tokenizer: Any, settings: MethodSettings) -> Method:
    """A method by name.

    Raises:
        ConfigError: unknown name, or a graph is needed and there is none.
    """
    if name not in METHODS:
        raise unknown("method", name, METHODS)
    made = METHODS[name](llm, tokenizer, settings)
    missing = [part for part in ("name", "answer") if not hasattr(made, part)]
    if missing:
        raise PluginError(f"the method {name!r} lacks {', '.join(missing)}; see gcache.evaluation.method.Method")
    return made
