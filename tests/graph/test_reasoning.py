"""Agents that write solutions and hand on their slots, and a decision maker that chooses among them."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from exact import assert_slopes_of, awake, double, learns
from torch import Tensor
from toy import DECISION, QUESTIONS, ToyTask, toy_built

from gcache.agents.decision import DecisionMaker
from gcache.build import Built
from gcache.cache.fused_cache import FusedCache
from gcache.cache.fusers.registry import FUSERS
from gcache.cache.kv_cache import SHARED, SlotKind
from gcache.config import GraphSpec
from gcache.errors import ApiError, BudgetSpent, ConfigError, DataError
from gcache.evaluation.controls import CONTROLS, Trial, run_controls
from gcache.evaluation.evaluate import evaluate
from gcache.evaluation.graph_method import GraphMethod
from gcache.evaluation.interventions import masked
from gcache.gnn.payload import Payload
from gcache.gnn.team import as_example
from gcache.gnn.topology import Edge, Topology
from gcache.graph.context_length import PlannedRun
from gcache.graph.marginal import mixture
from gcache.graph.memo import RolloutMemo
from gcache.graph.result import RunResult
from gcache.graph.run_config import GraphConfig
from gcache.llm.kept_scores import KeptScores
from gcache.llm.kept_slots import KeptSlots
from gcache.llm.kept_texts import KeptTexts
from gcache.llm.local import LocalLLM
from gcache.llm.requests import LogProbRequest, ThinkRequest
from gcache.tasks.example import Example, Grade
from gcache.training.config import TrainConfig
from gcache.training.fuser_gradient import most_replayed
from gcache.training.objective import LossWeights, Objective, reaches_fuser
from gcache.training.replay import Replay, log_probs, replayed, replayed_tokens
from gcache.training.rollouts import Rollouts
from gcache.training.trainer import Reinforce

REASONING = GraphConfig(hands="reasoning", latent_steps=0, reason_tokens=4, max_new_tokens=3)
STAR = Topology(3, (Edge(0, 3), Edge(1, 3, weight=0.6), Edge(2, 3, weight=0.3)))
CHAIN = Topology(3, (Edge(0, 1, weight=0.7), Edge(1, 2, weight=0.5), Edge(2, 3, weight=0.9)))
#: Every text is an answer of its own.
WORDS = replace(DECISION, method="marginal", states="words", judging="which is it ?")


@pytest.fixture(autouse=True, scope="module")
def without_circles() -> Iterator[None]:
    """What tests here put in the place of methods refers to itself; others measure what is alive."""
    yield
    gc.collect()


def reasoning(llm: LocalLLM, tokenizer: Any, decision: DecisionMaker | None = None, **spec: Any) -> Built:
    config = spec.pop("graph", REASONING)
    built = toy_built(llm, tokenizer, graph=config, **spec)
    if decision is not None:
        built.graph.decision = decision
    return built


# -- what is handed on -------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [0, 2])
def test_what_arrives_is_prompt_latents_and_solution(tiny_llm: LocalLLM, tiny_tokenizer: Any, steps: int) -> None:
    graph = reasoning(tiny_llm, tiny_tokenizer, graph=replace(REASONING, latent_steps=steps)).graph
    result = graph.run(QUESTIONS[0], topology=CHAIN)
    for node, own in result.caches.items():
        solution = result.solutions[node]
        count = [len(result.prompts[node]), steps, len(solution.tokens) - 1]
        assert own.kinds[0].tolist() == [
            kind for kind, n in zip((SlotKind.PROMPT, SlotKind.LATENT, SlotKind.TEXT), count, strict=True)
            for _ in range(n)
        ]  # fmt: skip
        assert result.said[node] == solution.text
    (last,) = result.arrivals[0, 3]
    assert last.payload == Payload("reasoning") and last.slots == result.caches[0, 2].slots
    written = sum(len(s.tokens) for s in result.solutions.values())
    assert result.tokens["generated"] == written + len(result.spoken[0].generation.tokens)
    assert result.thinking == written + 3 * steps
    assert result.tokens["prefilled"] == sum(
        [len(graph.layout.question(QUESTIONS[0])), *map(len, result.prompts.values()), len(result.spoken[0].tokens)]
    )


def test_a_receiver_reads_slots_and_no_word_of_a_solution(tiny_llm: LocalLLM, tiny_tokenizer: Any) -> None:
    graph = reasoning(tiny_llm, tiny_tokenizer).graph
    alone = graph.run(QUESTIONS[1], topology=Topology(3, (Edge(1, 3),)))
    chained = graph.run(QUESTIONS[1], topology=Topology(3, (Edge(0, 1), Edge(1, 3))))
    assert alone.prompts[0, 1] == chained.prompts[0, 1]
    assert chained.arrivals[0, 1][0].slots == chained.caches[0, 0].slots


def test_an_edge_that_chose_the_cache_carries_no_solution(tiny_llm: LocalLLM, tiny_tokenizer: Any) -> None:
    config = GraphConfig(latent_steps=1, reason_tokens=4, max_new_tokens=3)
    graph = reasoning(tiny_llm, tiny_tokenizer, graph=config).graph
    edges = (
        Edge(0, 3, payload="reasoning"), Edge(0, 1, payload="cache"), Edge(0, 2, payload="latents"),
        Edge(1, 3, payload="cache"), Edge(2, 3, payload="text"),
    )  # fmt: skip
    result = graph.run(QUESTIONS[0], topology=Topology(3, edges))
    assert set(result.solutions) == {(0, 0)}
    prompt, own = len(result.prompts[0, 0]), result.caches[0, 0].slots
    assert [a.slots for a in result.arrivals[0, 3]] == [own, result.caches[0, 1].slots, None]
    assert own > prompt + 1
    assert result.arrivals[0, 1][0].slots == prompt + 1 and result.arrivals[0, 2][0].slots == 1
    assert (0, 2) in result.said and (0, 1) not in result.said


def test_solutions_are_drawn_by_streams_of_their_own(tiny_llm: LocalLLM, tiny_tokenizer: Any) -> None:
    """Of agents that hear nobody by `words_seed`, of others by the run's seed; no two agents share one."""
    config = replace(REASONING, reason_tokens=8, agent_temperature=3.0)
    graph = reasoning(tiny_llm, tiny_tokenizer, graph=config).graph

    def said(seed: int, words_seed: int) -> list[tuple[int, ...]]:
        result = graph.run(QUESTIONS[2], topology=CHAIN, seed=seed, words_seed=words_seed, temperature=1.0)
        return [result.solutions[0, agent].tokens for agent in range(3)]

    first, other, third = said(1, 5), said(2, 5), said(1, 6)
    assert first[0] == other[0] != third[0]
    assert first[1] != other[1] and first[2] != other[2]
    assert said(1, 5) == first


