"""Records as Markdown: one table per section, every figure beside its reference and the ratio.

A figure that was measured several times stands as its median (lowest to highest).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import median
from typing import Any

from benchmarks.markdown import number, spread, table
from benchmarks.model_cost import ModelCost
from benchmarks.records import Record

MIB = 2**20


def render(records: Sequence[Record]) -> str:
    """All tables, in the order of the sections; records of one section share its table."""
    parts = []
    for section, (title, of) in SECTIONS.items():
        chosen = [record for record in records if record.section == section]
        if chosen:
            parts += [f"### {title}", of(chosen), *map(provenance, chosen)]
    return "\n\n".join(parts) + "\n"


def provenance(record: Record) -> str:
    """What a record's numbers rest on, in one paragraph."""
    m = record.machine
    instructions = f" ({m['cpu_capability']})" if "cpu_capability" in m else ""
    model = record.model
    which = (
        f"Model {model['label']} ({model['fingerprint'][:24]}, {model['dtype']}, "
        f"{model['parameters'] / 1e6:,.0f} million parameters), {record.n} questions, {record.questions}, "
        f"seed {record.settings['seed']}. "
        if "fingerprint" in model
        else ""
    )
    return (
        f"*{which}Reference: {record.measured['reference']}. {m['processor']}{instructions}, {m['threads']} threads, "
        f"torch {m['torch']}, transformers {m['transformers']}, {record.date[:10]}. `{record.command}`*"
    )


def _end_to_end(records: Sequence[Record]) -> str:
    head = [
        "model", "system", "questions/s", "to reference", "prefilled tokens/question", "to reference",
        "generated tokens/question", "speed, texts equally long", "questions in hand",
        "peak cache MiB per question in hand", "to reference", "with one batch in hand", "to reference", "right",
    ]  # fmt: skip
    rows = [
        [
            record.row,
            s["name"],
            spread(s["speed"]),
            spread(s["speed_ratio"], "x"),
            number(s["prefilled"]),
            f"{number(s['prefilled_ratio'])}x",
            number(s["generated"]),
            spread(s["equal_ratio"], "x"),
            str(s["in_flight"]),
            number(s["peak_bytes"] / MIB),
            f"{number(s['peak_ratio'])}x",
            number(s["batch_peak_bytes"] / MIB),
            f"{number(s['batch_peak_ratio'])}x",
            f"{s['right']} of {record.measured['questions']}",
        ]
        for record in records
        for s in record.measured["systems"]
    ]
    return table(head, rows)


def _decoding(records: Sequence[Record]) -> str:
    head = [
        "model", "transformers, text tokens/s", "ours, text tokens/s", "ratio", "ratio after the first token",
        "without lookup, ratio", "ratio after the first token",
        "same tokens as transformers",
        "transformers at batch 1, same tokens", "largest fp32 gap where texts part", "fp32, same tokens",
    ]  # fmt: skip
    rows = []
    for record in records:
        m = record.measured
        speeds = m["tokens_per_second"]
        rows.append(
            [
                record.row,
                spread(speeds["transformers"]),
                spread(speeds["ours"]),
                spread(m["ratio"], "x"),
                spread(m["ratio_after_first"], "x"),
                spread(m["ratio_without_lookup"], "x"),
                spread(m["ratio_after_first_without_lookup"], "x"),
                _same(m["agreement"]),
                _same(m["yardstick"]),
                f"{_largest_gap(m['agreement'])} (at batch 1: {_largest_gap(m['yardstick'])})",
                _same(m["fp32_agreement"]),
            ]
        )
    return table(head, rows)


def _same(agreement: Mapping[str, Any]) -> str:
    return f"{agreement['identical']} of {agreement['n']}"


def _largest_gap(agreement: Mapping[str, Any]) -> str:
    gaps = [abs(p["gap"]) for p in agreement["partings"] if p["gap"] is not None]
    return number(max(gaps)) if gaps else "none"


def _floor(records: Sequence[Record]) -> str:
    head = ["model", "work", "floor", "measured", "share of the floor, best", "median",
            "floor by operations", "share of the higher floor, median", "operators"]  # fmt: skip
    rows = []
    for record in records:
        for work in ("prefill", "decode"):
            m = record.measured[work]
            # milliseconds of a step, or tokens per second
            figure = _milliseconds if work == "decode" else _per_second
            rows.append(
                [
                    record.row,
                    f"{work}, batch {record.measured['batch']}",
                    figure(m, "floor_seconds"),
                    figure(m, "seconds"),
                    f"{m['best_share']:.0%}",
                    f"{m['median_share']:.0%}",
                    *(_by_operations(record.measured) if work == "decode" else ("", "")),
                    _operators(record.measured[f"{work}_operators"]),
                ]
            )
    return table(head, rows)


def _by_operations(measured: Mapping[str, Any]) -> tuple[str, str]:
    """What a step's operations take at the least, and the share of a step that the higher of the two floors is.

    A step of many rows may be bound by operations, on a processor that multiplies slowly or where weights are kept in
    fewer bytes than the model has them in.
    """
    step = measured["decode"]
    if "slots" not in step or "model" not in measured:
        return "", ""  # an earlier record
    flops = ModelCost(**{**measured["model"], "largest_linear": (0, 0)}).step_flops(measured["batch"], step["slots"])
    seconds = [flops / max(speed["flops"].values()) for speed in measured["machine"]]
    higher = max(median(seconds), median(step["floor_seconds"]))
    return f"{spread([1e3 * each for each in seconds])} ms a step", f"{higher / median(step['seconds']):.0%}"


def _milliseconds(floor: Mapping[str, Any], which: str) -> str:
    return spread([seconds * 1e3 for seconds in floor[which]]) + " ms a step"


