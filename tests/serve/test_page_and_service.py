"""The page against the service itself, around a tiny model."""

from __future__ import annotations

import asyncio
import json
import threading
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from browser import Watched, chromium, watched  # noqa: F401
from playwright.sync_api import expect
from toy import QUESTIONS, toy_built

from gcache.gnn.topology import DECISION
from gcache.llm.local import LocalLLM
from gcache.serve.served import Served
from gcache.serve.server import Serving, listening
from gcache.serve.service import Service
from gcache.serve.settings import ServeSettings

PATIENCE = 30.0


@pytest.fixture
def service(tiny_llama: Any, tiny_tokenizer: Any) -> Iterator[str]:
    """The address of a service of three agents."""
    llm = LocalLLM(tiny_llama, tiny_tokenizer, label="tiny")
    settings = ServeSettings(port=0, drain=5.0)
    ready = threading.Event()
    with listening(settings) as listener:
        serving = Serving(Service("toy", settings), listener)
        built = toy_built(llm, tiny_tokenizer, topology="chain")
        thread = threading.Thread(
            target=lambda: asyncio.run(serving.go(lambda: Served.of(built, "toy"), lambda _: ready.set()))
        )
        thread.start()
        try:
            assert ready.wait(PATIENCE)
            yield serving.url
        finally:
            serving.stop()
            thread.join(PATIENCE)


def answer_of(url: str, question: str) -> dict[str, Any]:
    """What the API says, in one piece."""
    body = {"model": "toy", "messages": [{"role": "user", "content": question}], "gcache": {"trace": True}}
    request = urllib.request.Request(
        f"{url}/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=PATIENCE) as response:
        answered: dict[str, Any] = json.load(response)
    return answered


def test_the_page_says_what_the_service_answers(service: str, watched: Callable[..., Watched]) -> None:  # noqa: F811
    made = watched()
    page = made.page
    page.goto(service)
    expect(page.locator("#model")).to_have_text("Model: toy")
    for question in QUESTIONS[:2]:
        page.locator("#question").fill(question)
        page.locator("#ask").click()
        expect(page.locator("#status")).to_contain_text("Done in")
        known = answer_of(service, question)
        said = known["choices"][0]["message"]["content"]
        assert said and page.locator("#answer").evaluate("e => e.textContent") == said
    agents = page.locator("g.node")
    assert agents.count() == 4
    expect(page.locator('g.node[data-state="done"]')).to_have_count(4)
    assert agents.last.text_content() == DECISION
    edges = known["gcache"]["topology"]["edges"]
    assert page.locator("path[data-edge]").count() == len(edges) == 3
    read = next(step["reading"] for step in known["gcache"]["trace"] if step["agent"] == 1)
    page.locator('g[data-node="1"]').click()
    steps = page.locator("#panel ol.reading li")
    assert read and steps.evaluate_all("all => all.map(e => [...e.children].map(c => c.textContent))") == read
    assert made.errors == []
    assert all(url.startswith(service) for url in made.requests)


def test_what_the_service_refuses_is_said(service: str, watched: Callable[..., Watched]) -> None:  # noqa: F811
    page = watched().page
    page.goto(service)
    page.locator("#question").fill(QUESTIONS[0])
    page.get_by_text("Agents of this question").click()
    page.locator("#add").click()
    page.get_by_label("Note that it alone has of agent 1").fill("the box is red")
    page.locator("#ask").click()
    expect(page.get_by_role("alert")).to_contain_text("role")
    page.get_by_label("Role of agent 1").fill("planner")
    page.locator("#ask").click()
    expect(page.locator("#status")).to_contain_text("Done in")
    assert page.locator("g.node").count() == 2  # the agent that was brought, and the decision maker
