"""Records as tables, with numbers worked out by hand."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from benchmarks.markdown import BEGIN, END, number, put_between_markers, spread, table
from benchmarks.model_cost import ModelCost
from benchmarks.records import NO_MODEL, Record, command_line, read_records, write_record
from benchmarks.table import render
from gcache.errors import DataError


def record(
    section: str, measured: dict[str, Any], label: str = "tiny", kind: tuple[str, str] = ("", "bfloat16")
) -> Record:
    """A record of a model, made with an instruction set, if one is named, and a dtype."""
    instructions, dtype = kind
    model = {"name": label, "label": label, "fingerprint": "folder:12", "dtype": dtype, "parameters": 2_000_000}
    machine = {"processor": "a processor", "threads": 2, "torch": "2", "transformers": "5"}
    if instructions:
        machine["cpu_capability"] = instructions
    return Record(
        section=section,
        model={"label": NO_MODEL} if label == NO_MODEL else model,
        command="python -m benchmarks",
        machine=machine,
        settings={"seed": 0},
        questions="generated",
        n=64,
        date="2026-01-01T00:00:00+00:00",
        measured={"reference": "something", **measured},
    )


def training(*ratios: float) -> dict[str, Any]:
    rollouts = [2.0] * len(ratios)
    steps = [2.0 * ratio for ratio in ratios]
    cost = {"gradient": "full", "written": 64, "replayed": [40] * len(ratios)}
    return {"costs": [{**cost, "rollouts": rollouts, "step": steps, "ratio": list(ratios)}]}


def agreement(identical: int, *gaps: float | None) -> dict[str, Any]:
    partings = [{"prompt": 0, "place": 1, "gap": gap, "top_gap": 0.5} for gap in gaps]
    return {"n": identical + len(gaps), "identical": identical, "partings": partings}


def test_a_figure_stands_beside_its_reference_with_its_spread() -> None:
    text = render([record("training", training(1.25, 1.5, 2.0))])
    assert "| model | gradient | rollouts, s | whole step, s | step / rollouts | texts replayed |" in text
    assert "| tiny | full | 2.00 | 3.00 | 1.50x (1.25x to 2.00x) | 40 of 64 |" in text
    assert "Model tiny (folder:12, bfloat16, 2 million parameters), 64 questions, generated, seed 0." in text
    assert "Reference: something. a processor, 2 threads" in text


def test_models_of_a_section_share_its_table() -> None:
    text = render([record("training", training(1.5)), record("training", training(2.0), "other")])
    assert text.count("### ") == 1
    assert "| tiny | full | 2.00 | 3.00 | 1.50x | 40 of 64 |\n| other | full | 2.00 | 4.00 | 2.00x | 40 of 64 |" in text


def test_kinds_of_one_model_stand_beside_each_other(tmp_path: Path) -> None:
    for kind in (("", "bfloat16"), ("AVX512", "bfloat16"), ("AVX2", "float32")):
        write_record(tmp_path, record("training", training(1.5), kind=kind))
    assert {path.name for path in tmp_path.iterdir()} == {
        "training-tiny.json", "training-tiny-avx512-bfloat16.json", "training-tiny-avx2-float32.json",
    }  # fmt: skip
    text = render(read_records(tmp_path))
    assert text.count("### ") == 1
    for row in ("| tiny | full", "| tiny (AVX512, bfloat16) | full", "| tiny (AVX2, float32) | full"):
        assert row in text
    assert "a processor (AVX2), 2 threads" in text and "a processor, 2 threads" in text


def test_without_a_model_the_kind_is_the_instructions() -> None:
    made = record("orchestration", {}, NO_MODEL, ("NO AVX", "float32"))
    assert made.kind == ("NO AVX",)
    assert made.file_name == "orchestration-no_model-no_avx.json"


def test_beside_llama_cpp() -> None:
    prefill = {"prompts": 16, "length": 100, "tokens_per_second": {"llama.cpp": [200.0], "ours": [300.0]}}
    speeds = {"llama.cpp": [100.0, 50.0], "ours": [150.0, 100.0], "ours, without lookup": [75.0, 50.0]}
    decode = {"batch": 4, "tokens_per_second": speeds, "ratio": [1.5, 2.0], "ratio_without_lookup": [0.75, 1.0]}
    text = render(
        [
            record(
                "llama_cpp",
                {
                    "prefill": [{**prefill, "ratio": [1.5]}],
                    "decode": [{**decode, "batch": 1}, decode],
                    "steps": 64,
                    "agreement": {"mean": 20.25},
                },
            )
        ]
    )
    assert "| tiny | prefill, 16 x 100 tokens | 200 | 300 | 1.50x |  |  |  |" in text
    figures = "75.0 (50.0 to 100) | 125 (100 to 150) | 1.75x (1.50x to 2.00x) | 62.5 (50.0 to 75.0) | "
    assert f"| tiny | decode, batch 1 | {figures}0.88x (0.75x to 1.00x) |  |" in text
    assert f"| tiny | decode, batch 4 | {figures}0.88x (0.75x to 1.00x) | 20.2 of 65 |" in text


def test_answering() -> None:
    measured = {
        "batch": 16, "max_new_tokens": 250, "seconds": [600.0], "generated": [12000], "tokens_per_second": [20.0],
        "cut_off": [30], "right": [25],
    }  # fmt: skip
    row = "| tiny | 64 | 16 | 250 | 10.0 | 12,000 | 20.0 | 30 of 64 | 25 of 64 |"
    assert row in render([record("answering", measured)])


def test_decoding() -> None:
    measured = {
        "tokens_per_second": {"transformers": [100.0], "ours": [250.0]},
        "ratio": [2.5],
        "ratio_after_first": [2.0],
        "ratio_without_lookup": [1.75],
        "ratio_after_first_without_lookup": [1.5],
        "agreement": agreement(60, 0.01, -0.125, None),
        "yardstick": agreement(16),
        "fp32_agreement": agreement(16),
    }
    speeds = "| tiny | 100 | 250 | 2.50x | 2.00x | 1.75x | 1.50x |"
    agreements = " 60 of 63 | 16 of 16 | 0.12 (at batch 1: none) | 16 of 16 |"
    assert speeds + agreements in render([record("decoding", measured)])


def test_end_to_end() -> None:
    system = {
        "name": "chain", "speed": [0.5], "speed_ratio": [2.0], "prefilled": 300.0, "prefilled_ratio": 0.5,
        "generated": 40.0, "peak_bytes": 3 * 2**20, "peak_ratio": 0.25, "batch_peak_bytes": 6 * 2**20,
        "batch_peak_ratio": 0.5, "in_flight": 32, "equal_ratio": [1.5], "right": 3,
    }  # fmt: skip
    row = "| tiny | chain | 0.50 | 2.00x | 300 | 0.50x | 40.0 | 1.50x | 32 | 3.00 | 0.25x | 6.00 | 0.50x | 3 of 64 |"
    assert row in render([record("end_to_end", {"questions": 64, "systems": [system]})])


def test_floor() -> None:
    work = {"amount": 1600, "seconds": [2.0], "floor_seconds": [1.0], "best_share": 0.5, "median_share": 0.5}
    operators = [{"operator": "aten::mm", "share": 0.75}, {"operator": "outside operators", "share": 0.05}]
    cost = ModelCost(10**6, 4 * 10**6, 4 * 10**6, 2, 8, 1, 8, 4, (8, 8))  # and a head of a million weights
    speed = {"flops": {"1 x 1 x 1": 10.0**6, "4 x 4 x 4": 4.0 * 10**7}, "copied": 1.0, "read": 1.0}
    measured = {"batch": 16, "prefill": work, "decode": {**work, "amount": 1, "slots": 0.0}}
    measured |= {"model": asdict(cost), "machine": [speed]}
    measured |= {"prefill_operators": operators, "decode_operators": operators}
    text = render([record("floor", measured)])
    most = "mm 75%, outside operators 5% |"
    assert f"| tiny | prefill, batch 16 | 1,600 tokens/s | 800 tokens/s | 50% | 50% |  |  | {most}" in text
    step = "| 50% | 50% | 1,600 ms a step | 80% |"  # 2 x 2 million x 16 operations of 40 million a second
    assert f"| tiny | decode, batch 16 | 1,000 ms a step | 2,000 ms a step {step} {most}" in text


def test_orchestration_has_no_model() -> None:
    cost = {
        "topology": "star", "agents": 4, "edges": 4, "in_flight": 1000, "calls": 6000, "total_ms": [1200.0],
        "call_ms": [0.2], "edge_ms": [0.3], "bare_call_ms": [0.02], "ratio": [10.0],
    }  # fmt: skip
    text = render([record("orchestration", {"in_flight": [cost], "growth": []}, NO_MODEL)])
    assert "| star | 4 | 4 | 1,000 | 1,200 | 0.20 | 0.02 | 10.0x | 0.30 |" in text
    assert "Model" not in text


@pytest.mark.parametrize(
    ("value", "text"), [(12345.6, "12,346"), (12.34, "12.3"), (1.234, "1.23"), (0.0, "0.00"), (0.00123, "0.0012")]
)
def test_numbers(value: float, text: str) -> None:
    assert number(value) == text


def test_spread() -> None:
    assert spread([1.0]) == "1.00"
    assert spread([3.0, 1.0, 2.0]) == "2.00 (1.00 to 3.00)"


def test_table() -> None:
    assert table(["a", "b"], [["1", "2"]]) == "| a | b |\n|---|---|\n| 1 | 2 |"


def test_records_come_back_and_are_replaced(tmp_path: Path) -> None:
    write_record(tmp_path, record("training", training(1.5), "a/model"))
    write_record(tmp_path, record("training", training(2.0), "a/model"))
    assert read_records(tmp_path) == [record("training", training(2.0), "a/model")]
    assert (tmp_path / "training-a_model.json").is_file()


def test_what_is_no_record_is_named(tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text("{}", encoding="utf-8")
    with pytest.raises(DataError, match=r"other\.json"):
        read_records(tmp_path)


def test_a_command_names_files_and_not_their_folders(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ATEN_CPU_CAPABILITY", raising=False)
    assert command_line(["--data", "/some/where/test.jsonl"]) == "python -m benchmarks --data test.jsonl"
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "avx2")
    assert command_line([]) == "ATEN_CPU_CAPABILITY=avx2 python -m benchmarks"


@pytest.mark.parametrize("text", ["nothing", f"{END} {BEGIN}", f"{BEGIN} {BEGIN} {END}"])
def test_a_document_needs_both_markers_once(tmp_path: Path, text: str) -> None:
    document = tmp_path / "document.md"
    document.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match="document"):
        put_between_markers(document, "tables")
    assert document.read_text(encoding="utf-8") == text
