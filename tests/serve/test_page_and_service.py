"""The page against the service itself, around a tiny model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from browser import Watched, ask, chromium, watched  # noqa: F401
from playwright.sync_api import expect
from toy import QUESTIONS

from gcache.gnn.topology import DECISION


def test_the_page_says_what_the_service_answers(server: Any, watched: Callable[..., Watched]) -> None:  # noqa: F811
    made = watched()
    page = made.page
    page.goto(server.url)
    expect(page.locator("#model")).to_have_text("Model: toy")
    for question in QUESTIONS[:2]:
        ask(page, question)
        expect(page.locator("#status")).to_contain_text("Done in")
        known = server.ask(question, gcache={"trace": True})
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
    assert all(url.startswith(server.url) for url in made.requests)


def test_what_the_service_refuses_is_said(server: Any, watched: Callable[..., Watched]) -> None:  # noqa: F811
    page = watched().page
    page.goto(server.url)
    page.get_by_text("Agents of this question").click()
    page.locator("#add").click()
    page.get_by_label("Note that it alone has of agent 1").fill("the box is red")
    ask(page, QUESTIONS[0])
    expect(page.get_by_role("alert")).to_contain_text("role")
    page.get_by_label("Role of agent 1").fill("planner")
    ask(page, QUESTIONS[0])
    expect(page.locator("#status")).to_contain_text("Done in")
    assert page.locator("g.node").count() == 2  # the agent that was brought, and the decision maker


def test_stop_ends_the_run(start: Any, held: Any, watched: Callable[..., Watched]) -> None:  # noqa: F811
    page = watched().page
    page.goto(start(held.served).url)
    ask(page, QUESTIONS[0])
    held.came()
    expect(page.locator("#status")).to_contain_text("writes")
    page.locator("#stop").click()
    expect(page.locator("#status")).to_have_text("Stopped.")
    assert held.given_up.wait(20.0)
