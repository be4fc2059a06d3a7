"""One question's way through a graph, on a model that only keeps what it was asked.

By hand, in the words of the tiny tokenizer: the question is 2 + 3 tokens, the agents' words are 1,
2 and 3 tokens and 3 more that open the assistant's turn, the decision maker's are 3 + 1 + 3. With
two latent steps the agents' own slots are 6, 7 and 8, of 16 bytes each.
"""

from __future__ import annotations

import asyncio
import gc
import math
import weakref
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pytest
import torch

from gcache.agents.decision import DecisionMaker
from gcache.agents.roles import Agent
from gcache.cache.fused_cache import FusedCache
from gcache.cache.fusers.concat import ConcatFuser
from gcache.cache.kv_cache import SHARED, KVCache, SlotKind
from gcache.errors import ConfigError
from gcache.gnn.providers import FixedProvider
from gcache.gnn.topology import Edge, Topology
from gcache.graph.cache_graph import CacheGraph
from gcache.graph.memo import RolloutMemo
from gcache.graph.result import RunResult
from gcache.graph.run_config import GraphConfig
from gcache.llm.requests import GenerateRequest, ThinkRequest
from gcache.runtime.streams import derive
from gcache.tasks.example import Example, Note

if TYPE_CHECKING:
    from conftest import ScriptedLLM

QUESTION = "how many ?"
AGENTS = (
    Agent("planner", "the planner", "plan"),
    Agent("critic", "the critic", "find it"),
    Agent("solver", "the solver", "solve the sum"),
)
SLOT = 16  # bytes


def make(llm: ScriptedLLM, tokenizer: Any, n_agents: int = 3, method: str = "refer", **config: Any) -> CacheGraph:
    decision = DecisionMaker("decides", "answer", method=method)
    settings = GraphConfig(**{"latent_steps": 2, "max_new_tokens": 3, **config})
    fuser = ConcatFuser(1, 1, 2)
    return CacheGraph(llm, tokenizer, AGENTS[:n_agents], decision, FixedProvider("star"), fuser, settings)


def edges(n_agents: int, *pairs: tuple[int, int] | tuple[int, int, float]) -> Topology:
    return Topology(n_agents, tuple(Edge(*pair) for pair in pairs))


def here(result: RunResult) -> dict[str, int]:
    """Tokens that were computed here, without those of an API."""
    assert result.tokens["api_read"] == result.tokens["api_written"] == 0
    return {kind: count for kind, count in result.tokens.items() if not kind.startswith("api")}


def sources(past: FusedCache | None) -> set[int]:
    assert past is not None
    return set(past.owners[0].tolist())


def names(past: FusedCache | None) -> list[tuple[int, int]]:
    assert past is not None
    return list(zip(past.owners[0].tolist(), past.ordinals[0].tolist(), strict=True))


def weights(past: FusedCache | None) -> dict[int, float]:
    """The weight of each source's slots, which must be the same for all of them."""
    assert past is not None
    found: dict[int, set[float]] = {}
    for source, bias in zip(past.owners[0].tolist(), past.bias[0].tolist(), strict=True):
        found.setdefault(source, set()).add(round(math.exp(bias), 6))
    assert all(len(values) == 1 for values in found.values()), found
    return {source: values.pop() for source, values in found.items()}


def gathered(*runs: Any) -> list[Any]:
    async def together() -> list[Any]:
        return list(await asyncio.gather(*runs, return_exceptions=True))

    return asyncio.run(together())


