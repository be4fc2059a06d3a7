"""Whether a question fits is known before it is computed, to the position."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from toy import QUESTIONS

from gcache.agents.decision import DecisionMaker
from gcache.build import Built
from gcache.config import GraphSpec
from gcache.gnn.providers import FixedProvider
from gcache.graph.context_length import AROUND_WORDS
from gcache.graph.run_config import GraphConfig
from gcache.graph.text_backends import LocalTextBackend
from gcache.graph.text_graph import TextGraph
from gcache.llm.local import LocalLLM
from gcache.llm.requests import GenerateRequest
from gcache.serve.context_length import check_characters, check_room
from gcache.serve.model import ServedModel
from gcache.serve.refusals import Refused

QUESTION = QUESTIONS[0]


def fits(built: Built, graph: Any, positions: int, monkeypatch: pytest.MonkeyPatch) -> bool:
    with monkeypatch.context() as patched:
        patched.setattr(LocalLLM, "context", positions)
        try:
            check_room(ServedModel("toy", graph, built.llm), QUESTION, graph.agents, graph.topology(QUESTION), 5)
        except Refused:
            return False
    return True


def taken(graph: Any, batching: Any, monkeypatch: pytest.MonkeyPatch) -> int:
    """The positions that a run may take, by what the model is asked."""
    ends: list[int] = []

    def noted(ask: Any) -> Any:
        def noting(request: Any) -> Any:
            start = 0 if request.past is None else int(request.past.next_positions[0])
            later = request.latent_steps
            if isinstance(request, GenerateRequest):  # what is handed on of a text lacks its last token
                later += request.max_new_tokens - (request.owner is not None)
            ends.append(start + len(request.tokens) + later)
            return ask(request)

        return noting

    for name in ("think", "generate"):
        monkeypatch.setattr(batching, name, noted(getattr(batching, name)))
    graph.run(QUESTION, max_new_tokens=5)
    return max(ends)


@pytest.mark.parametrize(
    ("positions", "transfer", "hands"),
    [
        ("parallel", "own", "cache"), ("parallel", "context", "cache"), ("sequential", "own", "cache"),
        ("parallel", "own", "reasoning"), ("sequential", "own", "reasoning"),
    ],
)  # fmt: skip
def test_what_fits_is_what_the_run_takes(
    toy: Callable[..., Built], llm: LocalLLM, monkeypatch: pytest.MonkeyPatch, positions: str, transfer: str, hands: str
) -> None:
    """Solutions are as long as they may be: nothing ends one."""
    monkeypatch.setattr(llm, "stop_tokens", frozenset())
    config = GraphConfig(latent_steps=2, transfer=transfer, hands=hands, reason_tokens=7, num_rounds=2)
    found = set()
    for topology in ("none", "chain", "star", "full", "debate"):
        built = toy(llm, topology=topology, positions=positions, graph=config)
        needed = taken(built.graph, built.graph.llm, monkeypatch)
        assert fits(built, built.graph, needed, monkeypatch), topology
        assert not fits(built, built.graph, needed - 1, monkeypatch), topology
        found.add(needed)
    assert len(found) > 2


def test_texts_on_the_edges_are_counted_at_their_longest(
    toy: Callable[..., Built], llm: LocalLLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = GraphConfig(latent_steps=2, hands="both", speak_tokens=9)
    both: Any = toy(llm, graph=config).graph
    speaker = LocalTextBackend(llm, llm.tokenizer)
    decision = DecisionMaker("you answer", "what is the answer ?")
    config = GraphConfig(hands="text", speak_tokens=9)
    alone = TextGraph(speaker, both.agents, decision, FixedProvider("chain"), config)
    for graph, batching in ((both, both.llm), (alone, speaker.llm)):
        needed = taken(graph, batching, monkeypatch)
        monkeypatch.undo()
        built = Built(GraphSpec(), graph, llm, None, "")
        room = next(n for n in range(1, 512) if fits(built, graph, n, monkeypatch))
        assert needed <= room < needed + 6 * (9 + AROUND_WORDS)


def test_a_text_of_megabytes_is_not_made_tokens_of(toy: Callable[..., Built], monkeypatch: pytest.MonkeyPatch) -> None:
    built = toy()
    served = ServedModel("toy", built.graph, built.llm)
    longest = max(len(token) for token in built.graph.layout.tokenizer.get_vocab())
    check_characters(served, "a" * (512 * longest))
    with pytest.raises(Refused, match="context has 512"):
        check_characters(served, "a" * (512 * longest + 1))
