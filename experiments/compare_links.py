"""What each link between two models carries: agents on one model, the decision maker on another, the same questions.

    python experiments/compare_links.py --llm_name smollm2 --agent_models MODEL.gguf --links text overlap --json a.json

Beside the links: nothing handed over at all, the agents' words in the decision maker's own prompt, and agents on the
decision maker's model, which hand it caches. Differences are paired over questions with the row of no transfer.
Nothing is trained here; a perceiver comes with its --link_file.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from gcache.build import Built, build
from gcache.commands import flags
from gcache.commands.console import guarded, log_to_stderr
from gcache.commands.graph_flags import add_graph_flags, graph_spec
from gcache.commands.options import options
from gcache.config import GraphSpec, TaskSpec
from gcache.errors import ConfigError, unknown
from gcache.evaluation.evaluate import Evaluation, evaluate, evaluate_text
from gcache.evaluation.intervals import paired_difference
from gcache.evaluation.tables import markdown
from gcache.files import without_folders, write_json
from gcache.gnn.fixed import FixedTopology
from gcache.gnn.topology import Topology
from gcache.graph.cache_graph import CacheGraph
from gcache.graph.result import RunResult
from gcache.links.link import AUTO
from gcache.links.registry import CHOICES
from gcache.llm.cache_budget import Limits
from gcache.tasks.example import Example, Task

#: What may be compared.
NAMES = tuple(name for name in CHOICES.built_in if name != AUTO)
#: Rows beside those of links.
NO_TRANSFER, ONE_PROMPT, ONE_MODEL = "no transfer", "words in one prompt", "one model"


@dataclass(frozen=True)
class Row:
    """One way to hand over.

    Attributes:
        nbytes: handed over per question, of states or caches; words: of UTF-8, where agents speak.
        seconds: per question, all rows asked in the same way.
    """

    found: Evaluation
    nbytes: float
    words: float
    seconds: float


def main(argv: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    log_to_stderr()
    return guarded(lambda: run(args))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--links", nargs="*", default=["text", "overlap"], metavar="LINK", help=", ".join(NAMES))
    parser.add_argument("--rows", nargs="*", default=[NO_TRANSFER, ONE_PROMPT, ONE_MODEL], help="beside the links")
    parser.add_argument("--task", default="split_facts", help="(default: %(default)s)")
    parser.add_argument("--task_option", nargs="+", default=[], metavar="NAME=VALUE", help="of the task")
    parser.add_argument("--data", help="of a task that reads a file")
    parser.add_argument("--topology", default="star", help="who hands to whom (default: %(default)s)")
    parser.add_argument("--limit", type=int, default=200, help="test questions (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of questions (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything, answer by answer, to this file")
    add_graph_flags(parser)
    flags.add(parser, Limits)
    return parser


def run(args: argparse.Namespace) -> int:
    for name in args.links:
        if name not in NAMES:
            raise unknown("link", name, NAMES)
    for name in args.rows:
        if name not in (NO_TRANSFER, ONE_PROMPT, ONE_MODEL):
            raise unknown("row", name, (NO_TRANSFER, ONE_PROMPT, ONE_MODEL))
    if not args.links and not args.rows:
        raise ConfigError("nothing to compare: name some --links or --rows")
    if args.links and not args.agent_models:
        raise ConfigError("links are between two models; name the agents' by --agent_models")
    task_spec = TaskSpec(args.task, args.data, options(args.task_option))
    task = task_spec.make()
    args.link = "perceiver" if args.link_file else AUTO  # each row has a link of its own
    args.route, args.route_file = "none", None
    spec = graph_spec(args, task.domain, task.max_new_tokens)
    examples = list(task.test(args.limit, args.seed))
    rows = [_row(args, spec, task, examples, name) for name in (*args.rows, *args.links)]
    if args.json:
        kept = {
            "task": task_spec.to_json(), "limit": args.limit, "seed": args.seed, "topology": args.topology,
            "graph": spec.to_json(), "rows": [{"name": row.found.name, **asdict(row)} for row in rows],
        }  # fmt: skip
        write_json(args.json, without_folders(kept))
    sys.stdout.write(_table(rows))
    return 0


def _row(args: argparse.Namespace, spec: GraphSpec, task: Task, examples: Sequence[Example], name: str) -> Row:
    """One condition; its models are loaded for it, and gone afterwards."""
    if name in (NO_TRANSFER, ONE_PROMPT, ONE_MODEL):
        spec = replace(spec, agent_models=(), agent_quantization=(), link_file=(), link=AUTO)
    else:
        spec = replace(spec, link=name, link_file=spec.link_file if name == "perceiver" else ())
    built = build(spec, flags.make(Limits, args))
    assert isinstance(built.graph, CacheGraph)
    if name == ONE_PROMPT:
        found = evaluate_text(built.graph, task, examples, name)
        words = sum(len(note.text.encode()) for example in examples for note in example.notes) / len(examples)
        return Row(found, 0.0, words, found.seconds / len(examples))
    return _asked(built, built.graph, task, examples, "none" if name == NO_TRANSFER else args.topology, name)


def _asked(
    built: Built, graph: CacheGraph, task: Task, examples: Sequence[Example], topology: str, name: str
) -> Row:  # fmt: skip
    carried, words = 0, 0

    def chosen(example: Example) -> Topology:
        agents = len(example.notes) or len(graph.agents)
        return FixedTopology(topology, agents, built.spec.seed).most_likely()[0]

    async def ask(example: Example, topology: Topology | None) -> RunResult:
        nonlocal carried, words
        result = await graph.arun(example, topology=topology, keep_caches=False)
        carried += sum(result.edge_bytes.values())
        words += sum(len(text.encode()) for text in result.said.values())
        return result

    found = evaluate(graph, task, examples, name, chosen, ask=ask)
    return Row(found, carried / len(examples), words / len(examples), found.seconds / len(examples))


def _table(rows: Sequence[Row]) -> str:
    """The rows as a table, each paired with the first."""
    head = [
        "handed over", "accuracy", f"difference to {rows[0].found.name}", "unparsed", "unstated", "cut",
        "bytes a question", "seconds a question",
    ]  # fmt: skip
    return markdown(head, [_cells(row, _right(rows[0])) for row in rows])


def _cells(row: Row, first: Sequence[float]) -> list[str]:
    found, (mean, low, high) = row.found, paired_difference(first, _right(row))
    return [
        found.name, f"{found.accuracy:.3f} ({found.low:.3f} to {found.high:.3f})",
        f"{mean:+.3f} ({low:+.3f} to {high:+.3f})", str(found.unparsed), str(found.unstated), str(found.cut),
        f"{row.nbytes or row.words:,.0f}", f"{row.seconds:.2f}",
    ]  # fmt: skip


def _right(row: Row) -> list[float]:
    return [float(each.outcome == "right") for each in row.found.rows]


if __name__ == "__main__":
    sys.exit(main())
