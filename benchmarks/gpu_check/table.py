"""A record as Markdown: what held, then one table per section, every figure beside its reference."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

from benchmarks.markdown import number, spread, table

BEGIN, END = "<!-- gpu:begin -->", "<!-- gpu:end -->"
MIB = 2**20

Outcome = Mapping[str, Any]


def render(record: Mapping[str, Any]) -> str:
    """All tables of a record."""
    sections = record["sections"]
    parts = [_summary(record), *_unfinished(sections), _checks(sections)]
    for name, (title, of) in SECTIONS.items():
        rows = [outcome for outcome in sections if outcome["section"] == name and outcome["figures"]]
        if rows:
            parts += [f"### {title}", of(rows)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _summary(record: Mapping[str, Any]) -> str:
    m = record["machine"]
    gpu = ""
    if "memory" in m:
        gpu = f", {m['memory'] / 2**30:.0f} GiB, compute capability {m['capability']}, CUDA {m['cuda']}"
    return (
        f"*{m['name']}{gpu}. {m['processor']}, {m['threads']} threads, Python {m['python']}, torch {m['torch']}, "
        f"transformers {m['transformers']}, gcache {m['gcache']}, {record['date'][:10]}. `{record['command']}`. Models "
        "have random weights in the shapes of Qwen3, bfloat16; nothing is guessed ahead, and all texts are equally "
        "long.*"
    )


def _unfinished(sections: Sequence[Outcome]) -> list[str]:
    """What did not pass, in one line each."""
    return [
        f"- **{outcome['section']} {outcome['shape'] or ''}".rstrip() + f"**: {outcome['status']}"
        + (f" ({outcome['error']})" if outcome["error"] else "")
        for outcome in sections if outcome["status"] != "passed"
    ]  # fmt: skip


def _checks(sections: Sequence[Outcome]) -> str:
    """Of every invariant, how many checks passed, and the one that came nearest to its bar."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for outcome in sections:
        for check in outcome["checks"]:
            where = f"{check['number']}" if check["number"] else outcome["section"]
            groups.setdefault(where, []).append(check)
    if not groups:
        return ""
    rows = []
    for where, checks in sorted(groups.items(), key=lambda group: (not group[0].isdigit(), group[0].zfill(3))):
        passed = sum(check["passed"] for check in checks)
        nearest = max(checks, key=_nearness)
        figure = nearest["measured"] if isinstance(nearest["measured"], str) else f"{nearest['measured']:.2g}"
        bound = "at least" if nearest["at_least"] else "at most"
        rows.append([where, f"{passed} of {len(checks)}", f"{nearest['what']} ({nearest['model']})",
                     figure, f"{bound} {nearest['bar']:.2g}"])  # fmt: skip
    return "### What must hold\n\n" + table(["invariant", "passed", "nearest to its bar", "measured", "bar"], rows)


def _nearness(check: Mapping[str, Any]) -> float:
    """1 at the bar, more beyond it."""
    measured, bar = check["measured"], check["bar"]
    if isinstance(measured, str):
        return float("inf")
    if check["at_least"]:
        return 0.0 if check["passed"] else float("inf")
    return measured / bar if bar else float("inf") if measured else 0.0


def _speed(rows: Sequence[Outcome]) -> str:
    head = ["shape", "prompt tokens read/s, transformers", "ours", "ratio", "text tokens written/s, transformers",
            "ours", "ratio", "same texts, float32"]  # fmt: skip
    cells = []
    for outcome in rows:
        d = outcome["figures"].get("decoding")
        if d is None:
            continue
        same = outcome["figures"].get("agreement", {}).get("float32")
        cells.append([
            outcome["shape"], spread(d["read_per_second"]["transformers"]), spread(d["read_per_second"]["ours"]),
            spread(d["read_ratio"], "x"), spread(d["written_per_second"]["transformers"]),
            spread(d["written_per_second"]["ours"]), spread(d["written_ratio"], "x"),
            f"{same['identical']} of {same['n']}" if same else "",
        ])  # fmt: skip
    return "\n\n".join(part for part in (table(head, cells) if cells else "", _floor(rows)) if part)


