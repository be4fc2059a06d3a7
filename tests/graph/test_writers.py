"""Who writes the text: the local model, the API after it, or the API alone; and agents that speak."""

from __future__ import annotations

import asyncio
import base64
import io
import json
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from chat_server import Behaviour, ChatServer, answers, fails, runs, says, serving
from toy import AGENTS, DECISION, QUESTIONS, ToyTask, toy_built

from gcache.build import Built
from gcache.cache.fused_cache import FusedCache
from gcache.config import GraphSpec
from gcache.errors import ApiError, BudgetSpent, ConfigError, QuestionError
from gcache.evaluation.evaluate import evaluate
from gcache.graph.memo import RolloutMemo
from gcache.graph.run_config import GraphConfig
from gcache.graph.writers.registry import GENERATION_MODES, make_writer
from gcache.llm.api.client import ApiLLM, ApiSettings, Budget
from gcache.llm.local import LocalLLM
from gcache.llm.requests import GenerateRequest, ThinkRequest
from gcache.training.config import TrainConfig
from gcache.training.objective import LossWeights, Objective
from gcache.training.trainer import Reinforce

FREE = ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in FREE:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("gcache.llm.api.client.FIRST_WAIT", 0.01)


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with serving(says("sum 5")) as running:
        yield running


def built(
    llm: LocalLLM, tokenizer: Any, url: str, mode: str, budget: Budget | None = None, retries: int = 0, **spec: Any
) -> Built:
    api = ApiLLM(ApiSettings("toy", url, retries=retries, timeout=10), budget)
    return toy_built(llm, tokenizer, api=api, generation_mode=mode, **spec)


def words(server: ChatServer, number: int = -1) -> tuple[str, str]:
    """The system's and the user's words of a request."""
    first, second = server.seen[number]["messages"]
    assert (first["role"], second["role"]) == ("system", "user")
    return first["content"], second["content"]


def test_hybrid_shows_the_api_the_local_draft(tiny_llm: LocalLLM, tiny_tokenizer: Any, server: ChatServer) -> None:
    local = toy_built(tiny_llm, tiny_tokenizer, topology="star").graph.run(QUESTIONS[0])
    result = built(tiny_llm, tiny_tokenizer, server.base_url, "hybrid", topology="star").graph.run(QUESTIONS[0])
    (spoken,) = result.spoken
    assert spoken.generation == local.spoken[0].generation  # the draft is what the local model would have answered
    assert result.answer == spoken.text == "sum 5"
    system, user = words(server)
    assert system == "what is the answer ?" and user.startswith(QUESTIONS[0])
    assert f"---\n{local.answer.strip() or '(nothing)'}\n---" in user
    assert result.text_log_prob == pytest.approx(local.text_log_prob)
    assert (result.tokens["api_read"], result.tokens["api_written"]) == (3, 2)
    assert result.tokens["generated"] == local.tokens["generated"]


def test_a_hint_in_numbers(tiny_llm: LocalLLM, tiny_tokenizer: Any, server: ChatServer) -> None:
    graph = built(tiny_llm, tiny_tokenizer, server.base_url, "api_hint", topology="star").graph
    result = graph.run(QUESTIONS[0])
    _, user = words(server)
    assert result.answer == "sum 5" and user == f"{QUESTIONS[0]}\n\n{result.spoken[0].hint}"
    slots = sum(cache.slots for cache in result.caches.values())
    assert f"3 handed on {slots} cache slots of 2 layers" in user and "planner 1.00, critic 1.00, solver 1.00" in user
    assert result.spoken[0].generation is None and result.tokens["generated"] == 0
    assert "\n" not in result.spoken[0].hint


