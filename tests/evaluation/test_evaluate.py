from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from toy import ToyTask

from gcache.agents.decision import DecisionMaker
from gcache.agents.roles import Agent
from gcache.cache.fusers.concat import ConcatFuser
from gcache.cache.kv_cache import SHARED
from gcache.evaluation.evaluate import evaluate, evaluate_text
from gcache.gnn.providers import FixedProvider
from gcache.gnn.topology import Edge, Topology
from gcache.graph.cache_graph import CacheGraph
from gcache.graph.run_config import GraphConfig
from gcache.llm.requests import GenerateRequest, ThinkRequest
from gcache.tasks.example import Example, Note
from gcache.tasks.grading import NumberTask

if TYPE_CHECKING:
    from conftest import ScriptedLLM

#: question -> what is written; right are 3 and red, "" states no answer
SCRIPT = {"how many apples ?": "3", "is it blue ?": "blue", "what is 2 ?": "", "find one": "red box"}
EXAMPLES = [Example(f"q{i}", question, "") for i, question in enumerate(SCRIPT)]
AGENTS = (Agent("planner", "plans", "plan"), Agent("critic", "finds", "find it"))


NO_API = {"api_read": 0.0, "api_written": 0.0}


@pytest.fixture
def graph(scripted_llm: ScriptedLLM, tiny_tokenizer: Any) -> CacheGraph:
    """A chain of two agents around a model that answers by the script."""
    answers = {tuple(tiny_tokenizer(question)["input_ids"]): text for question, text in SCRIPT.items()}

    def write(request: GenerateRequest) -> str:
        """The text whose question stands behind the two tokens that open the prompt."""
        read = scripted_llm.words(request.past, SHARED) or request.tokens
        return next(text for question, text in answers.items() if read[2 : 2 + len(question)] == question)

    scripted_llm.write = write
    settings = GraphConfig(latent_steps=1, max_new_tokens=3)
    decision = DecisionMaker("decides", "answer")
    return CacheGraph(
        scripted_llm, tiny_tokenizer, AGENTS, decision, FixedProvider("chain"), ConcatFuser(1, 1, 2), settings
    )


def test_accuracy_unparsed_and_interval_by_hand(graph: CacheGraph) -> None:
    found = evaluate(graph, ToyTask(), EXAMPLES, name="chain", progress=False)
    assert (found.name, found.n, found.accuracy, found.unparsed) == ("chain", 4, 0.5, 1)
    assert (found.low, found.high) == pytest.approx((0.15004, 0.84996), abs=1e-5)  # Wilson, 2 of 4
    assert [(row.id, row.outcome, row.answer, row.text) for row in found.rows] == [
        ("q0", "right", "3", "3"),
        ("q1", "wrong", "blue", "blue"),
        ("q2", "unparsed", None, ""),
        ("q3", "right", "red", "red box"),
    ]


def test_edges_and_tokens_per_question_by_hand(graph: CacheGraph) -> None:
    found = evaluate(graph, ToyTask(), EXAMPLES, progress=False)
    assert found.rows[0].edges == ((0, 1), (1, 2))
    assert found.edges == 2
    assert found.edges_kept == pytest.approx(2 / 3)  # of 3 edges in the full graph of two agents
    # questions of 4, 4, 4 and 2 words behind 2 tokens; 4 and 5 of the agents, 7 of the decision maker
    assert found.tokens == {"prefilled": 5.5 + 9 + 7, "latent": 2.0, "generated": 1.0, **NO_API}
    assert found.seconds > 0


def test_questions_go_through_in_batches_and_come_back_in_order(graph: CacheGraph, scripted_llm: ScriptedLLM) -> None:
    found = evaluate(graph, ToyTask(), EXAMPLES[::-1], max_concurrent=3, progress=False)
    assert [row.id for row in found.rows] == ["q3", "q2", "q1", "q0"]
    assert [len(batch) for batch in scripted_llm.texts] == [3, 1]
    assert {request.temperature for batch in scripted_llm.texts for request in batch} == {0.0}


def test_a_topology_may_be_given_for_each_question(graph: CacheGraph) -> None:
    def by_question(example: Example) -> Topology:
        return Topology(2, (Edge(0, 2),) if example.id == "q0" else ())

    found = evaluate(graph, ToyTask(), EXAMPLES, topology=by_question, progress=False)
    assert [row.edges for row in found.rows] == [((0, 2),), (), (), ()]
    assert found.edges == 0.25
    assert found.edges_kept == pytest.approx(1 / 12)


@pytest.mark.parametrize("kind", [ThinkRequest, GenerateRequest])
def test_a_failing_run_raises_instead_of_being_graded(graph: CacheGraph, scripted_llm: ScriptedLLM, kind: type) -> None:
    wanted = graph.layout.question(EXAMPLES[1].question)

    def breaks(request: ThinkRequest | GenerateRequest) -> bool:
        return isinstance(request, kind) and wanted in (request.tokens, scripted_llm.words(request.past, SHARED))

    scripted_llm.breaks_on = breaks
    with pytest.raises(RuntimeError, match="the model broke"):
        evaluate(graph, ToyTask(), EXAMPLES, progress=False)
    assert evaluate(graph, ToyTask(), [EXAMPLES[0], EXAMPLES[3]], progress=False).accuracy == 1.0


