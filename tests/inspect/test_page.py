"""The page of a view, in a browser."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from browser import Watched, chromium, hover_edge, watched  # noqa: F401
from playwright.sync_api import expect

from gcache.evaluation.cost import Cost
from gcache.inspect.page import page
from gcache.inspect.view import Curve, Frame, View, ViewEdge, ViewNode

DECISION = "decision maker"
MINUS = "\u2212"
HOSTILE = "</script><img src=x onerror=\"document.title='owned'\"><!-- \u2028\u2029 & <b>bold</b>"

Open = Callable[..., Watched]


def trained() -> View:
    """Two kinds of agents at three times of a training."""

    def frame(step: int, asked: float, cost: Cost | None = None) -> Frame:
        return Frame(
            step,
            f"after {step} steps",
            (
                ViewEdge("asked", DECISION, asked, low=asked - 0.05, high=asked + 0.02, kept=1.0, cost=cost),
                ViewEdge("gossip", DECISION, 0.05),
                ViewEdge("asked", "gossip", 0.3),
                ViewEdge("gossip", "asked", 0.2),
                ViewEdge("gossip", "asked", 0.25, later=True),
                ViewEdge("gossip", "gossip", 0.4),
            ),
        )

    frames = (frame(0, 0.5), frame(10, 0.7), frame(20, 0.95, Cost(-0.31, -0.38, -0.24, 200, 190)))
    nodes = (ViewNode("asked", "asked"), ViewNode("gossip", "gossip"), ViewNode(DECISION, DECISION, True))
    curve = Curve("utility", tuple((step, step / 20) for step in range(21)))
    return View("Who hands to whom", "over 200 questions", "split_facts", "tiny", 20, nodes, frames, curves=(curve,))


def asked() -> View:
    """One question, where every text tries to be markup."""
    solver = ViewNode(
        "solver", HOSTILE, details=((HOSTILE, HOSTILE),), prompt=HOSTILE, text=HOSTILE,
        reading=((HOSTILE, "\n", " "), (" two",)), reading_text=HOSTILE, attention=(0.1, 0.4),
    )  # fmt: skip
    edge = ViewEdge("solver", DECISION, 0.8, weight=0.8, bytes=3 * 1024, slots=1234, channel=HOSTILE)
    frames = (Frame(20, HOSTILE, (edge,)),)
    return View(
        HOSTILE, HOSTILE, HOSTILE, HOSTILE, 20, (solver, ViewNode(DECISION, DECISION, True)), frames,
        HOSTILE, HOSTILE, notes=(HOSTILE,),
    )  # fmt: skip


@pytest.fixture
def opened(watched: Open, tmp_path: Path) -> Callable[..., Watched]:  # noqa: F811
    """Writes a view's page to disk and opens it from there."""

    def open_(view: View, **options: Any) -> Watched:
        file = tmp_path / "view.html"
        file.write_text(page(view.to_json()), encoding="utf-8")
        made = watched(**options)
        made.page.goto(file.as_uri())
        return made

    return open_


def slide(made: Watched, which: str, value: float) -> None:
    made.page.locator(which).fill(str(value))


def test_nothing_but_the_file_is_asked_for_and_nothing_is_complained_of(opened: Open) -> None:
    for view in (trained(), asked()):
        made = opened(view)
        made.page.locator("g[data-node]").first.click()
        made.page.locator("#theme").click()
        assert made.errors == []
        assert made.requests == [made.page.url]


def test_nodes_and_edges_are_drawn(opened: Open) -> None:
    made = opened(trained())
    assert made.page.locator("g[data-node]").count() == 3
    assert made.page.locator("path[data-edge]").count() == 6
    boxes = {name: made.page.locator(f'g[data-node="{name}"]').bounding_box() for name in ("asked", "gossip", DECISION)}
    assert all(boxes[DECISION]["x"] > boxes[name]["x"] + boxes[name]["width"] for name in ("asked", "gossip"))
    assert made.page.locator("h1").inner_text() == "Who hands to whom"