def test_the_lens_shows_what_each_latent_step_is_nearest_to(
    tiny_llm: LocalLLM, tiny_tokenizer: Any, server: ChatServer
) -> None:
    config = GraphConfig(latent_steps=2, max_new_tokens=3)
    made = built(tiny_llm, tiny_tokenizer, server.base_url, "api_hint", hint="lens", topology="star", graph=config)
    result = made.graph.run(QUESTIONS[0])
    # by hand: the agent's last hidden state, through the output head; then the same after one latent step
    question = tiny_llm.think([ThinkRequest(made.graph.layout.question(QUESTIONS[0]))])[0]
    states: list[torch.Tensor] = []
    tokens = made.graph.agent_tokens(AGENTS[1], QUESTIONS[0])
    tiny_llm.think([ThinkRequest(tokens, FusedCache.plain(question), 2, watch=states.append)])
    assert states[0].shape == (2, 32)
    expected = [
        [tiny_tokenizer.decode([i]).strip() for i in tiny_llm.logits(state).topk(3).indices.tolist()]
        for state in states[0]
    ]
    assert f"- critic: {' / '.join(expected[0])}; {' / '.join(expected[1])}" in result.spoken[0].hint
    assert [line[:9] for line in result.spoken[0].hint.splitlines()[1:]] == ["- planner", "- critic:", "- solver:"]


def test_without_latent_steps_the_lens_sees_nothing(
    tiny_llm: LocalLLM, tiny_tokenizer: Any, server: ChatServer
) -> None:
    config = GraphConfig(latent_steps=0, max_new_tokens=3)
    graph = built(
        tiny_llm, tiny_tokenizer, server.base_url, "api_hint", hint="lens", topology="star", graph=config
    ).graph
    assert graph.run(QUESTIONS[0]).spoken[0].hint == "" and words(server)[1] == QUESTIONS[0]


def test_a_draft_is_a_hint(tiny_llm: LocalLLM, tiny_tokenizer: Any, server: ChatServer) -> None:
    local = toy_built(tiny_llm, tiny_tokenizer, topology="star").graph.run(QUESTIONS[3])
    graph = built(tiny_llm, tiny_tokenizer, server.base_url, "api_hint", hint="draft", topology="star").graph
    result = graph.run(QUESTIONS[3])
    assert result.spoken[0].generation == local.spoken[0].generation
    assert local.answer.strip() in words(server)[1] and result.answer == "sum 5"


def test_agents_speak_and_are_heard(tiny_llm: LocalLLM, tiny_tokenizer: Any, server: ChatServer) -> None:
    tiny_llm.stop_tokens = frozenset()
    config = GraphConfig(latent_steps=1, max_new_tokens=3, hands="both", speak_tokens=4)
    made = built(tiny_llm, tiny_tokenizer, server.base_url, "api_hint", hint="text", topology="chain", graph=config)
    result = made.graph.run(QUESTIONS[0])
    assert set(result.said) == {(0, 0), (0, 1), (0, 2)} and all(result.said.values())
    assert f"- solver: {result.said[0, 2].strip()}" in words(server)[1]
    assert "- planner:" not in words(server)[1]  # nobody hands to the decision maker but the last
    shown = tiny_tokenizer.decode(result.prompts[0, 1])
    assert result.said[0, 0].strip() in shown.replace("\n", " ") or result.said[0, 0].split()[0] in shown
    assert result.prompts[0, 0] == made.graph.agent_tokens(AGENTS[0], QUESTIONS[0])
    assert result.tokens["generated"] == 3 * 4


def test_what_agents_say_changes_the_local_answers_prompt_and_is_batched_rightly(
    tiny_llm: LocalLLM, tiny_tokenizer: Any
) -> None:
    tiny_llm.stop_tokens = frozenset()
    config = GraphConfig(latent_steps=1, max_new_tokens=4, hands="both", speak_tokens=5)
    graph = toy_built(tiny_llm, tiny_tokenizer, topology="full", graph=config).graph
    from gcache.tasks.example import Example

    examples = [Example(str(n), question, "") for n, question in enumerate(QUESTIONS)]
    together = graph.run_all(examples)
    for example, result in zip(examples, together, strict=True):
        alone = graph.run(example)
        assert (alone.answer, dict(alone.said)) == (result.answer, dict(result.said))
        said = [(AGENTS[n].role, result.said[0, n]) for n in range(3)]
        assert alone.spoken[0].tokens == graph.decision_tokens(example.question, said)


