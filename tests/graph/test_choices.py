"""What goes over each edge, how long each agent thinks, and what comes from the round before, by hand.

As in test_run: agents' own slots are 4, 5 and 6 prompt slots and their latents, of 16 bytes each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

from gcache.agents.decision import DecisionMaker
from gcache.agents.roles import Agent
from gcache.cache.fused_cache import FusedCache
from gcache.cache.fusers.concat import ConcatFuser
from gcache.cache.kv_cache import SHARED, SlotKind
from gcache.config import GraphSpec
from gcache.errors import ConfigError
from gcache.gnn.providers import FixedProvider, PolicyProvider, role_edge
from gcache.gnn.topology import Edge, Topology
from gcache.graph.cache_graph import CacheGraph
from gcache.graph.run_config import GraphConfig

if TYPE_CHECKING:
    from conftest import ScriptedLLM

AGENTS = (
    Agent("planner", "the planner", "plan"),
    Agent("critic", "the critic", "find it"),
    Agent("solver", "the solver", "solve the sum"),
)
QUESTION = "how many ?"


def make(llm: ScriptedLLM, tokenizer: Any, **config: Any) -> CacheGraph:
    settings = GraphConfig(**{"latent_steps": 2, "max_new_tokens": 3, **config})
    decision = DecisionMaker("decides", "answer")
    return CacheGraph(llm, tokenizer, AGENTS, decision, FixedProvider("star"), ConcatFuser(1, 1, 2), settings)


def kinds(past: FusedCache | None, source: int) -> set[SlotKind]:
    assert past is not None
    return {SlotKind(kind) for kind in past.kinds[0][past.owners[0] == source].tolist()}


def test_each_edge_carries_what_its_channel_says(scripted_llm: ScriptedLLM, tiny_tokenizer: Any) -> None:
    scripted_llm.write = lambda request: "the sum is 3"
    topology = Topology(
        3, (Edge(0, 3, payload="cache"), Edge(1, 3, payload="latents"), Edge(2, 3, payload="text"))
    )
    result = make(scripted_llm, tiny_tokenizer).run(QUESTION, topology=topology)
    spoken, answer = scripted_llm.texts[0][0], scripted_llm.texts[-1][0]
    assert kinds(answer.past, 0) == {SlotKind.PROMPT, SlotKind.LATENT}
    assert kinds(answer.past, 1) == {SlotKind.LATENT}
    assert kinds(answer.past, 2) == set()
    words = tiny_tokenizer.decode(answer.tokens)
    assert words.count("the sum is 3") == 1
    # the agent that speaks does so on all it has, and is the only one to speak
    assert kinds(spoken.past, 2) == {SlotKind.PROMPT, SlotKind.LATENT}
    assert len(scripted_llm.texts) == 2 and set(result.said) == {(0, 2)}
    assert result.edge_bytes == {(0, 3): 16 * 6, (1, 3): 16 * 2}
    assert result.thinking == 3 * 2 + 4


def test_an_agent_may_speak_to_one_and_hand_its_cache_to_another(
    scripted_llm: ScriptedLLM, tiny_tokenizer: Any
) -> None:
    scripted_llm.write = lambda request: "4"
    topology = Topology(3, (Edge(0, 1, payload="text"), Edge(0, 3, payload="cache"), Edge(1, 3, payload="cache")))
    make(scripted_llm, tiny_tokenizer).run(QUESTION, topology=topology)
    (critic,) = [r for batch in scripted_llm.thoughts for r in batch if r.owner == 1]
    assert kinds(critic.past, 0) == set() and "4" in tiny_tokenizer.decode(critic.tokens).split()
    answer = scripted_llm.texts[-1][0]
    assert kinds(answer.past, 0) and "4" not in tiny_tokenizer.decode(answer.tokens).split()


def test_the_channel_cache_everywhere_is_no_choice_at_all(scripted_llm: ScriptedLLM, tiny_tokenizer: Any) -> None:
    pairs = ((0, 1), (1, 3), (0, 3))
    plain, chosen = (
        make(scripted_llm, tiny_tokenizer).run(
            QUESTION, topology=Topology(3, tuple(Edge(*pair, 0.5, payload=channel) for pair in pairs))
        )
        for channel in (None, "cache")
    )
    assert plain.edge_bytes == chosen.edge_bytes and plain.prompts == chosen.prompts
    for node, cache in plain.caches.items():
        assert torch.equal(cache.keys, chosen.caches[node].keys)


def test_each_agent_takes_its_own_number_of_latent_steps(scripted_llm: ScriptedLLM, tiny_tokenizer: Any) -> None:
    topology = Topology(3, (Edge(0, 3), Edge(1, 3), Edge(2, 3)), latent_steps=(0, 1, 5))
    result = make(scripted_llm, tiny_tokenizer).run(QUESTION, topology=topology)
    taken = {r.owner: r.latent_steps for batch in scripted_llm.thoughts[1:] for r in batch}
    assert taken == {0: 0, 1: 1, 2: 5} and result.thinking == 6 == result.tokens["latent"]
    # who takes none does not open a turn to think in
    prompts = [tiny_tokenizer.decode(result.prompts[0, agent]) for agent in range(3)]
    assert ["assistant" in prompt for prompt in prompts] == [False, True, True]


def test_an_edge_from_the_round_before_brings_what_was_thought_then(
    scripted_llm: ScriptedLLM, tiny_tokenizer: Any
) -> None:
    """0 and 1 would be a cycle within a round. Over rounds each hears the other's first thoughts."""
    topology = Topology(3, (Edge(0, 3), Edge(1, 3), Edge(0, 1, 0.5, delay=1), Edge(1, 0, 0.25, delay=1)))
    graph = make(scripted_llm, tiny_tokenizer, num_rounds=2)
    result = graph.run(QUESTION, topology=topology)
    assert [sorted(batch) for batch in scripted_llm.asked] == [[SHARED], [0, 1], [3, 4]]  # 3: round 1's begin
    first, second = sorted(scripted_llm.thoughts[2], key=lambda request: request.owner)
    for request, own, other, weight in ((first, 0, 1, 0.25), (second, 1, 0, 0.5)):
        assert request.past is not None
        heard = request.past.owners[0]
        assert set(heard.tolist()) == {SHARED, own, other}
        of_other = request.past.bias[0][heard == other].exp()
        assert of_other.tolist() == pytest.approx([weight] * len(of_other))
        assert bool((request.past.bias[0][heard == own] == 0).all()), "memory has weight 1"
    answer = scripted_llm.texts[-1][0].past
    assert answer is not None and set(answer.owners[0].tolist()) == {SHARED, 3, 4}
    assert [s.round for s in result.trace if s.what == "unheard"] == [0, 1]  # the solver, both times


