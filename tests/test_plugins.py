"""Plug-ins from outside this repository: trained, resumed, evaluated, and never run because a checkpoint says so."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from plugins import documented, forget, fresh, install, write_files
from safetensors.torch import load_file

import gcache
from gcache.commands.main import main
from gcache.evaluation.methods import METHODS
from gcache.files import without_folders
from gcache.tasks.registry import make_task

__all__ = ["fresh"]
pytestmark = pytest.mark.usefixtures("fresh")
ROOT = Path(gcache.__file__).parents[1]


def train_flags(model: Path, out: Path, *more: str) -> list[str]:
    return [
        "train", "--llm_name", str(model), "--dtype", "float32", "--encoder", "hash", "--iterations", "2",
        "--batch_size", "4", "--rollouts", "4", "--latent_steps", "0", "--checkpoint_every", "1", "--out", str(out),
        *more,
    ]  # fmt: skip


NAMED = ("--task", "parity.py:Parity", "--fuser", "loudest.py:Loudest", "--topology", "twos.py:twos")


@pytest.fixture(scope="module")
def run(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training run on plug-ins alone, in the folder `out` beside their files."""
    folder = write_files(tmp_path_factory.mktemp("stranger"))
    forget()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(train_flags(model_folder, Path("out"), *NAMED)) == 0
    forget()
    return folder