@pytest.mark.parametrize("gradient", ["decision", "full"])
def test_what_was_drawn_after_speech_can_be_replayed(tiny_llm: LocalLLM, tiny_tokenizer: Any, gradient: str) -> None:
    from gcache.graph.hand_over import edge_weights
    from gcache.training.replay import Replay, log_probs

    tiny_llm.stop_tokens = frozenset()
    config = GraphConfig(latent_steps=1, max_new_tokens=4, hands="both", speak_tokens=5)
    graph = toy_built(tiny_llm, tiny_tokenizer, topology="full", graph=config).graph

    async def rollouts() -> list[Any]:
        thoughts = RolloutMemo()
        runs = (graph.arun(QUESTIONS[2], temperature=1.0, seed=seed, memo=thoughts) for seed in range(3))
        return list(await asyncio.gather(*runs))

    results = asyncio.run(rollouts())
    assert results[0].said == results[1].said  # shared, and greedy
    results[2].kept.release()  # thought once more, from the prompts of the run
    replays = [Replay(result, edge_weights(result.topology)) for result in results]
    for result, again in zip(results, log_probs(graph, tiny_llm, replays, gradient), strict=True):
        assert float(again.detach()) == pytest.approx(result.text_log_prob, abs=1e-3)


# -- thoughts as embeddings -----------------------------------------------------------------------


def completes(text: str, prompt: int) -> Behaviour:
    """A completion, as of /v1/completions."""
    body = {
        "id": "cmpl-1", "object": "text_completion", "created": 0, "model": "toy",
        "choices": [{"index": 0, "finish_reason": "stop", "text": text, "logprobs": None}],
        "usage": {"prompt_tokens": prompt, "completion_tokens": 2, "total_tokens": prompt + 2},
    }  # fmt: skip
    return answers(body)


def sent(data: str) -> torch.Tensor:
    """The tensor that a server is sent, read as a server must read it."""
    return torch.load(io.BytesIO(base64.b64decode(data)), weights_only=True)


def expected_thoughts(made: Built, llm: LocalLLM) -> list[torch.Tensor]:
    """What each agent's latent steps feed back, in a star, one agent after another."""
    question = llm.think([ThinkRequest(made.graph.layout.question(QUESTIONS[0]))])[0]
    states: list[torch.Tensor] = []
    for agent in AGENTS:
        past = FusedCache.plain(question)
        llm.think([ThinkRequest(made.graph.agent_tokens(agent, QUESTIONS[0]), past, 2, watch=states.append)])
    return [llm.alignment(state) for state in states]


def test_a_server_is_sent_the_prompt_and_the_thoughts_as_embeddings(tiny_llm: LocalLLM, tiny_tokenizer: Any) -> None:
    config = GraphConfig(latent_steps=2, max_new_tokens=3)
    with serving(completes("", 48), completes("sum 5", 30)) as server:
        made = built(tiny_llm, tiny_tokenizer, server.base_url, "api_embeds", topology="star", graph=config)
        result = made.graph.run(QUESTIONS[0])
        again = made.graph.run(QUESTIONS[0])
    assert result.answer == again.answer == "sum 5" and not made.graph.learns
    assert len(server.seen) == 1 + 2 and sent(server.seen[0]["prompt_embeds"]).shape == (48, 32)  # one probe
    assert all(body.get("prompt") is None for body in server.seen) and server.seen[1]["max_tokens"] == 3
    words = made.graph.layout.decision(DECISION.instructions, turn="same", question=QUESTIONS[0])
    before, after = (tiny_llm.embedding(torch.tensor(t)) for t in (made.graph.layout.question(QUESTIONS[0]), words))
    whole = torch.cat((before, *expected_thoughts(made, tiny_llm), after))
    torch.testing.assert_close(sent(server.seen[1]["prompt_embeds"]), whole, atol=1e-5, rtol=0)


