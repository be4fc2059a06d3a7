"""Every section on a tiny model: the numbers are there, add up, and land in records and tables."""

from __future__ import annotations

import importlib
import json
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import answering, decoding, documents, end_to_end, floor, training_step
from benchmarks.__main__ import main
from benchmarks.documents import with_documents
from benchmarks.machine_speed import Sizes
from benchmarks.markdown import BEGIN, END
from benchmarks.setting import Bench, Questions, Settings

SETTINGS = Settings(questions=5, batch=2, latent_steps=2, max_new_tokens=6, repeats=2)


@pytest.fixture(scope="module")
def bench(model_folder: Path, data: Path) -> Bench:
    return Bench.of(str(model_folder), Questions.of(str(data), SETTINGS), SETTINGS)


def test_end_to_end(bench: Bench) -> None:
    found = end_to_end.measure(bench)
    reference, chain, latents = found["systems"]
    assert reference["name"] == found["reference"]
    assert reference["speed_ratio"] == [1.0, 1.0] and reference["prefilled_ratio"] == reference["peak_ratio"] == 1.0
    assert {system["latent"] for system in found["systems"]} == {2 * end_to_end.AGENTS}
    # the question is read once and not once per agent; who hands on less keeps less
    assert chain["prefilled"] == latents["prefilled"] < reference["prefilled"]
    assert 0 < latents["peak_bytes"] <= chain["peak_bytes"]
    assert all(system["peak_where"].startswith("pass") for system in found["systems"])


def test_documents(bench: Bench) -> None:
    found = documents.measure(bench)
    text, store, two = found["systems"]
    assert text["ratio"] == [1.0, 1.0] and len(store["seconds"]) == 2
    asked = with_documents(bench.examples)
    assert [len(example.notes) for example in asked] == [documents.DOCUMENTS] * 5
    assert len({note.text for example in asked for note in example.notes}) == 5 * documents.DOCUMENTS
    # with the store only the question and what is asked of it are read
    assert store["prefilled"] == two["prefilled"] < text["prefilled"] / 5
    assert 0 < two["bytes_read"] < store["bytes_read"] and text["bytes_read"] == 0
    assert bench.llm.store is None


def test_decoding_agrees_with_transformers(bench: Bench) -> None:
    found = decoding.measure(bench)
    assert found["fp32_agreement"] == {"n": 5, "identical": 5, "partings": ()}
    assert found["yardstick"]["n"] == 5
    assert len(found["ratio"]) == 2
    assert all(0 < count <= 5 * 6 for counts in found["generated"].values() for count in counts)


def test_floor(bench: Bench) -> None:
    found = floor.measure(replace(bench, settings=replace(SETTINGS, repeats=1)), Sizes(square=32, floats=1024))
    assert len(found["prefill"]["seconds"]) == len(found["machine"]) == floor.LEAST_ROUNDS
    assert found["prefill"]["best_share"] > 0
    model = bench.loaded.model
    weights = model.num_parameters() * model.dtype.itemsize  # the embeddings are tied, so the head is among them
    assert found["model"]["layer_bytes"] + found["model"]["head_bytes"] == weights
    for work in ("prefill", "decode"):
        assert 0 < sum(share["share"] for share in found[f"{work}_operators"]) <= 1 + 1e-9


def test_answering(bench: Bench) -> None:
    found = answering.measure(bench)
    assert len(found["seconds"]) == len(found["right"]) == SETTINGS.repeats
    assert len(found["texts"]) == len(found["prompt_tokens"]) == 5
    for count, cut_off, right in zip(found["generated"], found["cut_off"], found["right"], strict=True):
        assert 6 * cut_off <= count <= 6 * 5 and 0 <= right <= 5


def test_training(bench: Bench) -> None:
    size = training_step.Size(questions=2, rollouts=2, steps=1, encoder="hash")
    found = training_step.measure(bench, size)
    assert [cost["gradient"] for cost in found["costs"]] == ["decision", "full"]
    for cost in found["costs"]:
        assert len(cost["ratio"]) == SETTINGS.repeats
        assert all(ratio > 1 for ratio in cost["ratio"])
        assert cost["written"] == 4 and all(0 <= count <= 4 for count in cost["replayed"])


def test_the_command_measures_and_renders(
    model_folder: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = tmp_path / "performance.md"
    document.write_text(f"before\n{BEGIN}\nstale\n{END}\nafter\n", encoding="utf-8")
    out = tmp_path / "out"
    flags = ["--models", str(model_folder), "--data", str(data), "--questions", "3", "--max_new_tokens", "4"]
    assert main([*flags, "--only", "decoding", "--dtype", "float32", "--out", str(out)]) == 0
    assert main(["--only", "none", "--out", str(out), "--table", str(document)]) == 0
    (file,) = out.glob("*.json")
    record = json.loads(file.read_text(encoding="utf-8"))
    instructions = record["machine"]["cpu_capability"]
    assert file.name == f"decoding-{model_folder.name}-{instructions.lower().replace(' ', '_')}-float32.json"
    assert record["n"] == 3 and record["settings"]["max_new_tokens"] == 4
    assert record["model"]["fingerprint"].startswith("weights:")
    assert str(tmp_path.parent) not in file.read_text(encoding="utf-8")  # no folder of this machine
    text = document.read_text(encoding="utf-8")
    assert text.startswith(f"before\n{BEGIN}\n### Decoding") and text.endswith(f"{END}\nafter\n")
    assert f"| {model_folder.name} ({instructions}, float32) |" in text
    assert "stale" not in text and "--questions 3" in text
    assert "### Decoding" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--only", "none", "floor"], "--only none"),
        (["--only", "orchestration", "--repeats", "0"], "--repeats"),
        (["--only", "orchestration", "--data", "missing.jsonl"], "missing.jsonl"),
        (["--only", "none", "--table", "missing.md"], "has no records"),
    ],
)
def test_a_user_s_error_is_one_line(
    flags: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*flags, "--out", str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert message in line


def test_without_records_a_document_keeps_its_tables(tmp_path: Path) -> None:
    document = tmp_path / "performance.md"
    document.write_text(f"{BEGIN}\nmeasured\n{END}\n", encoding="utf-8")
    assert main(["--only", "none", "--out", str(tmp_path / "nothing"), "--table", str(document)]) == 2
    assert "measured" in document.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["__main__", "serving", "links", "shared_machine"])
def test_a_wrong_flag_is_one_line(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        importlib.import_module(f"benchmarks.{name}").main(["--nonsense"])
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert caught.value.code == 2 and line.startswith("python -m benchmarks")