def test_rollouts_share_the_solutions_that_depend_on_nothing_learned(tiny_llm: LocalLLM, tiny_tokenizer: Any) -> None:
    graph = reasoning(tiny_llm, tiny_tokenizer).graph
    memo = RolloutMemo()
    runs = [graph.run(QUESTIONS[2], topology=CHAIN, seed=seed, words_seed=9, memo=memo) for seed in (1, 2)]
    think = [[step.what for step in run.trace if step.agent in (0, 1, 2)] for run in runs]
    assert think == [["think", "think", "think"], ["shared", "think", "think"]]


def test_rollouts_share_the_text_of_a_decision_maker_that_hears_nobody(
    tiny_llm: LocalLLM, tiny_tokenizer: Any
) -> None:
    """Drawn by `alone_seed`, written once per temperature; whoever is heard keeps a rollout's text its own."""
    graph = reasoning(tiny_llm, tiny_tokenizer, graph=replace(REASONING, max_new_tokens=8)).graph
    memo = RolloutMemo()

    def said(topology: Topology, seed: int, alone_seed: int | None, temperature: float = 3.0) -> tuple[Any, int]:
        run = graph.run(
            QUESTIONS[2], topology=topology, seed=seed, words_seed=9, alone_seed=alone_seed, memo=memo,
            temperature=temperature,
        )  # fmt: skip
        (answer,) = (step for step in run.trace if step.what == "answer")
        return run.spoken[0].generation.tokens, answer.generated

    nobody = Topology(3, ())
    first, again, own, third = (said(nobody, s, a) for s, a in ((1, 5), (2, 5), (2, None), (1, 6)))
    assert first[0] == again[0] and first[1] > 0 and again[1] == 0
    assert first[0] != own[0] and first[0] != third[0] and own[1] > 0 and third[1] > 0
    assert said(nobody, 2, 5, temperature=0.0)[1] > 0
    assert said(STAR, 1, 5) != said(STAR, 2, 5)


def test_training_draws_one_text_per_question_for_who_hears_nobody(tiny_llm: LocalLLM, tiny_tokenizer: Any) -> None:
    built = reasoning(tiny_llm, tiny_tokenizer, topology="none", graph=replace(REASONING, max_new_tokens=8))
    examples = [as_example(q) for q in QUESTIONS[:2]]

    def texts(graph: Any, step: int) -> list[set[tuple[int, ...]]]:
        found = Rollouts(graph, ToyTask(), TrainConfig(rollouts=4, temperature=3.0)).run(step, examples)
        return [{tuple(r.spoken[0].generation.tokens) for r in group} for group in found.groups]

    first, later = texts(built.graph, 0), texts(built.graph, 1)
    assert [len(group) for group in first] == [1, 1] and first == later
    hands_cache = toy_built(tiny_llm, tiny_tokenizer, topology="none", graph=replace(built.graph.config, hands="cache"))
    assert max(len(group) for group in texts(hands_cache.graph, 0)) > 1


def test_batching_and_a_memo_change_no_solution(tiny_llm: LocalLLM, tiny_tokenizer: Any) -> None:
    graph = reasoning(double(tiny_llm), tiny_tokenizer, graph=replace(REASONING, latent_steps=1)).graph
    together = graph.run_all([as_example(q) for q in QUESTIONS], topology=lambda _: CHAIN)
    for question, run in zip(QUESTIONS, together, strict=True):
        alone = graph.run(question, topology=CHAIN)
        assert {n: s.tokens for n, s in alone.solutions.items()} == {n: s.tokens for n, s in run.solutions.items()}
        assert alone.answer == run.answer


# -- the objective -----------------------------------------------------------------------------


def _replayed(built: Built, llm: LocalLLM, result: RunResult, gradient: str) -> tuple[Tensor, dict[Any, Tensor]]:
    weights = {e.key: torch.tensor(e.weight, requires_grad=True) for e in result.topology.edges}
    return log_probs(built.graph, llm, [Replay(result, weights)], gradient)[0], weights


@pytest.mark.parametrize("steps", [0, 1])
def test_full_counts_the_solutions_of_agents_that_received_a_cache(
    tiny_llm: LocalLLM, tiny_tokenizer: Any, steps: int
) -> None:
    llm = double(tiny_llm)
    built = reasoning(llm, tiny_tokenizer, graph=replace(REASONING, latent_steps=steps))
    awake(built.graph.fuser)
    result = built.graph.run(QUESTIONS[2], topology=CHAIN, temperature=1.0)
    drawn = sum(result.solutions[0, agent].log_prob for agent in (1, 2))
    full, _ = _replayed(built, llm, result, "full")
    assert float(full.detach()) == pytest.approx(result.text_log_prob + drawn, abs=1e-4)
    decision, _ = _replayed(built, llm, result, "decision")
    assert float(decision.detach()) == pytest.approx(result.text_log_prob, abs=1e-4)
    star = built.graph.run(QUESTIONS[2], topology=STAR, temperature=1.0)
    full, _ = _replayed(built, llm, star, "full")
    assert float(full.detach()) == pytest.approx(star.text_log_prob, abs=1e-4)