def test_or_the_thoughts_as_parts_of_a_message(tiny_llm: LocalLLM, tiny_tokenizer: Any) -> None:
    config = GraphConfig(latent_steps=2, max_new_tokens=3)
    with serving(says("", prompt=60), says("sum 5")) as server:
        made = built(
            tiny_llm,
            tiny_tokenizer,
            server.base_url,
            "api_embeds",
            topology="star",
            graph=config,
            embeds_endpoint="chat",
        )
        assert made.graph.run(QUESTIONS[0]).answer == "sum 5"
    system, user = server.seen[1]["messages"]
    assert system["content"] == DECISION.instructions and user["content"][0] == {"type": "text", "text": QUESTIONS[0]}
    assert [part["type"] for part in user["content"]] == ["text"] + ["prompt_embeds"] * 3
    for found, expected in zip(user["content"][1:], expected_thoughts(made, tiny_llm), strict=True):
        torch.testing.assert_close(sent(found["data"]), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ([fails(400, "prompt is required")], "takes no prompt embeddings .*prompt is required.*--enable-prompt-embeds"),
        ([completes("hello", 1)], "passes over prompt embeddings: it was sent 48 and counts 1 prompt tokens"),
        ([fails(404)], "or use the mode api_hint"),
    ],
)
def test_a_server_that_takes_no_embeddings_is_found_out_by_one_request(
    tiny_llm: LocalLLM, tiny_tokenizer: Any, script: list[Behaviour], said: str
) -> None:
    with serving(*script) as server:
        made = built(tiny_llm, tiny_tokenizer, server.base_url, "api_embeds", topology="star")
        for _ in range(2):
            with pytest.raises(ApiError, match=said):
                evaluate(made.graph, ToyTask(), ToyTask().test(), progress=False)
        assert len(server.seen) == 1


# -- what learns ----------------------------------------------------------------------------------


def norms(made: Built) -> dict[str, float]:
    """Gradient norms of the two parts after one backward pass with made-up advantages."""
    graph = made.graph
    groups = [
        [graph.run(question, sample=True, temperature=1.0, seed=seed) for seed in range(3)]
        for question in QUESTIONS[:3]
    ]
    advantage = torch.tensor([[1.0, -0.5, -0.5], [-1.0, 0.5, 0.5], [0.3, 0.3, -0.6]])
    Objective(graph, made.llm, LossWeights()).backward(groups, advantage)
    assert made.policy is not None
    parts = {"policy": made.policy, "fuser": graph.fuser}
    return {
        name: sum(float(p.grad.norm()) for p in part.parameters() if p.grad is not None) for name, part in parts.items()
    }


def test_in_hybrid_both_parts_learn_as_they_do_locally(
    tiny_llm: LocalLLM, tiny_tokenizer: Any, server: ChatServer
) -> None:
    hybrid = norms(built(tiny_llm, tiny_tokenizer, server.base_url, "hybrid"))
    local = norms(toy_built(tiny_llm, tiny_tokenizer))
    assert hybrid["policy"] > 0 and hybrid["fuser"] > 0
    assert hybrid == pytest.approx(local, rel=1e-4)  # the draft's log-probability is the policy's


def test_under_an_api_alone_the_fuser_gets_nothing_and_the_run_says_so(
    tiny_llm: LocalLLM, tiny_tokenizer: Any, server: ChatServer, tmp_path: Any, caplog: pytest.LogCaptureFixture
) -> None:
    found = norms(built(tiny_llm, tiny_tokenizer, server.base_url, "api_hint"))
    assert found["policy"] > 0 and found["fuser"] == 0
    made = built(tiny_llm, tiny_tokenizer, server.base_url, "api_hint")
    trainer = Reinforce(made, ToyTask(), TrainConfig(iterations=2, batch_size=2, rollouts=2), tmp_path / "out")
    assert "the fuser is not trained: in the mode api_hint" in caplog.text
    before = [parameter.clone() for parameter in made.graph.fuser.parameters()]
    history = trainer.train(progress=False)
    assert history[0]["not_trained"] == ["fuser"] and "gradient_norm_fuser" not in history[0]
    assert all(torch.equal(a, b) for a, b in zip(before, made.graph.fuser.parameters(), strict=True))
    assert all(parameter.requires_grad for parameter in made.graph.fuser.parameters())


def test_nothing_to_train_is_refused(
    tiny_llm: LocalLLM, tiny_tokenizer: Any, server: ChatServer, tmp_path: Any
) -> None:
    made = built(tiny_llm, tiny_tokenizer, server.base_url, "api_hint", topology="star")
    with pytest.raises(ConfigError, match="nothing to train"):
        Reinforce(made, ToyTask(), TrainConfig(), tmp_path / "out")


