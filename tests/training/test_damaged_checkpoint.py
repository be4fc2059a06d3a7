"""A checkpoint that is damaged, in any file and any way, is refused in one line; nothing is loaded or changed."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from toy import ToyTask, toy_built

from gcache.build import Built
from gcache.config import TaskSpec
from gcache.errors import CheckpointError, GcacheError
from gcache.graph.run_config import GraphConfig
from gcache.llm.local import LocalLLM
from gcache.training import checkpoint as checkpoints
from gcache.training.config import TrainConfig
from gcache.training.trainer import Reinforce

CONFIG = TrainConfig(iterations=3, batch_size=3, rollouts=3, checkpoint_every=1, pruning_rate=0.5, seed=7)
STEP = "step-000002"
FILES = ("checkpoint.json", "weights.safetensors", "optimizer.safetensors")


class Stop(Exception):
    """The plug was pulled."""


def built(llama: Any, tokenizer: Any) -> Built:
    return toy_built(LocalLLM(llama, tokenizer), tokenizer, graph=GraphConfig(latent_steps=0, max_new_tokens=3))


def trainer(llama: Any, tokenizer: Any, out: Path) -> Reinforce:
    return Reinforce(built(llama, tokenizer), ToyTask(), CONFIG, out)


@pytest.fixture(scope="module")
def run(tiny_llama: Any, tiny_tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two of three steps were done."""
    out = tmp_path_factory.mktemp("run")
    learner = trainer(tiny_llama, tiny_tokenizer, out)
    real = learner.step

    def step(number: int, questions: Any) -> Any:
        if number == 2:
            raise Stop
        return real(number, questions)

    learner.step = step  # type: ignore[method-assign]
    with pytest.raises(Stop):
        learner.train(progress=False)
    assert (out / "checkpoints" / "latest").read_text() == f"{STEP}\n"
    assert any(json.loads(line)["replayed"] for line in (out / "metrics.jsonl").read_text().splitlines())
    return out


@pytest.fixture
def copy(run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run, tmp_path / "copy"))


def content(folder: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }  # fmt: skip


def state_of(learner: Reinforce) -> dict[str, Any]:
    """All that a resumed run goes on from."""
    moments = {
        f"{name}.{key}": value
        for name, parameter in learner.parts.named_parameters()
        for key, value in learner.optimizer.state.get(parameter, {}).items()
    }
    source: Any = learner.built.graph.topology_provider
    tensors = {**learner.parts.state_dict(), **moments}
    return {
        "tensors": {name: (str(t.dtype), tuple(t.shape), t.numpy().tobytes()) for name, t in tensors.items()},
        "rest": (learner.done, learner.running, learner.pruner.to_json(), source.pruned),
    }


def refused(learner: Reinforce, out: Path) -> str:
    """The one line, after a look at what was left alone."""
    before, files = state_of(learner), content(out)
    with pytest.raises(GcacheError) as caught:
        learner.train(progress=False)
    assert state_of(learner) == before, "something was loaded"
    assert content(out) == files, "something was written"
    line = str(caught.value)
    assert "\n" not in line and str(out) in line and ";" in line, line
    return line


# -- what may stand in a file ---------------------------------------------------------------


def in_record(**values: Any) -> Callable[[Path], None]:
    """Edit the record, without its seal; ... takes a field out."""

    def spoil(out: Path) -> None:
        path = out / "checkpoints" / STEP / "checkpoint.json"
        record = json.loads(path.read_text())
        record = {**record, **values}
        record.pop("sha256", None)
        path.write_text(json.dumps({k: v for k, v in record.items() if v is not ...}, indent=2))

    return spoil


def in_tensors(name: str, change: Callable[[dict[str, torch.Tensor]], None]) -> Callable[[Path], None]:
    """Edit tensors; the file has no seal then."""

    def spoil(out: Path) -> None:
        path = out / "checkpoints" / STEP / name
        tensors = load_file(path)
        change(tensors)
        save_file(tensors, path)

    return spoil


def as_bytes(name: str, value: bytes) -> Callable[[Path], None]:
    return lambda out: (out / name).write_bytes(value) and None  # type: ignore[func-returns-value]


def as_folder(name: str) -> Callable[[Path], None]:
    def spoil(out: Path) -> None:
        (out / name).unlink()
        (out / name).mkdir()

    return spoil


def gone(name: str) -> Callable[[Path], None]:
    return lambda out: (out / name).unlink()


def elsewhere(out: Path) -> None:
    shutil.copytree(out / "checkpoints" / STEP, out.parent / "outside", dirs_exist_ok=True)
    (out / "checkpoints" / "latest").write_text("../../outside\n")