# -- who thinks when ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pairs", "batches"),
    [
        ([(0, 3), (1, 3), (2, 3)], [[SHARED], [0, 1, 2]]),
        ([(0, 1), (1, 2), (2, 3)], [[SHARED], [0], [1], [2]]),
        ([(2, 0), (0, 1), (1, 3)], [[SHARED], [2], [0], [1]]),
        ([(0, 2), (1, 2), (2, 3)], [[SHARED], [0, 1], [2]]),
        ([(0, 1), (0, 2), (1, 3), (2, 3)], [[SHARED], [0], [1, 2]]),
    ],
)
def test_agents_think_as_soon_as_their_predecessors_are_done_and_no_sooner(
    scripted_llm: ScriptedLLM, tiny_tokenizer: Any, pairs: list[tuple[int, int]], batches: list[list[int]]
) -> None:
    topology = edges(3, *pairs)
    result = make(scripted_llm, tiny_tokenizer).run(QUESTION, topology=topology)
    assert scripted_llm.asked == batches
    thoughts = {step.agent: step for step in result.trace if step.what == "think"}
    for source, target in pairs:
        if target < 3:
            assert thoughts[target].started >= thoughts[source].ended
    for request in (r for batch in scripted_llm.thoughts[1:] for r in batch):
        assert sources(request.past) == {SHARED, *(e.source for e in topology.into(request.owner))}
    ((asked,),) = scripted_llm.texts
    assert sources(asked.past) == {SHARED, *(e.source for e in topology.into(3))}


def test_an_agent_reads_its_own_words_behind_the_question(scripted_llm: ScriptedLLM, tiny_tokenizer: Any) -> None:
    graph = make(scripted_llm, tiny_tokenizer)
    graph.run(QUESTION, topology=edges(3, (1, 3)))
    question, agent = scripted_llm.thoughts[0][0], scripted_llm.thoughts[1][0]
    assert tiny_tokenizer.decode(question.tokens).split() == ["<|im_start|>", "user", "how", "many", "?"]
    assert (question.latent_steps, question.kind, question.past) == (0, SlotKind.PREFIX, None)
    assert tiny_tokenizer.decode(agent.tokens).split() == ["find", "it", "<|im_end|>", "<|im_start|>", "assistant"]
    assert (agent.latent_steps, agent.kind) == (2, SlotKind.PROMPT)
    assert scripted_llm.words(agent.past, SHARED) == question.tokens


def test_unheard_agents_never_think(scripted_llm: ScriptedLLM, tiny_tokenizer: Any) -> None:
    graph = make(scripted_llm, tiny_tokenizer, num_rounds=2)
    result = graph.run(QUESTION, topology=edges(3, (0, 3), (1, 2)))
    assert scripted_llm.asked == [[SHARED], [0], [3]]
    unheard = [(step.round, step.agent, step.prefilled, step.latent) for step in result.trace if step.what == "unheard"]
    assert unheard == [(0, 1, 0, 0), (0, 2, 0, 0), (1, 1, 0, 0), (1, 2, 0, 0)]
    assert set(result.caches) == {(0, 0), (1, 0)}


def test_without_edges_the_decision_maker_has_the_question_alone(
    scripted_llm: ScriptedLLM, tiny_tokenizer: Any
) -> None:
    scripted_llm.write = lambda _: "7"
    result = make(scripted_llm, tiny_tokenizer).run(QUESTION, topology=edges(3))
    assert scripted_llm.asked == [[SHARED]]
    assert sources(scripted_llm.texts[0][0].past) == {SHARED}
    assert (result.answer, result.edge_bytes, result.spoken[0].heard) == ("7", {}, ())


def test_the_topology_is_the_sources_unless_one_is_given(scripted_llm: ScriptedLLM, tiny_tokenizer: Any) -> None:
    graph = make(scripted_llm, tiny_tokenizer)
    star = {(0, 3), (1, 3), (2, 3)}
    assert graph.run(QUESTION).topology.pairs == star
    assert graph.run(QUESTION, sample=True, seed=4).topology.pairs == star
    assert graph.topology(QUESTION).pairs == star
    assert graph.run(QUESTION, topology=edges(3, (1, 3))).topology.pairs == {(1, 3)}


