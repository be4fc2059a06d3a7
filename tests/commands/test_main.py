"""The command line end to end on a tiny model, and what it says to bad input: one line, exit code 2."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import scripts

from gcache.commands.main import main, parser
from gcache.commands.task_flags import task_if_named
from gcache.config import TaskSpec

ROOT = Path(__file__).parents[2]


def train_flags(model: Path, out: Path, *more: str) -> list[str]:
    return [
        "train", "--task", "split_facts", "--llm_name", str(model), "--dtype", "float32", "--encoder", "hash",
        "--iterations", "2", "--batch_size", "2", "--rollouts", "2", "--latent_steps", "0", "--out", str(out), *more,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def trained(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "out"
    assert main(train_flags(model_folder, out, "--report", "4")) == 0
    return out


def error_line(capsys: pytest.CaptureFixture[str], argv: list[str]) -> str:
    """The one line that a refused command prints."""
    capsys.readouterr()
    try:
        code = main(argv)
    except SystemExit as exit_:  # argparse
        code = int(exit_.code or 0)
    lines = capsys.readouterr().err.strip().splitlines()
    assert code == 2 and not any(line.startswith("usage") for line in lines)
    lines = [line for line in lines if line.startswith("gcache")]
    assert len(lines) == 1, lines
    return lines[0]


def test_train_writes_metrics_a_checkpoint_and_a_report(trained: Path) -> None:
    metrics = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in metrics] == [0, 1]
    assert all(line["rollouts"] == 4 for line in metrics)
    assert all(line["unstated"] == 0 and 0 <= line["cut"] <= 4 for line in metrics)
    report = json.loads((trained / "report.json").read_text())
    names = [row["name"] for row in report["rows"]]
    assert names == [
        "no edges", "full graph", "full text in one prompt", "untrained policy (drawn)", "trained policy",
    ]  # fmt: skip
    assert [row["edges"] for row in report["rows"]][:2] == [0.0, 15.0]
    assert all(row["n"] == 4 and len(row["rows"]) == 4 for row in report["rows"])
    assert (trained / "topology.png").read_bytes().startswith(b"\x89PNG")
    phases = {cost["phase"]: cost for cost in report["costs"]}
    reading, *others = phases
    assert others == [*names[:4], "rollouts", "gradient", names[4]] and report["steps"] == 2
    assert reading.startswith("questions") and phases[reading]["prefilled"] > 0
    for row in report["rows"]:
        assert phases[row["name"]]["prefilled"] == round(4 * row["tokens"]["prefilled"]) > 0
    for kind in ("prefilled", "generated"):
        assert phases["rollouts"][kind] == sum(line[f"tokens_{kind}"] for line in metrics) > 0
    assert phases["gradient"]["with_gradient"] == sum(line["tokens_replayed"] for line in metrics)
    assert not list((trained / "checkpoints").glob(".writing-*"))


def test_train_ends_with_what_was_learned_and_what_it_took(
    model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also without a report."""
    out = tmp_path / "out"
    assert main(train_flags(model_folder, out)) == 0
    said = capsys.readouterr().out
    learned = said.split("learned edges, likeliest first:\n")[1].split("\n\n")[0].splitlines()
    assert any("asked keeper -> decision maker" in line and "#" in line for line in learned)
    assert "| tokens of | prefilled | " in said and "| rollouts | " in said and "| in all | " in said
    assert f"picture:    {out / 'topology.png'}" in said and (out / "topology.png").exists()
    assert "report:" not in said and not (out / "report.json").exists()


