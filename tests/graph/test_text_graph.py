"""Agents that hand each other text through an API: the baseline without any cache."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from chat_server import Behaviour, ChatServer, fails, says, serving
from toy import AGENTS, DECISION, QUESTIONS, ToyTask

from gcache.build import build
from gcache.commands.main import main
from gcache.config import GraphSpec
from gcache.errors import ApiError, ConfigError, GcacheError
from gcache.evaluation.evaluate import evaluate
from gcache.gnn.providers import FixedProvider
from gcache.gnn.topology import Edge, Topology
from gcache.graph.cache_graph import CacheGraph
from gcache.graph.run_config import GraphConfig
from gcache.graph.text_backends import ApiTextBackend
from gcache.graph.text_graph import TextGraph
from gcache.llm.api.client import ApiLLM, ApiSettings
from gcache.training.config import TrainConfig
from gcache.training.trainer import Reinforce

TEXT = GraphConfig(hands="text", max_new_tokens=7, speak_tokens=5)


@pytest.fixture(autouse=True)
def direct(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "BASE_URL", "API_MODEL", "API_KEY"):
        monkeypatch.delenv(name, raising=False)


def speaking(url: str, topology: str = "chain", config: GraphConfig = TEXT) -> TextGraph:
    speaker = ApiTextBackend(ApiLLM(ApiSettings("toy", url, retries=0)))
    return TextGraph(speaker, AGENTS, DECISION, FixedProvider(topology), config, "api")


def by_role(**texts: str) -> Behaviour:
    """What to say by the first word of the system's words."""

    def behave(handler: Any, body: dict[str, Any]) -> None:
        system = body["messages"][0]["content"]
        text = next((text for word, text in texts.items() if word in system), "final 5")
        (fails(400, "not today") if text == "FAIL" else says(text))(handler, body)

    return behave


def users_words(server: ChatServer, system: str) -> str:
    (found,) = [b["messages"][1]["content"] for b in server.seen if system in b["messages"][0]["content"]]
    return str(found)


def test_text_goes_along_the_edges() -> None:
    with serving(by_role(plan="a plan", find="a flaw", solve="a sum")) as server:
        result = speaking(server.base_url).run(QUESTIONS[0])
    assert result.answer == "final 5" and dict(result.said) == {(0, 0): "a plan", (0, 1): "a flaw", (0, 2): "a sum"}
    assert users_words(server, "plan each") == QUESTIONS[0]
    assert users_words(server, "find the") == f"{QUESTIONS[0]}\n\nOther agents said:\n- planner: a plan"
    assert users_words(server, "what is the answer") == f"{QUESTIONS[0]}\n\nOther agents said:\n- solver: a sum"
    assert [body["max_tokens"] for body in server.seen] == [5, 5, 5, 7]
    assert result.tokens == {"prefilled": 0, "latent": 0, "generated": 0, "api_read": 12, "api_written": 8}
    assert result.edge_bytes == {} and result.spoken[0].generation is None
    with pytest.raises(GcacheError, match="caches of this run are gone"):
        _ = result.caches


def test_who_is_not_heard_is_not_asked() -> None:
    with serving(says("x")) as server:
        result = speaking(server.base_url).run(QUESTIONS[0], topology=Topology(3, (Edge(1, 3),)))
    assert len(server.seen) == 2 and [step.what for step in result.trace].count("unheard") == 2


def test_an_agent_that_fails_is_gone_on_without_or_fails_the_run() -> None:
    with serving(by_role(plan="a plan", find="FAIL", solve="a sum")) as server:
        graph = speaking(server.base_url, "star")
        result = graph.run(QUESTIONS[0], lenient=True)
        words = users_words(server, "what is the answer")
        assert "- planner: a plan" in words and "- solver: a sum" in words and "critic" not in words
        (failed,) = [step for step in result.trace if step.what == "failed"]
        assert failed.role == "critic" and "not today" in failed.note and (0, 1) not in result.said
        with pytest.raises(ApiError, match="not today"):
            graph.run(QUESTIONS[0])
        found = evaluate(graph, ToyTask(right=frozenset({"final"})), ToyTask().test(2), progress=False, on_error="skip")
        assert (found.n, found.failed, found.accuracy) == (2, 0, 1.0)