def first(tensors: dict[str, torch.Tensor]) -> str:
    return next(name for name in sorted(tensors) if tensors[name].dim() and name.startswith("policy"))


def changed(to: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[dict[str, torch.Tensor]], None]:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        tensors[first(tensors)] = to(tensors[first(tensors)])

    return change


def added(tensors: dict[str, torch.Tensor]) -> None:
    tensors["policy.nobody.exp_avg"] = torch.zeros(3)


def taken(tensors: dict[str, torch.Tensor]) -> None:
    del tensors[first(tensors)]


def negative(tensors: dict[str, torch.Tensor]) -> None:
    name = next(name for name in sorted(tensors) if name.endswith("exp_avg_sq"))
    tensors[name] = -torch.ones_like(tensors[name])


def many_steps(tensors: dict[str, torch.Tensor]) -> None:
    name = next(name for name in sorted(tensors) if name.endswith(".step"))
    tensors[name] = torch.tensor(7.0)


LATEST, METRICS = "checkpoints/latest", "metrics.jsonl"
RECORD, WEIGHTS, OPTIMIZER = (f"checkpoints/{STEP}/{name}" for name in FILES)
DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "latest not UTF-8": (as_bytes(LATEST, b"\xff\xfe"), "latest cannot be read"),
    "latest empty": (as_bytes(LATEST, b""), "must name a folder beside it"),
    "latest a folder": (as_folder(LATEST), "latest cannot be read"),
    "latest names nothing": (as_bytes(LATEST, b"step-000009\n"), r"names step-000009, .* \(there: step-000001, step-0"),
    "latest outside": (elsewhere, r"must name a folder beside it, such as step-000010, got '../../outside'"),
    "latest absolute": (as_bytes(LATEST, b"/tmp\n"), "must name a folder beside it"),
    "latest the folder itself": (as_bytes(LATEST, b".\n"), "must name a folder beside it"),
    "latest a NUL": (as_bytes(LATEST, b"step-000002\0x"), "must name a folder beside it"),
    "latest long": (as_bytes(LATEST, b"a" * 5000), "must name a folder beside it"),
    "metrics not UTF-8": (as_bytes(METRICS, b"\xff\xfe\n" * 2), "line 1: not the line of step 0 .UnicodeDecodeError"),
    "metrics empty": (as_bytes(METRICS, b""), "lines of 0 steps, but the checkpoint beside it is of step 2"),
    "metrics gone": (gone(METRICS), "lines of 0 steps"),
    "metrics a folder": (as_folder(METRICS), "metrics.jsonl cannot be read"),
    "metrics not JSON": (as_bytes(METRICS, b"hm\n" * 2), "line 1: not the line of step 0 .JSONDecodeError"),
    "metrics deep": (as_bytes(METRICS, b"[" * 100_000 + b"\n"), "line 1: not the line of step 0 .RecursionError"),
    "metrics no objects": (as_bytes(METRICS, b"1\n2\n"), "no object but int"),
    "metrics of other steps": (as_bytes(METRICS, b'{"step": 0}\n{"step": 5}\n'), r"line 2: not .*\(its step is 5\)"),
    "metrics without step": (as_bytes(METRICS, b'{"utility": 0}\n' * 2), "its step is None"),
    "record not JSON": (as_bytes(RECORD, b"{"), "checkpoint.json cannot be read"),
    "record not UTF-8": (as_bytes(RECORD, b'{"step": "\xff"}'), "checkpoint.json cannot be read .UnicodeDecodeError"),
    "record deep": (as_bytes(RECORD, b"[" * 100_000), "checkpoint.json cannot be read .RecursionError"),
    "record a list": (as_bytes(RECORD, b"[]"), "must be a JSON object, got list"),
    "record gone": (gone(RECORD), "has no checkpoint.json"),
    "record a folder": (as_folder(RECORD), "has no checkpoint.json"),
    "record of another format": (in_record(format=9), "has format 9, this version reads 1"),
    "record without format": (in_record(format=...), "has format None"),
    "record of an unknown field": (in_record(more=1), "does not know: more"),
    "step a text": (in_record(step="2"), "step must be a whole number of 0 or more, got '2'"),
    "step of another folder": (in_record(step=1), "is of step 1, but its folder is step-000002"),
    "step of none": (in_record(step=-2), "got -2"),
    "step between": (in_record(step=2.5), "got 2.5"),
    "step a bool": (in_record(step=True), "got True"),
    "step gone": (in_record(step=...), "lacks step"),
    "more steps than there are": (in_record(training={"iterations": 1}), "its training has 1 steps"),
    "running NaN": (in_record(running_utility=float("nan")), "must be a finite number, got nan"),
    "running a text": (in_record(running_utility="0.5"), "must be a finite number, got '0.5'"),
    "pruned numbers": (in_record(pruned=[1, 2]), "pruned must be a list of"),
    "watched numbers": (in_record(watched_edges=[1]), "watched_edges must be a list of"),
    "watched a text": (in_record(watched_edges="ab"), "watched_edges must be a list of"),
    "watched NaN": (in_record(watched_edges=[["a", "b", 0, float("nan"), 1]]), "watched_edges must be a list of"),
    "task a list": (in_record(task=[]), "task must be an object"),
    "training a list": (in_record(training=[1]), "training must be an object"),
    "fingerprint a number": (in_record(model_fingerprint=3), "must be a text, got 3"),
    "graph a text": (in_record(graph="x"), "graph must be an object"),
    "graph empty": (in_record(graph={}), "graph: not the description of a graph"),
    "moments numbers": (in_record(moments=[1]), "moments must be a list of names"),
    "weights truncated": (lambda out: os.truncate(out / WEIGHTS, 500), "weights.safetensors cannot be read"),
    "weights empty": (as_bytes(WEIGHTS, b""), "weights.safetensors cannot be read"),
    "weights gone": (gone(WEIGHTS), "weights.safetensors cannot be read"),
    "weights a folder": (as_folder(WEIGHTS), "weights.safetensors cannot be read"),
    "a weight NaN": (in_tensors(FILES[1], changed(lambda t: t * float("nan"))), "is not finite"),
    "a weight float64": (in_tensors(FILES[1], changed(torch.Tensor.double)), "is torch.float64 in it"),
    "a weight more": (in_tensors(FILES[1], added), "policy.nobody.exp_avg is .3,. in it and absent in this run"),
    "a weight less": (in_tensors(FILES[1], taken), "absent in it"),
    "a weight misshapen": (in_tensors(FILES[1], changed(lambda t: torch.zeros(7, 5))), r"is \(7, 5\) in it"),
    "moments truncated": (lambda out: os.truncate(out / OPTIMIZER, 500), "optimizer.safetensors cannot be read"),
    "moments gone": (gone(OPTIMIZER), "optimizer.safetensors cannot be read"),
    "moments a folder": (as_folder(OPTIMIZER), "optimizer.safetensors cannot be read"),
    "a moment NaN": (in_tensors(FILES[2], changed(lambda t: t * float("nan"))), "is not finite"),
    "a moment float64": (in_tensors(FILES[2], changed(torch.Tensor.double)), "of torch.float64, not"),
    "a moment more": (in_tensors(FILES[2], added), "has policy.nobody.exp_avg, which is no moment"),
    "a moment less": (in_tensors(FILES[2], taken), "lacks policy.agreement.exp_avg"),
    "a moment misshapen": (in_tensors(FILES[2], changed(lambda t: torch.zeros(7, 5))), r"is \(7, 5\) of"),
    "a moment below 0": (in_tensors(FILES[2], negative), "or below 0"),
    "a moment of later": (in_tensors(FILES[2], many_steps), "step is 7, not a whole number from 1 to 2"),
    "no moments": (in_tensors(FILES[2], dict.clear), "has moments of 0 parameters, but .* had some"),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_run_does_not_resume_from_it(copy: Path, tiny_llama: Any, tiny_tokenizer: Any, damage: str) -> None:
    spoil, message = DAMAGES[damage]
    spoil(copy)
    learner = trainer(tiny_llama, tiny_tokenizer, copy)
    with pytest.raises(CheckpointError, match=message):
        raise CheckpointError(refused(learner, copy))