def _per_second(floor: Mapping[str, Any], which: str) -> str:
    return spread([floor["amount"] / seconds for seconds in floor[which]]) + " tokens/s"


def _operators(shares: Iterable[Mapping[str, Any]]) -> str:
    return ", ".join(f"{s['operator'].removeprefix('aten::')} {s['share']:.0%}" for s in shares)


def _orchestration(records: Sequence[Record]) -> str:
    head = [
        "instructions", "topology", "agents", "edges", "questions at once", "ms in all", "ms per call",
        "asyncio alone, ms per call", "ratio", "ms per edge",
    ]  # fmt: skip
    rows = [
        [
            ", ".join(record.kind) or "unknown",
            c["topology"],
            str(c["agents"]),
            str(c["edges"]),
            f"{c['in_flight']:,}",
            spread(c["total_ms"]),
            spread(c["call_ms"]),
            spread(c["bare_call_ms"]),
            spread(c["ratio"], "x"),
            spread(c["edge_ms"]),
        ]
        for record in records
        for c in (*record.measured["in_flight"], *record.measured["growth"])
    ]
    return table(head, rows)


def _training(records: Sequence[Record]) -> str:
    head = ["model", "gradient", "rollouts, s", "whole step, s", "step / rollouts", "texts replayed"]
    rows = [
        [
            record.row,
            cost["gradient"],
            number(median(cost["rollouts"])),
            number(median(cost["step"])),
            spread(cost["ratio"], "x"),
            f"{median(cost['replayed']):.0f} of {cost['written']}",
        ]
        for record in records
        for cost in record.measured["costs"]
    ]
    return table(head, rows)


def _llama_cpp(records: Sequence[Record]) -> str:
    head = [
        "model", "work", "llama.cpp, tokens/s", "ours, tokens/s", "ratio", "without lookup, tokens/s", "ratio",
        "leading tokens the same, mean",
    ]  # fmt: skip
    rows = []
    for record in records:
        m = record.measured
        for work in m["prefill"]:
            speeds, what = work["tokens_per_second"], f"prefill, {work['prompts']} x {work['length']} tokens"
            cells = [spread(speeds["llama.cpp"]), spread(speeds["ours"]), spread(work["ratio"], "x")]
            rows.append([record.row, what, *cells, "", "", ""])
        for work in m["decode"]:
            speeds, last = work["tokens_per_second"], work is m["decode"][-1]
            rows.append(
                [
                    record.row,
                    f"decode, batch {work['batch']}",
                    spread(speeds["llama.cpp"]),
                    spread(speeds["ours"]),
                    spread(work["ratio"], "x"),
                    spread(speeds["ours, without lookup"]),
                    spread(work["ratio_without_lookup"], "x"),
                    f"{number(m['agreement']['mean'])} of {m['steps'] + 1}" if last else "",
                ]
            )
    return table(head, rows)


def _answering(records: Sequence[Record]) -> str:
    head = [
        "model", "questions", "batch", "tokens of a text, at most", "minutes", "tokens", "tokens/s", "cut off", "right",
    ]  # fmt: skip
    rows = []
    for record in records:
        m = record.measured
        rows.append(
            [
                record.row,
                str(record.n),
                str(m["batch"]),
                str(m["max_new_tokens"]),
                spread([seconds / 60 for seconds in m["seconds"]]),
                spread(m["generated"]),
                spread(m["tokens_per_second"]),
                f"{m['cut_off'][0]} of {record.n}",
                f"{m['right'][0]} of {record.n}",
            ]
        )
    return table(head, rows)


def _reasoning(records: Sequence[Record]) -> str:
    head = [
        "model", "form", "questions", "batch", "tokens of a text", "seconds, slots", "seconds, text", "time ratio",
        "read per question, slots", "read per question, text", "ratio",
    ]  # fmt: skip
    rows = []
    for record in records:
        m = record.measured
        for form, found in m["forms"].items():
            slots, words = found["seconds"].keys()
            rows.append(
                [
                    record.row, form, str(record.n), str(m["batch"]), str(m["tokens"]), spread(found["seconds"][slots]),
                    spread(found["seconds"][words]), spread(found["time_ratio"]),
                    f"{found['tokens'][slots]['prefilled']:.0f}", f"{found['tokens'][words]['prefilled']:.0f}",
                    f"{found['prefilled_ratio']:.0%}",
                ]
            )  # fmt: skip
    return table(head, rows)


def _documents(records: Sequence[Record]) -> str:
    head = [
        "model", "documents", "questions", "seconds to the first token", "ratio", "read per question", "from files, MiB"
    ]  # fmt: skip
    rows = []
    for record in records:
        m = record.measured
        for system in m["systems"]:
            rows.append(
                [
                    record.row, system["name"], str(record.n), spread(system["seconds"]), spread(system["ratio"]),
                    f"{system['prefilled']:.0f}", f"{system['bytes_read'] / 2**20:.1f}",
                ]
            )  # fmt: skip
    return table(head, rows)


#: Section -> its title, and how its records become a table.
SECTIONS: Mapping[str, tuple[str, Callable[[Sequence[Record]], str]]] = {
    "end_to_end": ("End to end, beside the published algorithm", _end_to_end),
    "reasoning": ("Agents that reason, beside the same words as text", _reasoning),
    "documents": ("Documents from a store, beside all of them as text", _documents),
    "decoding": ("Decoding, beside transformers", _decoding),
    "llama_cpp": ("Decoding and prefill, beside llama.cpp", _llama_cpp),
    "floor": ("Prefill and decoding, beside the machine's floor", _floor),
    "orchestration": ("The graph's own work, beside asyncio alone", _orchestration),
    "answering": ("Answering questions, one prompt each", _answering),
    "training": ("A training step, beside its rollouts", _training),
}