@pytest.mark.parametrize("name", sorted(n for n in FUSERS if learns(n)))
def test_gradient_of_drawn_solutions_is_that_of_finite_differences(
    tiny_llm: LocalLLM, tiny_tokenizer: Any, name: str
) -> None:
    llm = double(tiny_llm)
    built = reasoning(llm, tiny_tokenizer, fuser=name, graph=replace(REASONING, latent_steps=1))
    awake(built.graph.fuser)
    both = Topology(3, (Edge(0, 2, weight=0.7), Edge(1, 2, weight=0.5), Edge(2, 3, weight=0.9), Edge(0, 3, weight=0.4)))
    result = built.graph.run(QUESTIONS[2], topology=both, temperature=1.0)
    total, weights = _replayed(built, llm, result, "full")
    total.backward()

    def value() -> Tensor:
        return log_probs(built.graph, llm, [Replay(result, weights)], "full")[0]

    places = [(f"w{key}", w, 0) for key, w in weights.items()]
    assert assert_slopes_of(value, places, built.graph.fuser, step=0.02, noise=5e-4) == len(places)


# -- marginal ----------------------------------------------------------------------------------


def test_mixture_is_worked_out_by_hand() -> None:
    """Under cache 0 the answers have 1/2 and 1/2, under cache 1, which weighs three times as much, 4/5 and 1/5."""
    scores = torch.tensor([[0.1, 0.1], [0.4, 0.1]]).log()
    found = mixture(scores, torch.tensor([0.25, 0.75]).log()).exp()
    assert found.tolist() == pytest.approx([0.125 + 0.6, 0.125 + 0.15])


def _by_hand(built: Built, llm: LocalLLM, result: RunResult) -> Tensor:
    """(A,) probabilities of the answers: each cache alone behind the question, weights of the edges, no fuser."""
    ballot, graph = result.ballot, built.graph
    assert ballot is not None
    (shared,) = llm.think([ThinkRequest(graph.layout.question(result.example.question), owner=SHARED,
                                        kind=SlotKind.PREFIX)])  # fmt: skip
    rows = []
    for agent, prompt in zip(ballot.heard, ballot.prompts, strict=True):
        past = FusedCache.join([FusedCache.plain(shared), FusedCache.plain(result.caches[0, agent])])
        scores = llm.log_prob([LogProbRequest(prompt, option.tokens, past) for option in ballot.options])
        rows.append(torch.stack([score.sum() for score in scores]).softmax(dim=0))
    weights = torch.tensor([edge.weight for edge in result.topology.into(3)])
    return (torch.stack(rows) * (weights / weights.sum())[:, None]).sum(dim=0)


def test_marginal_is_the_formula(tiny_llm: LocalLLM, tiny_tokenizer: Any) -> None:
    built = reasoning(double(tiny_llm), tiny_tokenizer, WORDS)
    result = built.graph.run(QUESTIONS[4], topology=STAR)
    ballot = result.ballot
    assert ballot is not None and built.llm is not None
    assert ballot.heard == (0, 1, 2) and result.spoken == ()
    answers = [option.answer for option in ballot.options]
    assert answers == list(dict.fromkeys(result.said[0, agent].strip() for agent in range(3)))
    assert list(ballot.probabilities) == pytest.approx(_by_hand(built, built.llm, result).tolist(), abs=1e-5)
    weights = torch.tensor([edge.weight for edge in result.topology.into(3)])
    assert ballot.shares == pytest.approx((weights / weights.sum()).tolist()) and len(set(ballot.shares)) > 1
    under = torch.tensor([ballot.under(agent) for agent in ballot.heard])
    assert (torch.tensor(ballot.shares) @ under).tolist() == pytest.approx(list(ballot.probabilities), abs=1e-5)
    assert ballot.chosen == max(range(len(answers)), key=lambda a: ballot.probabilities[a])
    assert result.answer.strip() == ballot.choice.answer
    assert result.tokens["generated"] == sum(len(s.tokens) for s in result.solutions.values())


