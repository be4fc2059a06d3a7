"""Ten documents and a question: time to the first token with their caches in a store, beside all of them as text.

    python -m benchmarks --only documents --models MODEL.gguf --questions 16 --repeats 3

A document is about `WORDS` words of other questions of the data, so its content means nothing; only its length does.
Questions are asked one after another, each up to the first token of its answer. The store is warm, and holds nothing
in memory: every cache is read from its file, checked and handed over. `two of them` is what a graph pays that has
learned whom to hear.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.setting import Bench
from benchmarks.timing import interleaved, ratios
from gcache.build import assemble
from gcache.config import GraphSpec
from gcache.evaluation.read_documents import read_documents
from gcache.gnn.topology import Edge, Topology
from gcache.graph.cache_graph import CacheGraph
from gcache.graph.run_config import GraphConfig
from gcache.llm.cache_store import CacheStore, ModelStore
from gcache.llm.requests import GenerateRequest
from gcache.tasks.example import Example, Note

DOCUMENTS, WORDS = 10, 90
TEXT, STORE, TWO = "all as text", "all from the store", "two of them from the store"
#: Of the store: more than is ever put there.
MOST_BYTES = 2.0**40


def measure(bench: Bench) -> dict[str, Any]:
    """Seconds to the first token, tokens read and bytes read from files, per question."""
    examples = with_documents(bench.examples)
    config = GraphConfig(latent_steps=0, max_new_tokens=1, question_order="last")
    graph = assemble(
        GraphSpec(domain="reading", topology="star", graph=config), bench.llm, bench.loaded.tokenizer
    ).graph
    assert isinstance(graph, CacheGraph)
    with tempfile.TemporaryDirectory() as folder:
        store = CacheStore(Path(folder), MOST_BYTES, memory_bytes=0)
        bench.llm.store = ModelStore(store, bench.loaded.fingerprint)
        try:
            read_documents(graph, [note for example in examples for note in example.notes])
            return _measured(bench, graph, examples, store)
        finally:
            bench.llm.store = None


def with_documents(examples: tuple[Example, ...]) -> list[Example]:
    """Questions with documents, each of words of other questions."""
    words = [word for example in examples for word in example.question.split()]
    length = WORDS * DOCUMENTS
    found = []
    for number, example in enumerate(examples):
        own = [words[(number * length + at) % len(words)] for at in range(length)]
        texts = [" ".join(own[at : at + WORDS]) for at in range(0, length, WORDS)]
        # no two documents are one, whatever the data repeats
        names = [f"note {number}-{n}" for n in range(DOCUMENTS)]
        notes = [Note(name, "A note.", f"{name}: {text}") for name, text in zip(names, texts, strict=True)]
        found.append(replace(example, notes=tuple(notes)))
    return found


def _measured(bench: Bench, graph: CacheGraph, examples: list[Example], store: CacheStore) -> dict[str, Any]:
    tokens = {name: 0 for name in (TEXT, STORE, TWO)}
    read = dict(tokens)

    def as_text() -> None:
        tokens[TEXT] = 0
        for example in examples:
            decision = graph.decision
            asked = graph.layout.in_one(
                example.question, "\n".join(note.text for note in example.notes), decision.instructions,
                decision.answer_prefix, graph.config.decision_turn,
            )  # fmt: skip
            bench.llm.generate([GenerateRequest(asked, None, 1)])
            tokens[TEXT] += len(asked)

    def from_store(name: str, heard: int) -> Callable[[], None]:
        def run() -> None:
            star = Topology(DOCUMENTS, tuple(Edge(number, DOCUMENTS) for number in range(heard)))
            before, tokens[name] = store.read_bytes, 0
            for example in examples:
                result = graph.run(example, topology=star, keep_caches=False)
                tokens[name] += result.tokens["prefilled"]
            read[name] = store.read_bytes - before

        return run

    runs = {TEXT: as_text, STORE: from_store(STORE, DOCUMENTS), TWO: from_store(TWO, 2)}
    for run in runs.values():  # whatever is compiled or allocated once
        run()
    rounds = interleaved(runs, bench.settings.repeats)
    n = len(examples)
    seconds = {name: [taken / n for taken, _ in found] for name, found in rounds.items()}
    return {
        "reference": TEXT, "documents": DOCUMENTS,
        "systems": [
            {
                "name": name, "seconds": seconds[name], "ratio": ratios(seconds[name], seconds[TEXT]),
                "prefilled": tokens[name] / n, "bytes_read": read[name] / n,
            }
            for name in runs
        ],
    }  # fmt: skip
