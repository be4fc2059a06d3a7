"""Questions over documents: which a question is given, what the answer attended to, and what the page shows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
import torch
from browser import Watched, ask, chromium, watched  # noqa: F401
from playwright.sync_api import expect

from gcache.build import Built
from gcache.commands.main import main
from gcache.errors import ConfigError, DataError, WriteError
from gcache.gnn.features import HashEncoder
from gcache.gnn.providers import FixedProvider
from gcache.graph.cache_graph import CacheGraph
from gcache.graph.run_config import GraphConfig
from gcache.inspect.attended_words import _whole_words, attended
from gcache.llm.cache_store import CacheStore, ModelStore
from gcache.llm.local import LocalLLM
from gcache.serve.library import PASSAGE, Library, passages
from gcache.serve.model import ServedModel
from gcache.serve.refusals import refused
from gcache.tasks.example import Example, Note

TEXTS = {
    "box": "the box has 3 red apples", "blue": "there are 2 blue apples", "she": "she has 4 green apples",
    "sum": "find the sum of the three",
}  # fmt: skip
NOTES = tuple(Note(title, f"{title}: {text}", text) for title, text in TEXTS.items())
LAST = GraphConfig(latent_steps=0, max_new_tokens=4, question_order="last")


class Counts:
    """An encoder: how often a text has some words, at unit length."""

    WORDS = ("red", "blue", "green", "sum")
    dim = len(WORDS)

    def encode(self, texts: Any) -> torch.Tensor:
        counted = torch.tensor([[float(text.split().count(word)) for word in self.WORDS] for text in texts])
        return torch.nn.functional.normalize(counted, dim=1)


@pytest.mark.parametrize(
    "nearest, question, numbers",
    [
        (1, "is it blue ?", [1]), (2, "red or green ?", [0, 2]), (4, "blue", [0, 1, 2, 3]), (0, "blue", [0, 1, 2, 3]),
        (9, "blue", [0, 1, 2, 3]),
    ],
)  # fmt: skip
def test_a_question_is_given_the_nearest(nearest: int, question: str, numbers: list[int]) -> None:
    library = Library(NOTES, nearest, Counts())
    given = library.given(Example("q", question, ""))
    assert library.numbers(question) == numbers and given.notes == tuple(NOTES[number] for number in numbers)
    own = Example("q", question, "", NOTES[:1])
    assert library.given(own) is own  # it brings agents of its own


def test_a_long_document_is_as_near_as_its_nearest_passage() -> None:
    long = "apples " * (5 * PASSAGE) + "blue"
    library = Library([Note("a", "", "red apples"), Note("long", "", long), *NOTES[2:]], 1, Counts())
    assert library.numbers("blue") == [1]


@pytest.mark.parametrize("count", [1, PASSAGE - 1, PASSAGE, PASSAGE + 1, 5 * PASSAGE + 7])
def test_passages_have_every_word(count: int) -> None:
    words = [str(number) for number in range(count)]
    found = passages(" ".join(words))
    assert all(len(passage.split()) <= PASSAGE for passage in found)
    assert {word for passage in found for word in passage.split()} == set(words)
    assert found[0].split() == words[:PASSAGE]


def test_no_documents_or_less_than_none() -> None:
    with pytest.raises(ConfigError, match="there are no documents"):
        Library([], 2, HashEncoder())
    with pytest.raises(ConfigError, match="nearest"):
        Library(NOTES, -1, HashEncoder())


@pytest.fixture
def over_documents(
    toy: Callable[..., Built], tiny_llama: Any, tiny_tokenizer: Any, tmp_path: Path
) -> Callable[..., ServedModel]:
    """What makes a served graph over the documents."""

    def make(nearest: int = 2, graph: GraphConfig = LAST) -> ServedModel:
        llm = LocalLLM(tiny_llama, tiny_tokenizer, "tiny")
        llm.store = ModelStore(CacheStore(tmp_path / "store", 1e9), "tiny")
        built = toy(llm, topology="star", graph=graph)
        built.graph.agents = ()
        assert isinstance(built.graph.topology_provider, FixedProvider)
        return ServedModel.of(built, "toy", Library(NOTES, nearest, Counts()))

    return make


def test_documents_are_read_before_anybody_asks(start: Any, over_documents: Callable[..., ServedModel]) -> None:
    server = start(over_documents)
    served = server.service.served
    store = served.llm.store.store
    assert store.made == 1 + len(NOTES)
    body = server.ask("is it blue or red ?", gcache={"trace": True})
    assert store.made == 1 + len(NOTES) and store.found >= 3
    assert [agent["role"] for agent in body["gcache"]["agents"]] == ["box", "blue", "decision maker"]
    heard = body["gcache"]["heard"]
    assert {each["role"] for each in heard} == {"box", "blue"}
    assert sum(each["share"] for each in heard) == pytest.approx(1)
    assert [each["share"] for each in heard] == sorted((each["share"] for each in heard), reverse=True)
    for each in heard:
        words = [word["word"] for word in each["words"]]
        assert words and set(words) <= set(TEXTS[each["role"]].split())
        assert words[0] != TEXTS[each["role"]].split()[0]  # the first slot is left out
        assert sum(word["share"] for word in each["words"]) <= each["share"]


def test_without_a_trace_nothing_is_looked_into(start: Any, over_documents: Callable[..., ServedModel]) -> None:
    server = start(over_documents)
    assert "gcache" not in server.ask("is it blue ?")


def test_agents_of_a_request_come_before_the_documents(start: Any, over_documents: Callable[..., ServedModel]) -> None:
    agents = [{"role": "own", "note": "she has 1 box"}]
    body = start(over_documents).ask("is it blue ?", gcache={"trace": True, "agents": agents})
    assert [agent["role"] for agent in body["gcache"]["agents"]] == ["own", "decision maker"]


def test_who_would_hand_to_whom(start: Any, over_documents: Callable[..., ServedModel]) -> None:
    answer = start(over_documents).post("/v1/topology", question="is it green ?")
    assert [agent["role"] for agent in answer.json()["agents"]] == ["box", "she", "decision maker"]


def test_a_graph_that_reads_the_question_first_reads_nothing_beforehand(
    over_documents: Callable[..., ServedModel], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        served = over_documents(graph=GraphConfig(latent_steps=0, max_new_tokens=4))
    assert served.llm is not None and served.llm.store is not None and served.llm.store.store.made == 0
    assert "none is read beforehand" in caplog.text


def test_a_document_that_is_too_long_is_named(
    toy: Callable[..., Built], tiny_llama: Any, tiny_tokenizer: Any, tmp_path: Path
) -> None:
    llm = LocalLLM(tiny_llama, tiny_tokenizer, "tiny")
    llm.store = ModelStore(CacheStore(tmp_path, 1e9), "tiny")
    long = Note("the long one", "", "red apples " * 3000)
    with pytest.raises(DataError, match="1 of 5 documents cannot be read; the first, 'the long one'"):
        ServedModel.of(toy(llm, topology="star", graph=LAST), "toy", Library([*NOTES, long], 2, Counts()))


def test_attention_is_that_of_the_slots(tiny_llm: LocalLLM, toy: Callable[..., Built]) -> None:
    """Shares and words, beside the attention that they are of."""
    graph = toy(tiny_llm, topology="star", graph=LAST).graph
    assert isinstance(graph, CacheGraph)
    result = graph.run(Example("q", "is it blue ?", "", NOTES[:3]))
    found = attended(graph, tiny_llm, result, most=100)
    assert sorted(each.agent for each in found) == [0, 1, 2] and sum(each.share for each in found) == pytest.approx(1)
    for each in found:
        text = list(TEXTS.values())[each.agent].split()
        assert [word for word, _ in each.words] == text[1:]  # all of them, in their order, but for the first


def test_the_page_shows_what_was_heard(
    start: Any, over_documents: Callable[..., ServedModel], watched: Callable[..., Watched]  # noqa: F811
) -> None:
    server = start(over_documents)
    made = watched()
    page = made.page
    page.goto(server.url)
    expect(page.locator("#heard-section")).to_be_hidden()
    ask(page, "is it blue or red ?")
    expect(page.locator("#heard-section")).to_be_visible()
    known = server.ask("is it blue or red ?", gcache={"trace": True})["gcache"]["heard"]
    items = page.locator("#heard li")
    assert items.count() == len(known) == 2
    for number, each in enumerate(known):
        assert items.nth(number).locator(".title span").first.text_content() == each["role"]
        marks = items.nth(number).locator("mark").evaluate_all("all => all.map(e => e.textContent)")
        assert marks == [word["word"] for word in each["words"]]
    assert page.locator("g.node").count() == 3 and made.errors == []
    page.get_by_text("Agents of this question").click()
    page.locator("#add").click()
    page.get_by_label("Role of agent 1").fill("own")
    page.get_by_label("Note that it alone has of agent 1").fill("she has 1 box")
    ask(page, "is it blue ?")
    expect(page.locator("#heard li")).to_have_count(1)


@pytest.mark.parametrize(
    "flags, error",
    [
        (["--documents", "nowhere"], "nowhere"),
        (["--documents", ".", "--nearest", "-1"], "--nearest must be 0 (all) or more, got -1"),
        (["--nearest", "3"], "--nearest: this is of documents; name them by --documents"),
        (["--documents", ".", "--hands", "text"], "--documents are handed on as caches"),
        (["--documents", ".", "--generation_mode", "api"], "--documents are handed on as caches"),
    ],
)
def test_bad_flags_are_one_line(
    flags: list[str], error: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    (tmp_path / "a.txt").write_text("the box is red")
    monkeypatch.chdir(tmp_path)
    assert main(["serve", *flags]) == 2
    assert error in capsys.readouterr().err


@pytest.mark.parametrize(
    "given, expected",
    [
        ([], ("chain", "first", 2, "maths")), (["--documents", "."], ("star", "last", 0, "reading")),
        (["--documents", ".", "--question", "first", "--topology", "chain", "--latent_steps", "2"],
         ("chain", "first", 2, "reading")),
        (["--question", "last"], ("chain", "last", 2, "maths")),
    ],
)  # fmt: skip
def test_what_is_given_holds(
    given: list[str], expected: tuple[str, str, int, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A flag that is given at its usual value is given, too."""
    (tmp_path / "a.txt").write_text("the box is red")
    monkeypatch.chdir(tmp_path)
    found: list[Any] = []
    monkeypatch.setattr("gcache.build.build", lambda spec, *_: found.append(spec) or (_ for _ in ()).throw(OSError()))
    monkeypatch.setattr("gcache.serve.server.serve", lambda name, settings, load, told: load())
    with pytest.raises(OSError):
        main(["serve", *given])
    (spec,) = found
    assert (spec.topology, spec.graph.question_order, spec.graph.latent_steps, spec.domain) == expected


