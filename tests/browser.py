"""A headless Chromium for the tests of the pages; `from browser import chromium, watched` makes its fixtures known."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import needs
import pytest

from gcache import environment

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

#: "required" makes a missing browser a failure, so that it cannot be missing unseen.
VARIABLE = "GCACHE_TEST_BROWSER"
FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """One browser for all tests of a file."""
    path = environment.chromium()
    if path is None:
        message = "no Chromium: neither /usr/bin/chromium nor `chromium` on PATH"
        if os.environ.get(VARIABLE) == "required":
            pytest.fail(f"{message} ({VARIABLE}=required wants one)")
        needs.skip_without(message, "install Chromium (apt-get install chromium)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(path), args=list(FLAGS))
        yield browser
        browser.close()


@dataclass
class Watched:
    """A page, with all that it asked for and complained of."""

    page: Page
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


@pytest.fixture
def watched(chromium: Browser) -> Iterator[Callable[..., Watched]]:
    """Makes empty pages that are watched; options are those of a browser context."""
    contexts = []

    def make(**options: Any) -> Watched:
        context = chromium.new_context(**{"viewport": {"width": 1200, "height": 800}, **options})
        context.set_default_timeout(15_000)
        contexts.append(context)
        made = Watched(context.new_page())
        made.page.on("console", lambda m: made.errors.append(m.text) if m.type in ("error", "warning") else None)
        made.page.on("pageerror", lambda error: made.errors.append(str(error)))
        made.page.on("request", lambda request: made.requests.append(request.url))
        return made

    yield make
    for context in contexts:
        context.close()


def ask(page: Page, question: str = "How many are whole?") -> None:
    """On the page of a service."""
    page.locator("#question").fill(question)
    page.locator("#ask").click()


def hover_edge(made: Watched, key: str) -> str:
    """Points at the middle of an edge's line; returns what the tooltip says."""
    path = made.page.locator(f'path[data-edge="{key}"]')
    x, y = path.evaluate(
        """path => {
            const at = path.getPointAtLength(path.getTotalLength() / 2).matrixTransform(path.getScreenCTM());
            return [at.x, at.y];
        }"""
    )
    made.page.mouse.move(x, y)
    return made.page.locator("#tooltip").inner_text()