def test_eval_reads_the_checkpoint_and_writes_json(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "eval.json"
    assert main(["eval", "--checkpoint", str(trained), "--limit", "3", "--json", str(file)]) == 0
    found = json.loads(file.read_text())
    assert found["n"] == 3
    assert set(found) >= {"unstated", "cut"}
    assert set(found) >= {"accuracy", "low", "high", "unparsed", "edges", "edges_kept", "tokens", "seconds", "rows"}
    said = capsys.readouterr().out
    assert "95 % interval" in said and "\nunstated    0\ncut         " in said


@pytest.mark.parametrize(
    "command", [["train"], ["eval", "--checkpoint", "x"], ["compare", "--methods", "single"], ["controls", "x"]]
)
def test_that_the_last_number_is_accepted_is_an_option_of_the_task(command: list[str]) -> None:
    for more, accepts in (([], False), (["--accept_last_number"], True)):
        args = parser().parse_args([*command, "--task", "gsm_symbolic", *more])
        spec = task_if_named(args)
        kept = TaskSpec(**json.loads(json.dumps(spec.to_json())))  # as a checkpoint keeps it
        assert getattr(kept.make(), "accept_last_number") is accepts  # noqa: B009


def test_controls_writes_a_table_json_and_a_picture(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "controls.json"
    flags = ["--limit", "3", "--only", "masked, random edges", "--json", str(file)]
    assert main(["controls", str(trained), *flags]) == 0
    table = capsys.readouterr().out.strip().splitlines()
    assert [line.split(" | ")[0] for line in table[2:]] == ["| as it is", "| masked", "| random edges"]
    found = json.loads(file.read_text())
    assert [row["found"]["name"] for row in found["rows"]] == ["as it is", "masked", "random edges"]
    assert all(len(row["found"]["rows"]) == 3 for row in found["rows"])
    assert file.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--only", "mask"], "unknown control 'mask'"),
        (["--only", "random W_a"], "no agent of this graph takes a latent step"),
        (["--task", "gsm_symbolic"], "has agents for split_facts"),
        (["--adversary", "2"], "need --task"),
        (["--accept_last_number"], "need --task"),
        (["--task", "split_facts", "--accept_last_number"], "unknown option 'accept_last_number' of the task"),
        (["--on_error", "skip"], "--on_error must be stop"),
        (["--limit", "1", "--only", "other question"], "the only one with 5 agents"),
    ],
)
def test_controls_refuses_what_it_cannot_do(
    trained: Path, tmp_path: Path, flags: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "controls.json"
    assert words in error_line(capsys, ["controls", str(trained), "--json", str(file), *flags])
    assert not list(tmp_path.iterdir())


def test_run_answers_a_question_and_prints_its_trace(model_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--llm_name", str(model_folder), "--topology", "star", "--max_new_tokens", "4", "--trace"]
    assert main(["run", *flags, "what is 2 + 3 ?"]) == 0
    printed = capsys.readouterr().out
    assert "solver -> decision maker" in printed
    assert "answer" in printed


def test_run_shows_what_agents_wrote_and_what_there_was_to_choose_from(
    model_folder: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    flags = ["--topology", "star", "--hands", "reasoning", "--latent_steps", "0", "--decision_method", "vote"]
    short = ["--reason_tokens", "4", "--max_new_tokens", "2", "--llm_name", str(model_folder), "--trace"]
    assert main(["run", *flags, *short, "what is 2 + 3 ?"]) == 0
    assert capsys.readouterr().out.count(" wrote (cut off): ") == 4
    assert "the answer was cut off after 2 tokens; raise --max_new_tokens" in caplog.text


def test_run_refuses_flags_of_the_graph_beside_a_checkpoint(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It has its own; one that was silently left out would be taken for an answer of the other graph."""
    own = ["run", "--checkpoint", str(trained), "--trace", "--max_batch_size", "4", "what is 2 + 3 ?"]
    # past the flags; this checkpoint's task brings the agents with the question
    assert "brings no agents" in error_line(capsys, own)
    line = error_line(capsys, [*own, "--topology", "star", "--latent_steps", "7"])
    assert "--topology" in line and "--latent_steps" in line and "leave out --checkpoint" in line
    assert "--trace" not in line and "--max_batch_size" not in line


def test_a_finished_run_is_not_trained_again(trained: Path, model_folder: Path) -> None:
    before = (trained / "metrics.jsonl").read_text()
    assert main(train_flags(model_folder, trained)) == 0
    assert (trained / "metrics.jsonl").read_text() == before


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--task", "gsm9k"], ["gsm9k", "gsm8k"]),
        (["--llm_name", "./no/such/model"], ["no/such/model"]),
        (["--fuser", "blend"], ["fuser", "blend", "concat"]),
        (["--topology", "ring"], ["topology", "ring", "chain"]),
        (["--compare", "ring"], ["topology", "ring", "chain"]),
        (["--task", "gsm8k", "--roles", "poet"], ["role", "poet", "solver"]),
        (["--decision_method", "dice"], ["decision method", "dice", "vote"]),
        (["--rollouts", "1"], ["leave_one_out", "2 or more", "1"]),
        (["--baseline", "best"], ["baseline", "best", "none"]),
        (["--lr", "-1"], ["lr", "-1"]),
        (["--lr", "nan"], ["lr", "nan"]),
        (["--iterations", "many"], ["--iterations", "many"]),
        (["--temperature", "0"], ["temperature", "0"]),
        (["--latent_steps", "-2"], ["latent_steps", "-2"]),
        (["--transfer", "latent"], ["latent_steps", "transfer"]),
        (["--transfer", "all"], ["transfer", "all", "context"]),
        (["--positions", "random"], ["positions", "random", "parallel"]),
        (["--encoder", "bert"], ["encoder", "bert", "minilm"]),
        (["--dtype", "int3"], ["dtype", "int3", "bfloat16"]),
        (["--quantization", "1bit"], ["quantization", "1bit", "4bit"]),
        (["--task_option", "n_agents"], ["NAME=VALUE", "n_agents"]),
        (["--task_option", "n_agents=99"], ["n_agents", "99"]),
        (["--task_option", "colour=3"], ["colour", "n_agents"]),
        (["--data", "facts.jsonl"], ["split_facts", "facts.jsonl"]),
        (["--report", "-1"], ["report", "-1"]),
        (["--limit", "0"], ["limit", "0"]),
        (["--fuser_gradient", "some"], ["some", "full"]),
        (["--hops", "3"], ["hops", "3", "1, 2"]),
        (["--agent_probability", "1.5"], ["agent_probability", "1.5"]),
        (["--agent_probability", "0", "--optimized_temporal"], ["agent_probability 0", "raise it"]),
        (["--optimized_temporal"], ["rounds", "2"]),
        (["--channels", "cache", "smoke"], ["channel", "smoke", "latents"]),
        (["--channels", "latents"], ["latents", "latent steps"]),
        (["--latent_choices", "3"], ["latent_choices", "two or more"]),
        (["--pruning_rate", "1"], ["pruning_rate", "1"]),
        (["--topology", "full", "--fuser", "first"], ["nothing to train"]),
    ],
)  # fmt: skip
def test_bad_flags_give_one_line_and_leave_nothing(
    model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], words: list[str]
) -> None:
    out = tmp_path / "out"
    line = error_line(capsys, train_flags(model_folder, out, *flags))
    for word in words:
        assert word in line
    assert not out.exists()


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["run", "--agent_models", "smollm2", "What is 2 + 3?"], ["required: question", "write question before it"]),
        (["run", "What is 2 + 3?", "--lnik", "text"], ["--lnik"]),
        (["train"], ["required: --task", "gcache train --help"]),
        ([], ["COMMAND", "gcache --help"]),
    ],
)
def test_a_command_that_is_not_whole_is_refused_in_one_line(
    capsys: pytest.CaptureFixture[str], argv: list[str], words: list[str]
) -> None:
    line = error_line(capsys, argv)
    assert all(word in line for word in words), line
    assert ("write" in line) == ("write question before it" in words)


def test_a_broken_data_line_is_named_by_number(
    model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = json.dumps({"question": "what is 2 + 3 ?", "answer": "2 + 3 = 5\n#### 5"})
    data = tmp_path / "train.jsonl"
    data.write_text(f"{good}\n{good.replace('2', '4')}\n{{broken\n")
    out = tmp_path / "out"
    line = error_line(capsys, train_flags(model_folder, out, "--task", "gsm8k", "--data", str(data)))
    assert "train.jsonl" in line
    assert "line 3" in line
    assert not out.exists()


def test_a_checkpoint_of_another_shape_is_refused_and_kept(
    trained: Path, model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import shutil

    from safetensors.torch import load_file, save_file

    other = tmp_path / "other"
    shutil.copytree(trained, other)
    weights = next((other / "checkpoints").glob("step-*")) / "weights.safetensors"
    tensors = load_file(weights)
    tensors["policy.read.weight"] = tensors["policy.read.weight"][:3].contiguous()
    save_file(tensors, weights)
    line = error_line(capsys, ["eval", "--checkpoint", str(other)])
    assert "another shape" in line
    assert "policy.read.weight" in line
    line = error_line(capsys, train_flags(model_folder, trained, "--lr", "0.5"))
    assert "lr" in line
    assert "--out" in line


def test_a_run_of_other_settings_is_refused_before_its_report_is_measured(
    trained: Path, model_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from gcache.training.report import Report

    def before(report: Report) -> None:
        raise AssertionError("it was measured")

    monkeypatch.setattr(Report, "before", before)
    files = {path: path.read_bytes() for path in trained.rglob("*") if path.is_file()}
    assert "lr=" in error_line(capsys, train_flags(model_folder, trained, "--lr", "0.5", "--report", "4"))
    assert files == {path: path.read_bytes() for path in trained.rglob("*") if path.is_file()}


@pytest.mark.parametrize("damage", ["cut", "garbage", "gone", "format"])
def test_a_broken_checkpoint_gives_one_line(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    import shutil

    other = tmp_path / "other"
    shutil.copytree(trained, other)
    folder = next((other / "checkpoints").glob("step-*"))
    weights, record = folder / "weights.safetensors", folder / "checkpoint.json"
    if damage == "cut":
        weights.write_bytes(weights.read_bytes()[:100])
    elif damage == "garbage":
        record.write_text("{")
    elif damage == "gone":
        weights.unlink()
    else:
        record.write_text(record.read_text().replace('"format": 1', '"format": 99'))
    assert "checkpoint" in error_line(capsys, ["eval", "--checkpoint", str(other)])


def test_a_missing_checkpoint_says_what_to_pass(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = error_line(capsys, ["eval", "--checkpoint", str(tmp_path / "nothing")])
    assert "no checkpoint" in line
    assert "--out" in line


def test_a_model_whose_positions_cannot_be_shifted_is_refused_by_name(
    tmp_path: Path, tiny_tokenizer: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    folder = tmp_path / "gpt2-like"
    config = GPT2Config(vocab_size=64, n_positions=64, n_embd=32, n_layer=2, n_head=4, bos_token_id=1, eos_token_id=2)
    GPT2LMHeadModel(config).save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    out = tmp_path / "out"
    line = error_line(capsys, train_flags(folder, out))
    assert "gpt2" in line
    assert "shifted" in line
    assert not out.exists()


def test_a_checkpoint_for_another_model_is_refused(
    trained: Path, tmp_path: Path, tiny_tokenizer: Any, tiny_llama: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    import copy
    import shutil

    other_model = tmp_path / "other-model"
    model = copy.deepcopy(tiny_llama)
    model.model.norm.weight.data.mul_(2)
    model.save_pretrained(other_model)
    tiny_tokenizer.save_pretrained(other_model)
    other = tmp_path / "other"
    shutil.copytree(trained, other)
    record = next((other / "checkpoints").glob("step-*")) / "checkpoint.json"
    values = json.loads(record.read_text())
    values["graph"]["llm_name"] = str(other_model)
    record.write_text(json.dumps(values))
    assert "trained on the model" in error_line(capsys, ["eval", "--checkpoint", str(other)])


# -- the experiment on top of the same functions -------------------------------------------------


def gsm8k_file(folder: Path) -> Path:
    rows = [{"question": f"what is {n} + 2 ?", "answer": f"#### {n + 2}"} for n in range(20)]
    file = folder / "train.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def experiment(*flags: str) -> int:
    """The exit code of experiments/run_gsm8k.py, run in this process."""
    try:
        return int(scripts.experiment("run_gsm8k").EXPERIMENT.main(list(flags)))
    except SystemExit as exit_:  # argparse
        return int(exit_.code or 0)


@pytest.mark.parametrize("name", ["gsm8k", "gpqa", "gsm8k_api", "gpqa_api", "humaneval", "medqa"])
def test_an_experiment_runs_as_a_script(name: str) -> None:
    script = str(ROOT / "experiments" / f"run_{name}.py")
    shown = subprocess.run([sys.executable, script, "--help"], capture_output=True, text=True, check=False)
    assert shown.returncode == 0, shown.stderr
    assert "--optimized_spatial" in shown.stdout


def test_run_gsm8k_trains_with_the_flags_its_users_know(
    model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = experiment(
        "--llm_name", str(model_folder), "--use_cache", "--data", str(gsm8k_file(tmp_path)), "--limit", "8",
        "--num_iterations", "1", "--batch_size", "2", "--agent_nums", "3", "--num_rounds", "2",
        "--fuse_method", "first", "--latent_steps", "1", "--mode", "Chain", "--decision_method", "FinalMajorVote",
        "--optimized_spatial", "true", "--lr", "0.01", "--device", "cpu", "--seed", "3", "--max_new_tokens", "4",
        "--out", str(tmp_path / "out"),
    )  # fmt: skip
    printed = capsys.readouterr()
    assert code == 0, printed.err
    assert "step 0: utility" in printed.out
    assert (tmp_path / "out" / "metrics.jsonl").read_text().count("\n") == 1


@pytest.mark.parametrize(
    ("flags", "word"),
    [
        (["--use_cache", "false", "--llm_name", "hybrid_cache"], "reads caches"),
        (["--use_cache", "maybe"], "maybe"),
        (["--mode", "Ring"], "Ring"),
    ],
)
def test_run_gsm8k_refuses_bad_flags_with_exit_code_2(
    flags: list[str], word: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert experiment("--data", str(gsm8k_file(tmp_path)), "--out", str(tmp_path / "out"), *flags) == 2
    assert word in capsys.readouterr().err.strip().splitlines()[-1]
    assert not (tmp_path / "out").exists()