def test_what_clients_bring_is_not_kept(start: Any, over_documents: Callable[..., ServedModel]) -> None:
    server = start(over_documents)
    store = server.service.served.llm.store.store
    before = len(store.files), store.made
    agents = [{"role": "own", "note": "she has 1 box"}]
    server.ask("is it blue ?", gcache={"trace": True, "agents": agents})
    assert (len(store.files), store.made) == before


def test_a_store_that_cannot_be_written_is_no_fault_of_the_client() -> None:
    told = refused(WriteError("/secret/path cannot be written (No space left on device)"))
    assert told.status == 500 and "secret" not in told.message


def test_an_answer_is_given_though_it_cannot_be_looked_into(
    start: Any, over_documents: Callable[..., ServedModel], monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    def fails(*_: Any) -> None:
        raise RuntimeError("out of memory")

    server = start(over_documents)
    expected = server.ask("is it blue or red ?")["choices"][0]["message"]["content"]
    monkeypatch.setattr("gcache.serve.answers.attended", fails)
    body = server.ask("is it blue or red ?", gcache={"trace": True})
    assert body["choices"][0]["message"]["content"] == expected
    assert [(each["role"], each["share"], each["words"]) for each in body["gcache"]["heard"]] == [
        ("box", None, []), ("blue", None, []),
    ]  # fmt: skip
    assert "what the answer attended to cannot be told: out of memory" in caplog.text


def test_a_trace_says_what_was_kept(start: Any, over_documents: Callable[..., ServedModel]) -> None:
    steps = start(over_documents).ask("is it blue or red ?", gcache={"trace": True})["gcache"]["trace"]
    own = [step for step in steps if step["role"] in ("box", "blue")]
    assert len(own) == 2 and all(step["stored"] > 0 and step["prefilled"] == 0 for step in own)


class Pieces:
    """A tokenizer whose tokens are bytes."""

    @staticmethod
    def text(tokens: Any) -> str:
        return bytes(tokens).decode("utf-8", "replace")


@pytest.mark.parametrize(
    "text, words",
    [
        ("a red box", ["a", "red", "box"]), ("Erd\u0151s wrote", ["Erd\u0151s", "wrote"]),
        ("(1640)\u201316 April", ["(", "1640", ")", "\u2013", "16", "April"]),
        ("\u6771\u4eac x", ["\u6771", "\u4eac", "x"]),
        ("\U0001f389 box", ["\U0001f389", "box"]), ("1317-18", ["1317-18"]),
    ],
)  # fmt: skip
def test_tokens_become_words(text: str, words: list[str]) -> None:
    """Letters of several tokens are whole; shares are those of all their tokens but the first one of all."""
    tokens = list(text.encode())
    found = _whole_words(Pieces(), tokens, [1.0] * len(tokens))  # type: ignore[arg-type]
    assert [word for word, _ in found if word] == words
    assert sum(share for _, share in found) == len(tokens) - 1


def test_the_service_answers_while_documents_are_there(start: Any, over_documents: Callable[..., ServedModel]) -> None:
    server = start(over_documents)
    assert httpx2.get(server.url + "/ready").json() == {"status": "ready"}
