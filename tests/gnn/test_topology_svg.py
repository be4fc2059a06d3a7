"""What notebooks show of topologies and runs: read back as XML."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import pytest

from gcache.agents.decision import DecisionMaker
from gcache.agents.roles import Agent
from gcache.cache.fusers.concat import ConcatFuser
from gcache.gnn.providers import FixedProvider
from gcache.gnn.svg import AGENT, DECIDES, topology_svg
from gcache.gnn.topology import DECISION, Edge, Topology
from gcache.graph.cache_graph import CacheGraph
from gcache.graph.run_config import GraphConfig

if TYPE_CHECKING:
    from conftest import ScriptedLLM

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = '</text><script>alert("1")</script> & \x00\x1b <b>'
MIXED = Topology(
    3, (Edge(0, 1, 0.5), Edge(1, 0, 0.25, delay=1), Edge(2, 0, 0.75, channel="text"), Edge(0, 3), Edge(2, 3, 0.1))
)


def read(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg)


def arrows(root: ElementTree.Element) -> list[ElementTree.Element]:
    """The paths of edges; the arrow head's is in the definitions."""
    return root.findall(f"{SVG}path")


def test_there_is_a_path_per_edge_that_says_what_it_is() -> None:
    root = read(topology_svg(MIXED.n_agents, MIXED.edges, ["a", "b", "c", "d"]))
    found = arrows(root)
    assert [path.findtext(f"{SVG}title") for path in found] == [
        "a → b: weight 0.500",
        "a → d: weight 1.000",
        "b → a: weight 0.250, a round later",
        "c → a: weight 0.750, text",
        "c → d: weight 0.100",
    ]
    assert [("stroke-dasharray" in path.attrib) for path in found] == [False, False, True, False, False]
    widths = [float(path.attrib["stroke-width"]) for path in found]
    assert widths == pytest.approx([0.7 + 3.3 * weight for weight in (0.5, 1.0, 0.25, 0.75, 0.1)], abs=0.01)
    assert all(path.attrib["marker-end"] == "url(#arrow)" for path in found)


@pytest.mark.parametrize("n_agents", [0, 1, 5])
def test_every_node_is_there_and_named_within_the_picture(n_agents: int) -> None:
    root = read(topology_svg(n_agents, (), Topology(n_agents).names()))
    circles = root.findall(f"{SVG}circle")
    assert [circle.attrib["fill"] for circle in circles] == [AGENT] * n_agents + [DECIDES]
    assert [text.text for text in root.findall(f"{SVG}text")] == [*(f"agent {i}" for i in range(n_agents)), DECISION]
    assert arrows(root) == []
    _, _, width, height = map(float, root.attrib["viewBox"].split())
    for circle in circles:
        x, y, r = (float(circle.attrib[name]) for name in ("cx", "cy", "r"))
        assert r < x < width - r and r < y < height - r
    assert len({(c.attrib["cx"], c.attrib["cy"]) for c in circles}) == n_agents + 1


def test_names_are_text_and_no_markup() -> None:
    root = read(topology_svg(1, (Edge(0, 1),), [HOSTILE, DECISION]))
    assert root.find(f".//{SVG}script") is None
    shown = HOSTILE.replace("\x00", " ").replace("\x1b", " ")
    assert root.findtext(f"{SVG}text") == shown
    assert root.findtext(f"{SVG}path/{SVG}title") == f"{shown} → {DECISION}: weight 1.000"


def test_a_topology_shows_itself() -> None:
    assert MIXED._repr_svg_() == topology_svg(MIXED.n_agents, MIXED.edges, ["agent 0", "agent 1", "agent 2", DECISION])


class Seen(HTMLParser):
    """Tags and words of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_a_run_shows_its_question_answer_topology_and_trace(scripted_llm: ScriptedLLM, tiny_tokenizer: Any) -> None:
    scripted_llm.write = lambda _: "4 < 5 <script>x</script>"
    agents = (Agent("<i>planner", "plans", "plan"), Agent("critic", "checks", "find it"))
    graph = CacheGraph(
        scripted_llm, tiny_tokenizer, agents, DecisionMaker("d", "answer"), FixedProvider("chain"),
        ConcatFuser(1, 1, 2), GraphConfig(latent_steps=2),
    )  # fmt: skip
    result = graph.run("is 4 < 5 & <b>?")
    seen = Seen()
    seen.feed(result._repr_html_())
    assert not {"script", "i"} & set(seen.tags)
    assert seen.tags.count("b") == 1  # the question is bold
    assert seen.words[:2] == ["is 4 < 5 & <b>?", "4 < 5 <script>x</script>"]
    assert seen.tags.count("svg") == 1
    assert "<i>planner → critic: weight 1.000" in seen.words
    assert seen.tags.count("tr") == 1 + len(result.trace)
    cells = seen.words[seen.words.index("seconds") + 1 :]
    of_planner = cells[8:16]
    step = result.trace[1]
    assert of_planner[:7] == ["<i>planner", "0", "think", str(step.prefilled), "2", "0", "0"]
