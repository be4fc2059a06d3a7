"""Documents that are read without the question: one cache for all questions, kept in a store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from toy import QUESTIONS, toy_built

from gcache.build import Built, build
from gcache.cache.kv_cache import SHARED
from gcache.config import GraphSpec
from gcache.errors import ConfigError
from gcache.evaluation.read_documents import read_documents
from gcache.gnn.topology import Edge, Topology
from gcache.graph.cache_graph import CacheGraph
from gcache.graph.run_config import GraphConfig
from gcache.llm.cache_budget import Limits
from gcache.llm.cache_store import CacheStore, ModelStore
from gcache.llm.local import LocalLLM
from gcache.llm.requests import GenerateRequest, ThinkRequest
from gcache.tasks.example import Example, Note

TEXTS = ("the box has 3 red apples", "there are 2 blue apples", "she has 4 green apples and 1 box")
NOTES = tuple(Note(f"note {n}", "a note", text) for n, text in enumerate(TEXTS))
STAR = Topology(3, tuple(Edge(n, 3) for n in range(3)))
ONE = Topology(3, (Edge(1, 3),))


def asked(question: str) -> Example:
    return Example(question, question, "", NOTES)


def last(llm: LocalLLM, tokenizer: Any, **config: Any) -> Built:
    made = GraphConfig(**{"latent_steps": 0, "max_new_tokens": 4, "question_order": "last", **config})
    return toy_built(llm, tokenizer, graph=made)


@pytest.fixture
def stored(tiny_llm: LocalLLM, tmp_path: Path) -> Any:
    """A model whose caches are kept in a folder, which nothing is read from memory of."""
    tiny_llm.store = ModelStore(CacheStore(tmp_path / "store", 1e9, 0), "tiny")
    yield tiny_llm
    tiny_llm.store = None


@pytest.mark.parametrize("turn", ["new", "same"])
def test_one_document_is_a_plain_prompt(tiny_llm: LocalLLM, tiny_tokenizer: Any, turn: str) -> None:
    graph = last(tiny_llm, tiny_tokenizer, decision_turn=turn).graph
    assert isinstance(graph, CacheGraph)
    result = graph.run(asked(QUESTIONS[0]), topology=ONE)
    decision = graph.decision
    tokens = graph.layout.in_one(QUESTIONS[0], TEXTS[1], decision.instructions, decision.answer_prefix, turn)
    (plain,) = tiny_llm.generate([GenerateRequest(tokens, None, 4)])
    assert result.spoken[0].generation is not None and result.spoken[0].generation.tokens == plain.tokens


def test_what_is_read_does_not_depend_on_the_question(tiny_llm: LocalLLM, tiny_tokenizer: Any) -> None:
    graph = last(tiny_llm, tiny_tokenizer).graph
    one, other = (graph.run(asked(question), topology=STAR) for question in QUESTIONS[:2])
    for node, prompt in one.prompts.items():
        assert prompt == other.prompts[node]
    first = last(tiny_llm, tiny_tokenizer, question_order="first").graph
    assert first.run(asked(QUESTIONS[0]), topology=STAR).prompts.keys() == one.prompts.keys()


@pytest.mark.parametrize("steps", [0, 2])
def test_a_store_changes_no_answer_and_no_document_is_read_twice(
    stored: LocalLLM, tiny_tokenizer: Any, steps: int
) -> None:
    graph = last(stored, tiny_tokenizer, latent_steps=steps).graph
    keeping, store = stored.store, stored.store.store  # type: ignore[union-attr]
    found = [graph.run(asked(question), topology=STAR) for question in QUESTIONS[:4]]
    assert store.made == 4 and store.found == 3 * 4  # the opening and three documents
    stored.store = None
    bare = [graph.run(asked(question), topology=STAR) for question in QUESTIONS[:4]]
    assert [r.answer for r in found] == [r.answer for r in bare]
    stored.store = keeping


def test_tokens_of_kept_caches_are_counted_apart(stored: LocalLLM, tiny_tokenizer: Any) -> None:
    graph = last(stored, tiny_tokenizer).graph
    cold, warm = (graph.run(asked(QUESTIONS[0]), topology=STAR) for _ in range(2))
    stored.store = None
    bare = graph.run(asked(QUESTIONS[0]), topology=STAR)
    assert (cold.tokens, cold.stored) == (warm.tokens, warm.stored) and bare.stored == 0
    assert warm.tokens["prefilled"] + warm.stored == bare.tokens["prefilled"]
    decision = graph.decision_tokens(QUESTIONS[0])  # type: ignore[attr-defined]
    assert warm.tokens["prefilled"] == len(decision)


def test_who_hears_somebody_is_not_kept(stored: LocalLLM, tiny_tokenizer: Any) -> None:
    graph = last(stored, tiny_tokenizer).graph
    chain = Topology(3, (Edge(0, 1), Edge(1, 3)))
    for _ in range(2):
        graph.run(asked(QUESTIONS[0]), topology=chain)
    assert stored.store is not None and stored.store.store.made == 2  # the opening and the first document


def test_documents_read_beforehand_are_those_of_the_run(stored: LocalLLM, tiny_tokenizer: Any) -> None:
    graph = last(stored, tiny_tokenizer).graph
    assert isinstance(graph, CacheGraph) and stored.store is not None
    done: list[int] = []
    long = Note("long", "a note", "red apples " * 3000)
    found = read_documents(graph, [*NOTES, long], lambda: done.append(1))
    assert [note.role for note, _ in found.failed] == ["long"]
    assert len(set(found.keys)) == 4 and all(stored.store.store.files.path(key).exists() for key in found.keys)
    assert len(done) == 4
    made = stored.store.store.made
    graph.run(asked(QUESTIONS[0]), topology=STAR)
    assert stored.store.store.made == made


def test_the_opening_is_shared(tiny_llm: LocalLLM, tiny_tokenizer: Any) -> None:
    graph = last(tiny_llm, tiny_tokenizer).graph
    result = graph.run(asked(QUESTIONS[0]), topology=STAR)
    shared = result.shared
    assert shared is not None and shared.makers == {SHARED} and shared.slots == len(graph.layout.question(""))


@pytest.mark.parametrize(
    "config, channels",
    [({"hands": "text"}, ()), ({"hands": "reasoning", "latent_steps": 0}, ()), ({}, ("cache", "reasoning"))],
)
def test_agents_that_answer_must_have_read_the_question(config: dict[str, Any], channels: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match=r"question='last'.*question='first'"):
        GraphSpec(graph=GraphConfig(question_order="last", **config), channels=channels)


def test_a_store_is_for_one_model_in_one_dtype(model_folder: Path, tmp_path: Path) -> None:
    limits, last = Limits(store=str(tmp_path / "store")), GraphConfig(question_order="last")
    keys = []
    for dtype in ("float32", "bfloat16", "float32"):
        made = build(GraphSpec(llm_name=str(model_folder), topology="star", dtype=dtype, graph=last), limits)
        assert made.llm is not None and made.llm.store is not None
        keys.append(made.llm.store.key(ThinkRequest((5, 6))))
    assert None not in keys and keys[0] == keys[2] != keys[1]


def test_with_the_question_first_nothing_is_kept(
    model_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Caches depend on the question then, and reading each alone would take batches away."""
    built = build(GraphSpec(llm_name=str(model_folder), topology="star"), Limits(store=str(tmp_path / "store")))
    assert built.llm is not None and built.llm.store is None and not (tmp_path / "store").exists()
    assert "with --question first caches depend on the question" in caplog.text


def test_the_memory_of_a_store_stays_within_the_limit_of_caches(model_folder: Path, tmp_path: Path) -> None:
    spec = GraphSpec(llm_name=str(model_folder), topology="star", graph=GraphConfig(question_order="last"))
    built = build(spec, Limits(store=str(tmp_path / "store"), max_cache_gb=0.25))
    assert built.llm is not None and built.llm.store is not None
    assert built.llm.store.store.memory_bytes == 0.25 * 2**30 / 4