def test_an_examples_own_agents_take_the_place_of_the_graphs(scripted_llm: ScriptedLLM, tiny_tokenizer: Any) -> None:
    notes = (Note("a", "an a", "red box"), Note("b", "a b", "blue box"))
    result = make(scripted_llm, tiny_tokenizer).run(Example("x", QUESTION, "1", notes))
    assert [agent.role for agent in result.agents] == ["a", "b"]
    said = [tiny_tokenizer.decode(request.tokens).split()[:2] for request in scripted_llm.thoughts[1]]
    assert said == [["red", "box"], ["blue", "box"]]


def test_without_any_agents_a_question_is_refused(scripted_llm: ScriptedLLM, tiny_tokenizer: Any) -> None:
    with pytest.raises(ConfigError, match="brings no agents, and this graph has none of its own"):
        make(scripted_llm, tiny_tokenizer, n_agents=0).run(QUESTION)


# -- what it cost ---------------------------------------------------------------------------


def test_tokens_and_bytes_of_a_chain_by_hand(scripted_llm: ScriptedLLM, tiny_tokenizer: Any) -> None:
    scripted_llm.write = lambda _: "the sum is 5"
    result = make(scripted_llm, tiny_tokenizer).run(QUESTION, topology=edges(3, (0, 1), (1, 2), (2, 3)))
    assert here(result) == {"prefilled": 5 + 4 + 5 + 6 + 7, "latent": 3 * 2, "generated": 4}
    assert result.edge_bytes == {(0, 1): 6 * SLOT, (1, 2): 7 * SLOT, (2, 3): 8 * SLOT}
    assert result.text_log_prob == pytest.approx(-4 * 0.5)
    steps = [(s.role, s.what, s.prefilled, s.latent, s.generated, s.received) for s in result.trace]
    assert steps == [
        ("question", "think", 5, 0, 0, 0),
        ("planner", "think", 4, 2, 0, 0),
        ("critic", "think", 5, 2, 0, 6),
        ("solver", "think", 6, 2, 0, 7),
        ("decision maker", "answer", 7, 0, 4, 8),
    ]


def test_without_latent_steps_the_assistants_turn_is_not_opened(scripted_llm: ScriptedLLM, tiny_tokenizer: Any) -> None:
    result = make(scripted_llm, tiny_tokenizer, latent_steps=0).run(QUESTION, topology=edges(3, (0, 3), (1, 3)))
    assert here(result) == {"prefilled": 5 + 1 + 2 + 7, "latent": 0, "generated": 1}
    assert result.edge_bytes == {(0, 3): 1 * SLOT, (1, 3): 2 * SLOT}


def test_in_the_same_turn_the_decision_maker_opens_none(scripted_llm: ScriptedLLM, tiny_tokenizer: Any) -> None:
    result = make(scripted_llm, tiny_tokenizer, decision_turn="same").run(QUESTION, topology=edges(3))
    assert result.tokens["prefilled"] == 5 + 1 + 3


# -- shared thoughts ------------------------------------------------------------------------


def test_rollouts_that_share_thoughts_think_equal_ones_once(scripted_llm: ScriptedLLM, tiny_tokenizer: Any) -> None:
    graph = make(scripted_llm, tiny_tokenizer)
    thoughts = RolloutMemo()
    short = edges(3, (0, 1, 0.5), (1, 3))
    longer = edges(3, (0, 1, 0.5), (1, 2), (2, 3))
    lighter = edges(3, (0, 1, 0.4), (1, 3))
    results = gathered(*(graph.arun(QUESTION, topology=t, memo=thoughts) for t in (short, short, longer, lighter)))
    counts = Counter(source for batch in scripted_llm.asked for source in batch)
    # agent 1 thinks again where agent 0 reaches it at another weight
    assert counts == {SHARED: 1, 0: 1, 1: 2, 2: 1}
    assert sum(map(len, scripted_llm.texts)) == 4
    first, again, further, other = results
    assert here(again) == {"prefilled": 7, "latent": 0, "generated": 1}
    assert {step.agent: step.what for step in again.trace} == {
        SHARED: "shared", 0: "shared", 1: "shared", 2: "unheard", 3: "answer"
    }  # fmt: skip
    assert again.edge_bytes == first.edge_bytes
    assert again.caches[0, 1] is first.caches[0, 1] is further.caches[0, 1]
    assert other.caches[0, 0] is first.caches[0, 0]
    assert other.caches[0, 1] is not first.caches[0, 1]