def test_moments_of_a_version_that_did_not_name_them_are_missed_too(
    copy: Path, tiny_llama: Any, tiny_tokenizer: Any
) -> None:
    in_record(moments=...)(copy)
    learner = trainer(tiny_llama, tiny_tokenizer, copy)
    learner.check()
    in_tensors(FILES[2], dict.clear)(copy)
    assert "lacks the moments of" in refused(learner, copy)


def test_the_files_of_another_step_are_refused(copy: Path, tiny_llama: Any, tiny_tokenizer: Any) -> None:
    for name in FILES[1:]:
        whole = (copy / "checkpoints" / STEP / name).read_bytes()
        shutil.copy(copy / "checkpoints" / "step-000001" / name, copy / "checkpoints" / STEP / name)
        assert "is not what was written after step 2" in refused(trainer(tiny_llama, tiny_tokenizer, copy), copy)
        (copy / "checkpoints" / STEP / name).write_bytes(whole)


@pytest.mark.parametrize("name", ["checkpoint.json", "weights.safetensors", "latest", "metrics.jsonl"])
def test_a_file_that_may_not_be_read_is_named(
    copy: Path, tiny_llama: Any, tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    real = Path.read_bytes

    def read_bytes(path: Path) -> bytes:
        if path.name == name:
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    learner = trainer(tiny_llama, tiny_tokenizer, copy)
    with monkeypatch.context() as patched:
        patched.setattr(Path, "read_bytes", read_bytes)
        with pytest.raises(CheckpointError, match=rf"{name} cannot be read .*Permission denied"):
            learner.train(progress=False)


def test_a_task_that_is_none_is_refused(copy: Path) -> None:
    for task in ({}, {"name": 3}, {"name": "split_facts", "data": 1}, {"name": "split_facts", "more": 1}):
        with pytest.raises(CheckpointError, match="does not say which task it was trained on"):
            TaskSpec.from_json(task, copy)
    in_record(task={})(copy)
    with pytest.raises(CheckpointError, match="does not say which task"):
        from gcache.commands.inspect import look_at

        look_at(copy)


@pytest.mark.parametrize(
    ("name", "value"),
    [("hidden_dim", "8"), ("hidden_dim", 8.5), ("seed", None), ("llm_name", 5), ("decision_probability", float("nan")),
     ("optimized_temporal", 1), ("roles", [1]), ("graph", {"latent_steps": "x"}), ("graph", {"latent_steps": 1.5})],
)  # fmt: skip
def test_a_graph_of_other_types_is_refused(copy: Path, name: str, value: Any) -> None:
    graph = json.loads((copy / RECORD).read_text())["graph"]
    in_record(graph={**graph, name: value})(copy)
    with pytest.raises(CheckpointError, match="graph: "):
        checkpoints.read(copy)


# -- any byte of any file -------------------------------------------------------------------


def damaged(whole: bytes) -> Iterator[bytes]:
    """Flips of bits, other bytes, and cuts, all over a file; its beginning, which says what it is, byte by byte."""
    places = sorted({*range(min(len(whole), 100)), *range(0, len(whole), max(1, len(whole) // 70))})
    for place in places:
        for other in (whole[place] ^ 1, whole[place] ^ 0x80, ord("0")):
            if other != whole[place]:
                yield whole[:place] + bytes([other]) + whole[place + 1 :]
    for place in {*places[::7], len(whole) - 1}:
        yield whole[:place]
        yield whole[:place] + whole[place + 1 :]
        yield whole + whole[place : place + 9]


def loaded(out: Path, learner: Reinforce) -> dict[str, Any]:
    found = checkpoints.read(out)
    checkpoints.restore(found, learner.built, learner.optimizer)
    learner.done, learner.running = found.step, found.running
    learner.pruner.restore(found.watched)
    kept = {f.name: getattr(found, f.name) for f in fields(found) if f.name not in ("folder", "weights", "optimizer")}
    return {**state_of(learner), "kept": kept}


@pytest.mark.parametrize("name", FILES)
def test_any_byte_is_missed(copy: Path, tiny_llama: Any, tiny_tokenizer: Any, name: str) -> None:
    learner = trainer(tiny_llama, tiny_tokenizer, copy)
    expected = loaded(copy, learner)
    path = copy / "checkpoints" / STEP / name
    whole = path.read_bytes()
    tried = refused = 0
    others = {file: value for file, value in content(copy).items() if not file.endswith(name)}
    for spoiled in damaged(whole):
        path.write_bytes(spoiled)
        tried += 1
        try:
            found = loaded(copy, learner)
        except GcacheError as error:
            refused += 1
            assert "\n" not in str(error)
        else:
            assert found == expected, f"{name} was damaged, and loaded"
        assert state_of(learner) == {key: expected[key] for key in ("tensors", "rest")}
        assert path.read_bytes() == spoiled
    assert tried > 400 and refused > 0.8 * tried
    assert others == {file: value for file, value in content(copy).items() if not file.endswith(name)}


def test_any_byte_of_latest(copy: Path, tiny_llama: Any, tiny_tokenizer: Any) -> None:
    learner = trainer(tiny_llama, tiny_tokenizer, copy)
    path = copy / "checkpoints" / "latest"
    whole = path.read_bytes()
    for spoiled in damaged(whole):
        path.write_bytes(spoiled)
        try:
            found = loaded(copy, learner)
        except CheckpointError:
            continue
        assert found["kept"]["step"] in (1, 2)  # the name of a folder that is there


def test_any_byte_of_the_metrics(copy: Path, tiny_llama: Any, tiny_tokenizer: Any) -> None:
    learner = trainer(tiny_llama, tiny_tokenizer, copy)
    path = copy / "metrics.jsonl"
    for spoiled in damaged(path.read_bytes()):
        path.write_bytes(spoiled)
        try:
            learner.check()
        except CheckpointError as error:
            assert "metrics.jsonl" in str(error)