def test_a_decision_maker_that_fails_is_no_answer() -> None:
    with serving(by_role(what="FAIL")) as server, pytest.raises(ApiError, match="not today"):
        speaking(server.base_url).run(QUESTIONS[0], lenient=True)


def spec(**values: Any) -> GraphSpec:
    return GraphSpec(
        **{"generation_mode": "api", "encoder": "hash", "hidden_dim": 8, "graph": TEXT, "agent_nums": 2, **values}
    )


def test_the_topology_learns_without_any_local_model(tmp_path: Path) -> None:
    with serving(says("sum 5"), says("box"), says("sum 5"), says("red")) as server:
        made = build(spec(), api=ApiLLM(ApiSettings("toy", server.base_url)))
        assert made.llm is None and isinstance(made.graph, TextGraph) and made.policy is not None
        before = [parameter.clone() for parameter in made.policy.parameters()]
        config = TrainConfig(iterations=2, batch_size=2, rollouts=2, baseline="none", checkpoint_every=1)
        history = Reinforce(made, ToyTask(), config, tmp_path / "out").train(progress=False)
        assert len(history) == 2 and history[0]["tokens_api_read"] > 0 and history[0]["tokens_prefilled"] == 0
        after = list(made.policy.parameters())
        assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))
        again = build(spec(), api=ApiLLM(ApiSettings("toy", server.base_url)))
        resumed = Reinforce(again, ToyTask(), config, tmp_path / "out")
        assert resumed.train(progress=False) == []
        for a, b in zip(after, again.policy.parameters(), strict=True):  # type: ignore[union-attr]
            assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"graph": GraphConfig()}, "in the mode 'api' the agents hand on text alone; add --hands text"),
        ({"generation_mode": "hybrid"}, "the mode 'hybrid' reads caches, but the agents hand on text alone"),
        ({"generation_mode": "api_hint"}, "the mode 'api_hint' reads caches"),
    ],
)
def test_modes_that_do_not_fit(values: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        spec(**values)


def test_a_local_model_may_speak_as_well(model_folder: Path) -> None:
    local = build(spec(generation_mode="local", llm_name=str(model_folder)))
    assert isinstance(local.graph, TextGraph) and local.llm is not None and not local.graph.learns
    assert isinstance(
        build(spec(generation_mode="local", llm_name=str(model_folder), graph=GraphConfig())).graph, CacheGraph
    )


def test_the_commands_train_evaluate_and_ask_through_the_api_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("gcache.build.load_model", lambda *_: pytest.fail("no local model is needed"))
    data, out = tmp_path / "train.jsonl", tmp_path / "out"
    rows = [{"question": f"What is {n} + 2?", "answer": f"#### {n + 2}"} for n in range(30)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with serving(says("#### 5")) as server:
        asked = ["--base_url", server.base_url, "--api_model", "toy", "--api_key", "sk-hidden", "--price_in", "2"]
        train = [
            "train", "--task", "gsm8k", "--data", str(data), "--out", str(out), "--generation_mode", "api",
            "--encoder", "hash", "--iterations", "1", "--batch_size", "1", "--rollouts", "2", *asked,
        ]  # fmt: skip
        assert main(train) == 0
        printed = capsys.readouterr()
        assert "API:        " in printed.out and "cost 0.00" in printed.out and "not trained" not in printed.out
        assert main(["eval", "--checkpoint", str(out), "--limit", "3", *asked]) == 0
        assert "api_read" in capsys.readouterr().out
        assert main(["run", "--checkpoint", str(out), "What is 3 + 2?", "--trace", *asked]) == 0
        assert capsys.readouterr().out.startswith("#### 5")
        for file in out.rglob("*"):
            assert file.is_dir() or b"sk-hidden" not in file.read_bytes(), file
        budget = [*train[:6], str(tmp_path / "other"), *train[7:], "--api_budget", "2requests"]
        assert main(budget) == 0
        assert "stopped after 0 of 1 steps: the API budget of 2 requests is spent" in capsys.readouterr().out
        assert main([*train, "--api_budget", "5"]) == 2
        assert "api_budget is a whole number and a unit" in capsys.readouterr().err
        assert main([*train, "--price_in", "-1"]) == 2
        assert "--price_in must be 0 or more, got -1" in capsys.readouterr().err
    assert main([*train, "--api_retries", "0"]) == 0  # done already: nothing is asked of a server that is gone
