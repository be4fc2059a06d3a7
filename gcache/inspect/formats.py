"""A view as a table for the terminal, and as files for other programs."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from typing import Any

from gcache.evaluation.plain import one_line, printable
from gcache.evaluation.tables import markdown
from gcache.inspect.close_up import attention_rows, unique
from gcache.inspect.view import View, ViewEdge

#: Edges at least this likely are drawn in formats that cannot hide any.
LIKELY = 0.05
_ENTITIES = {"#": "#35;", "&": "#amp;", '"': "#quot;", "<": "#lt;", ">": "#gt;", "`": "#96;"}


def table(view: View) -> str:
    """Markdown: the edges, and of one question also the agents, their readings and what was attended to."""
    head = f"# {view.title}\n\n{view.subtitle}; {view.model}, after {view.step} steps\n"
    parts = [head, edges_table(view.edges, view.topologies)]
    if view.question is not None:
        parts.insert(1, f"question: {view.question}\nanswer: {(view.answer or '').strip()}\n")
        parts += [_agents(view), _readings(view), _attention(view)]
        parts.append(_words(view))
    parts += [f"note: {note}\n" for note in view.notes]
    return printable("\n".join(part for part in parts if part))


def edges_table(edges: Sequence[ViewEdge], topologies: str = "most likely") -> str:
    """Columns of which no edge has a value are left out; drawn edges first, then the likelier.

    Args:
        topologies: what those are called that are run.
    """
    columns: list[tuple[str, Callable[[ViewEdge], str]]] = [
        ("from", lambda e: e.source),
        ("to", lambda e: e.target + (", a round later" if e.later else "")),
        ("probability", lambda e: f"{e.probability:.3f}"),
        ("middle 90 %", lambda e: "" if e.low is None or e.high is None else f"{e.low:.3f} to {e.high:.3f}"),
        (f"kept ({topologies})", lambda e: "" if e.kept is None else f"{e.kept:.1%}"),
        ("weight", lambda e: "" if e.weight is None else f"{e.weight:.3f}"),
        ("channel", lambda e: e.channel or ""),
        ("slots", lambda e: "" if e.slots is None else str(e.slots)),
        ("MiB", lambda e: "" if e.bytes is None else f"{e.bytes / 2**20:.2f}"),
        ("accuracy when cut", _cost),
    ]
    order = sorted(edges, key=lambda e: (e.weight is None, -e.probability))
    rows = [[show(edge) for _, show in columns] for edge in order]
    shown = [i for i in range(len(columns)) if i < 3 or any(row[i] for row in rows)]
    return markdown([columns[i][0] for i in shown], [[row[i] for i in shown] for row in rows])


def _words(view: View) -> str:
    """What was written that went over each edge."""
    told = [edge for edge in view.edges if edge.words]
    lines = [f"{edge.source} to {edge.target}, {edge.channel or 'words'}: {' '.join(edge.words.split())}"
             for edge in told if edge.words]  # fmt: skip
    return "\n".join(lines) + "\n" if lines else ""


def _cost(edge: ViewEdge) -> str:
    cost = edge.cost
    return "" if cost is None else f"{cost.difference:+.3f} ({cost.low:+.3f} to {cost.high:+.3f}, n = {cost.n})"


def _agents(view: View) -> str:
    names = list(dict.fromkeys(name for node in view.nodes for name, _ in node.details))
    rows = [[node.id, *(dict(node.details).get(name, "") for name in names)] for node in view.nodes]
    prompts = [f"{node.id}: {' '.join((node.prompt or '').split())}" for node in view.nodes if node.prompt]
    said = [f"{node.id} said: {' '.join(node.text.split())}" for node in view.nodes if node.text and not node.decision]
    return markdown(["agent", *names], rows) + "\n" + "\n".join(prompts + said) + "\n"


def _readings(view: View) -> str:
    lines = []
    for node in view.nodes:
        lines += [f"{node.id}, latent step {n}: {' / '.join(step)}" for n, step in enumerate(node.reading, start=1)]
        lines += [f"{node.id}, written from its cache alone: {node.reading_text}"] if node.reading_text else []
    return "\n".join([*lines, view.hint]) + "\n" if lines else ""


def _attention(view: View) -> str:
    rows = attention_rows(view)
    if not rows:
        return ""
    layers = len(rows[0]) - 2
    shown = sorted({0, layers // 4, layers // 2, 3 * layers // 4, layers - 1})
    head = ["attention of the answer on", "mean", *(f"layer {n}" for n in shown)]
    return markdown(head, [[name, f"{mean:.3f}", *(f"{rest[n]:.3f}" for n in shown)] for name, mean, *rest in rows])


def as_json(view: View) -> str:
    text = json.dumps(view.to_json(), indent=2, ensure_ascii=False) + "\n"
    return text.encode("utf-8", "backslashreplace").decode()  # half characters as JSON's own escapes


def graphml(view: View) -> str:
    """For yEd, Gephi and the like, by networkx."""
    import networkx

    ids = unique([printable(node.id) for node in view.nodes])
    graph = networkx.relabel_nodes(
        view.to_networkx(), {node.id: own for node, own in zip(view.nodes, ids, strict=True)}
    )
    of_nodes, of_edges = (values for _, values in graph.nodes(data=True)), (end[-1] for end in graph.edges(data=True))
    for values in (graph.graph, *of_nodes, *of_edges):
        values.update({name: printable(value) for name, value in values.items() if isinstance(value, str)})
    stream = BytesIO()
    networkx.write_graphml(graph, stream, encoding="utf-8", named_key_ids=True)
    return stream.getvalue().decode("utf-8") + "\n"


def mermaid(view: View) -> str:
    """For Markdown pages that draw Mermaid; edges below `LIKELY` are left out."""
    number = {node.id: f"n{i}" for i, node in enumerate(view.nodes)}
    lines = ["flowchart LR"]
    for node in view.nodes:
        opening, closing = ("([", "])") if node.decision else ("[", "]")
        lines.append(f'    {number[node.id]}{opening}"{_entities(node.label)}"{closing}')
    for edge in _likely(view):
        arrow = "-.->" if edge.later else "-->"
        lines.append(f'    {number[edge.source]} {arrow}|"{edge.probability:.2f}"| {number[edge.target]}')
    return "\n".join(lines) + "\n"


def dot(view: View) -> str:
    """For Graphviz; edges below `LIKELY` are left out."""
    lines = ["digraph topology {", "    rankdir=LR;"]
    names = unique([one_line(node.id) for node in view.nodes])
    quoted = {node.id: _quoted(name) for node, name in zip(view.nodes, names, strict=True)}
    for node in view.nodes:
        lines.append(f"    {quoted[node.id]} [shape={'doubleoctagon' if node.decision else 'ellipse'}];")
    for edge in _likely(view):
        style = ' style="dashed"' if edge.later else ""
        lines.append(
            f"    {quoted[edge.source]} -> {quoted[edge.target]} "
            f'[label="{edge.probability:.2f}" penwidth={0.5 + 4 * edge.probability:.2f}{style}];'
        )
    return "\n".join([*lines, "}"]) + "\n"


def _likely(view: View) -> list[ViewEdge]:
    return [edge for edge in view.edges if edge.probability >= LIKELY]


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _entities(text: str) -> str:
    """In Mermaid's own way to write what would mean something in it; a backtick would begin Markdown."""
    return "".join(_ENTITIES.get(c, c) for c in one_line(text))


#: Formats that are texts, with the ending of their files.
TEXTS: Mapping[str, tuple[str, Callable[[View], Any]]] = {
    "json": ("json", as_json),
    "graphml": ("graphml", graphml),
    "mermaid": ("mmd", mermaid),
    "dot": ("dot", dot),
}
