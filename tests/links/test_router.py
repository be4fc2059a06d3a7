"""Which link a question goes over."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import CHAT_TEMPLATE
from safetensors.torch import save_file
from two_models import MANY_WORDS, model_of, tokenizer_of

from gcache.build import build
from gcache.commands.main import main
from gcache.config import GraphSpec
from gcache.errors import ConfigError, DataError
from gcache.graph.cache_graph import CacheGraph
from gcache.graph.run_config import GraphConfig
from gcache.links.router import ROUTES, Router, confusion, fit_router

QUESTIONS = {
    "classification": [f"Which of these labels fits the message about {w}? red; green." for w in MANY_WORDS[40:70]],
    "reasoning": [f"Ann has {n} boxes of {n + 2} apples and gives {n} away. How many has she?" for n in range(3, 20)],
}


@pytest.fixture(scope="module")
def router() -> Router:
    return fit_router(QUESTIONS, "hash")


def test_it_tells_the_two_apart(router: Router) -> None:
    assert confusion(router, QUESTIONS) == {
        "classification": {"classification": 30, "reasoning": 0}, "reasoning": {"classification": 0, "reasoning": 17},
    }  # fmt: skip
    assert router.route("Which of these labels fits the note about a lamp? one; two.") == "classification"
    assert router.route("Bob has 7 boxes of 31 pears and eats 5. How many are left?") == "reasoning"


def test_a_route_weighs_the_same_however_many_questions_it_has() -> None:
    many = {**QUESTIONS, "classification": QUESTIONS["classification"] * 20}
    one, other = fit_router(QUESTIONS, "hash"), fit_router(many, "hash")
    assert torch.allclose(one.weights, other.weights, atol=1e-2)


def test_what_was_saved_is_loaded(router: Router, tmp_path: Path) -> None:
    router.save(tmp_path / "new" / "r.safetensors")
    again = Router.load(tmp_path / "new" / "r.safetensors")
    assert torch.equal(again.weights, router.weights) and again.bias == router.bias


@pytest.mark.parametrize("harm", ["missing", "text", "foreign", "shape", "encoder"])
def test_a_broken_file_is_one_line(harm: str, tmp_path: Path) -> None:
    path = tmp_path / "r.safetensors"
    header = {"format": 1, "encoder": "magic" if harm == "encoder" else "hash", "bias": 0.0}
    if harm == "text":
        path.write_text("no")
    elif harm == "foreign":
        save_file({"weights": torch.ones(3)}, path)
    elif harm != "missing":
        save_file({"weights": torch.ones(3)}, path, {"gcache_router": json.dumps(header)})
    with pytest.raises(DataError, match=r"r\.safetensors") as caught:
        Router.load(path)
    assert "\n" not in str(caught.value)


def test_any_byte_of_it_is_missed(router: Router, tmp_path: Path) -> None:
    path = tmp_path / "r.safetensors"
    router.save(path)
    whole = path.read_bytes()
    for place in [*range(0, 250), *range(250, len(whole), 17)]:
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        try:
            found = Router.load(path)
        except DataError as error:
            assert "r.safetensors" in str(error) and "\n" not in str(error)
        else:
            assert torch.equal(found.weights, router.weights) and found.bias == router.bias


@pytest.mark.parametrize(
    ("bias", "dtype"),
    [("0", torch.float32), (True, torch.float32), (None, torch.float32), (float("nan"), torch.float32),
     (0.0, torch.float64), (0.0, torch.int64)],
)  # fmt: skip
def test_values_of_other_types_are_refused(router: Router, tmp_path: Path, bias: object, dtype: torch.dtype) -> None:
    header = {"format": 1, "encoder": "hash", "bias": bias}
    save_file({"weights": router.weights.to(dtype)}, tmp_path / "r", {"gcache_router": json.dumps(header)})
    with pytest.raises(DataError, match=r"has the bias|has weights"):
        Router.load(tmp_path / "r")


def test_a_route_without_questions_is_refused() -> None:
    with pytest.raises(ConfigError, match="no question is of the route 'reasoning'"):
        fit_router({"classification": ["which?"], "reasoning": []}, "hash")


LABELS = ("blue", "red", "green", "white", "black")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models, and data of a task for each route."""
    root = tmp_path_factory.mktemp("routes")
    words = tokenizer_of(MANY_WORDS)
    words.chat_template = CHAT_TEMPLATE
    for name, settings in (("big", {"hidden_size": 48, "head_dim": 12}), ("small", {})):
        model_of(160, seed=len(name), **settings).save_pretrained(root / name)
        words.save_pretrained(root / name)
    rows = "".join(f"what is word{n} ?,{LABELS[n % len(LABELS)]}\n" for n in range(60))
    (root / "bank.csv").write_text("text,category\n" + rows)
    asked = [{"question": f"Ann has {n} boxes and {n + 1} pears. How many?", "answer": f"#### {n}"} for n in range(60)]
    (root / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asked))
    return root


