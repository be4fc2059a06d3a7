"""`--config`: settings from a file, by the names of flags or as a run wrote them down, under the flags of a command."""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gcache.commands import flags
from gcache.commands.graph_flags import graph_spec
from gcache.commands.main import COMMANDS, main, parser
from gcache.commands.task_flags import task_spec
from gcache.config import GraphSpec
from gcache.training.config import TrainConfig

ROOT = Path(__file__).parents[1]
BEFORE = Path(__file__).parent / "data" / "checkpoint_before"

Write = Callable[..., str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a file of settings; returns its name."""

    def write(text: Any, name: str = "settings.yaml") -> str:
        (tmp_path / name).write_text(text if isinstance(text, str) else json.dumps(text), encoding="utf-8")
        return str(tmp_path / name)

    return write


def read(*argv: str) -> argparse.Namespace:
    """What a command's parser makes of words."""
    return parser([argv[0]]).parse_args(argv)


def refused(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """The one line of a refused command."""
    capsys.readouterr()
    try:
        code = main(argv)
    except SystemExit as exit_:
        code = int(exit_.code or 0)
    err = capsys.readouterr().err
    (line,) = [line for line in err.splitlines() if line.startswith("gcache")]
    assert code == 2 and "Traceback" not in err
    return line


YAML = """
task: split_facts
task_option: {n_agents: 4, gossip: false}
accept_last_number: false
latent_steps: 0
lr: 1e-3
token_price: 2
optimized_temporal: true
roles: [solver, critic]
latent_choices: [0, 2]
link_file: only_one.safetensors
prompt_date: 2026-01-31
max_cache_gb: null
out: runs/x
api_retries: 2
"""


def test_settings_go_by_the_names_of_their_flags(write: Write) -> None:
    args = read("train", "--config", write(YAML))
    assert (args.task, args.latent_steps, args.optimized_temporal, args.out) == ("split_facts", 0, True, Path("runs/x"))
    assert (args.lr, args.token_price) == (1e-3, 2.0) and isinstance(args.token_price, float)
    assert (args.roles, args.latent_choices, args.link_file) == (["solver", "critic"], [0, 2], ["only_one.safetensors"])
    assert (args.prompt_date, args.max_cache_gb, args.api_retries) == ("2026-01-31", None, 2)
    assert task_spec(args).options == {"n_agents": 4, "gossip": False}
    assert args.fuser == "concat" and args.iterations == TrainConfig.iterations  # what it leaves out


def test_json_is_as_good(write: Write) -> None:
    values = {"task": "gsm8k", "lr": 1e-05, "roles": ["solver"], "seed": 3}
    args = read("train", "--config", write(values, "a.json"))
    assert (args.task, args.lr, args.roles, args.seed) == ("gsm8k", 1e-5, ["solver"], 3)


def test_an_empty_file_says_nothing(write: Write) -> None:
    assert read("run", "q", "--config", write("# nothing\n")).topology == "chain"


@pytest.mark.parametrize("first", [True, False])
def test_a_flag_wins_over_the_file_wherever_it_stands(write: Write, first: bool) -> None:
    file = ["--config", write(YAML)] if first else [f"--config={write(YAML)}"]
    own = ["--latent_steps", "3", "--roles", "poet", "--task", "gsm8k", "--optimized_temporal", "false"]
    args = read("train", *(file + own if first else own + file))
    assert (args.latent_steps, args.roles, args.task, args.optimized_temporal) == (3, ["poet"], "gsm8k", False)
    assert args.lr == 1e-3


def test_the_example_of_the_docs_is_one(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```yaml\n(.*?)```", text, re.S)
    (command,) = re.findall(r"for: gcache (.*)", block)
    file = tmp_path / "settings.yaml"
    file.write_text(block)
    args = read(*command.replace("settings.yaml", str(file)).split())
    spec, config = graph_spec(args, "maths", 8), flags.make(TrainConfig, args)
    assert (spec.optimized_temporal, spec.graph.num_rounds, spec.roles) == (True, 2, ())
    assert (config.lr, config.seed) == (1e-3, 1)
    assert task_spec(args).make().name == "split_facts"


def test_which_commands_take_one() -> None:
    takes = set()
    for name in COMMANDS:
        (found,) = [a for a in parser([name])._actions if isinstance(a, argparse._SubParsersAction)]
        if any("--config" in action.option_strings for action in found.choices[name]._actions):
            takes.add(name)
    assert takes == set(COMMANDS) - {"curves", "fit-router", "tasks", "fusers", "links", "topologies", "methods"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("lattent_steps: 3", ["unknown setting 'lattent_steps'", "nearest is 'latent_steps'", "train --help"]),
        ("zzzzzzzz: 3", ["unknown setting 'zzzzzzzz'", "train --help"]),
        ("config: other.yaml", ["unknown setting 'config'"]), ("3: x", ["unknown setting '3'"]),
        ("latent_steps: many", ["latent_steps must be a whole number, got 'many'"]),
        ("latent_steps: 1.5", ["latent_steps must be a whole number, got 1.5"]),
        ("latent_steps: true", ["latent_steps must be a whole number, got True"]),
        ("latent_steps:", ["latent_steps must be a whole number, got None"]),
        ("latent_choices: [1, x]", ["latent_choices must be a whole number, got 'x'"]),
        ("lr: fast", ["lr must be a number, got 'fast'"]), ("lr: false", ["lr must be a number, got False"]),
        ("think: 1", ["unknown setting 'think'"]),
        ("optimized_temporal: 1", ["optimized_temporal must be true or false, got 1"]),
        ("tensorboard: maybe", ["tensorboard must be true or false, got 'maybe'"]),
        ("llm_name: 8", ["llm_name must be a text", "in quotes", "got 8"]),
        ("roles: [1]", ["roles must be a text", "got 1"]), ("task_option: {a: 1}\nroles: {b: 2}", ["roles must be"]),
        ("api_key: 123456", ["api_key must be a text", "got something else"]),
        ("- a\n- b", ["must map names of flags to values, got list"]), ("just words", ["got str"]),
        ("a: [1", ["line 1", "not YAML"]), ("a: 1\nb: *c", ["line 2", "not YAML"]),
        ("graph: {fuser: first}\nseed: 1", ["unknown setting 'seed'", "parts task, graph, training"]),
        ("graph: {fusser: first}", ["unknown setting 'fusser'", "nearest is 'fuser'"]),
        ("graph: {fuser: blend}", ["unknown fuser 'blend'", "concat"]),
        ("graph: {graph: {latent_step: 2}}", ["unknown setting 'latent_step'", "nearest is 'latent_steps'"]),
        ("graph: {graph: 3}", ["graph: graph must be a mapping"]),
        ("graph: {seed: x}", ["seed must be int, got 'x'"]), ("training: {lr: x}", ["lr must be a finite number"]),
        ("training: {iterations: 0}", ["iterations must be 1 or more, got 0"]),
        ("task: {name: split_facts}\ntraining: 3", ["training must be a mapping"]),
        ("task: {data: 3}", ["does not say which task"]),
    ],
)  # fmt: skip
def test_what_a_file_may_not_say_is_one_line_that_names_it(
    write: Write, capsys: pytest.CaptureFixture[str], text: str, words: list[str]
) -> None:
    file = write(text)
    line = refused(capsys, "train", "--task", "split_facts", "--config", file)
    assert file in line and all(word in line for word in words), line
    assert "123456" not in line


def test_a_file_that_cannot_be_read_is_one_line(
    write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for file, words in (
        (str(tmp_path / "nothing.yaml"), "No such file"), (write("{", "a.json"), "line 1: not JSON"),
        (write('{"a": 1}{', "b.json"), "not JSON"), (str(tmp_path), "no checkpoint"),
    ):  # fmt: skip
        line = refused(capsys, "run", "q", "--config", file)
        assert words in line and Path(file).name in line, line
    (tmp_path / "c.yaml").write_bytes(b"\xff\xfe\x00\x01")
    assert "no text in UTF-8" in refused(capsys, "run", "q", "--config", str(tmp_path / "c.yaml"))
    assert "expected one argument" in refused(capsys, "run", "q", "--config")


# -- as a run wrote it down ------------------------------------------------------------------------


def record_of(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(next((run / "checkpoints").glob("step-*/checkpoint.json")).read_text())
    return found


@pytest.mark.parametrize("whole", [True, False])
def test_what_a_run_wrote_down_makes_the_same_run(whole: bool) -> None:
    """Records of an older version, in which fields had other names."""
    run = BEFORE / "trained"
    found = record_of(run)
    assert "rounds" in found["graph"]["graph"] and "temporal" in found["graph"]
    file = run if whole else next((run / "checkpoints").glob("step-*/checkpoint.json"))
    args = read("train", "--config", str(file))
    assert graph_spec(args, found["graph"]["domain"], 1) == GraphSpec.from_json(found["graph"])
    assert flags.make(TrainConfig, args) == TrainConfig.from_json(found["training"])
    assert task_spec(args).to_json() == found["task"]
    args = read("train", "--config", str(file), "--latent_steps", "7", "--num_rounds", "2")
    assert (args.latent_steps, graph_spec(args, "maths", 1).graph.num_rounds) == (7, 2)


def test_a_run_goes_on_by_what_it_wrote_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The settings are the very same, or it would be refused."""
    shutil.copytree(BEFORE, tmp_path / "before")
    monkeypatch.chdir(tmp_path / "before")
    asked = ["train", "--config", "stopped", "--out", "stopped"]
    assert main([*asked, "--lr", "0.5"]) == 2 and len(Path("stopped/metrics.jsonl").read_text().splitlines()) == 2
    assert main(asked) == 0 and len(Path("stopped/metrics.jsonl").read_text().splitlines()) == 3


def test_a_part_of_it_fills_a_part(write: Write) -> None:
    nested = {"graph": {"fuser": "first", "hidden_dim": 8, "graph": {"latent_steps": 1}}, "training": {"limit": 7}}
    args = read("train", "--task", "split_facts", "--config", write(nested))
    spec = graph_spec(args, "maths", 5)
    assert (spec.fuser, spec.hidden_dim, spec.graph.latent_steps, spec.topology) == ("first", 8, 1, "learned")
    assert args.limit == 7 and flags.make(TrainConfig, args).limit == 7
    # a command without these flags fills the same records, and leaves its own --limit alone
    args = read("run", "q", "--config", write(nested))
    assert graph_spec(args, "maths", 5).hidden_dim == 8
    assert read("eval", "--config", write(nested)).limit == 200


def test_beside_a_checkpoint_single_settings_are_given_and_a_whole_run_is_not(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(BEFORE, tmp_path / "before")
    monkeypatch.chdir(tmp_path / "before")
    asked = ["eval", "--checkpoint", "trained", "--limit", "1"]
    line = refused(capsys, *asked, "--config", write("llm_name: other\nmax_batch_size: 4\n"))
    assert "--llm_name: a checkpoint has its own model" in line
    assert "--api_model: the local model writes" in refused(capsys, *asked, "--config", write("api_model: m\n"))
    assert main([*asked, "--config", "trained"]) == 0
    assert "--dtype: a checkpoint" in refused(capsys, *asked, "--config", "trained", "--dtype", "bfloat16")


# -- files of settings are passed around: what they name is not run by itself ----------------------

PLUGIN = """
raise SystemExit("it was run")
"""


def as_a_run(setting: str, value: str) -> dict[str, Any]:
    """A setting where a training run writes it down."""
    if setting == "task":
        return {"task": {"name": value}}
    if setting == "anchor":
        return {"training": {"anchor": value, "anchor_strength": 1.0}}
    return {"graph": {setting: value}}


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("setting", ["task", "fuser", "topology", "anchor", "link"])
def test_a_file_of_settings_runs_no_python_file_that_the_command_line_does_not_name(
    setting: str, nested: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, settings = tmp_path / f"{setting}_of_a_stranger_{nested}.py", tmp_path / "settings.yaml"
    code.write_text(PLUGIN)
    value = f"{code}:Mine"
    settings.write_text(json.dumps(as_a_run(setting, value)) if nested else f"{setting}: {value}\n")
    words = ["train", "--config", str(settings), *([] if setting == "task" else ["--task", "split_facts"])]
    with pytest.raises(SystemExit) as ended:
        main([*words, "--out", str(tmp_path / "run")])
    said = capsys.readouterr().err
    assert ended.value.code == 2 and said.count("\n") == 1
    assert str(settings) in said and f"--plugins {code}" in said and "it was run" not in said
    # named on the command line, it is run; this one ends the program, which is said in one line
    with contextlib.suppress(SystemExit):
        assert main([*words, "--out", str(tmp_path / "run"), "--plugins", str(code)]) == 2
    assert "it was run" in capsys.readouterr().err


@pytest.mark.parametrize(
    "text",
    [
        "graph: {fuser: ['CODE:C'], graph: {}}", "graph: {topology: ['CODE:C'], graph: {}}",
        "graph: {link: ['CODE:C'], graph: {}}", "training: {anchor: 'CODE:C', anchor_strength: 0.1}",
        "training: {anchor: ['CODE:C']}", "fuser: ['CODE:C']", "anchor: 'CODE:C'", "compare: ['CODE:C']",
    ],
)
def test_no_form_of_a_setting_runs_a_file_that_is_not_named(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, settings = tmp_path / "hidden.py", tmp_path / "settings.yaml"
    code.write_text(f"from pathlib import Path\nPath({str(tmp_path / 'ran')!r}).touch()\nclass C: pass\n")
    settings.write_text(text.replace("CODE", str(code)))
    with pytest.raises(SystemExit) as ended:
        main(["train", "--task", "split_facts", "--config", str(settings), "--out", str(tmp_path / "run")])
    assert ended.value.code == 2 and not (tmp_path / "ran").exists()
    assert capsys.readouterr().err.count("\n") == 1


def test_a_comma_hides_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file of a whole name runs, not those of its parts, and only what follows a flag of names is allowed."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "stranger").mkdir()
    hidden = tmp_path / "stranger" / ",my.py"
    hidden.write_text(f"from pathlib import Path\nPath({str(tmp_path / 'ran')!r}).touch()\nclass C: pass\n")
    (tmp_path / "my.py").write_text("class C: pass\n")
    (tmp_path / "s.yaml").write_text("fuser: 'stranger/,my.py:C'\n")
    with pytest.raises(SystemExit):
        main(["train", "--task", "split_facts", "--config", "s.yaml", "--plugins", "my.py"])
    both = tmp_path / "both.py"
    both.write_text(f"fuser: '{both}:C'\n")
    with pytest.raises(SystemExit):
        main(["train", "--task", "split_facts", "--config", f"{both}:C"])
    with pytest.raises(SystemExit):
        main(["train", "--task", "split_facts", "--config", str(both)])
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("lr: BOMB", "lr must be a number"), ("graph: {base_url: BOMB, graph: {}}", "must be one value"),
        ("task_option: {a: BOMB}", "task_option: a must be one value"), (f"lr: {'9' * 400}", "lr must be a number"),
        (f"iterations: {'9' * 400}", "iterations must be 1 or more"),
        ("graph: {base_url: ['http://a:hunter2@h/v1'], graph: {}}", "//...@h/v1"),
    ],
)  # fmt: skip
def test_what_is_huge_or_secret_is_cut_in_errors(
    text: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    levels = ["&a0 [x, x]", *(f"&a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 11))]
    settings = tmp_path / "settings.yaml"
    settings.write_text(text.replace("BOMB", f"[{', '.join(levels)}]") + "\n")
    try:
        words_ = ["--task", "split_facts", "--out", str(tmp_path / "run")]
        code: object = main(["train", "--config", str(settings), *words_])
    except SystemExit as ended:
        code = ended.code
    said = capsys.readouterr().err
    assert code == 2 and said.count("\n") == 1 and len(said) < 1000
    assert words in said and "hunter2" not in said


def test_a_file_of_settings_allows_no_file_either(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = tmp_path / "settings.yaml"
    settings.write_text("plugins: [mine.py]\ntask: mine.py:Mine\n")
    with pytest.raises(SystemExit):
        main(["train", "--config", str(settings)])
    assert "unknown setting 'plugins'" in capsys.readouterr().err