def test_an_evaluation_is_json_with_or_without_its_rows(graph: CacheGraph) -> None:
    found = evaluate(graph, ToyTask(), EXAMPLES, progress=False)
    whole = json.loads(json.dumps(found.to_json()))
    assert whole["accuracy"] == 0.5
    assert whole["rows"][3] == {
        "id": "q3", "outcome": "right", "answer": "red", "text": "red box", "cut": False, "edges": [[0, 1], [1, 2]],
        "f1": None,
    }  # fmt: skip
    assert found.to_json(rows=False).keys() == whole.keys() - {"rows"}


class Numbers(NumberTask, ToyTask):
    """Graded as tasks with numbers are; "3" is right."""


def test_unstated_and_cut_texts_are_counted_apart(
    graph: CacheGraph, scripted_llm: ScriptedLLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = {"3": "The answer is 3.", "blue": "She had 8 and now 3", "": "", "red box": "Now, the answer is 3"}
    write, generate = scripted_llm.write, scripted_llm.generate
    monkeypatch.setattr(scripted_llm, "write", lambda request: texts[write(request)])
    monkeypatch.setattr(
        scripted_llm, "generate", lambda requests: [replace(g, finished=g.text[-1:] == ".") for g in generate(requests)]
    )
    asked = [replace(example, answer="3") for example in EXAMPLES]
    for found in (
        evaluate(graph, Numbers(), asked, progress=False),
        evaluate_text(graph, Numbers(), asked, "one prompt", progress=False),
    ):
        assert [row.outcome for row in found.rows] == ["right", "unstated", "unparsed", "unparsed"]
        assert (found.accuracy, found.unparsed, found.unstated, found.cut) == (0.25, 2, 1, 3)
        assert found.to_json()["unstated"] == 1 and found.to_json()["cut"] == 3


# -- everything in one prompt -----------------------------------------------------------------


def test_the_text_baseline_is_graded_alike(graph: CacheGraph, scripted_llm: ScriptedLLM) -> None:
    found = evaluate_text(graph, ToyTask(), EXAMPLES, "one prompt", max_concurrent=3, progress=False)
    assert [row.outcome for row in found.rows] == ["right", "wrong", "unparsed", "right"]
    assert (found.name, found.accuracy, found.unparsed, found.edges, found.edges_kept) == ("one prompt", 0.5, 1, 0, 0)
    # the question, both agents' words (1 + 2), the decision maker's 7
    assert found.tokens == {"prefilled": 5.5 + 3 + 7, "latent": 0.0, "generated": 1.0, **NO_API}
    assert [len(batch) for batch in scripted_llm.texts] == [3, 1]
    assert scripted_llm.thoughts == []


def test_one_prompt_holds_what_every_agent_knows_and_no_cache(
    graph: CacheGraph, scripted_llm: ScriptedLLM, tiny_tokenizer: Any
) -> None:
    notes = (Note("a", "an a", "the box is red"), Note("b", "a b", "the apples are blue"))
    evaluate_text(graph, ToyTask(), [Example("q0", "how many apples ?", "", notes)], "one prompt", progress=False)
    ((request,),) = scripted_llm.texts
    assert request.past is None
    asked = "<|im_start|> user how many apples ? the box is red the apples are blue <|im_end|>"
    assert " ".join(tiny_tokenizer.decode(request.tokens).split()) == (
        f"{asked} <|im_start|> user answer <|im_end|> <|im_start|> assistant"
    )


def test_one_prompt_of_a_topology_holds_who_is_heard_over_a_round_too(
    graph: CacheGraph, scripted_llm: ScriptedLLM, tiny_tokenizer: Any
) -> None:
    graph.config = replace(graph.config, num_rounds=2)
    notes = (Note("a", "an a", "the box is red"), Note("b", "a b", "the apples are blue"))
    topology = Topology(2, (Edge(0, 1, delay=1), Edge(1, 2)))
    evaluate_text(
        graph, ToyTask(), [Example("q0", "how many apples ?", "", notes)], "words", progress=False,
        topology=lambda example: topology,
    )  # fmt: skip
    ((request,),) = scripted_llm.texts
    assert "the box is red the apples are blue" in " ".join(tiny_tokenizer.decode(request.tokens).split())


def test_a_failing_text_raises_too(graph: CacheGraph, scripted_llm: ScriptedLLM) -> None:
    scripted_llm.breaks_on = lambda request: True
    with pytest.raises(RuntimeError, match="the model broke"):
        evaluate_text(graph, ToyTask(), EXAMPLES, "one prompt", progress=False)