@pytest.mark.parametrize("mode", ["hybrid", "api_hint"])
def test_training_goes_on_and_resumes(
    tiny_llm: LocalLLM, tiny_tokenizer: Any, server: ChatServer, tmp_path: Any, mode: str
) -> None:
    config = TrainConfig(iterations=3, batch_size=2, rollouts=2, checkpoint_every=1)
    whole = Reinforce(built(tiny_llm, tiny_tokenizer, server.base_url, mode), ToyTask(), config, tmp_path / "whole")
    whole.train(progress=False)
    budget = Budget(8)  # two steps of four requests
    cut = Reinforce(built(tiny_llm, tiny_tokenizer, server.base_url, mode, budget), ToyTask(), config, tmp_path / "cut")
    cut.train(progress=False)
    assert cut.stopped.startswith("stopped after 2 of 3 steps: the API budget of 8 requests is spent")
    again = built(tiny_llm, tiny_tokenizer, server.base_url, mode)
    resumed = Reinforce(again, ToyTask(), config, tmp_path / "cut")
    assert [line["step"] for line in resumed.train(progress=False)] == [2] and not resumed.stopped
    for a, b in zip(whole.parts.parameters(), resumed.parts.parameters(), strict=True):
        assert torch.equal(a, b)


# -- failures are no answers ----------------------------------------------------------------------


def fails_on(word: str) -> Behaviour:
    """400 for questions that have a word in them."""

    def behave(handler: Any, body: dict[str, Any]) -> None:
        trouble = word in body["messages"][1]["content"].split("\n\n")[0]
        (fails(400, "cannot say that") if trouble else says("sum 5"))(handler, body)

    return behave


def test_a_failed_question_is_left_out_or_ends_the_run_and_is_never_graded(
    tiny_llm: LocalLLM, tiny_tokenizer: Any
) -> None:
    examples = ToyTask().test()
    bad = sum("blue" in example.question for example in examples)
    with serving(fails_on("blue")) as server:
        graph = built(tiny_llm, tiny_tokenizer, server.base_url, "hybrid", topology="star").graph
        found = evaluate(graph, ToyTask(), examples, progress=False, on_error="skip")
        assert bad == 1 and (found.n, found.failed, found.accuracy, found.unparsed) == (len(examples) - 1, 1, 1.0, 0)
        assert all("blue" not in e.question for e in examples for row in found.rows if row.id == e.id)
        assert "cannot say" not in json.dumps(found.to_json())
        with pytest.raises(ApiError, match="cannot say that"):
            evaluate(graph, ToyTask(), examples, progress=False)
        with pytest.raises(ApiError, match="cannot say that"):
            evaluate(graph, ToyTask(), [e for e in examples if "blue" in e.question], progress=False, on_error="skip")


def test_a_spent_budget_keeps_what_was_answered(tiny_llm: LocalLLM, tiny_tokenizer: Any, server: ChatServer) -> None:
    graph = built(tiny_llm, tiny_tokenizer, server.base_url, "hybrid", Budget(5), topology="star").graph
    found = evaluate(graph, ToyTask(), ToyTask().test(), max_concurrent=2, progress=False)
    assert (found.n, found.failed, len(server.seen)) == (5, 0, 5)
    assert "budget of 5 requests is spent" in found.stopped


def test_training_leaves_a_failed_question_out_or_stops(tiny_llm: LocalLLM, tiny_tokenizer: Any, tmp_path: Any) -> None:
    config = {"iterations": 1, "batch_size": len(QUESTIONS), "rollouts": 2}
    with serving(fails_on("blue")) as server:
        made = built(tiny_llm, tiny_tokenizer, server.base_url, "hybrid")
        skipping = Reinforce(made, ToyTask(), TrainConfig(**config, on_error="skip"), tmp_path / "skip")
        (metrics,) = skipping.train(progress=False)
        assert metrics["failed"] == 1 and metrics["rollouts"] == 2 * (len(QUESTIONS) - 1)
        with pytest.raises(ApiError, match="cannot say that"):
            Reinforce(made, ToyTask(), TrainConfig(**config), tmp_path / "stop").train(progress=False)
    with serving(fails(401)) as server:
        made = built(tiny_llm, tiny_tokenizer, server.base_url, "hybrid")
        nothing = Reinforce(made, ToyTask(), TrainConfig(**config, on_error="skip"), tmp_path / "nothing")
        with pytest.raises(QuestionError, match=f"for all {len(QUESTIONS)} questions of step 0"):
            nothing.train(progress=False)
    with pytest.raises(ConfigError, match="unknown way to go on after an error 'ignore'; choose one of: skip, stop"):
        TrainConfig(on_error="ignore")