def test_who_is_heard_over_rounds_alone_takes_no_turn_in_the_last(
    scripted_llm: ScriptedLLM, tiny_tokenizer: Any
) -> None:
    topology = Topology(3, (Edge(1, 3), Edge(2, 1, delay=1), Edge(0, 2)))
    result = make(scripted_llm, tiny_tokenizer, num_rounds=2).run(QUESTION, topology=topology)
    assert scripted_llm.asked == [[SHARED], [0, 1], [2], [4]]
    assert {(s.round, s.agent) for s in result.trace if s.what == "unheard"} == {(1, 0), (1, 2)}


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"optimized_temporal": True}, "rounds"),
        ({"channels": ("cache", "smoke")}, "'smoke'.*latents"),
        ({"channels": ("cache", "cache")}, "different"),
        ({"latent_choices": (2,)}, "two or more"),
        ({"latent_choices": (1, -1)}, "-1"),
        ({"channels": ("latents",), "graph": GraphConfig(latent_steps=0)}, "0 latent steps"),
        ({"channels": ("cache",), "graph": GraphConfig(transfer="context")}, "transfer='own'"),
        ({"channels": ("text",)}, "hands='text' instead"),
        ({"latent_choices": (1, 2), "graph": GraphConfig(hands="text")}, "hands='cache'"),
        ({"latent_choices": (1, 2), "topology": "full"}, "--topology learned"),
        ({"optimized_temporal": True, "topology": "star", "graph": GraphConfig(num_rounds=2)}, "is learned with"),
        ({"consult_probability": 0.5, "topology": "full"}, "consult_probability is learned"),
        ({"consult_probability": 1.0}, "consult_probability must be between 0 and 1"),
    ],
)
def test_choices_that_nobody_makes_are_refused(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        GraphSpec(**settings)


def test_a_spec_with_choices_survives_json() -> None:
    spec = GraphSpec(
        optimized_temporal=True, channels=("cache", "text"), latent_choices=(0, 4), consult_probability=0.5,
        graph=GraphConfig(num_rounds=3),
    )  # fmt: skip
    assert GraphSpec.from_json(spec.to_json()) == spec
    older = {name: value for name, value in spec.to_json().items() if name != "consult_probability"}
    assert GraphSpec.from_json(older).consult_probability is None


def test_pruned_edges_are_known_by_roles_and_never_drawn(scripted_llm: ScriptedLLM, tiny_tokenizer: Any) -> None:
    from gcache.gnn.features import HashEncoder
    from gcache.gnn.policy import TopologyPolicy

    policy = TopologyPolicy(8, 4, decision_probability=0.9, agent_probability=0.9, temporal=True)
    cut = {("critic", "decision maker", 0), ("planner", "solver", 1)}
    source = PolicyProvider(policy, HashEncoder(8), cut)
    for agents in (AGENTS, AGENTS[::-1]):
        distribution = source.distribution(agents, DecisionMaker("decides", "answer"), QUESTION)
        gone = set(PolicyProvider(policy, HashEncoder(8)).distribution(
            agents, DecisionMaker("decides", "answer"), QUESTION
        ).candidates) - set(distribution.candidates)  # fmt: skip
        assert {role_edge(key, agents) for key in gone} == cut
        assert not {role_edge(key, agents) for key in distribution.most_likely()[0].pairs} & cut
