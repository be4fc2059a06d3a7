"""Every format is read back: by networkx, by json, and by small readers of DOT and Mermaid that know their grammar."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, replace
from io import BytesIO
from typing import Any
from xml.etree import ElementTree

import networkx
import pytest
from inspect_views import CLEANED, COST, EDGES, HOSTILE, NODES, OTHER, PLAIN, WILD

from gcache.evaluation.plain import one_line, printable
from gcache.evaluation.tables import markdown
from gcache.gnn.topology import DECISION
from gcache.inspect.formats import LIKELY, TEXTS, as_json, dot, edges_table, graphml, mermaid, table
from gcache.inspect.view import HINT, View, ViewEdge

VIEWS = pytest.mark.parametrize("view", [PLAIN, WILD], ids=["plain", "wild"])


# -- GraphML --------------------------------------------------------------------------------


def graph_of(view: View) -> Any:
    return networkx.read_graphml(BytesIO(graphml(view).encode("utf-8")), force_multigraph=True)


def test_graphml_has_all_nodes_and_edges_with_what_is_known_of_them() -> None:
    graph = graph_of(PLAIN)
    assert graph.is_directed() and list(graph.nodes) == [node.id for node in NODES]
    assert {name: values["decision"] for name, values in graph.nodes(data=True)} == {
        "critic": False, "planner": False, DECISION: True
    }  # fmt: skip
    found = sorted((s, t, d["probability"], d["later"]) for s, t, d in graph.edges(data=True))
    assert found == sorted((e.source, e.target, e.probability, e.later) for e in EDGES)
    (first,) = graph["planner"][DECISION].values()
    assert {name: value for name, value in first.items() if name != "id"} == {
        "probability": 0.75, "later": False, "low": 0.5, "high": 1.0, "kept": 0.5,
        **{f"cost_{name}": value for name, value in asdict(COST).items()},
    }  # fmt: skip
    assert (graph.graph["title"], graph.graph["step"]) == ("toy: run", 2)


def test_graphml_of_any_names_is_well_formed_and_nobody_is_lost() -> None:
    ElementTree.fromstring(graphml(WILD).encode("utf-8"))
    graph = graph_of(WILD)
    assert list(graph.nodes) == [CLEANED, CLEANED + "\ufffd", DECISION]
    assert graph.nodes[CLEANED]["text"] == graph.nodes[CLEANED]["prompt"] == CLEANED
    other = CLEANED + "\ufffd"
    assert [(s, t) for s, t, _ in graph.edges] == [(CLEANED, DECISION), (CLEANED, other), (other, CLEANED)]
    (crossed,) = graph[CLEANED][DECISION].values()
    assert (crossed["bytes"], crossed["slots"], crossed["channel"], crossed["weight"]) == (2**20, 3, "cache", 0.75)
    assert graph.graph["title"] == CLEANED


@pytest.mark.parametrize("write", [graphml, dot])
def test_names_that_are_alike_once_cleaned_stay_apart(write: Any) -> None:
    nodes = tuple(replace(node, id=name) for node, name in zip(NODES, ("a\x00", "a\x01", DECISION), strict=True))
    edges = (ViewEdge("a\x00", "a\x01", 0.5), ViewEdge("a\x01", DECISION, 0.75))
    view = replace(PLAIN, nodes=nodes, frames=(replace(PLAIN.frames[0], edges=edges),))
    expected = {("a\ufffd", "a\ufffd 2"), ("a\ufffd 2", DECISION)}
    if write is graphml:
        assert set(networkx.DiGraph(graph_of(view)).edges) == expected
    else:
        assert {(source, target) for source, target, _ in read_dot(dot(view))[1]} == expected


def test_a_view_as_a_networkx_graph_has_each_edge_once_per_round() -> None:
    graph = PLAIN.to_networkx()
    assert graph.number_of_edges("planner", "critic") == 2
    assert [d["later"] for d in graph["planner"]["critic"].values()] == [False, True]
    assert "weight" not in graph["planner"][DECISION][0] and "prompt" not in graph.nodes["planner"]
    assert WILD.to_networkx().nodes[HOSTILE]["prompt"] == HOSTILE


# -- JSON -----------------------------------------------------------------------------------


@VIEWS
def test_json_is_the_view_to_the_last_character(view: View) -> None:
    text = as_json(view)
    text.encode("utf-8")  # can be written
    found = json.loads(text)
    assert found == json.loads(json.dumps(view.to_json()))
    assert found["nodes"][0]["id"] == view.nodes[0].id
    assert found["frames"][-1]["edges"][0]["probability"] == 0.75
    assert found["hint"] == HINT


# -- DOT ------------------------------------------------------------------------------------

DOT_TOKEN = re.compile(r'\s*(?:("(?:\\.|[^"\\])*")|([A-Za-z_][\w]*|-?[\d.]+)|(->|[{}\[\];=]))')


def read_dot(text: str) -> tuple[dict[str, dict[str, str]], list[tuple[str, str, dict[str, str]]]]:
    """Nodes and edges of a DOT file, by its grammar; fails on anything that it does not allow."""
    tokens: list[str] = []
    place = 0
    while text[place:].strip():
        found = DOT_TOKEN.match(text, place)
        assert found, text[place : place + 40]
        quoted, word, sign = found.groups()
        tokens.append(re.sub(r"\\(.)", r"\1", quoted[1:-1]) + "\0" if quoted is not None else word or sign)
        place = found.end()
    assert tokens[:3] == ["digraph", "topology", "{"] and tokens[-1] == "}"
    nodes: dict[str, dict[str, str]] = {}
    edges: list[tuple[str, str, dict[str, str]]] = []
    statements: list[list[str]] = [[]]
    for token in tokens[3:-1]:
        statements[-1].append(token) if token != ";" else statements.append([])
    assert statements.pop() == []
    for statement in statements:
        if statement[1] == "=":
            continue
        ends, _, rest = " ".join(statement).partition(" [ ")
        values = dict(re.findall(r"(\w+) = ([^\0\s]*)", rest.removesuffix(" ]")))
        names = [name.removesuffix("\0") for name in ends.split("\0 -> ")]
        if len(names) == 1:
            nodes[names[0]] = values
        else:
            edges.append((names[0], names[1], values))
    return nodes, edges


@VIEWS
def test_dot_has_the_nodes_and_the_likely_edges(view: View) -> None:
    nodes, edges = read_dot(dot(view))
    assert list(nodes) == [one_line(node.id) for node in view.nodes]
    assert [name for name, values in nodes.items() if values["shape"] == "doubleoctagon"] == [DECISION]
    likely = [edge for edge in view.edges if edge.probability >= LIKELY]
    assert [(s, t, v["label"]) for s, t, v in edges] == [
        (one_line(e.source), one_line(e.target), f"{e.probability:.2f}") for e in likely
    ]
    assert [values.get("style") == "dashed" for _, _, values in edges] == [e.later for e in likely]
    assert dot(view).count("\n") == 3 + len(nodes) + len(edges), "a name went over its line"


# -- Mermaid --------------------------------------------------------------------------------

MERMAID_NODE = re.compile(r'    (n\d+)(\(\[|\[)"([^"]*)"(\]\)|\])')
MERMAID_EDGE = re.compile(r'    (n\d+) (-->|-\.->)\|"([\d.]+)"\| (n\d+)')
ENTITIES = {"quot": '"', "amp": "&", "lt": "<", "gt": ">", "35": "#", "96": "`"}


@VIEWS
def test_mermaid_has_the_nodes_and_the_likely_edges(view: View) -> None:
    head, *lines = mermaid(view).removesuffix("\n").split("\n")
    assert head == "flowchart LR"
    labels: dict[str, str] = {}
    edges = []
    for line in lines:
        if node := MERMAID_NODE.fullmatch(line):
            number, opening, label, closing = node.groups()
            assert not re.search("[<>`]", label), "markup"
            labels[number] = re.sub(r"#(\w+);", lambda found: ENTITIES[found[1]], label)
            assert (opening, closing) == (("([", "])") if labels[number] == DECISION else ("[", "]"))
        else:
            edge = MERMAID_EDGE.fullmatch(line)
            assert edge, line
            source, arrow, chance, target = edge.groups()
            edges.append((labels[source], labels[target], arrow == "-.->", chance))
    assert list(labels.values()) == [one_line(node.label) for node in view.nodes]
    assert edges == [
        (one_line(e.source), one_line(e.target), e.later, f"{e.probability:.2f}")
        for e in view.edges
        if e.probability >= LIKELY
    ]


# -- tables ---------------------------------------------------------------------------------


def cells(line: str) -> list[str]:
    """A line of a Markdown table, as its readers divide it."""
    assert line.startswith("| ") and line.endswith(" |")
    return [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def test_the_table_of_edges_by_hand() -> None:
    head, rule, *rows = edges_table(EDGES).splitlines()
    assert cells(head) == ["from", "to", "probability", "middle 90 %", "kept (most likely)", "accuracy when cut"]
    assert rule == "|---" * 6 + "|"
    assert [cells(row) for row in rows] == [
        ["planner", DECISION, "0.750", "0.500 to 1.000", "50.0%", "-0.250 (-0.500 to +0.000, n = 8)"],
        ["planner", "critic", "0.500", "0.250 to 0.750", "100.0%", ""],
        ["planner", "critic, a round later", "0.250", "0.000 to 0.500", "25.0%", ""],
        ["critic", DECISION, "0.040", "0.010 to 0.100", "0.0%", ""],
    ]


def test_drawn_edges_come_first_with_what_they_carried() -> None:
    head, _, *lines = edges_table((*WILD.edges, ViewEdge("x", "y", 0.99))).splitlines()
    assert cells(head) == ["from", "to", "probability", "kept (most likely)", "weight", "channel", "slots", "MiB"]
    assert [cells(line)[2:] for line in lines] == [
        ["0.750", "100.0%", "0.750", "cache", "3", "1.00"],
        ["0.500", "100.0%", "0.500", "", "2", "0.50"],
        ["0.990", "", "", "", "", ""],
        ["0.250", "0.0%", "", "", "", ""],
    ]


def test_a_checkpoints_table_has_its_title_and_its_edges_alone() -> None:
    assert table(PLAIN) == (
        f"# toy: run\n\nedges by role, mean over 8 questions; tiny, after 2 steps\n\n{edges_table(EDGES)}"
    )


def test_a_questions_table_has_everything_and_nothing_that_a_terminal_obeys() -> None:
    text = table(WILD)
    text.encode("utf-8")
    assert text == printable(text)
    assert f"question: {CLEANED}\nanswer: {CLEANED}\n" in text
    assert "latent step 1: " in text and HINT in text and "note: " in text
    assert "written from its cache alone" in text and " said: " in text
    rows = [cells(line) for line in text.splitlines() if line.startswith("| ")]
    assert ["agent", "turns"] in rows and [one_line(HOSTILE), one_line(HOSTILE)] in [r[:2] for r in rows]
    attention = rows[rows.index(["attention of the answer on", "mean", "layer 0", "layer 1"]) + 1 :]
    assert attention == [[one_line(HOSTILE), "0.500", "0.250", "0.750"], [DECISION, "0.375", "0.500", "0.250"]]


def test_cells_keep_to_their_cell() -> None:
    head, _, row = markdown(["a|b", "c\nd"], [["x|y", HOSTILE]]).splitlines()
    assert cells(head) == ["a|b", "c d"]
    assert cells(row) == ["x|y", one_line(HOSTILE)]


def test_the_formats_that_are_texts() -> None:
    assert {name: ending for name, (ending, _) in TEXTS.items()} == {
        "json": "json", "graphml": "graphml", "mermaid": "mmd", "dot": "dot"
    }  # fmt: skip
    for _, write in TEXTS.values():
        assert write(WILD).endswith("\n")
        write(WILD).encode("utf-8")
    assert OTHER != HOSTILE