def test_thoughts_are_shared_with_later_rollouts_too(scripted_llm: ScriptedLLM, tiny_tokenizer: Any) -> None:
    graph = make(scripted_llm, tiny_tokenizer)

    async def one_after_another() -> None:
        thoughts = RolloutMemo()
        for seed in (1, 2):
            await graph.arun(QUESTION, memo=thoughts, seed=seed)

    asyncio.run(one_after_another())
    assert scripted_llm.asked == [[SHARED], [0, 1, 2]]
    seeds = [request.seed for batch in scripted_llm.texts for request in batch]
    assert seeds == [derive("text", seed, QUESTION, 0) for seed in (1, 2)]


def test_runs_share_nothing_unless_told_to(scripted_llm: ScriptedLLM, tiny_tokenizer: Any) -> None:
    graph = make(scripted_llm, tiny_tokenizer)
    gathered(graph.arun(QUESTION), graph.arun(QUESTION))
    assert [sorted(batch) for batch in scripted_llm.asked] == [[SHARED] * 2, [0, 0, 1, 1, 2, 2]]


# -- rounds ---------------------------------------------------------------------------------


def test_in_the_second_round_each_agent_also_hears_its_own_earlier_self(
    scripted_llm: ScriptedLLM, tiny_tokenizer: Any
) -> None:
    graph = make(scripted_llm, tiny_tokenizer, n_agents=2, num_rounds=2)
    result = graph.run(QUESTION, topology=edges(2, (0, 1, 0.5), (1, 2, 0.25)))
    heard = {request.owner: weights(request.past) for batch in scripted_llm.thoughts[1:] for request in batch}
    assert heard == {
        0: {SHARED: 1.0},
        1: {SHARED: 1.0, 0: 0.5},
        2: {SHARED: 1.0, 0: 1.0},  # agent 0 in round 1, of itself in round 0
        3: {SHARED: 1.0, 2: 0.5, 1: 1.0},
    }
    assert weights(scripted_llm.texts[0][0].past) == {SHARED: 1.0, 3: 0.25}
    assert result.edge_bytes == {(0, 0): 6 * SLOT, (0, 1): 12 * SLOT, (1, 1): 7 * SLOT, (1, 2): 7 * SLOT}
    assert here(result) == {"prefilled": 5 + 2 * (4 + 5) + 7, "latent": 8, "generated": 1}


# -- transfer -------------------------------------------------------------------------------


def decision_past(llm: ScriptedLLM, tokenizer: Any, topology: Topology, transfer: str) -> FusedCache:
    make(llm, tokenizer, transfer=transfer).run(QUESTION, topology=topology)
    past: FusedCache | None = llm.texts[0][0].past
    assert past is not None
    return past


CHAIN = edges(3, (0, 1, 0.5), (1, 2, 0.5), (2, 3, 0.5))


def test_own_hands_on_an_agents_words_and_latents(scripted_llm: ScriptedLLM, tiny_tokenizer: Any) -> None:
    past = decision_past(scripted_llm, tiny_tokenizer, CHAIN, "own")
    assert names(past) == [(SHARED, i) for i in range(5)] + [(2, i) for i in range(8)]
    assert past.kinds[0].tolist() == [SlotKind.PREFIX] * 5 + [SlotKind.PROMPT] * 6 + [SlotKind.LATENT] * 2


def test_latent_hands_on_the_latents_alone(scripted_llm: ScriptedLLM, tiny_tokenizer: Any) -> None:
    past = decision_past(scripted_llm, tiny_tokenizer, CHAIN, "latent")
    assert names(past)[5:] == [(2, 6), (2, 7)]
    assert set(past.kinds[0, 5:].tolist()) == {SlotKind.LATENT}


