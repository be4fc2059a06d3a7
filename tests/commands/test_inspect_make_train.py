"""Every format of `gcache inspect`, from the checkpoint that `make train` left behind."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import networkx
import pytest
from browser import Watched, chromium, hover_edge, watched  # noqa: F401
from playwright.sync_api import expect

from gcache.commands.main import main

pytestmark = pytest.mark.embedded

RUN = Path(__file__).parents[1] / "data" / "make_train"
DECISION, ASKED, OTHER, GOSSIP = "decision maker", "asked keeper", "other keeper", "gossip"
ROLES = {DECISION, ASKED, OTHER, GOSSIP}
STEPS = 40
Ends = tuple[str, str]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All files, with what cutting an edge costs on eight questions."""
    out = tmp_path_factory.mktemp("inspect")
    assert main(["inspect", str(RUN), "--format", "all", "--limit", "40", "--cuts", "8", "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def view(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "topology.json").read_text(encoding="utf-8"))
    return found


@pytest.fixture(scope="module")
def edges(view: dict[str, Any]) -> dict[Ends, dict[str, Any]]:
    """Those of the checkpoint."""
    return {(edge["source"], edge["target"]): edge for edge in view["frames"][-1]["edges"]}


def test_the_table_says_who_was_learned_to_be_heard(capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["inspect", str(RUN), "--limit", "40"]) == 0
    lines = [line.split("|")[1:-1] for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in line] for line in lines]
    assert rows[0] == ["from", "to", "probability", "middle 90 %", "kept (most likely)"]
    assert rows[2][:2] == [ASKED, DECISION] and float(rows[2][2]) > 0.9 and rows[2][4] == "100.0%"
    (gossip,) = (row for row in rows if row[:2] == [GOSSIP, DECISION])
    assert float(gossip[2]) < 0.1 and gossip[4] == "0.0%"


def test_json_has_the_whole_training_and_what_the_edge_that_matters_is_worth(
    view: dict[str, Any], edges: dict[Ends, dict[str, Any]]
) -> None:
    assert {node["label"] for node in view["nodes"]} == ROLES
    assert [frame["step"] for frame in view["frames"]] == list(range(STEPS + 1))
    first = {(edge["source"], edge["target"]): edge["probability"] for edge in view["frames"][0]["edges"]}
    assert first[ASKED, DECISION] < 0.5 < edges[ASKED, DECISION]["probability"]
    cost = edges[ASKED, DECISION]["cost"]
    assert cost["n"] == 8 and cost["difference"] == -1.0
    assert all(edge["cost"] is None for ends, edge in edges.items() if edge["kept"] == 0)
    assert {curve["name"] for curve in view["curves"]} >= {"utility of the rollouts", "edges per question"}


def test_graphml_dot_and_mermaid_have_the_same_edges(folder: Path, edges: dict[Ends, dict[str, Any]]) -> None:
    graph = networkx.read_graphml(folder / "topology.graphml")
    label = {node: data.get("label", node) for node, data in graph.nodes(data=True)}
    assert {(label[s], label[t]): d["probability"] for s, t, d in graph.edges(data=True)} == {
        ends: edge["probability"] for ends, edge in edges.items()
    }
    likely = sum(edge["probability"] >= 0.05 for edge in edges.values())
    dot, mermaid = (folder / "topology.dot").read_text(), (folder / "topology.mmd").read_text()
    assert dot.count(" -> ") == mermaid.count("-->|") == likely < len(edges)
    assert all(role in dot and role in mermaid for role in ROLES)


def test_svg_has_a_node_a_role(folder: Path) -> None:
    root = ElementTree.parse(folder / "topology.svg").getroot()
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    comments = (folder / "topology.svg").read_text(encoding="utf-8")
    assert all(role in comments or role.replace(" ", "") in comments for role in ROLES)


@pytest.mark.parametrize("name", ["topology.png", "history.png", "curves.png"])
def test_pictures_are_pictures_of_something(folder: Path, name: str) -> None:
    from PIL import Image

    with Image.open(folder / name) as picture:
        assert picture.format == "PNG" and picture.width > 300 and picture.height > 200
        assert len(picture.convert("RGB").getcolors(1 << 24) or []) > 20


def test_the_gif_moves(folder: Path) -> None:
    from PIL import Image

    with Image.open(folder / "history.gif") as gif:
        assert gif.n_frames > 10  # type: ignore[attr-defined]
        shown = set()
        for frame in range(gif.n_frames):  # type: ignore[attr-defined]
            gif.seek(frame)
            shown.add(gif.convert("RGB").tobytes())
    assert len(shown) > 10


# -- the page ---------------------------------------------------------------------------------


@pytest.fixture
def opened(watched: Callable[..., Watched], folder: Path) -> Watched:  # noqa: F811
    made = watched(offline=True)
    made.page.goto((folder / "topology.html").as_uri())
    return made


def test_the_page_is_drawn_from_disk_and_asks_for_nothing_else(
    opened: Watched, edges: dict[Ends, dict[str, Any]]
) -> None:
    nodes = opened.page.locator("g[data-node]")
    expect(nodes).to_have_count(len(ROLES))
    assert set(nodes.evaluate_all("nodes => nodes.map(node => node.dataset.node)")) == ROLES
    assert opened.page.locator("path[data-edge]").count() == len(edges)
    assert len(opened.requests) == 1 and opened.requests[0].startswith("file:")
    assert opened.errors == []


def test_hovering_an_edge_says_its_probability_and_worth(opened: Watched, edges: dict[Ends, dict[str, Any]]) -> None:
    said = hover_edge(opened, f"{ASKED}->{DECISION}")
    assert said.startswith(f"{ASKED} \u2192 {DECISION}")
    assert f"{edges[ASKED, DECISION]['probability']:.3f}" in said
    assert "\u22121.000 (\u22121.000 to \u22121.000), n = 8" in said
    assert opened.errors == []


def test_the_slider_goes_back_to_before_the_training(opened: Watched, view: dict[str, Any]) -> None:
    slider = opened.page.locator("#step")
    assert (slider.get_attribute("max"), slider.input_value()) == (str(STEPS), str(STEPS))
    after = hover_edge(opened, f"{ASKED}->{DECISION}")
    slider.fill("0")
    before = hover_edge(opened, f"{ASKED}->{DECISION}")
    first = {(edge["source"], edge["target"]): edge["probability"] for edge in view["frames"][0]["edges"]}
    assert f"{first[ASKED, DECISION]:.3f}" in before and before != after
    assert opened.page.locator("#step-label").inner_text() == view["frames"][0]["label"]
    assert opened.errors == [] and len(opened.requests) == 1
