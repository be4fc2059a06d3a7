"""What cutting an edge costs, on a model whose answers say which caches it was given."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import pytest
from tables import AGENTS, DECIDES, Table
from toy import ToyTask

from gcache.cache.fusers.concat import ConcatFuser
from gcache.cache.kv_cache import SHARED
from gcache.errors import ConfigError
from gcache.evaluation.cost import Cost
from gcache.evaluation.cuts import cost_of_edges, ends_of, kinds_of
from gcache.gnn.providers import FixedProvider
from gcache.gnn.summary import LATER
from gcache.gnn.topology import DECISION, Edge
from gcache.graph.cache_graph import CacheGraph
from gcache.graph.run_config import GraphConfig
from gcache.llm.requests import GenerateRequest
from gcache.tasks.example import Example, Note

if TYPE_CHECKING:
    from conftest import ScriptedLLM

TASK = ToyTask()
QUESTIONS = ("how many red ?", "how many blue ?", "how many green ?", "how many apples ?")
EXAMPLES = [Example(f"q{n}", question, "") for n, question in enumerate(QUESTIONS)]


def graph_of(llm: ScriptedLLM, tokenizer: Any, source: Any, **config: Any) -> CacheGraph:
    settings = GraphConfig(**{"latent_steps": 0, "max_new_tokens": 2, **config})
    return CacheGraph(llm, tokenizer, AGENTS, DECIDES, source, ConcatFuser(1, 1, 2), settings)


def needs(*agents: int) -> Callable[[GenerateRequest], str]:
    """Right ("1") where the slots of all these agents arrived, else wrong."""

    def write(request: GenerateRequest) -> str:
        assert request.past is not None
        found = set(request.past.owners[0].tolist()) - {SHARED}
        return "1" if set(agents) <= found else "you"

    return write


def asked(llm: ScriptedLLM, tokenizer: Any) -> Counter[str]:
    """How often each question was answered."""
    words = (tokenizer.decode(list(llm.words(r.past, SHARED))) for batch in llm.texts for r in batch)
    return Counter(question for text in words for question in QUESTIONS if question.split()[2] in text.split())


def test_an_edge_whose_cutting_loses_every_answer_costs_all_and_others_nothing(
    scripted_llm: ScriptedLLM, tiny_tokenizer: Any
) -> None:
    """Everybody hears the planner, two questions the critic as well; only the planner knows anything."""
    chances = {q: (0.9, 0.8 if n < 2 else 0.1, 0.2, 0.1) for n, q in enumerate(QUESTIONS)}
    scripted_llm.write = needs(0)
    whole, costs = cost_of_edges(
        graph_of(scripted_llm, tiny_tokenizer, Table(chances)), TASK, EXAMPLES, progress=False
    )
    assert whole.accuracy == 1.0 and [row.id for row in whole.rows] == [e.id for e in EXAMPLES]
    assert costs == {
        ("planner", DECISION): Cost(-1.0, -1.0, -1.0, n=4, used=4),
        ("critic", DECISION): Cost(0.0, 0.0, 0.0, n=4, used=2),
    }
    # once as it is, once without the planner, and without the critic where it was heard at all
    assert asked(scripted_llm, tiny_tokenizer) == dict(zip(QUESTIONS, (3, 3, 2, 2), strict=True))


def test_an_edge_that_harms_gains_and_counts_over_all_questions(
    scripted_llm: ScriptedLLM, tiny_tokenizer: Any
) -> None:
    """The critic, heard on one of four questions, spoils its answer."""
    chances = {q: (0.9, 0.8 if n == 3 else 0.1, 0.2, 0.1) for n, q in enumerate(QUESTIONS)}
    scripted_llm.write = lambda request: "you" if needs(1)(request) == "1" else "1"
    whole, costs = cost_of_edges(
        graph_of(scripted_llm, tiny_tokenizer, Table(chances)), TASK, EXAMPLES, progress=False
    )
    assert whole.accuracy == 0.75
    found = costs["critic", DECISION]
    assert (found.difference, found.n, found.used) == (0.25, 4, 1)
    assert 0.0 == found.low < found.difference < found.high <= 1.0
    assert costs["planner", DECISION].difference == 0.0


def test_what_is_behind_a_cut_edge_is_lost_with_it(scripted_llm: ScriptedLLM, tiny_tokenizer: Any) -> None:
    """The planner is heard through the critic alone; cutting either edge of the chain loses it."""
    scripted_llm.write = needs(0, 1)
    graph = graph_of(scripted_llm, tiny_tokenizer, FixedProvider("chain"), transfer="context")
    _, costs = cost_of_edges(graph, TASK, EXAMPLES[:2], progress=False)
    assert {ends: cost.difference for ends, cost in costs.items()} == {
        ("planner", "critic"): -1.0, ("critic", DECISION): -1.0
    }  # fmt: skip


def test_edges_between_agents_of_a_kind_are_cut_together(scripted_llm: ScriptedLLM, tiny_tokenizer: Any) -> None:
    notes = (Note("baker", "bakes", "red", kind="keeper"), Note("miller", "grinds", "blue", kind="keeper"))
    examples = [Example(f"q{n}", question, "", notes) for n, question in enumerate(QUESTIONS[:2])]
    scripted_llm.write = lambda request: needs(0)(request) if needs(1)(request) != "1" else "1"  # either is enough
    graph = graph_of(scripted_llm, tiny_tokenizer, FixedProvider("star"))
    _, costs = cost_of_edges(graph, TASK, examples, progress=False)
    assert costs == {("keeper", DECISION): Cost(-1.0, -1.0, -1.0, 2, 2)}
    assert kinds_of(graph, examples[0]) == ["keeper", "keeper", DECISION]


def test_an_edge_from_the_round_before_is_another_edge(scripted_llm: ScriptedLLM, tiny_tokenizer: Any) -> None:
    """The planner's second thought reaches the decision maker; its first the critic, a round later."""
    table = Table(dict.fromkeys(QUESTIONS, (0.9, 0.8)), keys=((0, 2), (0, 1, 1)))
    scripted_llm.write = needs(2)  # (round 1, agent 0)
    graph = graph_of(scripted_llm, tiny_tokenizer, table, num_rounds=2)
    _, costs = cost_of_edges(graph, TASK, EXAMPLES, progress=False)
    assert {ends: cost.difference for ends, cost in costs.items()} == {
        ("planner", DECISION): -1.0, ("planner", "critic" + LATER): 0.0
    }  # fmt: skip
    assert ends_of(Edge(1, 0, delay=1), ["a", "b", "c"]) == ("b", "a" + LATER)
    assert ends_of(Edge(1, 2), ["a", "b", "c"]) == ("b", "c")


def test_without_any_edge_nothing_is_cut(scripted_llm: ScriptedLLM, tiny_tokenizer: Any) -> None:
    graph = graph_of(scripted_llm, tiny_tokenizer, FixedProvider("none"))
    assert cost_of_edges(graph, TASK, EXAMPLES, progress=False)[1] == {}
    assert sum(map(len, scripted_llm.texts)) == 4


@pytest.mark.parametrize("examples", [[], EXAMPLES[:1]])
def test_an_interval_needs_two_questions(
    scripted_llm: ScriptedLLM, tiny_tokenizer: Any, examples: Sequence[Example]
) -> None:
    graph = graph_of(scripted_llm, tiny_tokenizer, FixedProvider("star"))
    with pytest.raises(ConfigError, match=rf"needs 2 questions or more, got {len(examples)}; raise the limit"):
        cost_of_edges(graph, TASK, examples, progress=False)
    assert scripted_llm.thoughts == []