def _floor(rows: Sequence[Outcome]) -> str:
    head = ["shape", "work", "floor", "measured", "share of the floor, best", "device busy", "operators"]
    cells = []
    for outcome in rows:
        found = outcome["figures"].get("floor")
        for work in ("prefill", "decode") if found else ():
            m, unit = found[work], "ms a batch" if work == "prefill" else "ms a step"
            busy = found.get(f"{work}_busy")
            shares = found.get(f"{work}_operators", ())
            operators = ", ".join(f"{s['operator'].removeprefix('aten::')} {s['share']:.0%}" for s in shares[:4])
            if work == "decode" and outcome["figures"].get("model", {}).get("recorded_passes"):
                busy, operators = None, "replayed as a whole"  # what a recording runs is no operator's
            cells.append([
                outcome["shape"], f"{work}, batch {found['batch']}",
                f"{number(1e3 * median(m['floor_seconds']))} {unit}", f"{number(1e3 * median(m['seconds']))} {unit}",
                f"{m['best_share']:.0%}", "" if busy is None else f"{busy / median(m['seconds']):.0%}", operators,
            ])  # fmt: skip
    return table(head, cells) if cells else ""


def _end_to_end(rows: Sequence[Outcome]) -> str:
    head = ["shape", "system", "questions/s", "to reference", "prefilled tokens/question", "generated",
            "peak MiB per question in hand", "to reference"]  # fmt: skip
    cells = []
    for outcome in rows:
        for name, s in outcome["figures"]["systems"].items():
            ratio = outcome["figures"].get("ratios", {}).get(name)
            cells.append([
                outcome["shape"], name, number(s["questions_per_second"]),
                f"{number(ratio['questions_per_second'])}x" if ratio else "", number(s["prefilled"]),
                number(s["generated"]), number(s["peak_bytes"] / MIB),
                f"{number(ratio['peak_bytes'])}x" if ratio else "",
            ])  # fmt: skip
    return table(head, cells)


def _concurrency(rows: Sequence[Outcome]) -> str:
    head = ["shape", "in hand", "questions", "questions/s", "to one in hand", "text tokens/s", "peak cache MiB"]
    cells = []
    for outcome in rows:
        levels = outcome["figures"]["levels"]
        for level in levels:
            ratio = level["questions_per_second"] / levels[0]["questions_per_second"]
            cells.append([
                outcome["shape"], str(level["in_hand"]), str(level["questions"]), number(level["questions_per_second"]),
                f"{number(ratio)}x", number(level["tokens_per_second"]), number(level["peak_cache_bytes"] / MIB),
            ])  # fmt: skip
    return table(head, cells)


def _memory(rows: Sequence[Outcome]) -> str:
    head = ["shape", "limit MiB", "counted", "measured", "bound", "without a limit: counted", "measured", "gave way"]
    cells = [
        [
            outcome["shape"], *(number(value / MIB) for value in (
                f["limit"], f["with"]["counted"], f["with"]["peak"], f["limit"] + f["room"], f["without"]["counted"],
                f["without"]["peak"],
            )), f"{f['with']['gave_way']} times",
        ]
        for outcome in rows if "with" in (f := outcome["figures"])
    ]  # fmt: skip
    return table(head, cells)


def _orchestration(rows: Sequence[Outcome]) -> str:
    head = ["topology", "agents", "questions at once", "ms per call", "asyncio alone, ms per call", "ms per edge"]
    cells = [
        [c["topology"], str(c["agents"]), f"{c['in_flight']:,}", spread(c["call_ms"]), spread(c["bare_call_ms"]),
         spread(c["edge_ms"])]
        for outcome in rows for c in (*outcome["figures"]["in_flight"], *outcome["figures"]["growth"])
    ]  # fmt: skip
    return table(head, cells)


#: Section -> its title, and how its outcomes become a table.
SECTIONS: Mapping[str, tuple[str, Callable[[Sequence[Outcome]], str]]] = {
    "speed": ("Prefill and decoding, beside transformers and the device's floor", _speed),
    "end_to_end": ("End to end, beside the published algorithm", _end_to_end),
    "concurrency": ("Questions in hand", _concurrency),
    "memory": ("Memory under a limit", _memory),
    "orchestration": ("The graph's own work, with caches on the device", _orchestration),
}