def test_context_hands_on_all_that_an_agent_had_at_the_product_of_the_weights(
    scripted_llm: ScriptedLLM, tiny_tokenizer: Any
) -> None:
    past = decision_past(scripted_llm, tiny_tokenizer, CHAIN, "context")
    assert Counter(past.owners[0].tolist()) == {SHARED: 5, 0: 6, 1: 7, 2: 8}
    assert weights(past) == {SHARED: 1.0, 0: 0.125, 1: 0.25, 2: 0.5}


def test_context_that_arrives_over_two_paths_is_there_once(scripted_llm: ScriptedLLM, tiny_tokenizer: Any) -> None:
    diamond = edges(3, (0, 1), (0, 2), (1, 3, 0.5), (2, 3, 0.25))
    past = decision_past(scripted_llm, tiny_tokenizer, diamond, "context")
    assert Counter(past.owners[0].tolist()) == {SHARED: 5, 0: 6, 1: 7, 2: 8}
    assert len(set(names(past))) == 26
    assert weights(past) == {SHARED: 1.0, 0: 0.5, 1: 0.5, 2: 0.25}


def test_an_agents_kept_cache_is_its_own_slots_whatever_it_hands_on(
    scripted_llm: ScriptedLLM, tiny_tokenizer: Any
) -> None:
    result = make(scripted_llm, tiny_tokenizer, transfer="context").run(QUESTION, topology=CHAIN)
    assert {node: set(cache.owners[0].tolist()) for node, cache in result.caches.items()} == {
        (0, 0): {0}, (0, 1): {1}, (0, 2): {2}
    }  # fmt: skip
    assert result.shared.slots == 5


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"latent_steps": -1}, "latent_steps must be 0 or more, got -1"),
        ({"num_rounds": 0}, "num_rounds must be 1 or more, got 0"),
        ({"max_new_tokens": 0}, "max_new_tokens must be 1 or more, got 0"),
        ({"transfer": "all"}, "unknown transfer 'all'; choose one of: context, latent, own"),
        ({"transfer": "latent", "latent_steps": 0}, "latent_steps is 0; set it to 1 or more"),
        ({"decision_turn": "old"}, "unknown decision turn 'old'; choose one of: new, same"),
    ],
)
def test_settings_that_are_not_allowed_are_refused_by_name(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        GraphConfig(**settings)


# -- failures -------------------------------------------------------------------------------


def with_notes(*notes: str) -> Example:
    return Example("x", QUESTION, "1", tuple(Note(f"agent {i}", "an agent", text) for i, text in enumerate(notes)))


def test_a_failing_agents_run_raises_and_the_other_runs_go_on(scripted_llm: ScriptedLLM, tiny_tokenizer: Any) -> None:
    (red,) = tiny_tokenizer("red")["input_ids"]
    scripted_llm.breaks_on = lambda request: red in request.tokens
    graph = make(scripted_llm, tiny_tokenizer)
    chain = edges(2, (0, 1), (1, 2))
    asked = (with_notes("red box", "find it"), with_notes("blue box", "find it"))
    broken, fine = gathered(*(graph.arun(example, topology=chain) for example in asked))
    assert isinstance(broken, RuntimeError) and str(broken) == "the model broke"
    assert isinstance(fine, RunResult) and fine.answer == "1"
    assert len(scripted_llm.texts) == 1
    # the receiver of the broken agent has never thought
    assert Counter(source for batch in scripted_llm.asked for source in batch) == {SHARED: 2, 0: 1, 1: 1}
    assert graph.run(asked[1], topology=chain).answer == "1"


@pytest.mark.parametrize("kind", [ThinkRequest, GenerateRequest])
def test_a_model_that_breaks_raises_its_own_error(scripted_llm: ScriptedLLM, tiny_tokenizer: Any, kind: type) -> None:
    scripted_llm.breaks_on = lambda request: isinstance(request, kind)
    with pytest.raises(RuntimeError, match="the model broke"):
        make(scripted_llm, tiny_tokenizer).run(QUESTION)


def test_a_cancelled_rollout_leaves_the_thoughts_that_others_wait_for(
    scripted_llm: ScriptedLLM, tiny_tokenizer: Any
) -> None:
    graph = make(scripted_llm, tiny_tokenizer)

    async def cancel_the_first() -> RunResult:
        thoughts = RolloutMemo()
        first = asyncio.create_task(graph.arun(QUESTION, memo=thoughts))
        second = asyncio.create_task(graph.arun(QUESTION, memo=thoughts))
        await asyncio.sleep(0)  # both have asked for the question's cache; the first one makes it
        first.cancel()
        result = await asyncio.wait_for(second, timeout=10)
        assert first.cancelled()
        return result

    assert asyncio.run(cancel_the_first()).answer == "1"
    assert scripted_llm.asked == [[SHARED], [0, 1, 2]]


# -- nothing stays --------------------------------------------------------------------------


def test_a_graph_keeps_nothing_of_a_run(scripted_llm: ScriptedLLM, tiny_tokenizer: Any) -> None:
    graph = make(scripted_llm, tiny_tokenizer, num_rounds=2)
    before = dict(vars(graph))
    gathered(graph.arun(QUESTION), graph.arun("is it red ?", topology=edges(3, (0, 1), (1, 3))))
    result = graph.run(QUESTION)
    assert vars(graph).keys() == before.keys()
    assert all(vars(graph)[name] is value for name, value in before.items())
    caches = [weakref.ref(cache) for cache in (result.shared, *result.caches.values())]
    assert all(ref() is not None for ref in caches)
    del result
    scripted_llm.thoughts.clear()
    scripted_llm.texts.clear()
    gc.collect()
    assert all(ref() is None for ref in caches)


def test_the_same_run_again_is_the_same(scripted_llm: ScriptedLLM, tiny_tokenizer: Any) -> None:
    graph = make(scripted_llm, tiny_tokenizer)
    first, second = graph.run(QUESTION, seed=3), graph.run(QUESTION, seed=3)
    assert (first.answer, first.tokens, first.edge_bytes) == (second.answer, second.tokens, second.edge_bytes)
    assert scripted_llm.thoughts[0] == scripted_llm.thoughts[2]
    assert [r.seed for batch in scripted_llm.texts for r in batch] == [derive("text", 3, QUESTION, 0)] * 2


def test_a_run_carries_no_gradient(scripted_llm: ScriptedLLM, tiny_tokenizer: Any) -> None:
    graph = make(scripted_llm, tiny_tokenizer)
    assert any(parameter.requires_grad for parameter in graph.fuser.parameters())
    result = graph.run(QUESTION, topology=CHAIN)
    handed: list[KVCache] = [result.shared, *result.caches.values()]
    handed += [r.past for batch in scripted_llm.thoughts[1:] for r in batch if r.past is not None]
    assert not any(t.requires_grad for cache in handed for t in (cache.keys, cache.values))


# -- the decision maker ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "edge_weights", "groups"),
    [
        ("refer", [0.2, 0.5, 0.3], [(0, 1, 2)]),
        ("direct", [0.2, 0.5, 0.3], [(1,)]),
        ("direct", [0.5, 0.2, 0.5], [(0,)]),
        ("vote", [0.2, 0.5, 0.3], [(0,), (1,), (2,)]),
        ("refer", [], [()]),
        ("direct", [], [()]),
        ("vote", [], [()]),
    ],
)
def test_a_method_groups_the_incoming_caches(
    method: str, edge_weights: Sequence[float], groups: list[tuple[int, ...]]
) -> None:
    assert DecisionMaker("d", "i", method=method).groups(edge_weights) == groups