def test_questions_go_where_the_router_says(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GCACHE_HOME", str(tmp_path / "home"))
    models = ["--llm_name", str(folder / "big"), "--agent_models", str(folder / "small"), "--dtype", "float32"]
    link, route = tmp_path / "link.safetensors", tmp_path / "route.safetensors"
    fit = ["fit-perceiver", "--task", "banking77", "--data", str(folder / "bank.csv"), *models, "--out", str(link)]
    assert main([*fit, "--steps", "2", "--held_out", "2", "--width", "16", "--queries", "3"]) == 0
    tasks = ["--classification", f"banking77={folder / 'bank.csv'}", "--reasoning", f"gsm8k={folder / 'sums.jsonl'}"]
    router = ["fit-router", *tasks, "--encoder", "hash", "--out", str(route)]
    capsys.readouterr()
    (tmp_path / "news.csv").write_text("text,label\n" + "".join(f"story {n},{n % 4}\n" for n in range(40)))
    unseen = ["--unseen_classification", f"ag_news={tmp_path / 'news.csv'}", "--unseen_reasoning", "split_facts"]
    assert main([*router, *unseen, "--limit", "30", "--json", str(tmp_path / "table.json")]) == 0
    printed = capsys.readouterr().out
    written = json.loads((tmp_path / "table.json").read_text())
    table = written["confusion"]
    news, facts = table.pop("ag_news (unseen classification)"), table.pop("split_facts (unseen reasoning)")
    assert 5 < sum(news.values()) <= 11  # two labels or more of four: each question counts once
    assert sum(facts.values()) > 30  # of both splits
    assert set(table) == set(ROUTES)
    asked = written["questions"]["classification"]
    assert asked["train"] + asked["test"] <= 26  # two labels or more of five, and no question in both
    for actual, row in table.items():
        assert f"| {actual} | {row['classification']} | {row['reasoning']} |" in printed
        assert row[actual] == sum(row.values()) == written["questions"][actual]["test"] > 0
    spec = GraphSpec(
        llm_name=str(folder / "big"), agent_models=(str(folder / "small"),), dtype="float32", topology="star",
        link="text", link_file=(str(link),), route="auto", route_file=str(route),
        graph=GraphConfig(latent_steps=1, max_new_tokens=3, speak_tokens=2),
    )  # fmt: skip
    assert GraphSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec
    graph = build(spec).graph
    assert isinstance(graph, CacheGraph)
    labels = graph.run("What is the customer's message about? blue; red.")
    sums = graph.run("Ann has 9 boxes and 4 apples. How many?")
    assert set(labels.edge_bytes) == {(i, 4) for i in range(4)} and not labels.said
    assert not sums.edge_bytes and len(sums.said) == 4
    assert {cache.slots for cache in labels.kept.carried().values()} == {3}


@pytest.mark.parametrize(
    ("flags", "error"),
    [
        (["--route", "auto"], "--route auto sends some questions over a perceiver"),
        (["--route", "always"], "unknown route 'always'"),
        (["--route_file", "x"], "nothing is routed; add --route auto"),
    ],
)
def test_half_a_route_is_refused(flags: list[str], error: str, folder: Path, capsys: Any) -> None:
    model = ["--llm_name", str(folder / "big"), "--agent_models", str(folder / "small")]
    assert main(["run", "what is it ?", *model, *flags]) == 2
    assert error in capsys.readouterr().err
