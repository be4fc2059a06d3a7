"""Checkpoints that were written before the files of the package moved: they load, answer as they did, and go on.

`tests/data/README.md` says what is in the folder.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from gcache import load_graph
from gcache.commands.main import main

BEFORE = Path(__file__).parents[1] / "data" / "checkpoint_before"
#: The arithmetic in which the resumed run was recorded, and what a step of it moves a weight by at most.
RECORDED_ON, MOST_MOVED = "AVX2", 0.05
#: The model is in float32: another processor rounds otherwise.
CLOSE = {"rel": 1e-3, "abs": 1e-4}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy, in which names such as ./model are found."""
    here = tmp_path / "before"
    shutil.copytree(BEFORE, here)
    monkeypatch.chdir(here)
    older = here / "older" / "checkpoints" / "step-000003"
    shutil.copytree(here / "trained", here / "older")
    shutil.copy(here / "older.json", older / "checkpoint.json")
    weights = older / "weights.safetensors"
    # policies that did not look at an edge's receiver had two numbers here
    save_file({n: w[:2].clone() if n == "policy.agreement" else w for n, w in load_file(weights).items()}, weights)
    return here


def read(file: str) -> Any:
    return json.loads((BEFORE / file).read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", ["trained", "older", "stopped"])
def test_it_answers_what_it_answered(folder: Path, name: str) -> None:
    graph = load_graph(name)
    for wanted in read("answers.json")[name]:
        result = graph.run(wanted["question"], sample=True, seed=wanted["seed"], temperature=0.7)
        assert result.answer == wanted["answer"]
        edges = sorted((edge.source, edge.target, edge.weight) for edge in result.topology.edges)
        assert [list(edge[:2]) for edge in edges] == [edge[:2] for edge in wanted["edges"]]
        assert [edge[2] for edge in edges] == pytest.approx([edge[2] for edge in wanted["edges"]], **CLOSE)
        assert result.topology_log_prob == pytest.approx(wanted["log_p"], **CLOSE)
        (spoken,) = result.spoken
        assert spoken.generation is not None and list(spoken.generation.tokens) == wanted["tokens"]
        assert list(spoken.generation.log_probs) == pytest.approx(wanted["log_probs"], **CLOSE)


def test_what_it_learned_matters_to_the_answers(folder: Path) -> None:
    """Else the test before would not see weights that are not loaded."""
    weights = folder / "trained" / "checkpoints" / "step-000003" / "weights.safetensors"
    save_file({name: torch.zeros_like(weight) for name, weight in load_file(weights).items()}, weights)
    wanted = read("answers.json")["trained"][0]
    result = load_graph("trained").run(wanted["question"], sample=True, seed=wanted["seed"], temperature=0.7)
    assert result.topology_log_prob != pytest.approx(wanted["log_p"], **CLOSE)


def test_a_run_that_was_stopped_before_is_resumed_now(folder: Path) -> None:
    assert main(["train", *read("flags.json")]) == 0
    assert len((folder / "stopped" / "metrics.jsonl").read_text().splitlines()) == 3
    found = load_file(folder / "stopped" / "checkpoints" / "step-000003" / "weights.safetensors")
    wanted = load_file(BEFORE / "resumed.safetensors")
    start = load_file(BEFORE / "stopped" / "checkpoints" / "step-000002" / "weights.safetensors")
    assert found.keys() == wanted.keys() and any(not torch.equal(start[name], wanted[name]) for name in wanted)
    for name, weight in wanted.items():
        assert (found[name] - start[name]).abs().max() < MOST_MOVED, name
        # texts are drawn in float32: in another arithmetic another token is drawn, and other things are learned
        if torch.backends.cpu.get_cpu_capability() == RECORDED_ON:
            torch.testing.assert_close(found[name], weight, rtol=1e-3, atol=1e-4, msg=name)


def test_rows_of_a_report_are_known_by_the_names_that_settings_had(folder: Path) -> None:
    """They are kept by a hash of these; under new names all would be measured once more."""
    from gcache.build import build
    from gcache.commands.train import _measured_with
    from gcache.config import GraphSpec, TaskSpec

    graph = json.loads((folder / "trained/checkpoints/step-000003/checkpoint.json").read_text())["graph"]
    measured = _measured_with(TaskSpec(), build(GraphSpec.from_json(graph)), None, ())
    assert json.loads(json.dumps(measured["graph"])) == graph and graph["temporal"] is False


@pytest.mark.parametrize("name", ["trained", "older"])
def test_commands_read_it(folder: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "--checkpoint", name, "--limit", "2", "--json", "eval.json"]) == 0
    assert json.loads((folder / "eval.json").read_text())["n"] == 2
    assert main(["inspect", name, "--limit", "2"]) == 0
    assert "decision maker" in capsys.readouterr().out