@pytest.mark.parametrize(
    ("method", "heard"), [("refer", [{0, 1, 2}]), ("direct", [{1}]), ("vote", [{0}, {1}, {2}])]
)
def test_a_text_is_written_for_each_group_on_that_groups_slots(
    scripted_llm: ScriptedLLM, tiny_tokenizer: Any, method: str, heard: list[set[int]]
) -> None:
    graph = make(scripted_llm, tiny_tokenizer, method=method)
    result = graph.run(QUESTION, topology=edges(3, (0, 3, 0.2), (1, 3, 0.5), (2, 3, 0.3)), seed=2, temperature=0.7)
    (batch,) = scripted_llm.texts
    assert [sources(request.past) - {SHARED} for request in batch] == heard
    assert [set(spoken.heard) for spoken in result.spoken] == heard
    assert len({request.seed for request in batch}) == len(heard)
    assert {request.temperature for request in batch} == {0.7}
    assert result.tokens["prefilled"] == 5 + 4 + 5 + 6 + 7 * len(heard)
    assert result.edge_bytes == {(a, 3): (6 + a) * SLOT for group in heard for a in group}


def test_direct_thinks_every_heard_agent_though_one_is_listened_to(
    scripted_llm: ScriptedLLM, tiny_tokenizer: Any
) -> None:
    make(scripted_llm, tiny_tokenizer, method="direct").run(QUESTION, topology=edges(3, (0, 3, 0.2), (1, 3, 0.5)))
    assert scripted_llm.asked == [[SHARED], [0, 1]]