def test_the_tooltip_of_an_edge_has_its_numbers(opened: Open) -> None:
    said = hover_edge(opened(trained()), f"asked->{DECISION}")
    assert said.startswith(f"asked → {DECISION}")
    for part in ("0.950", "0.900 to 0.970", "100 %", f"{MINUS}0.310 ({MINUS}0.380 to {MINUS}0.240), n = 200"):
        assert part in said
    assert "weight" not in said  # what is not known is not shown


def test_edges_there_and_back_and_a_round_later_are_apart(opened: Open) -> None:
    made = opened(trained())
    assert "0.300" in hover_edge(made, "asked->gossip")
    assert "0.200" in hover_edge(made, "gossip->asked")
    assert "a round later" in hover_edge(made, "gossip->asked (later)")
    assert "0.400" in hover_edge(made, "gossip->gossip")


def test_the_slider_goes_back_in_training(opened: Open) -> None:
    made = opened(trained())
    width = "el => parseFloat(el.parentNode.querySelector('.line').style.strokeWidth)"
    edge = made.page.locator(f'path[data-edge="asked->{DECISION}"]')
    now = edge.evaluate(width)
    marker = made.page.locator('[data-curve="utility"] .marker').get_attribute("x1")
    slide(made, "#step", 0)
    assert made.page.locator("#step-label").inner_text() == "after 0 steps"
    said = hover_edge(made, f"asked->{DECISION}")
    assert "0.500" in said and f"{MINUS}0.310" not in said
    assert edge.evaluate(width) < now
    assert made.page.locator('[data-curve="utility"] .marker').get_attribute("x1") != marker
    slide(made, "#step", 1)  # the pointer rests where it is
    assert "0.700" in made.page.locator("#tooltip").inner_text()
    assert "0.700" in made.page.locator(f'tr[data-row="asked->{DECISION}"]').inner_text()


def test_play_goes_through_the_frames_to_the_last(opened: Open) -> None:
    made = opened(trained())
    made.page.locator("#play").click()
    assert made.page.locator("#step").input_value() == "0"
    expect(made.page.locator("#step")).to_have_value("2")
    expect(made.page.locator("#play")).to_contain_text("Play")


def test_one_frame_has_no_slider_and_no_curves_no_charts(opened: Open) -> None:
    made = opened(asked())
    assert not made.page.locator("#steps").is_visible()
    assert not made.page.locator("#curves-section").is_visible()


def test_edges_below_the_threshold_are_hidden_from_graph_and_table(opened: Open) -> None:
    made = opened(trained())
    assert made.page.locator("#edges tbody tr").count() == 6
    slide(made, "#threshold", 0.26)
    assert made.page.locator("#edges tbody tr").count() == 3
    assert made.page.locator("path.line:visible").count() == 3
    assert "3 of 6 edges" in made.page.locator("#edges caption").inner_text()


def test_a_node_opens_its_panel_by_click_and_by_keyboard(opened: Open) -> None:
    made = opened(asked())
    node, panel = made.page.locator('g[data-node="solver"]'), made.page.locator("#panel")
    assert not panel.is_visible()
    node.click()
    said = panel.inner_text()
    for part in ("Prompt", "Nearest tokens of each latent step", "not a proof", "by layer", "40.0 %", "two"):
        assert part in said
    assert panel.locator("ol.reading li").count() == 2
    made.page.keyboard.press("Escape")
    assert not panel.is_visible()
    assert made.page.evaluate("document.activeElement.dataset.node") == "solver"
    made.page.keyboard.press("Enter")
    assert panel.is_visible()


def test_the_keyboard_reaches_edges_and_their_tooltips(opened: Open) -> None:
    made = opened(asked())
    made.page.locator("#graph > svg").focus()
    made.page.keyboard.press("Tab")
    said = made.page.locator("#tooltip").inner_text()
    assert "0.800" in said and "3.0 KiB" in said
    label = made.page.evaluate("document.activeElement.getAttribute('aria-label')")
    assert "probability 0.800" in label
    made.page.keyboard.press("Escape")
    assert not made.page.locator("#tooltip").is_visible()