def test_a_choice_that_is_kept_asks_the_model_nothing(
    tiny_llm: LocalLLM, tiny_tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Question, solutions and scores come from files, to the bit; the costs are those of making them."""

    def kept() -> KeptTexts:
        file = tmp_path / "texts.jsonl"
        return KeptTexts("m", file, slots=KeptSlots(tmp_path / "slots", 1e9), scores=KeptScores(tmp_path / "scores"))

    def run(masks: bool = False) -> RunResult:
        monkeypatch.setattr(tiny_llm, "kept_texts", kept())
        graph = reasoning(tiny_llm, tiny_tokenizer, WORDS).graph
        return graph.run(QUESTIONS[4], topology=STAR, intervention=masked if masks else None)

    first = run()
    took = sum(1 for _ in (tmp_path / "scores").open())
    with monkeypatch.context() as cut:
        cut.setattr(tiny_llm, "_think", lambda *_: pytest.fail("something was read"))
        cut.setattr(tiny_llm, "decoding", lambda: pytest.fail("something was written"))
        again = run()
    assert first.ballot is not None and again.ballot is not None and again.tokens == first.tokens
    assert again.ballot.scores == first.ballot.scores and again.answer == first.answer
    assert again.ballot.probabilities == first.ballot.probabilities
    assert took == len(first.ballot.options) * 3 and tiny_llm.kept_texts is not None
    assert tiny_llm.kept_texts.reused_seconds > 0
    other = run(masks=True).ballot
    assert other is not None and other.scores != first.ballot.scores
    (tmp_path / "scores").write_text('["a", "b", 1]\n')
    with pytest.raises(DataError, match=r"line 1: not a kept score .*; remove the line, or the file"):
        kept()


@pytest.mark.parametrize(("topology", "kept"), [(Topology(3, ()), 1), (STAR, 3), (CHAIN, 1)])
def test_what_was_written_on_others_caches_is_not_kept(
    tiny_llm: LocalLLM, tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch, topology: Topology, kept: int
) -> None:
    """Of who hears nobody all is known that a text depends on: an agent's solution, the decision maker's text."""
    monkeypatch.setattr(tiny_llm, "kept_texts", KeptTexts("m"))
    first, again = (reasoning(tiny_llm, tiny_tokenizer).graph.run(QUESTIONS[4], topology=topology) for _ in range(2))
    assert tiny_llm.kept_texts is not None and len(tiny_llm.kept_texts) == kept
    assert first.answer == again.answer and first.said == again.said
    assert [s.generation.tokens for s in first.spoken if s.generation] == [
        s.generation.tokens for s in again.spoken if s.generation
    ]


def test_an_answer_is_drawn_as_likely_as_it_is(tiny_llm: LocalLLM, tiny_tokenizer: Any) -> None:
    """At a temperature, by the run's own seed; its log-probability is that of the draw."""
    graph = reasoning(tiny_llm, tiny_tokenizer, WORDS).graph
    runs = [
        graph.run(QUESTIONS[4], topology=STAR, temperature=2.0, seed=seed, words_seed=0, keep_caches=False)
        for seed in range(60)
    ]
    ballots = [run.ballot for run in runs]
    first = ballots[0]
    assert first is not None and len(first.options) == 3
    drawn = [0, 0, 0]
    for run, ballot in zip(runs, ballots, strict=True):
        assert ballot is not None and ballot.probabilities == pytest.approx(first.probabilities, abs=1e-5)
        drawn[ballot.chosen] += 1
        assert run.text_log_prob == pytest.approx(torch.tensor(ballot.probabilities[ballot.chosen]).log().item())
    for count, chance in zip(drawn, first.probabilities, strict=True):
        assert abs(count - 60 * chance) < 4 * (60 * chance * (1 - chance)) ** 0.5 + 1


@pytest.mark.parametrize("name", sorted(n for n in FUSERS if learns(n)))
@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_gradient_of_marginal_is_that_of_finite_differences(
    tiny_llm: LocalLLM, tiny_tokenizer: Any, name: str, temperature: float
) -> None:
    llm = double(tiny_llm)
    built = reasoning(llm, tiny_tokenizer, WORDS, fuser=name)
    awake(built.graph.fuser)
    result = built.graph.run(QUESTIONS[4], topology=STAR, temperature=temperature)
    total, weights = _replayed(built, llm, result, "decision")
    assert float(total.detach()) == pytest.approx(result.text_log_prob, abs=1e-4)
    total.backward()

    def value() -> Tensor:
        return log_probs(built.graph, llm, [Replay(result, weights)], "decision")[0]

    places = [(f"w{key}", w, 0) for key, w in weights.items()]
    assert assert_slopes_of(value, places, built.graph.fuser, step=0.02, noise=5e-4) == len(places)


def test_marginal_without_candidates_writes_one_text(tiny_llm: LocalLLM, tiny_tokenizer: Any) -> None:
    """Solutions that state no number; and nobody who is heard."""
    built = reasoning(tiny_llm, tiny_tokenizer, replace(DECISION, method="marginal"))
    for topology in (STAR, Topology(3)):
        result = built.graph.run("is it ?", topology=topology)
        if not built.graph.decision.candidates([*result.said.values()], "is it ?"):
            assert result.ballot is None and len(result.spoken) == 1
    assert built.graph.run(QUESTIONS[0], topology=Topology(3)).ballot is None


def test_choices_are_scored_without_a_word_of_the_agents(tiny_llm: LocalLLM, tiny_tokenizer: Any) -> None:
    """Letters that the question lists are candidates, also where nobody is heard: the likeliest letter."""
    question = "what is in the box ?\nA) red\nB) blue"
    decision = replace(DECISION, method="marginal", states="choice", judging="which ?")
    for hands in ("cache", "reasoning"):
        graph = reasoning(tiny_llm, tiny_tokenizer, decision, graph=replace(REASONING, hands=hands)).graph
        for topology in (STAR, Topology(3)):
            ballot = graph.run(question, topology=topology).ballot
            assert ballot is not None and [option.answer for option in ballot.options] == ["A", "B"]
            assert sum(ballot.probabilities) == pytest.approx(1)
            assert ballot.heard == ((0, 1, 2) if topology is STAR else ())


def test_a_trusted_cache_decides(tiny_llm: LocalLLM, tiny_tokenizer: Any) -> None:
    """A fuser's log-weight beside the edges' decides whose answer it is."""
    built = reasoning(tiny_llm, tiny_tokenizer, WORDS, fuser="trust")
    even = Topology(3, (Edge(0, 3), Edge(1, 3), Edge(2, 3)))
    plain = built.graph.run(QUESTIONS[4], topology=even).ballot
    assert plain is not None
    fuser = built.graph.fuser
    result = built.graph.run(QUESTIONS[4], topology=even)
    read = [torch.autograd.grad(fuser.score(result.caches[0, agent]), fuser.belief)[0] for agent in range(3)]
    with torch.no_grad():  # what scores agent 1 at 50, and the others at 0
        fuser.belief.copy_(torch.linalg.pinv(torch.stack(read)) @ torch.tensor([0.0, 50.0, 0.0]))
    trusting = built.graph.run(QUESTIONS[4], topology=even).ballot
    assert trusting is not None
    scores = torch.tensor(trusting.scores[1]).softmax(dim=0)
    assert max(abs(float(p) - q) for p, q in zip(scores, trusting.probabilities, strict=True)) < 1e-3
    assert trusting.probabilities != pytest.approx(plain.probabilities, abs=1e-3)


# -- what fails --------------------------------------------------------------------------------


class _Failing:
    """A model whose texts fail for one agent."""

    def __init__(self, llm: LocalLLM, owner: int, error: Exception) -> None:
        self.llm, self.owner, self.error = llm, owner, error

    def __getattr__(self, name: str) -> Any:
        return getattr(self.llm, name)

    def generate(self, requests: Any) -> Any:
        if any(request.owner == self.owner for request in requests):
            raise self.error
        return self.llm.generate(requests)

    decoding = None


@pytest.mark.parametrize(
    "error", [ApiError("the server failed"), ApiError("timed out after 300 s"), BudgetSpent("the budget is spent")]
)
@pytest.mark.parametrize("method", ["refer", "vote", "marginal"])
def test_an_agent_whose_solution_fails_leaves_the_others_in_use(
    tiny_llm: LocalLLM, tiny_tokenizer: Any, error: Exception, method: str
) -> None:
    built = reasoning(tiny_llm, tiny_tokenizer, replace(WORDS, method=method))
    graph = built.graph
    graph.llm.llm = _Failing(tiny_llm, 1, error)
    with pytest.raises(type(error)):
        graph.run(QUESTIONS[4], topology=STAR)
    result = graph.run(QUESTIONS[4], topology=STAR, lenient=True)
    assert [a.sender for a in result.arrivals[0, 3]] == [(0, 0), (0, 2)]
    assert set(result.solutions) == set(result.caches) == {(0, 0), (0, 2)}
    (failed,) = [step for step in result.trace if step.what == "failed"]
    assert (failed.agent, failed.note) == (1, str(error))
    heard = result.ballot.heard if result.ballot else tuple(a for spoken in result.spoken for a in spoken.heard)
    assert heard == (0, 2)


def test_a_receiver_of_an_agent_that_failed_hears_the_others(tiny_llm: LocalLLM, tiny_tokenizer: Any) -> None:
    graph = reasoning(tiny_llm, tiny_tokenizer).graph
    graph.llm.llm = _Failing(tiny_llm, 0, ApiError("no"))
    topology = Topology(3, (Edge(0, 2), Edge(1, 2), Edge(2, 3)))
    result = graph.run(QUESTIONS[4], topology=topology, lenient=True, keep_caches=False)
    assert [a.sender for a in result.arrivals[0, 2]] == [(0, 1)]


@pytest.mark.parametrize("topology", [STAR, Topology(3, (Edge(0, 2), Edge(1, 2), Edge(2, 3), Edge(1, 3)))])
@pytest.mark.parametrize("failing", [0, 1])
def test_a_run_with_an_agent_that_failed_is_replayed_as_one_without_it(
    tiny_llm: LocalLLM, tiny_tokenizer: Any, topology: Topology, failing: int
) -> None:
    graph = reasoning(tiny_llm, tiny_tokenizer).graph
    graph.llm.llm = _Failing(tiny_llm, failing, ApiError("no"))
    result = graph.run(QUESTIONS[4], topology=topology, lenient=True, seed=3)
    assert not {node for node in (*result.arrivals, *result.prompts) if node[1] == failing}
    replay = Replay(result, {e.key: torch.tensor(e.weight) for e in topology.edges})
    own = sum(spoken.generation.log_prob for spoken in result.spoken if spoken.generation)
    for gradient in ("decision", "full"):
        (found,) = log_probs(graph, tiny_llm, [replay], gradient)
        thought = sum(
            solution.log_prob for node, solution in result.solutions.items() if result.arrivals[node]
        )
        assert float(found) == pytest.approx(own + (thought if gradient == "full" else 0.0), abs=1e-3)


def test_training_on_goes_on_where_an_agents_text_fails(
    tiny_llm: LocalLLM, tiny_tokenizer: Any, tmp_path: Path
) -> None:
    built = reasoning(tiny_llm, tiny_tokenizer, agent_probability=0.8)
    built.graph.llm.llm = _Failing(tiny_llm, 0, ApiError("no"))
    config = TrainConfig(iterations=1, batch_size=2, rollouts=3, fuser_gradient="full", on_error="skip")
    assert len(Reinforce(built, ToyTask(), config, tmp_path).train(progress=False)) == 1


# -- what is refused ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"graph": GraphConfig()}, "add --hands reasoning"),
        ({"graph": GraphConfig(hands="text")}, "--hands cache, both or reasoning"),
        ({"graph": REASONING, "generation_mode": "api_hint"}, "--generation_mode local"),
        ({"domain": "split_facts"}, "add --hands reasoning"),
    ],
)
def test_marginal_where_nothing_says_which_answers_there_are_is_refused(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        GraphSpec(decision_method="marginal", **settings)
    GraphSpec(decision_method="marginal", graph=REASONING)
    GraphSpec(decision_method="marginal", domain="medicine")
    GraphSpec(decision_method="marginal", channels=("cache", "reasoning"))


# -- controls ----------------------------------------------------------------------------------


def test_controls_of_a_graph_that_reasons(tiny_llm: LocalLLM, tiny_tokenizer: Any) -> None:
    task = ToyTask()
    built = reasoning(tiny_llm, tiny_tokenizer, WORDS, topology="star", graph=REASONING)
    names = ("masked", "zeroed", "other question", "same words as text", "roles shuffled", "copies of the first")
    rows = run_controls(built.graph, tiny_llm, task, task.test(4), names, progress=False)
    assert [row.found.name for row in rows] == ["as it is", *names]
    assert {row.found.n for row in rows} == {4} and {row.found.edges for row in rows} == {3.0}


def test_roles_are_shuffled_by_moving_the_learned_places(tiny_llm: LocalLLM, tiny_tokenizer: Any) -> None:
    """Every agent's cache goes over another's edge; nobody stays."""
    task = ToyTask()
    graph = reasoning(tiny_llm, tiny_tokenizer).graph
    examples = task.test(4)
    seen: list[Topology] = []
    run = graph.start

    async def start(begin: Any) -> RunResult:
        seen.append(begin.topology)
        return await run(begin)

    graph.start = start
    trial = Trial(graph, tiny_llm, task, examples, {e.id: STAR for e in examples}, {}, 0, False)
    CONTROLS["roles shuffled"](trial)
    own = {edge.source: edge.weight for edge in STAR.edges}
    for topology in seen:
        moved = {edge.source: edge.weight for edge in topology.edges}
        assert sorted(moved.values()) == sorted(own.values())
        assert all(moved[agent] != own[agent] for agent in own)
    graph.start = run
    copies = CONTROLS["copies of the first"](trial)
    assert copies.n == 4


def test_words_instead_of_slots_are_the_solutions(tiny_llm: LocalLLM, tiny_tokenizer: Any) -> None:
    graph = reasoning(tiny_llm, tiny_tokenizer).graph
    slots = graph.run(QUESTIONS[0], topology=STAR)
    told = Topology(3, tuple(replace(edge, payload="text") for edge in STAR.edges))
    words = graph.run(QUESTIONS[0], topology=told)
    assert {n: s.tokens for n, s in slots.solutions.items()} == {n: s.tokens for n, s in words.solutions.items()}
    assert [a.slots for a in words.arrivals[0, 3]] == [None, None, None]
    assert len(words.spoken[0].tokens) > len(slots.spoken[0].tokens)


# -- what is learned from a choice -------------------------------------------------------------


class _Worth(ToyTask):
    """What an answer is worth, by its words; any text of an agent may be one."""

    def grade(self, text: str, example: Example) -> Grade:
        return Grade("right" if sum(map(ord, text)) % 2 else "wrong", text)


def test_a_choice_is_worth_the_mean_of_what_could_be_chosen(tiny_llm: LocalLLM, tiny_tokenizer: Any) -> None:
    """By hand, of every rollout of a step."""
    built = reasoning(tiny_llm, tiny_tokenizer, WORDS, fuser="trust", agent_probability=0.01)
    task = _Worth()
    found = Rollouts(built.graph, task, TrainConfig(batch_size=2, rollouts=3)).run(0, task.train(2))
    chose = 0
    for group, utilities in zip(found.groups, found.utilities, strict=True):
        for result, utility in zip(group, utilities.tolist(), strict=True):
            ballot = result.ballot
            if ballot is None:
                assert utility == pytest.approx(task.grade(result.answer, result.example).utility)
                continue
            chose += len(ballot.options) > 1
            worth = [task.grade(option.text, result.example).utility for option in ballot.options]
            assert utility == pytest.approx(sum(p * u for p, u in zip(ballot.probabilities, worth, strict=True)))
    assert chose


@pytest.mark.parametrize("name", ["concat", "trust"])
def test_the_gradient_of_a_choice_is_that_of_its_mean(tiny_llm: LocalLLM, tiny_tokenizer: Any, name: str) -> None:
    """Exactly: the mean of P(a) U(a) over the runs, whatever was drawn, by finite differences of the fuser."""
    llm = double(tiny_llm)
    built = reasoning(llm, tiny_tokenizer, WORDS, fuser=name, topology="star", graph=REASONING)
    fuser = built.graph.fuser
    awake(fuser)
    values = (0.9, 0.1, 0.4)
    runs = [
        built.graph.run(QUESTIONS[4], topology=STAR, temperature=1.3, seed=seed, words_seed=0) for seed in range(2)
    ]
    assert [len(run.ballot.options) for run in runs if run.ballot] == [3, 3]

    def mean() -> Tensor:
        ones = {e.key: torch.ones(()) for e in STAR.edges}
        return sum((one.expected(values) for one in replayed(built.graph, llm, [Replay(r, ones) for r in runs])),
                   torch.zeros(())) / len(runs)  # fmt: skip

    for advantage in (torch.zeros(1, 2), torch.ones(1, 2)):  # which no choice needs
        for parameter in fuser.parameters():
            parameter.grad = None
        Objective(built.graph, llm, LossWeights(), "decision").backward([runs], advantage, values=[[values, values]])
        for parameter in fuser.parameters():
            assert parameter.grad is not None
            parameter.grad.neg_()  # of the loss
        assert_slopes_of(mean, [], fuser, step=0.02, noise=5e-4)


def test_solutions_drawn_on_caches_are_learned_from_beside_a_choice(tiny_llm: LocalLLM, tiny_tokenizer: Any) -> None:
    """With all answers worth the same, what is left is the advantage times log pi of the solutions, of each run its own
    though the topologies are the same."""
    llm = double(tiny_llm)
    config = replace(REASONING, agent_temperature=2.0)
    built = reasoning(llm, tiny_tokenizer, WORDS, topology="star", graph=config)
    fuser = built.graph.fuser
    awake(fuser)
    edges = (Edge(0, 1), Edge(0, 3), Edge(1, 3))
    runs = [
        built.graph.run(QUESTIONS[4], topology=Topology(3, edges), temperature=1.0, seed=seed, words_seed=0)
        for seed in range(2)
    ]
    assert runs[0].solutions[0, 0] == runs[1].solutions[0, 0] and runs[0].solutions[0, 1] != runs[1].solutions[0, 1]
    worth = [tuple(1.0 for _ in run.ballot.options) for run in runs if run.ballot]
    advantage = torch.tensor([[2.0, -1.0]])
    measured = Objective(built.graph, llm, LossWeights(), "full").backward([runs], advantage, values=[worth])
    assert measured["replayed"] == 2
    ones = {e.key: torch.ones(()) for e in edges}
    found = replayed(built.graph, llm, [Replay(run, ones) for run in runs], "full")
    total = sum((a * one.texts for a, one in zip(advantage[0], found, strict=True)), torch.zeros(()))
    wanted = torch.autograd.grad(total / 2, list(fuser.parameters()), allow_unused=True)
    assert any(w is not None and float(w.norm()) > 0 for w in wanted)
    for parameter, each in zip(fuser.parameters(), wanted, strict=True):
        assert parameter.grad is not None
        torch.testing.assert_close(
            parameter.grad, torch.zeros_like(parameter) if each is None else -each, atol=1e-6, rtol=1e-4
        )


@pytest.mark.parametrize("method", ["vote", "direct"])
def test_a_fuser_that_nothing_reaches_is_refused(
    tiny_llm: LocalLLM, tiny_tokenizer: Any, tmp_path: Path, method: str
) -> None:
    """Trust weighs caches that are heard together; where each hears one, only gradients of agents reach it."""
    one_each = replace(WORDS, method=method)

    def trainer(**spec: Any) -> Reinforce:
        built = reasoning(tiny_llm, tiny_tokenizer, one_each, fuser="trust", **spec)
        return Reinforce(built, ToyTask(), TrainConfig(iterations=1), tmp_path)

    with pytest.raises(ConfigError, match=rf"--decision_method {method} each text hears one; choose marginal or refer"):
        trainer(agent_probability=0.0)
    assert trainer(agent_probability=0.3).gradient.name == "full"


def test_a_vote_reaches_no_fuser_that_weighs_caches(tiny_llm: LocalLLM, tiny_tokenizer: Any) -> None:
    voting = reasoning(tiny_llm, tiny_tokenizer, replace(WORDS, method="vote")).graph
    together = reasoning(tiny_llm, tiny_tokenizer, replace(WORDS, method="refer")).graph
    for graph, reached in ((voting, False), (together, True)):
        result = graph.run(QUESTIONS[4], topology=STAR)
        assert reaches_fuser(result, "decision", keeps_slots=True) is reached
        assert reaches_fuser(result, "decision", keeps_slots=False)


def test_who_heard_nobody_and_who_had_nothing_to_choose_is_said(
    tiny_llm: LocalLLM, tiny_tokenizer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    built = reasoning(tiny_llm, tiny_tokenizer, replace(WORDS, states="number"), decision_probability=0.02)
    task = ToyTask()
    answers = GraphMethod("gcache", built.graph).answer(task.test(4))
    assert len(answers) == 4 and "on 4 of 4 questions the learned topology hears nobody" in caplog.text
    caplog.clear()
    found = evaluate(built.graph, task, task.test(4), "star", topology=lambda _: STAR, progress=False)
    assert "hears nobody" not in caplog.text
    assert found.texts > 12 and found.cut > sum(row.cut for row in found.rows)  # solutions too
    star = reasoning(tiny_llm, tiny_tokenizer, replace(WORDS, states="number"), topology="star", graph=REASONING)
    unstated = sum(star.graph.run(e).ballot is None for e in task.test(4))
    GraphMethod("gcache", star.graph).answer(task.test(4))
    assert unstated and f"on {unstated} of 4 questions no agent that is heard states an answer" in caplog.text


# -- what was found wrong once -----------------------------------------------------------------

CHOOSING = GraphConfig(latent_steps=1, reason_tokens=5, speak_tokens=4, max_new_tokens=3)


def test_a_solution_that_is_told_on_in_words_teaches_the_fuser(tiny_llm: LocalLLM, tiny_tokenizer: Any) -> None:
    """In full it is part of log pi, though no slot reaches the decision maker."""
    llm = double(tiny_llm)
    built = reasoning(llm, tiny_tokenizer, topology="star")
    awake(built.graph.fuser)
    topology = Topology(3, (Edge(0, 1), Edge(1, 3, payload="text")))
    result = built.graph.run(QUESTIONS[2], topology=topology, temperature=1.0, seed=3)
    objective = Objective(built.graph, llm, LossWeights(), "full")
    measured = objective.backward([[result, result]], torch.tensor([[2.0, 0.0]]))
    assert measured["replayed"] == 1
    total, _ = _replayed(built, llm, result, "full")
    for parameter, wanted in zip(
        built.graph.fuser.parameters(), torch.autograd.grad(total, list(built.graph.fuser.parameters())), strict=True
    ):
        assert parameter.grad is not None and float(wanted.norm()) > 0
        torch.testing.assert_close(parameter.grad, -wanted, atol=1e-6, rtol=1e-4)  # advantage 2, of 2 runs


def test_weights_learn_from_a_choice_among_words(tiny_llm: LocalLLM, tiny_tokenizer: Any) -> None:
    """No cache reaches the decision maker, but the edges' weights decide whose answer it is."""
    llm = double(tiny_llm)
    built = reasoning(llm, tiny_tokenizer, WORDS, graph=CHOOSING, channels=("cache", "text"))
    distribution = built.graph.distribution(QUESTIONS[4])
    chance = dict(zip(distribution.candidates, distribution.probabilities.tolist(), strict=True))
    edges = tuple(Edge(agent, 3, weight=chance[agent, 3], payload="text") for agent in (0, 1))
    result = built.graph.run(QUESTIONS[4], topology=Topology(3, edges), temperature=1.0, seed=3)
    assert result.ballot is not None and len(result.ballot.options) == 2
    values = [[(1.0, 0.0), (1.0, 0.0)]]
    Objective(built.graph, llm, LossWeights(), "full").backward([[result] * 2], torch.zeros(1, 2), values=values)
    assert built.policy is not None
    assert max(float(p.grad.abs().max()) for p in built.policy.parameters() if p.grad is not None) > 1e-6


def test_what_a_thought_says_is_shared_over_one_payload_alone(tiny_llm: LocalLLM, tiny_tokenizer: Any) -> None:
    decision = replace(DECISION, method="marginal", states="choice", judging="which ?")
    config = GraphConfig(latent_steps=2, reason_tokens=4, max_new_tokens=3)
    graph = reasoning(double(tiny_llm), tiny_tokenizer, decision, graph=config).graph
    question, memo = "what is in the box ?\nA) red\nB) blue", RolloutMemo()
    for payload in ("cache", "latents", "reasoning", "cache"):
        topology = Topology(3, (Edge(0, 3, payload=payload),))
        shared, alone = (graph.run(question, topology=topology, memo=each).ballot for each in (memo, None))
        assert shared is not None and alone is not None
        assert shared.scores[0] == pytest.approx(alone.scores[0], abs=1e-6), payload


def test_a_spoken_text_that_was_cut_is_read_as_one(tiny_llm: LocalLLM, tiny_tokenizer: Any) -> None:
    """It breaks off in the number: it states none, and counts among the texts that were cut."""
    config = GraphConfig(hands="both", latent_steps=0, speak_tokens=3, max_new_tokens=3)
    built = reasoning(tiny_llm, tiny_tokenizer, replace(DECISION, method="marginal", judging="which ?"), graph=config)
    real = built.graph.llm.generate

    async def cut(request: Any) -> Any:
        return replace(await real(request), text="#### 12", finished=False)

    built.graph.llm.generate = cut
    result = built.graph.run("what is 1000 + 234 ?", topology=STAR)
    assert result.ballot is None and len(result.texts) == 4 and all(result.texts)


def test_runs_of_different_latent_maps_write_together(tiny_llm: LocalLLM, tiny_tokenizer: Any) -> None:
    graph = reasoning(tiny_llm, tiny_tokenizer, graph=replace(REASONING, latent_steps=2)).graph
    own = tiny_llm.alignment
    maps = [replace(own, matrix=torch.roll(own.matrix, shift, 0)) for shift in (1, 2)]

    async def together() -> list[RunResult]:
        return list(await asyncio.gather(*(graph.arun(QUESTIONS[0], topology=STAR, alignment=m) for m in maps)))

    for at_once, alignment in zip(asyncio.run(together()), maps, strict=True):
        alone = graph.run(QUESTIONS[0], topology=STAR, alignment=alignment)
        assert {n: s.tokens for n, s in at_once.solutions.items()} == {n: s.tokens for n, s in alone.solutions.items()}


def test_a_whole_text_that_is_a_candidate_fits(
    tiny_llm: LocalLLM, tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is accepted is read to its end, also where answers are longer than a text of the decision maker."""
    tiny_llm.stop_tokens = frozenset()
    graph = reasoning(tiny_llm, tiny_tokenizer, WORDS, graph=replace(REASONING, reason_tokens=30)).graph
    place = PlannedRun(QUESTIONS[4], graph.agents, STAR, 3, at_longest=True)
    needed, _ = graph.positions(place)
    monkeypatch.setattr(LocalLLM, "context", needed)
    assert graph.run(QUESTIONS[4], topology=STAR).ballot is not None


def test_no_run_replays_more_than_is_promised(tiny_llm: LocalLLM, tiny_tokenizer: Any) -> None:
    tiny_llm.stop_tokens = frozenset()
    for config in (REASONING, replace(REASONING, latent_steps=2, num_rounds=2)):
        graph = reasoning(tiny_llm, tiny_tokenizer, WORDS, graph=config).graph
        full = Topology(3, (*STAR.edges, Edge(0, 1), Edge(0, 2), Edge(1, 2)))
        result = graph.run(QUESTIONS[4], topology=full)
        assert replayed_tokens(result, "full") <= most_replayed(graph, [result.example])


def test_the_text_behind_a_choice_is_that_of_the_round_it_was_heard_in(
    tiny_llm: LocalLLM, tiny_tokenizer: Any
) -> None:
    """An agent that reasons for another in the first round, and speaks to the decision maker in the second."""
    config = replace(CHOOSING, num_rounds=2)
    graph = reasoning(tiny_llm, tiny_tokenizer, WORDS, graph=config).graph
    edges = (Edge(0, 1, payload="reasoning", delay=1), Edge(0, 3, payload="text"), Edge(1, 3, payload="text"))
    result = graph.run(QUESTIONS[4], topology=Topology(3, edges))
    assert result.ballot is not None
    writer = result.ballot.choice.writer
    assert writer is not None and result.chosen.text == result.answer
    assert result.chosen.generation is result.written[1, writer]


def test_words_are_the_solutions_where_edges_chose_them(
    tiny_llm: LocalLLM, tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The agent that reasons over its edge tells its solution; the other one is asked to say something."""
    task = ToyTask()
    graph = reasoning(tiny_llm, tiny_tokenizer, graph=CHOOSING).graph
    chose = Topology(3, (Edge(0, 3, payload="reasoning"), Edge(1, 3, payload="cache")))
    slots, words = (graph.run(QUESTIONS[0], topology=chose, words_alone=alone) for alone in (False, True))
    assert slots.solutions.keys() == words.solutions.keys() == {(0, 0)}
    assert slots.said[0, 0] == words.said[0, 0]
    assert [a.slots for a in words.arrivals[0, 3]] == [None, None] and set(words.said) == {(0, 0), (0, 1)}
    trial = Trial(graph, tiny_llm, task, task.test(2), {e.id: chose for e in task.test(2)}, {}, 0, False)
    heard: list[RunResult] = []
    arun = graph.arun

    async def noted(*args: Any, **options: Any) -> RunResult:
        heard.append(await arun(*args, **options))
        return heard[-1]

    monkeypatch.setattr(graph, "arun", noted)
    assert CONTROLS["same words as text"](trial).n == 2
    assert [[a.slots for a in run.arrivals[0, 3]] for run in heard] == [[None, None]] * 2