def test_a_budget_that_is_spent_before_the_first_answer(
    tiny_llm: LocalLLM, tiny_tokenizer: Any, server: ChatServer
) -> None:
    budget = Budget(1)
    budget.requests = 1
    graph = built(tiny_llm, tiny_tokenizer, server.base_url, "hybrid", budget, topology="star").graph
    with pytest.raises(BudgetSpent):
        evaluate(graph, ToyTask(), ToyTask().test(), progress=False)


# -- settings -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (
            {"generation_mode": "cloud"},
            "unknown generation mode 'cloud'; choose one of: api, api_embeds, api_hint, hybrid, local",
        ),
        ({"embeds_endpoint": "mail"}, "unknown endpoint of prompt embeddings 'mail'; choose one of: chat, completions"),
        (
            {"generation_mode": "api_embeds", "graph": GraphConfig(latent_steps=0)},
            "sends latent thoughts, but latent_st",
        ),
        ({"hint": "smell"}, "unknown hint 'smell'; choose one of: draft, lens, meta, text"),
        ({"generation_mode": "api_hint", "hint": "text"}, "the hint 'text' is what agents said, .* --hands both"),
    ],
)
def test_modes_that_are_none(spec: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        GraphSpec(**spec)
    assert len(GENERATION_MODES) == 5


def test_modes_need_their_api() -> None:
    with pytest.raises(ConfigError, match="the generation mode 'hybrid' needs an API; name its model by --api_model"):
        make_writer("hybrid")
    with pytest.raises(ConfigError, match=r"unknown kind of hand-over 'voice'; .*: both, cache, reasoning, text"):
        GraphConfig(hands="voice")
    with pytest.raises(ConfigError, match="speak_tokens must be 1 or more, got 0"):
        GraphConfig(speak_tokens=0)


# -- a real model on both sides -------------------------------------------------------------------


@pytest.mark.embedded
@pytest.mark.slow
@pytest.mark.parametrize("mode", ["hybrid", "api_hint"])
def test_a_real_model_behind_http_and_beside_it(embedded_llm: LocalLLM, mode: str, tmp_path: Any) -> None:
    from gcache.build import assemble
    from gcache.tasks import make_task

    class Few:
        """Two arithmetic questions, few tokens."""

        name, domain, max_new_tokens = "few", "maths", 12

        def __init__(self) -> None:
            self.task = make_task("gsm_symbolic", train_size=2, test_size=2)
            self.train, self.test, self.grade = self.task.train, self.task.test, self.task.grade

    with serving(runs(embedded_llm)) as server:
        api = ApiLLM(ApiSettings("smollm2", server.base_url, timeout=120))
        # asked the same, the server says what the model says here
        talk = [{"role": "user", "content": "What is 2 + 2?"}]
        prompt = embedded_llm.tokenizer.apply_chat_template(talk, add_generation_prompt=True, return_dict=False)
        here = embedded_llm.generate([GenerateRequest(tuple(prompt), None, 12)])[0]
        there = asyncio.run(api.chat([("user", "What is 2 + 2?")], 12))
        assert (there.text, there.prompt_tokens, there.completion_tokens) == (here.text, len(prompt), len(here.tokens))

        graph = GraphConfig(latent_steps=1, max_new_tokens=12)
        spec = GraphSpec(generation_mode=mode, agent_nums=2, encoder="hash", hint="lens", graph=graph)
        made = assemble(spec, embedded_llm, embedded_llm.tokenizer, api=api)
        config = TrainConfig(iterations=1, batch_size=2, rollouts=2, baseline="none")
        (metrics,) = Reinforce(made, Few(), config, tmp_path / "out").train(progress=False)
        assert metrics["rollouts"] == 4 and metrics["tokens_api_read"] > 0 and metrics["tokens_api_written"] > 0
        assert metrics["not_trained"] == ([] if mode == "hybrid" else ["fuser"])
        assert len(server.seen) == 1 + 4
