"""The service's page, in a browser, against a server that speaks its protocol and waits where a test wants it to."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from browser import Watched, ask, chromium, watched  # noqa: F401
from playwright.sync_api import Page, expect

from gcache.serve.page import page as page_html

PATIENCE = 20.0
AGENTS = [{"number": 0, "role": "planner"}, {"number": 1, "role": "solver"}, {"number": 2, "role": "decision maker"}]
EDGES = [
    {"source": 0, "target": 1, "weight": 0.75, "probability": 0.75, "delay": 0, "channel": None},
    {"source": 1, "target": 2, "weight": 0.9, "probability": 0.9, "delay": 0, "channel": "latents"},
]
TOPOLOGY = {"kind": "topology", "agents": AGENTS, "edges": EDGES}
CARRIED = [{"source": 0, "target": 1, "bytes": 2048}, {"source": 1, "target": 2, "bytes": 512}]
DONE = {"kind": "done", "edge_bytes": CARRIED}
END = b"data: [DONE]\n\n"
ANSWER = ("She has 3 * 12 = 36 eggs.\n", "36 - 5 = <b>31</b>.", " \u2028#### 31")


def turn(agent: int) -> dict[str, Any]:
    return {"kind": "turn", "round": 0, "agent": agent}


def step(agent: int, what: str = "think", **more: Any) -> dict[str, Any]:
    role = AGENTS[agent]["role"] if agent >= 0 else "question"
    counts = {"prefilled": 30, "latent": 2, "generated": 0, "received": 0, "note": "", "reading": []}
    times = {"started": 0.25, "ended": 1.5}
    return {"kind": "step", "agent": agent, "role": role, "round": 0, "what": what, **times, **counts, **more}


def text(content: str, reason: str | None = None) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"content": content}, "finish_reason": reason}]}


@dataclass
class Fake:
    """What the server does: a list of chunks, each held back until its gate, where it has one, is opened.

    Attributes:
        script: (gate, what is sent): an event, a chunk, or raw bytes.
        refusal: status and body instead.
        key: without which, where it is set, there is no service.
        asked: bodies of the requests.
        hung_up: set when a client is found to be gone.
    """

    script: list[tuple[threading.Event | None, dict[str, Any] | bytes]] = field(default_factory=list)
    refusal: tuple[int, bytes] | None = None
    key: str | None = None
    asked: list[dict[str, Any]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    hung_up: threading.Event = field(default_factory=threading.Event)
    url: str = ""

    def says(self, *chunks: dict[str, Any] | bytes) -> None:
        """Nothing is held back."""
        self.script = [(None, chunk) for chunk in chunks]


def line(chunk: dict[str, Any] | bytes) -> bytes:
    """A server-sent event; events of gcache are put into a chunk without choices."""
    if isinstance(chunk, bytes):
        return chunk
    whole = {"choices": [], "gcache": chunk} if "kind" in chunk else chunk
    return b"data: " + json.dumps(whole, ensure_ascii=False).encode() + b"\n\n"


def handler_of(fake: Fake) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

        def reply(self, status: int, body: bytes, kind: str = "application/json") -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def refused(self) -> bool:
            if fake.key is None or self.headers["Authorization"] == f"Bearer {fake.key}":
                return False
            self.reply(401, json.dumps({"error": {"message": "This server wants its API key."}}).encode())
            return True

        def do_GET(self) -> None:
            fake.paths.append(self.path)
            if self.path == "/":
                self.reply(200, page_html().encode(), "text/html; charset=utf-8")
            elif not self.refused():
                self.reply(200, json.dumps({"object": "list", "data": [{"id": "tiny", "object": "model"}]}).encode())

        def do_POST(self) -> None:
            fake.paths.append(self.path)
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.refused():
                return
            fake.asked.append(json.loads(body))
            if fake.refusal:
                self.reply(*fake.refusal)
                return
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            try:
                for gate, chunk in fake.script:
                    if gate is not None:
                        self.wait(gate)
                    self.wfile.write(line(chunk))
                    self.wfile.flush()
            except OSError:
                fake.hung_up.set()

        def wait(self, gate: threading.Event) -> None:
            """For a gate, or for the client to be gone: a comment is sent now and then to find that out."""
            for _ in range(int(PATIENCE / 0.05)):
                if gate.wait(0.05):
                    return
                self.wfile.write(b": still here\n\n")
                self.wfile.flush()
            raise TimeoutError("no test opened the gate")

    return Handler


@pytest.fixture
def fake() -> Iterator[Fake]:
    made = Fake()
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler_of(made))
    server.daemon_threads = True
    made.url = f"http://127.0.0.1:{server.server_port}/"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield made
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def made(fake: Fake, watched: Callable[..., Watched]) -> Watched:  # noqa: F811
    """The page of the fake server."""
    made = watched()
    made.page.goto(fake.url)
    return made


def shows(page: Page, **states: str) -> None:
    """Waits until agents are in these states."""
    for name, state in states.items():
        expect(page.locator(f'g[data-node="{name[1:]}"]')).to_have_attribute("data-state", state)


def test_agents_light_up_in_turn_and_the_answer_grows(fake: Fake, made: Watched) -> None:
    gates = {name: threading.Event() for name in ("plan", "solve", "write", "more", "end")}
    fake.script = [
        (None, TOPOLOGY), (None, step(-1, prefilled=12, latent=0)), (None, turn(0)),
        (gates["plan"], step(0, reading=[[" eggs", "\n"], [" 36", " box"]])), (None, turn(1)),
        (gates["solve"], step(1, received=32)), (None, turn(2)),
        (gates["write"], text(ANSWER[0])), (gates["more"], text(ANSWER[1])), (None, text(ANSWER[2])),
        (gates["end"], step(2, "answer", generated=24)), (None, DONE), (None, text("", "stop")),
        (None, END),
    ]  # fmt: skip
    page = made.page
    ask(page)
    shows(page, _0="thinking", _1="waiting", _2="waiting")
    assert page.locator("path[data-edge]").count() == 2
    assert "0.90" in page.locator("#graph > svg").inner_html()
    expect(page.locator("#status")).to_have_text("planner thinks …")
    gates["plan"].set()
    shows(page, _0="done", _1="thinking", _2="waiting")
    page.locator('g[data-node="0"]').click()
    panel = page.locator("#panel")
    expect(panel.locator("ol.reading li")).to_have_count(2)
    assert all(part in panel.inner_text() for part in ("eggs", "36", "30 tokens", "1.25 s", "not a proof"))
    gates["solve"].set()
    shows(page, _1="done", _2="thinking")
    page.locator('g[data-node="1"]').click()
    expect(panel).to_contain_text("32 slots")
    gates["write"].set()
    expect(page.locator("#answer")).to_have_text(ANSWER[0].strip())
    gates["more"].set()
    expect(page.locator("#answer")).to_contain_text("31")
    shows(page, _2="thinking")
    gates["end"].set()
    shows(page, _2="done")
    expect(page.locator("#status")).to_contain_text("Done in")
    assert page.locator("#answer").evaluate("e => e.textContent") == "".join(ANSWER)
    assert "2.5 KiB" in page.locator("#status").inner_text()
    assert page.locator("#turns tbody tr").count() == 4
    assert page.locator("#ask").is_enabled() and page.locator("#stop").is_disabled()
    assert made.errors == []
    assert all(url.startswith(fake.url) for url in made.requests)
    assert set(fake.paths) == {"/", "/v1/models", "/v1/chat/completions"}


def test_what_is_sent(fake: Fake, made: Watched) -> None:
    fake.says(text("31", "stop"), END)
    page = made.page
    expect(page.locator("#model")).to_contain_text("tiny")
    ask(page, "one?")
    expect(page.locator("#status")).to_contain_text("Done")
    page.get_by_text("Settings").click()
    for name, value in {"temperature": "0.7", "seed": "3", "max_tokens": "64"}.items():
        page.locator(f"#{name}").fill(value)
    page.get_by_text("Agents of this question").click()
    page.locator("#add").click()
    page.locator("#add").click()
    agent = {"role": "asked", "description": "keeps the place", "note": "Ann is in Oslo"}
    for label, value in zip(("Role", "Description", "Note that it alone has"), agent.values(), strict=True):
        page.get_by_label(f"{label} of agent 1").fill(value)
    ask(page, "two?")
    expect(page.locator("#status")).to_contain_text("Done")
    page.get_by_label("remove agent 1").click()
    first, second = fake.asked
    assert first == {
        "model": "tiny", "messages": [{"role": "user", "content": "one?"}], "stream": True,
        "gcache": {"trace": True}, "temperature": 0,
    }  # fmt: skip
    assert (second["temperature"], second["seed"], second["max_tokens"]) == (0.7, 3, 64)
    assert second["gcache"] == {"trace": True, "agents": [agent]}  # the empty row is none
    assert page.locator(".agent").count() == 1


def test_a_key_is_asked_for_sent_and_kept_nowhere(fake: Fake, made: Watched) -> None:
    fake.key = "secret-1"
    fake.says(text("31", "stop"), END)
    page = made.page
    page.reload()
    expect(page.locator("#model")).to_contain_text("wants an API key")
    ask(page)
    expect(page.get_by_role("alert")).to_have_text("This server wants its API key.")
    assert page.locator("#key").get_attribute("type") == "password"
    page.locator("#key").fill("secret-1")
    page.locator("#key").blur()
    expect(page.locator("#model")).to_contain_text("tiny")
    ask(page)
    expect(page.locator("#answer")).to_have_text("31")
    assert not page.get_by_role("alert").is_visible()
    assert page.evaluate("localStorage.length + sessionStorage.length + document.cookie.length") == 0
    assert page.url == fake.url


@pytest.mark.parametrize(
    ("refusal", "sentence"),
    [
        ((400, b'{"error": {"message": "the seed is too large"}}'), "the seed is too large"),
        ((502, b"<html>Bad Gateway</html>"), "The server refused: 502 Bad Gateway."),
    ],
)
def test_a_refusal_is_a_sentence(fake: Fake, made: Watched, refusal: tuple[int, bytes], sentence: str) -> None:
    fake.refusal = refusal
    ask(made.page)
    expect(made.page.get_by_role("alert")).to_have_text(sentence)
    assert made.page.locator("#ask").is_enabled()


def test_agents_that_a_question_has_to_bring_are_asked_for(fake: Fake, made: Watched) -> None:
    fake.refusal = (400, b'{"error": {"message": "every question brings its agents", "param": "gcache.agents"}}')
    assert not made.page.locator("#add").is_visible()
    ask(made.page)
    expect(made.page.get_by_role("alert")).to_have_text("every question brings its agents")
    assert made.page.locator("#add").is_visible()


@pytest.mark.parametrize(
    ("last", "sentence"),
    [
        (b'data: {"error": {"message": "The model broke.", "type": "x", "code": null}}\n\n', "The model broke."),
        (b"", "The connection was lost before the answer was complete."),
        (b"data: {half\n\n", "The server sent something that this page does not understand."),
    ],
)
def test_an_error_in_the_middle_is_a_sentence(fake: Fake, made: Watched, last: bytes, sentence: str) -> None:
    fake.says(TOPOLOGY, turn(0), text("She has"), last)
    ask(made.page)
    expect(made.page.get_by_role("alert")).to_have_text(sentence)
    assert made.page.locator("#answer").inner_text() == "She has"
    shows(made.page, _0="stopped")
    fake.says(text("31", "stop"), END)
    ask(made.page)  # and the next question is a new one
    expect(made.page.locator("#answer")).to_have_text("31")
    assert not made.page.get_by_role("alert").is_visible()


def test_a_server_that_is_gone_is_a_sentence(fake: Fake, made: Watched) -> None:
    made.page.route("**/v1/chat/completions", lambda route: route.abort("connectionrefused"))
    ask(made.page)
    expect(made.page.get_by_role("alert")).to_have_text("The server cannot be reached. Is it still running?")


def test_stop_ends_the_request(fake: Fake, made: Watched) -> None:
    never = threading.Event()
    fake.script = [(None, TOPOLOGY), (None, turn(0)), (never, step(0))]
    ask(made.page)
    shows(made.page, _0="thinking")
    made.page.locator("#stop").click()
    expect(made.page.locator("#status")).to_have_text("Stopped.")
    assert fake.hung_up.wait(PATIENCE)
    shows(made.page, _0="stopped", _1="stopped")
    assert not made.page.get_by_role("alert").is_visible()
    assert made.errors == []


def test_chunks_may_be_cut_anywhere(fake: Fake, made: Watched) -> None:
    chunks = (TOPOLOGY, text("12 \u20ac"), text("", "length"), END)
    whole = b": hello\r\n\r\n" + b"".join(map(line, chunks))
    fake.script = [(None, whole[i : i + 7]) for i in range(0, len(whole), 7)]
    ask(made.page)
    expect(made.page.locator("#status")).to_contain_text("cut at the most tokens")
    assert made.page.locator("#answer").inner_text() == "12 \u20ac"


def test_the_page_fits_a_telephone(fake: Fake, watched: Callable[..., Watched]) -> None:  # noqa: F811
    fake.says(TOPOLOGY, text("31", "stop"), END)
    made = watched(viewport={"width": 400, "height": 800})
    made.page.goto(fake.url)
    ask(made.page)
    expect(made.page.locator("#answer")).to_have_text("31")
    assert made.page.evaluate("document.documentElement.scrollWidth") == 400


@pytest.mark.parametrize("count", [2, 5, 8, 9, 12, 20])
def test_many_agents_stand_apart(fake: Fake, made: Watched, count: int) -> None:
    """No name covers another one, at any number of agents that questions about documents bring."""
    agents = [{"number": n, "role": f"A document with a long title, number {n}"} for n in range(count)]
    agents.append({"number": count, "role": "decision maker"})
    edges = [{**EDGES[0], "source": n, "target": count} for n in range(count)]
    fake.says({"kind": "topology", "agents": agents, "edges": edges}, text("31", "stop"), END)
    ask(made.page)
    expect(made.page.locator("#status")).to_contain_text("Done in")
    boxes = made.page.locator("g.node rect").evaluate_all("all => all.map(e => e.getBoundingClientRect().toJSON())")
    frame = made.page.locator("#graph svg").bounding_box()
    assert len(boxes) == count + 1 and frame is not None
    for number, one in enumerate(boxes):
        assert frame["x"] <= one["left"] and one["right"] <= frame["x"] + frame["width"]
        assert frame["y"] <= one["top"] and one["bottom"] <= frame["y"] + frame["height"]
        for other in boxes[:number]:
            apart = one["left"] >= other["right"] or other["left"] >= one["right"]
            assert apart or one["top"] >= other["bottom"] or other["top"] >= one["bottom"], (one, other)


def test_documents_that_were_heard_are_words_and_nothing_else(fake: Fake, made: Watched) -> None:
    """What stands in a document is shown as it stands there; without shares there are no bars."""
    words = [{"word": "<img src=x>", "share": 0.1}, {"word": "1689", "share": 0.2}, {"word": "x" * 300, "share": 0.1}]
    heard = [
        {"agent": 0, "role": "<b>Behn</b>", "share": 0.75, "words": words},
        {"agent": 1, "role": "other" * 60, "share": None, "words": []},
    ]
    fake.says(TOPOLOGY, text("31", "stop"), {"kind": "heard", "documents": heard}, END)
    expect(made.page.locator("#heard-section")).to_be_hidden()
    ask(made.page)
    expect(made.page.locator("#heard li")).to_have_count(2)
    first, second = made.page.locator("#heard li").all()
    assert first.locator(".title").evaluate("e => e.textContent") == "<b>Behn</b>75 %"
    marks = first.locator("mark").evaluate_all("all => all.map(e => e.textContent)")
    assert marks == [word["word"] for word in words]
    assert first.locator(".bar span").evaluate("e => e.style.width") == "75%"
    assert second.evaluate("e => e.textContent.trim()") == "other" * 60 and second.locator(".bar").count() == 0
    assert made.page.evaluate("document.documentElement.scrollWidth <= innerWidth") and made.errors == []
    fake.says(TOPOLOGY, text("31", "stop"), END)
    ask(made.page)
    expect(made.page.locator("#heard-section")).to_be_hidden()