def test_nodes_can_be_dragged_and_the_graph_zoomed_and_panned(opened: Open) -> None:
    made = opened(trained())
    node = made.page.locator('g[data-node="asked"]')
    before = node.bounding_box()
    x, y = before["x"] + before["width"] / 2, before["y"] + before["height"] / 2
    made.page.mouse.move(x, y)
    made.page.mouse.down()
    made.page.mouse.move(x + 30, y + 40, steps=4)
    made.page.mouse.move(x + 60, y + 80, steps=4)
    made.page.mouse.up()
    after = node.bounding_box()
    assert after["x"] - before["x"] == pytest.approx(60, abs=2) and after["y"] - before["y"] == pytest.approx(80, abs=2)
    assert not made.page.locator("#panel").is_visible()  # a drag is no click
    made.page.get_by_label("zoom in").click()
    assert node.bounding_box()["width"] == pytest.approx(1.25 * before["width"], rel=0.05)
    made.page.get_by_label("show all").click()
    assert node.bounding_box()["x"] == pytest.approx(before["x"], abs=2)
    made.page.locator("#graph > svg").focus()
    made.page.keyboard.press("ArrowLeft")
    assert node.bounding_box()["x"] == pytest.approx(before["x"] + 40, abs=2)
    made.page.mouse.move(x, y)
    made.page.mouse.wheel(0, -200)
    expect(made.page.locator("#graph > svg > g")).to_have_attribute("transform", re.compile(r"scale\(1\.[3-9]"))


def test_colours_follow_the_system_until_they_are_chosen(opened: Open) -> None:
    made = opened(trained(), color_scheme="dark")
    background = "getComputedStyle(document.body).backgroundColor"
    dark = made.page.evaluate(background)
    made.page.locator("#theme").click()
    light = made.page.evaluate(background)
    assert sum(map(int, light[4:-1].split(","))) > 700 > 200 > sum(map(int, dark[4:-1].split(",")))
    made.page.emulate_media(color_scheme="light")
    made.page.emulate_media(color_scheme="dark")
    assert made.page.evaluate(background) == light


def test_hostile_texts_are_texts(opened: Open) -> None:
    made = opened(asked())
    made.page.locator('g[data-node="solver"]').click()
    assert made.page.title() == HOSTILE
    assert made.page.locator("img, b").count() == 0
    raw = "id => document.getElementById(id).textContent"
    assert made.page.evaluate(raw, "title") == HOSTILE
    assert made.page.evaluate("document.querySelector('#panel .words').textContent") == HOSTILE
    assert HOSTILE in made.page.evaluate(raw, "asked")
    assert HOSTILE in made.page.evaluate(raw, "edges")
    assert HOSTILE in made.page.evaluate("document.querySelector('#panel .reading span').textContent")
    assert made.errors == []


def test_the_view_is_embedded_whole_and_without_any_markup() -> None:
    view = asked().to_json()
    view["question"] = "half a character: \ud800"
    html = page(view)
    start = html.index('id="view">') + len('id="view">')
    data = html[start : html.index("</script>", start)]
    assert data.isascii() and not set(data) & set("<>&")
    assert json.loads(data) == json.loads(json.dumps(view))
    html.encode()  # can be written


def test_what_json_has_no_form_for_is_refused() -> None:
    with pytest.raises(ValueError, match="JSON"):
        page({"title": "x", "step": float("nan")})


@pytest.mark.parametrize("width", [400, 1200])
def test_no_page_is_wider_than_the_window(opened: Open, width: int) -> None:
    made = opened(trained(), viewport={"width": width, "height": 800})
    assert made.page.evaluate("document.documentElement.scrollWidth") == width
    box = made.page.locator(f'g[data-node="{DECISION}"]').bounding_box()
    assert box["x"] >= 0 and box["x"] + box["width"] <= width