@pytest.fixture
def own(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that run and of its files, as the folder to stand in."""
    folder = Path(shutil.copytree(run, tmp_path / "own"))
    monkeypatch.chdir(folder)
    return folder


def line(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """The one line that a refused command prints."""
    capsys.readouterr()
    assert main(argv) == 2
    (found,) = [text for text in capsys.readouterr().err.splitlines() if text.startswith("gcache: ")]
    return found


def weights(out: Path) -> dict[str, Any]:
    return load_file(out / "checkpoints" / "step-000002" / "weights.safetensors")


def test_every_block_of_the_page_is_a_whole_file_that_parses() -> None:
    files = documented()
    assert {"capitals.py", "claims.py", "loudest.py", "spoken.py", "twos.py", "read_twice.py", "pyproject.toml"} == {
        *files
    }
    for name, text in files.items():
        assert len(text.splitlines()) <= 34, name
        if name.endswith(".py"):
            compile(text, name, "exec")


def test_a_checkpoint_has_the_names_the_hashes_and_what_was_learned(run: Path) -> None:
    record = json.loads((run / "out" / "checkpoints" / "step-000002" / "checkpoint.json").read_text())
    assert record["graph"]["fuser"] == "loudest.py:Loudest" and record["task"]["name"] == "parity.py:Parity"
    assert record["plugins"] == {
        name: hashlib.sha256((run / name.partition(":")[0]).read_bytes()).hexdigest()
        for name in ("parity.py:Parity", "loudest.py:Loudest", "twos.py:twos")
    }
    gain = weights(run / "out")["fuser.gain"]
    assert gain.shape == (2,) and bool(gain.any())


def test_a_run_on_built_in_names_has_no_word_of_plugins(model_folder: Path, tmp_path: Path) -> None:
    assert main(train_flags(model_folder, tmp_path, "--task", "split_facts", "--iterations", "1")) == 0
    record = json.loads((tmp_path / "checkpoints" / "step-000001" / "checkpoint.json").read_text())
    assert "plugins" not in record


def test_a_stopped_run_goes_on_to_the_same_weights(own: Path, model_folder: Path, tmp_path: Path) -> None:
    before, checkpoints = weights(own / "out"), own / "out" / "checkpoints"
    shutil.rmtree(checkpoints / "step-000002")
    (checkpoints / "latest").write_text("step-000001\n")
    elsewhere = [word.replace("parity.py", str(own / "parity.py")) for word in NAMED]  # the same file all the same
    assert main(train_flags(model_folder, Path("out"), *elsewhere)) == 0
    after = weights(own / "out")
    assert before.keys() == after.keys() and all(bool((before[name] == after[name]).all()) for name in before)


def test_a_run_is_not_resumed_with_another_content_of_a_file(
    own: Path, model_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with (own / "loudest.py").open("a") as file:
        file.write("# another thought\n")
    said = line(capsys, *train_flags(model_folder, Path("out"), *NAMED))
    assert "another content of the file in 'loudest.py:Loudest'" in said and "put the file back" in said


COMMANDS = {
    "eval": ["eval", "--checkpoint", "out", "--limit", "2"],
    "controls": ["controls", "out", "--limit", "2", "--only", "no transfer"],
    "inspect": ["inspect", "out", "--limit", "2"],
    "run": ["run", "--checkpoint", "out", "what is 2 + 3 ?"],
    "compare": ["compare", "--methods", "gcache", "--checkpoint", "out", "--task", "parity.py:Parity", "--limit", "2"],
    "compare-topologies": ["compare-topologies", "out", "out", "--limit", "2"],
}
PLUGINS = ["--plugins", "parity.py", "loudest.py", "twos.py"]


@pytest.mark.parametrize("command", [name for name in COMMANDS if name != "compare-topologies"])
def test_commands_read_the_checkpoint_with_the_files_named_anew(own: Path, command: str) -> None:
    assert main([*COMMANDS[command], *PLUGINS]) == 0


@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_runs_what_only_the_checkpoint_names(
    own: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("loudest.py", "twos.py"):
        (own / name).write_text("open('executed', 'w')\n")
    said = line(capsys, *COMMANDS[command])
    assert "names 'loudest.py:Loudest'" in said and "add --plugins loudest.py" in said
    assert f"looked for {own / 'loudest.py'}, which is there" in said
    assert not (own / "executed").exists()


def test_a_resumed_run_does_not_run_what_only_the_checkpoint_names(
    own: Path, model_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (own / "loudest.py").write_text("open('executed', 'w')\n")
    said = line(capsys, *train_flags(model_folder, Path("out"), "--task", "parity.py:Parity"))
    assert "names 'loudest.py:Loudest'" in said and not (own / "executed").exists()


def test_the_task_of_a_checkpoint_is_not_run_either(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (own / "parity.py").write_text("open('executed', 'w')\n")
    said = line(capsys, *COMMANDS["inspect"], "--plugins", "loudest.py", "twos.py")
    assert "names 'parity.py:Parity'" in said and "add --plugins parity.py" in said
    assert not (own / "executed").exists()


def test_a_task_that_is_named_instead_leaves_the_checkpoints_own_alone(own: Path) -> None:
    (own / "other.py").write_text((own / "parity.py").read_text())
    (own / "parity.py").unlink()
    assert main([*COMMANDS["eval"], "--task", "other.py:Parity", "--plugins", "loudest.py", "twos.py"]) == 0


def test_from_another_folder_the_line_says_which_file_and_how_to_name_it(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["eval", "--checkpoint", str(own / "out"), "--limit", "2"]
    said = line(capsys, *words)
    assert f"looked for {tmp_path / 'loudest.py'}, which is not there" in said and "--plugins" in said
    assert main([*words, "--plugins", *(str(own / name) for name in PLUGINS[1:])]) == 0


def test_a_changed_file_is_used_with_a_warning(own: Path, caplog: pytest.LogCaptureFixture) -> None:
    with (own / "loudest.py").open("a") as file:
        file.write("# another thought\n")
    with caplog.at_level(logging.WARNING):
        assert main([*COMMANDS["eval"], *PLUGINS]) == 0
    (said,) = [record.getMessage() for record in caplog.records if "another content" in record.getMessage()]
    assert "'loudest.py:Loudest'" in said


def test_in_python_the_files_are_allowed_by_name(own: Path) -> None:
    with pytest.raises(gcache.errors.PluginError, match=r"gcache.allow_plugins\('loudest.py'\)"):
        gcache.load_graph("out")
    gcache.allow_plugins("loudest.py", own / "twos.py")
    graph = gcache.load_graph("out")
    assert type(graph.fuser).__name__ == "Loudest"


def test_a_link_to_a_file_is_found_by_its_own_name(own: Path) -> None:
    (own / "store").mkdir()
    (own / "loudest.py").replace(own / "store" / "a.py")
    (own / "loudest.py").symlink_to(own / "store" / "a.py")
    assert main([*COMMANDS["inspect"], *PLUGINS]) == 0


def test_the_names_of_two_allowed_files_must_differ(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder in ("one", "two"):
        (own / folder).mkdir()
        shutil.copy(own / "loudest.py", own / folder)
    (own / "loudest.py").unlink()
    said = line(capsys, *COMMANDS["eval"], "--plugins", "one/loudest.py", "two/loudest.py")
    assert "several files of that name are allowed" in said


def test_a_link_and_a_topology_of_ones_own(
    model_folder: Path, tiny_qwen2: Any, tiny_tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    other = tmp_path / "other"
    tiny_qwen2.save_pretrained(other)
    tiny_tokenizer.save_pretrained(other)
    monkeypatch.chdir(write_files(tmp_path))
    words = ["run", "--llm_name", str(model_folder), "--dtype", "float32", "--max_new_tokens", "3"]
    assert main([*words, "--agent_models", str(other), "--link", "spoken.py:Spoken", "what is 2 + 3 ?"]) == 0
    capsys.readouterr()
    assert main([*words, "--topology", "twos.py:twos", "--trace", "what is 2 + 3 ?"]) == 0
    edges = [text.split(":")[0] for text in capsys.readouterr().out.splitlines() if " -> " in text]
    assert len(edges) == 4 and len([edge for edge in edges if edge.endswith("decision maker")]) == 2, edges


def test_a_method_and_a_task_of_ones_own(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(write_files(tmp_path))
    words = ["--task", "capitals.py:Capitals", "--llm_name", str(model_folder), "--dtype", "float32"]
    assert main(["compare", "--methods", "single,read_twice.py:ReadTwice", *words]) == 0
    table = capsys.readouterr().out
    assert "read_twice" in table and "single" in table
    assert main(["eval", "--method", "read_twice.py:ReadTwice", *words]) == 0


def test_a_task_of_ones_own_reads_data_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(write_files(tmp_path))
    rows = [{"claim": f"{n} is less than 5.", "truth": str(n < 5)} for n in range(40)]
    Path("claims.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = make_task("claims.py:TrueOrFalse", "claims.jsonl")
    train, test = task.train(), task.test()
    assert len(train) + len(test) == 40 and test
    true = next(example for example in train if example.answer == "true")
    assert task.grade("It is true.", true).outcome == "right" and task.grade("It is false.", true).outcome == "wrong"
    assert task.grade("no idea", true).outcome == "unparsed"


def test_reports_say_no_folders() -> None:
    record = {"graph": {"fuser": "/home/me/loudest.py:Loudest", "topology": "learned"}, "task": {"name": "gsm8k"}}
    assert without_folders(record)["graph"] == {"fuser": "loudest.py:Loudest", "topology": "learned"}
    assert without_folders(record)["task"] == {"name": "gsm8k"}


def test_a_run_without_out_is_called_after_the_class(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(write_files(tmp_path))
    words = train_flags(model_folder, Path(), *NAMED, "--iterations", "1")
    assert main([word for word in words if word not in ("--out", ".")]) == 0
    assert (tmp_path / "runs" / "Parity-seed0" / "checkpoints").is_dir()


def test_the_documented_package_is_built_installed_and_trained(model_folder: Path, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    for name in ("pyproject.toml", "capitals.py", "loudest.py"):
        (source / name).write_text(documented()[name])
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "--target", str(target), str(source)], check=True, capture_output=True)
    listed = in_a_process(target, "tasks", "--json")
    (row,) = [row for row in json.loads(listed) if row["name"] == "capitals"]
    assert row == {
        "name": "capitals", "text": "Questions for the capital of a country.", "origin": "gcache-capitals 0.1",
        "usable": True,
    }  # fmt: skip
    out = tmp_path / "out"
    in_a_process(target, *train_flags(model_folder, out, "--task", "capitals", "--fuser", "loudest"))
    in_a_process(target, "eval", "--checkpoint", str(out), "--limit", "2")  # an installed package needs no flag
    record = json.loads((out / "checkpoints" / "step-000002" / "checkpoint.json").read_text())
    assert record["graph"]["fuser"] == "loudest" and "plugins" not in record


def in_a_process(target: Path, *argv: str) -> str:
    """What a command prints where the packages in `target` are installed."""
    done = subprocess.run(
        [sys.executable, "-m", "gcache.commands.main", *argv], capture_output=True, text=True, check=False,
        env={"PATH": "", "HOME": str(target), "PYTHONPATH": f"{ROOT}:{target}", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_links_topologies_and_methods_of_a_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    points = {
        "gcache.links": {"spoken": "spoken:Spoken"}, "gcache.topologies": {"twos": "twos:twos"},
        "gcache.methods": {"read_twice": "read_twice:ReadTwice"},
    }  # fmt: skip
    install(tmp_path, "several", points, {name: text for name, text in documented().items() if name.endswith(".py")})
    monkeypatch.syspath_prepend(str(tmp_path))
    spec = gcache.config.GraphSpec(topology="twos", link="spoken", agent_models=("smollm2",))
    assert gcache.gnn.fixed.FixedTopology(spec.topology, 4).most_likely()[0].pairs == {(0, 1), (1, 4), (2, 3), (3, 4)}
    assert METHODS["read_twice"].__name__ == "ReadTwice"
