"""What a run records of its edges: it is what the receivers read, and from it alone their caches come again."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import pytest
import torch
from two_models import MANY_WORDS, across, ends, model_of, tokenizer_of

from gcache.agents.decision import DecisionMaker
from gcache.agents.roles import Agent
from gcache.cache.fused_cache import FusedCache
from gcache.cache.fusers.concat import ConcatFuser
from gcache.errors import ConfigError
from gcache.gnn.payload import PAYLOADS, SLOTS, TEXT, Payload
from gcache.gnn.providers import FixedProvider
from gcache.gnn.topology import Edge, Topology
from gcache.graph.agent_models import AgentModels
from gcache.graph.cache_graph import CacheGraph
from gcache.graph.context_length import PlannedRun, positions_of_caches
from gcache.graph.hand_over import edge_weights
from gcache.graph.rebuild import at_decision, fused_again, handed_again, waves
from gcache.graph.result import RunResult
from gcache.graph.routes import Routes
from gcache.graph.run_config import HANDS, TRANSFERS, GraphConfig
from gcache.links.linear import fit_vocab
from gcache.llm.requests import GenerateRequest, ThinkRequest

if TYPE_CHECKING:
    from conftest import ScriptedLLM

QUESTION = "how many ?"
AGENTS = (Agent("planner", "", "plan"), Agent("critic", "", "find it"), Agent("solver", "", "solve the sum"))
MIXED = Topology(
    3,
    (
        Edge(0, 1, 0.5, payload="latents"), Edge(1, 3, 0.8, payload="cache"), Edge(2, 3, 0.6, payload="text"),
        Edge(2, 1, 0.7, delay=1, payload="cache"), Edge(0, 2, 0.9, delay=1, payload="text"),
        Edge(0, 3, 0.4, payload="latents"),
    ),
)  # fmt: skip
PLAIN = Topology(3, tuple(Edge(e.source, e.target, e.weight, delay=e.delay) for e in MIXED.edges))


def make(llm: ScriptedLLM, tokenizer: Any, **config: Any) -> CacheGraph:
    settings = GraphConfig(**{"latent_steps": 2, "max_new_tokens": 3, **config})
    decision = DecisionMaker("decides", "answer")
    return CacheGraph(llm, tokenizer, AGENTS, decision, FixedProvider("star"), ConcatFuser(1, 1, 2), settings)


def asked_of(llm: ScriptedLLM, result: RunResult) -> dict[tuple[int, int], FusedCache]:
    """What each turn was computed on."""
    n = len(result.agents)
    found = {divmod(r.owner, n): r.past for batch in llm.thoughts[1:] for r in batch}
    found[max(found)[0], n] = llm.texts[-1][0].past
    return found


def came(past: FusedCache, sender: tuple[int, int], n: int) -> int:
    return int((past.owners[0] == sender[0] * n + sender[1]).sum())


@pytest.mark.parametrize(
    ("topology", "config"),
    [(MIXED, {}), *((PLAIN, {"transfer": transfer, "hands": hands}) for transfer in TRANSFERS for hands in HANDS[::2])],
)
@pytest.mark.parametrize("rounds", [1, 2])
def test_what_is_recorded_is_what_was_read(
    scripted_llm: ScriptedLLM, tiny_tokenizer: Any, topology: Topology, config: dict[str, Any], rounds: int
) -> None:
    result = make(scripted_llm, tiny_tokenizer, num_rounds=rounds, **config).run(QUESTION, topology=topology)
    read = asked_of(scripted_llm, result)
    assert result.arrivals.keys() == read.keys()
    for receiver, arrived in result.arrivals.items():
        keys = [edge.key for edge in topology.into(receiver[1])] if receiver[1] == 3 else None
        expected = [key for _, key in topology.senders(*receiver)] if keys is None else keys
        assert [arrival.key for arrival in arrived] == expected
        for arrival in arrived:
            assert (arrival.slots is None) == (arrival.payload.slots is None)
            if arrival.payload.slots != "context":
                assert came(read[receiver], arrival.sender, 3) == (arrival.slots or 0)
    total = sum(a.nbytes for those in result.arrivals.values() for a in those)
    assert sum(result.edge_bytes.values()) == total > 0


@pytest.mark.parametrize(
    ("topology", "transfer"), [(MIXED, "own"), (PLAIN, "own"), (PLAIN, "latent"), (PLAIN, "context")]
)
@pytest.mark.parametrize("rounds", [1, 2])
def test_the_decision_makers_cache_comes_again_from_the_record(
    scripted_llm: ScriptedLLM, tiny_tokenizer: Any, topology: Topology, transfer: str, rounds: int
) -> None:
    graph = make(scripted_llm, tiny_tokenizer, num_rounds=rounds, transfer=transfer)
    result = graph.run(QUESTION, topology=topology)
    weights = edge_weights(topology)
    handed = handed_again(graph, result, weights, result.shared, result.caches)
    for spoken in result.spoken:
        again = fused_again(graph, result, weights, result.shared, handed, spoken.heard)
        read = asked_of(scripted_llm, result)[rounds - 1, 3]
        for name in ("keys", "values", "bias", "positions", "owners", "ordinals", "kinds", "mask"):
            assert torch.equal(getattr(again, name), getattr(read, name)), name


def test_a_wave_has_all_that_it_read_behind_it(scripted_llm: ScriptedLLM, tiny_tokenizer: Any) -> None:
    result = make(scripted_llm, tiny_tokenizer, num_rounds=2).run(QUESTION, topology=MIXED)
    found = waves(result)
    assert sorted(itertools.chain(*found)) == sorted(node for node in result.arrivals if node[1] != 3)
    for number, wave in enumerate(found):
        before = set(itertools.chain(*found[:number]))
        assert all(arrival.sender in before for node in wave for arrival in result.arrivals[node])
    assert [(a.sender, a.key) for a in at_decision(result, [0])] == [((1, 0), (0, 3))]


def test_between_models_a_link_is_recorded_or_words_are() -> None:
    words = tokenizer_of(MANY_WORDS)
    big, small = model_of(160, tied=False, hidden_size=48, head_dim=12), model_of(160, seed=2)
    up = fit_vocab(ends(small, words, "small"), ends(big, words, "big"))
    star = Topology(2, (Edge(0, 2, 0.5), Edge(1, 2)))
    for link in (up, None):
        graph = across((big, words), (small, words), link, on=(1, 0), back=None)
        result = graph.run("what is 2 and the red box", topology=star)
        linked, own = at_decision(result)
        assert own.carried is None and own.slots
        if link is None:
            assert (linked.payload, linked.slots, linked.nbytes, linked.carried) == (TEXT, None, 0, None)
        else:
            assert linked.carried is not None and linked.slots == result.kept.carried()[linked.carried].slots
        weights = edge_weights(star)
        handed = handed_again(graph, result, weights, result.shared, result.caches)
        assert set(handed) == ({(0, 0), (0, 1)} if link else {(0, 1)})


# -- payloads --------------------------------------------------------------------------------------


def test_the_two_flags_are_one_payload() -> None:
    found = {
        GraphConfig(hands=hands, transfer=transfer, latent_steps=1).payload.name
        for hands in HANDS
        for transfer in TRANSFERS
        if hands != "reasoning" or transfer == "own"
    }
    assert found == set(PAYLOADS) and PAYLOADS["latents+text"] == Payload("latents", words=True)


@pytest.mark.parametrize("default", sorted(PAYLOADS.keys() - {"text"}))
def test_an_edge_chooses_within_what_all_hand_on(default: str) -> None:
    made = PAYLOADS[default]
    edges = (Edge(0, 3), Edge(1, 3, payload="cache"), Edge(2, 3, payload="latents"), Edge(0, 1, payload="text"))
    routes = Routes(made, Topology(3, edges), AgentModels())

    def over(*key: int) -> Payload:
        return routes.payload((0, key[0]), (0, key[1]), key)

    assert over(0, 3) == over(1, 3) == made
    assert over(2, 3) == Payload("latents", made.words)
    assert over(0, 1) == TEXT
    assert routes.payload((0, 0), (1, 0), None) == (made if default == "reasoning" else made.with_words())


def test_a_solution_is_handed_on_with_the_agents_own_slots_alone() -> None:
    assert GraphConfig(hands="reasoning").payload == PAYLOADS["reasoning"]
    for transfer in ("latent", "context"):
        with pytest.raises(ConfigError, match="use transfer='own'"):
            GraphConfig(hands="reasoning", transfer=transfer)


def test_an_unknown_payload_is_refused() -> None:
    with pytest.raises(ConfigError, match="unknown payload 'smoke'"):
        Edge(0, 1, payload="smoke")
    assert set(SLOTS) <= set(PAYLOADS)


# -- the question fits with the words an agent remembers -------------------------------------------


def test_words_that_an_agent_remembers_take_positions(scripted_llm: ScriptedLLM, tiny_tokenizer: Any) -> None:
    """In the second round the planner reads what it said in the first."""
    longest = " ".join(["one"] * 30)
    scripted_llm.write = lambda request: longest
    graph = make(scripted_llm, tiny_tokenizer, num_rounds=2, speak_tokens=30, max_new_tokens=8)
    graph.agents = (Agent("planner", "", " ".join(["plan"] * 60)), *AGENTS[1:])  # whose turns are the longest
    topology = Topology(3, (Edge(0, 1, delay=1, payload="text"), Edge(0, 3, payload="text"), Edge(1, 3)))
    result = graph.run(QUESTION, topology=topology)
    needed = positions_of_caches(graph, PlannedRun(QUESTION, result.agents, topology, 8, at_longest=True))
    assert "one one" in tiny_tokenizer.decode(result.prompts[1, 0]), "it reads its own words"

    def end(request: ThinkRequest | GenerateRequest) -> int:
        start = 0 if request.past is None else int(request.past.next_positions[0])
        more = request.latent_steps if isinstance(request, ThinkRequest) else request.max_new_tokens
        return start + len(request.tokens) + more

    asked = [*itertools.chain(*scripted_llm.thoughts), *itertools.chain(*scripted_llm.texts)]
    assert max(map(end, asked)) <= needed