def test_a_vote_is_won_by_weight_in_a_run(scripted_llm: ScriptedLLM, tiny_tokenizer: Any) -> None:
    said = {0: "it is 4", 1: "7", 2: "the answer is 4"}
    scripted_llm.write = lambda request: said[max(sources(request.past))]
    graph = make(scripted_llm, tiny_tokenizer, method="vote")
    assert graph.run(QUESTION, topology=edges(3, (0, 3, 0.3), (1, 3, 0.5), (2, 3, 0.3))).answer == "it is 4"
    assert graph.run(QUESTION, topology=edges(3, (0, 3, 0.2), (1, 3, 0.5), (2, 3, 0.2))).answer == "7"


@pytest.mark.parametrize(
    ("texts", "votes", "winner"),
    [
        (["only"], [0.1], "only"),
        (["#### 4", "#### 7", "So 4."], [0.3, 0.5, 0.3], "#### 4"),
        (["#### 4", "#### 7", "So 4."], [0.2, 0.5, 0.2], "#### 7"),
        (["yes", " no", "no "], [0.5, 0.3, 0.3], " no"),
        (["1,200", "5", "$1200"], [0.3, 0.5, 0.3], "1,200"),
        (["#### 42", "#### 7", "#### 42.0"], [0.3, 0.5, 0.3], "#### 42"),
        (["#### 1/2", "#### 7", "#### 0.5"], [0.3, 0.5, 0.3], "#### 1/2"),
    ],
)
def test_a_vote_compares_answers_as_numbers_where_they_state_one(
    texts: Sequence[str], votes: Sequence[float], winner: str
) -> None:
    assert texts[DecisionMaker("d", "i", method="vote").combine(texts, votes)] == winner


def test_a_vote_without_edges_is_one_text(scripted_llm: ScriptedLLM, tiny_tokenizer: Any) -> None:
    result = make(scripted_llm, tiny_tokenizer, method="vote").run(QUESTION, topology=edges(3))
    assert (result.answer, len(result.spoken)) == ("1", 1)


def test_an_unknown_method_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"unknown decision method 'shout'; .*: direct, marginal, refer, vote"):
        DecisionMaker("d", "i", method="shout")


