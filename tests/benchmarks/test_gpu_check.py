"""The check for a GPU, on a CPU: its numbers are sane, what is broken fails it, no tensor is on the wrong device."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.gpu_check import __main__ as command
from benchmarks.gpu_check import (
    answering,
    invariants_caches,
    invariants_fusers,
    invariants_runs,
    memory,
    runner,
    sections,
)
from benchmarks.gpu_check.checks import Check, worst
from benchmarks.gpu_check.runner import CUT, FAILED, PASSED, SKIPPED, Part, Section
from benchmarks.gpu_check.setting import Models
from benchmarks.gpu_check.shapes import SHAPES
from benchmarks.gpu_check.small import Small
from benchmarks.gpu_check.table import BEGIN, END
from benchmarks.gpu_check.tokenizer import bpe_tokenizer
from gcache.cache.fusers import base
from gcache.cache.fusers.registry import FUSERS
from gcache.cache.rope import Rope
from gcache.llm.cache_budget import CacheLedger
from gcache.llm.decode import decoding, sampler_state
from gcache.llm.requests import GenerateRequest

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")
#: What setup.cfg asks for, and the check must do without.
NOT_NEEDED = ("accelerate", "dotenv", "gguf", "math_verify", "matplotlib", "reasoning_gym")
WITHOUT = f"""
import sys
from importlib.machinery import PathFinder
found = PathFinder.find_spec
PathFinder.find_spec = staticmethod(
    lambda name, path=None, target=None: None if name.partition(".")[0] in {NOT_NEEDED} else found(name, path, target)
)
from benchmarks.gpu_check.__main__ import main
code = main(sys.argv[1:])
assert not set({NOT_NEEDED}) & {{name.partition(".")[0] for name in sys.modules}}
sys.exit(code)
"""


# -- the whole of it, once ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[int, dict[str, Any], str]:
    """Exit code, record and document of a run on a CPU, in a process that lacks what it must do without."""
    folder = tmp_path_factory.mktemp("gpu_check")
    out, document = folder / "result.json", folder / "page.md"
    document.write_text(f"before\n{BEGIN}\nnot yet measured\n{END}\nafter\n", encoding="utf-8")
    words = ["--shapes", "tiny", "--device", "cpu", "--out", str(out), "--table", str(document), "--budget", "2000"]
    command_line = [sys.executable, "-c", WITHOUT, *words]
    done = subprocess.run(command_line, cwd=ROOT, capture_output=True, text=True, check=False)
    assert out.is_file(), done.stderr
    return done.returncode, json.loads(out.read_text(encoding="utf-8")), document.read_text(encoding="utf-8")


def figures(record: dict[str, Any], section: str) -> Any:
    return next(outcome["figures"] for outcome in record["sections"] if outcome["section"] == section)


@pytest.mark.slow
def test_everything_passes_on_a_cpu(tiny: tuple[int, dict[str, Any], str]) -> None:
    code, record, document = tiny
    assert {outcome["section"]: outcome["status"] for outcome in record["sections"]} == dict.fromkeys(
        command.NAMES, PASSED
    )
    assert code == 0
    assert {"torch", "transformers", "cuda", "name", "device"} <= record["machine"].keys()
    assert str(Path.home()) not in json.dumps(record) and "/tmp" not in record["command"]
    assert document.startswith(f"before\n{BEGIN}\n*CPU.") and document.endswith(f"{END}\nafter\n")
    assert "not yet measured" not in document and "Questions in hand" in document


@pytest.mark.slow
def test_every_invariant_is_measured_beside_its_bar(tiny: tuple[int, dict[str, Any], str]) -> None:
    checks = [check for outcome in tiny[1]["sections"] for check in outcome["checks"]]
    of_invariants = [check for check in checks if check["number"]]
    assert {check["number"] for check in of_invariants} == {1, 2, 3, 4, 5, 8, 11, 12}
    for fuser in FUSERS:
        numbers = {check["number"] for check in of_invariants if check["model"].endswith(f", {fuser}")}
        assert {3, 4, 5, 12} <= numbers, fuser
    assert all(check["measured"] >= 0 for check in checks)
    assert any(check["measured"] > 0 for check in of_invariants if not check["at_least"]), "nothing was rounded at all"


@pytest.mark.slow
def test_speeds_and_bytes_are_sane(tiny: tuple[int, dict[str, Any], str]) -> None:
    record = tiny[1]
    speed, limits = figures(record, "speed"), figures(record, "memory")
    assert speed["model"]["dtype"] == "bfloat16"
    assert all(0 < ratio < 100 for ratio in (*speed["decoding"]["read_ratio"], *speed["decoding"]["written_ratio"]))
    for work in ("prefill", "decode"):
        assert 0 < speed["floor"][work]["best_share"] < 1
        assert speed["floor"][f"{work}_busy"] > 0
    assert speed["agreement"]["float32"]["n"] == 2
    systems = figures(record, "end_to_end")["systems"]
    reference, chain, latents = systems.values()
    assert {system["generated"] for system in systems.values()} == {6.0}
    assert chain["prefilled"] == latents["prefilled"] < reference["prefilled"]
    assert 0 < latents["peak_bytes"] < chain["peak_bytes"]
    levels = figures(record, "concurrency")["levels"]
    assert [level["in_hand"] for level in levels] == [1, 4, 16, 64, 256]
    assert levels[-1]["peak_cache_bytes"] > 4 * levels[1]["peak_cache_bytes"]
    assert limits["with"]["peak"] <= limits["limit"] + limits["room"] < limits["without"]["peak"]
    assert limits["with"]["kept"] < limits["without"]["kept"]
    assert all(row["call_ms"][0] > 0 for row in figures(record, "orchestration")["growth"])


# -- what is broken fails -----------------------------------------------------------------------


def broken_rotation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Rope, "rotate", lambda self, keys, offset: keys)


def broken_padding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "last_real", lambda hidden, lengths: hidden[:, -1])


def broken_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = base.log_weight
    monkeypatch.setattr(base, "log_weight", lambda weight: 0.5 * whole(weight) + 0.5 * whole(weight).detach())


def broken_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    def uniforms(request: GenerateRequest) -> torch.Tensor:
        return torch.rand(request.max_new_tokens, dtype=torch.float64)

    monkeypatch.setattr(sampler_state, "uniforms", uniforms)


def one_fuser(small: Small) -> Iterator[Check]:
    return invariants_fusers.gradients(small, "concat")


@pytest.fixture
def small() -> Small:
    return Small.of("Qwen3", CPU)


@pytest.mark.parametrize(
    ("breaks", "asks", "number"),
    [
        (broken_rotation, invariants_caches.positions, 3),
        (broken_padding, invariants_caches.batching, 1),
        (broken_gradient, one_fuser, 5),
        (broken_streams, invariants_runs.concurrency, 2),
    ],
)
@pytest.mark.slow
def test_what_is_broken_is_found(
    small: Small, monkeypatch: pytest.MonkeyPatch, breaks: Any, asks: Any, number: int
) -> None:
    breaks(monkeypatch)
    failed = {check.number for check in asks(small) if not check.passed}
    assert number in failed


def test_a_ledger_that_keeps_to_no_limit_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CacheLedger, "_fits", lambda self, more: True)
    parts = list(memory.bound(Models(CPU).get("tiny")))
    failed = [part.what for part in parts if isinstance(part, Check) and not part.passed]
    assert "the most memory under a limit, to its bound" in failed
    assert "times that something gave way to the limit" in failed


def test_a_broken_invariant_makes_the_command_fail(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken_rotation(monkeypatch)
    monkeypatch.setattr(sections, "FAMILIES", ("Qwen3",))
    monkeypatch.setattr(invariants_caches, "ALL", (invariants_caches.positions,))
    monkeypatch.setattr(invariants_runs, "ALL", ())
    monkeypatch.setattr(invariants_fusers, "fusers", lambda small: iter(()))
    out = tmp_path / "result.json"
    words = ["--shapes", "tiny", "--device", "cpu", "--only", "invariants", "orchestration", "--out", str(out)]
    assert command.main(words) == command.FAILED
    record = json.loads(out.read_text(encoding="utf-8"))
    assert [outcome["status"] for outcome in record["sections"]] == [FAILED, PASSED]  # it did not stop the other
    assert "- **invariants**: failed (" in capsys.readouterr().out


def test_not_a_number_is_no_pass() -> None:
    assert not Check(1, "what", "model", float("nan"), 1.0).passed
    assert not Check(1, "what", "model", float("nan"), 1.0, at_least=True).passed
    assert worst([0.0, float("nan"), 1.0]) != worst([0.0, float("nan"), 1.0])
    assert Check(1, "what", "model", 1.0, 1.0).passed and not Check(1, "what", "model", 1.1, 1.0).passed


# -- sections and their time --------------------------------------------------------------------


def test_a_section_that_fails_stops_no_other_and_keeps_its_parts() -> None:
    def fails() -> Iterator[Part]:
        yield {"known": 1}
        raise RuntimeError("out\nof memory")

    told: list[list[str]] = []
    outcomes = runner.run_all(
        [Section("a", None, 1, fails), Section("b", None, 1, lambda: iter([{"known": 2}]))], 60, CPU,
        lambda now: told.append([outcome.status for outcome in now]),
    )  # fmt: skip
    assert [outcome.status for outcome in outcomes] == [FAILED, PASSED]
    assert outcomes[0].figures == {"known": 1} and outcomes[0].error.startswith("RuntimeError: out of memory at fails:")
    assert told[0] == [SKIPPED, SKIPPED] and told[1] == [CUT, SKIPPED] and told[-1] == [FAILED, PASSED]


def test_a_section_is_cut_off_at_its_time_and_what_comes_too_late_is_named() -> None:
    def endless() -> Iterator[Part]:
        yield {"known": 1}
        while True:
            time.sleep(0.01)

    began = time.monotonic()
    outcomes = runner.run_all(
        [Section("a", None, 2, endless), Section("b", None, 1, endless)], 3.3, CPU, lambda now: None
    )
    assert time.monotonic() - began < 6
    assert [(outcome.status, outcome.figures) for outcome in outcomes] == [(CUT, {"known": 1}), (SKIPPED, {})]


def test_a_run_of_a_graph_is_cut_off_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a failing pass does row by row, and whoever waits for it: time that is over ends all of it."""
    ready = Models(CPU).get("tiny")

    def slowly(logits: Any, *rest: Any) -> Any:
        time.sleep(60)

    monkeypatch.setattr(sampler_state.SamplerState, "draw", slowly)
    section = Section("concurrency", "tiny", 1, lambda: answering.in_hand(ready))
    (outcome,) = runner.run_all([section], 3, CPU, lambda now: None)
    assert outcome.status == CUT and outcome.seconds < 20


def test_unfinished_is_neither_passed_nor_failed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sections, "planned", lambda *_: [Section("speed", "tiny", 1, lambda: iter(()))])
    words = ["--shapes", "tiny", "--device", "cpu", "--out", str(tmp_path / "result.json")]
    assert command.main([*words, "--budget", "1"]) == command.UNFINISHED
    assert command.main([*words, "--budget", "10"]) == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--only", "none", "speed"], "--only none"),
        (["--only", "none", "--out", "missing.json"], "missing.json"),
        (["--budget", "0"], "--budget"),
        (["--device", "nowhere"], "nowhere"),
        *([] if torch.cuda.is_available() else [(["--shapes", "tiny", "8b"], "there is no GPU here")]),
    ],
)
def test_a_user_s_error_is_one_line(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(words) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert message in line


def test_names_are_the_same_everywhere() -> None:
    assert tuple(sections.SHARES) == command.NAMES and tuple(SHAPES) == command.SHAPES
    planned = sections.planned(["tiny"], CPU, command.NAMES)
    assert tuple(section.name for section in planned) == command.NAMES
    page = (ROOT / "docs/performance.md").read_text(encoding="utf-8")
    assert page.count(BEGIN) == page.count(END) == 1


# -- models -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "parameters"), [("0.6b", 596_049_920), ("4b", 4_022_468_096), ("8b", 8_190_735_360)])
def test_shapes_have_as_many_parameters_as_the_real_models(name: str, parameters: int) -> None:
    from transformers import Qwen3ForCausalLM

    with torch.device("meta"):
        assert Qwen3ForCausalLM(SHAPES[name].config()).num_parameters() == parameters


def test_the_tokenizer_fits_every_shape_and_writes_any_text() -> None:
    tokenizer = bpe_tokenizer()
    text = "Ada has 3 books \u2014 \u00fc, \u4e2d!\n"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert len(tokenizer) <= min(shape.vocab_size for shape in SHAPES.values())