@pytest.mark.parametrize("transfer", ["own", "latent", "context"])
def test_what_is_handed_on_is_corrected_once_however_far_it_goes(
    scripted_llm: ScriptedLLM, tiny_tokenizer: Any, transfer: str
) -> None:
    graph = make(scripted_llm, tiny_tokenizer, transfer=transfer)
    assert isinstance(graph.fuser, ConcatFuser)
    with torch.no_grad():
        graph.fuser.gate.fill_(1.0)  # values are doubled
    result = graph.run(QUESTION, topology=CHAIN)
    past = scripted_llm.texts[0][0].past
    assert past is not None
    made = {SHARED: result.shared, **{agent: cache for (_, agent), cache in result.caches.items()}}
    for source, expected in made.items():
        if source in sources(past):
            kept = past.take(past.owners[0] == source)
            own = expected.take(kept.ordinals[0])
            assert torch.equal(kept.values, own.values if source == SHARED else 2 * own.values)
    assert sources(past) == ({SHARED, 0, 1, 2} if transfer == "context" else {SHARED, 2})


# -- many questions -------------------------------------------------------------------------


def test_many_questions_come_back_in_order_and_only_so_many_are_in_flight(
    scripted_llm: ScriptedLLM, tiny_tokenizer: Any
) -> None:
    graph = make(scripted_llm, tiny_tokenizer)
    scripted_llm.write = lambda request: str(len(request.tokens))
    questions = [Example(str(n), "how many " + "red " * n + "?", "") for n in range(7)]
    answered: list[int] = []
    results = graph.run_all(questions, max_concurrent=3, on_result=lambda number, _: answered.append(number))
    assert [r.example.id for r in results] == [str(n) for n in range(7)]
    assert sorted(answered) == list(range(7))
    alone = [graph.run(question) for question in questions]
    assert [r.answer for r in results] == [r.answer for r in alone]
    assert max(map(len, scripted_llm.texts[: len(questions)])) <= 3
    assert graph.run_all([]) == []


def test_each_question_may_have_its_own_topology(scripted_llm: ScriptedLLM, tiny_tokenizer: Any) -> None:
    graph = make(scripted_llm, tiny_tokenizer)
    chosen = {"a": edges(3, (0, 3)), "b": edges(3, (1, 2), (2, 3))}
    results = graph.run_all(
        [Example(name, QUESTION, "") for name in chosen], topology=lambda example: chosen[example.id]
    )
    assert [r.topology for r in results] == list(chosen.values())


def test_a_question_that_fails_stops_the_others_and_raises(scripted_llm: ScriptedLLM, tiny_tokenizer: Any) -> None:
    graph = make(scripted_llm, tiny_tokenizer)
    scripted_llm.breaks_on = lambda request: isinstance(request, GenerateRequest)
    with pytest.raises(RuntimeError, match="the model broke"):
        graph.run_all([Example(str(n), QUESTION, "") for n in range(9)], max_concurrent=2)
    with pytest.raises(ConfigError, match="max_concurrent must be 1 or more, got 0"):
        graph.run_all([Example("0", QUESTION, "")], max_concurrent=0)


@pytest.mark.parametrize("transfer", ["own", "latent", "context"])
@pytest.mark.parametrize("rounds", [1, 2])
def test_keeping_no_caches_changes_no_answer(
    scripted_llm: ScriptedLLM, tiny_tokenizer: Any, transfer: str, rounds: int
) -> None:
    graph = make(scripted_llm, tiny_tokenizer, transfer=transfer, num_rounds=rounds)
    scripted_llm.write = lambda request: str(len(names(request.past)))
    topology = edges(3, (0, 1), (0, 2, 0.5), (1, 2), (1, 3), (2, 3, 0.25))
    kept = graph.run(QUESTION, topology=topology)
    gone = graph.run(QUESTION, topology=topology, keep_caches=False)
    assert (gone.answer, gone.edge_bytes, gone.tokens) == (kept.answer, kept.edge_bytes, kept.tokens)
    assert gone.kept.released and not kept.kept.released
    first, second = scripted_llm.texts
    assert names(first[0].past) == names(second[0].past) and weights(first[0].past) == weights(second[0].past)
