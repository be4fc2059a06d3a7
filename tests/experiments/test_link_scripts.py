"""The scripts that measure links, on tiny models: what they run, write and refuse."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import CHAT_TEMPLATE
from scripts import experiment
from two_models import MANY_WORDS, model_of, tokenizer_of

from benchmarks import links as benchmark

pytestmark = pytest.mark.usefixtures("own_home")

COLOURS = ("red", "blue", "green")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models of one tokenizer, and labelled texts."""
    root = tmp_path_factory.mktemp("links")
    words = tokenizer_of(MANY_WORDS)
    words.chat_template = CHAT_TEMPLATE
    for name, settings in (("big", {"hidden_size": 48, "head_dim": 12}), ("small", {"num_hidden_layers": 4})):
        model_of(160, seed=len(name), **settings).save_pretrained(root / name)
        words.save_pretrained(root / name)
    for name, first in (("train", 0), ("test", 100)):
        rows = "".join(f"word{n % 96} is {COLOURS[n % 3]} ?,{COLOURS[n % 3]}\n" for n in range(first, first + 60))
        (root / f"{name}.csv").write_text("text,category\n" + rows)
    lines = [json.dumps({"text": f"the box {n} is red and blue"}) + "\n" for n in range(40)]
    (root / "texts.jsonl").write_text("".join(lines))
    return root


def pair(folder: Path) -> list[str]:
    return ["--llm_name", str(folder / "big"), "--agent_models", str(folder / "small"), "--dtype", "float32"]


def test_links_are_compared_on_the_same_questions(folder: Path, tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "links.json"
    task = ["--task", "banking77", "--data", str(folder / "test.csv"), "--task_option", "whole_file=true"]
    few = ["--limit", "6", "--max_new_tokens", "2", "--speak_tokens", "4"]
    args = [*task, *pair(folder), *few, "--links", "text", "vocab", "--json", str(out)]
    assert experiment("compare_links").main(args) == 0
    names = ["no transfer", "words in one prompt", "one model", "text", "vocab"]
    found = json.loads(out.read_text())
    assert [row["name"] for row in found["rows"]] == names
    ids = [[answer["id"] for answer in row["found"]["rows"]] for row in found["rows"]]
    assert all(each == ids[0] and len(each) == 6 for each in ids)
    by = {row["name"]: row for row in found["rows"]}
    assert by["no transfer"]["nbytes"] == by["text"]["nbytes"] == by["no transfer"]["words"] == 0
    assert by["text"]["words"] > 0 and by["vocab"]["words"] == 0
    assert by["vocab"]["nbytes"] % (32 * 4 / 6) == pytest.approx(0, abs=1e-6)  # states of 32 floats, a mean over six
    assert by["one model"]["nbytes"] > by["vocab"]["nbytes"]
    table = capsys.readouterr().out.splitlines()
    assert [line.split(" | ")[0].removeprefix("| ") for line in table[2:]] == names


@pytest.mark.parametrize(
    ("args", "error"),
    [
        (["--links", "same"], "unknown link 'same'"),
        (["--rows", "magic"], "unknown row 'magic'"),
        (["--links", "--rows"], "nothing to compare"),
        (["--links", "text"], "name the agents' by --agent_models"),
    ],
)
def test_bad_comparisons_are_refused(args: list[str], error: str, capsys: Any) -> None:
    assert experiment("compare_links").main(args) == 2
    assert error in capsys.readouterr().err


def test_a_probe_reads_what_is_there(folder: Path, tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "probe.json"
    data = ["--data", str(folder / "train.csv"), "--test_data", str(folder / "test.csv"), "--limit", "30"]
    assert experiment("probe_states").main([*data, *pair(folder), "--json", str(out)]) == 0
    found = json.loads(out.read_text())
    assert len(found["rows"]) == 30
    assert sum(row["right"] for row in found["rows"]) > 20  # the label stands in the text; by chance ten
    assert "linear probe on small" in capsys.readouterr().out


def test_a_sibling_comes_to_write_as_the_model_does(folder: Path, tmp_path: Path, capsys: Any) -> None:
    from gcache.llm.load.loading import load_model

    out = tmp_path / "sibling"
    texts = ["--texts", str(folder / "texts.jsonl"), "--window", "16"]
    args = ["--llm_name", str(folder / "small"), *texts, "--layers", "2"]
    assert experiment("make_sibling").main([*args, "--steps", "40", "--lr", "5e-3", "--out", str(out)]) == 0
    record = json.loads((out / "sibling.json").read_text())
    assert record["kept"] == [0, 3]
    assert record["history"][-1]["kl"] < 0.8 * record["history"][0]["kl"]
    made, model = load_model(str(out), "float32"), load_model(str(folder / "small"), "float32")
    assert made.model.config.num_hidden_layers == 2
    same = made.model.get_input_embeddings().weight == model.model.get_input_embeddings().weight
    assert bool(same.all())
    assert made.tokenizer.get_vocab() == model.tokenizer.get_vocab()
    for wrong, error in (
        ([*args, "--out", str(out)], "is there already"),
        ([*args, "--out", str(tmp_path / "x"), "--layers", "4"], "--layers must be below the model's 4"),
        ([*args, "--out", str(tmp_path / "x"), "--window", "9999"], "no more than a window"),
    ):
        assert experiment("make_sibling").main(wrong) == 2
        assert error in capsys.readouterr().err


def test_every_link_is_timed_at_every_length(folder: Path, tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "cost.json"
    models = ["--sender", str(folder / "small"), "--receiver", str(folder / "big"), "--dtype", "float32"]
    few = ["--slots", "4", "9", "--repeats", "2", "--queries", "3", "--speak_tokens", "5", "--json", str(out)]
    assert benchmark.main([*models, *few]) == 0
    found = json.loads(out.read_text())
    kinds = ["same", "vocab", "overlap", "perceiver", "text"]
    assert [(cost["link"].split(",")[0].split(" ")[0], cost["slots"]) for cost in found["costs"]] == [
        (kind, slots) for slots in (4, 9) for kind in kinds
    ]
    by = {(cost["link"].split(",")[0].split(" ")[0], cost["slots"]): cost for cost in found["costs"]}
    assert by["vocab", 9]["nbytes"] == 9 * 48 * 4  # from the receiver to itself
    assert by["overlap", 9]["nbytes"] == 9 * 32 * 4  # the sender's states are the smaller
    assert by["perceiver", 9]["crossed"] == 3 and by["perceiver", 9]["nbytes"] == 3 * 48 * 4
    assert by["same", 9]["nbytes"] == 9 * 2 * 2 * 2 * 12 * 4  # slots x layers x (keys, values) x heads x 12 floats
    assert all(len(cost["seconds"]) == len(cost["reading"]) == 2 for cost in found["costs"])
    assert [once["what"].split(" ")[0] for once in found["once"]] == ["fit", "fit", "load", "load"]
    assert "to reading as many tokens" in capsys.readouterr().out
    for wrong in (["--repeats", "0"], ["--slots", "0"]):
        assert benchmark.main([*models, *wrong]) == 2


def test_the_likeliest_label_is_asked_of_both_models(folder: Path, tmp_path: Path, capsys: Any) -> None:
    from gcache.commands.main import main

    link, out = tmp_path / "p.safetensors", tmp_path / "likeliest.json"
    fit = ["fit-perceiver", "--task", "banking77", "--data", str(folder / "train.csv"), *pair(folder)]
    assert main([*fit, "--out", str(link), "--steps", "2", "--held_out", "2", "--width", "16", "--queries", "3"]) == 0
    data = ["--data", str(folder / "test.csv"), "--task_option", "whole_file=true", "--limit", "7"]
    args = [*data, *pair(folder), "--json", str(out)]
    assert experiment("likeliest_label").main([*args, "--link_file", str(link)]) == 0
    found = json.loads(out.read_text())
    assert [row["name"] for row in found["rows"]] == [
        "receiver, nothing", "receiver, text", "receiver, perceiver", "sender, text",
    ]  # fmt: skip
    assert found["labels"] == sorted(COLOURS)
    for row in found["rows"]:
        assert len(row["answers"]) == 7
        assert {answer for _, right, said in row["answers"] for answer in (right, said)} <= set(COLOURS)
    assert len({said for _, _, said in found["rows"][0]["answers"]}) == 1  # given nothing, it says the same of all
    assert "receiver, perceiver | 0." in capsys.readouterr().out
    assert experiment("likeliest_label").main(args) == 2
    assert "--link_file" in capsys.readouterr().err


def test_beginnings_are_counted_and_compared_with_those_of_other_questions(tmp_path: Path, capsys: Any) -> None:
    from gcache.tasks.entities import Entities

    examples = Entities(kind="number").test(20, 0)
    said = [e.answer if n < 5 else e.answer[:1] + "xx" if n < 15 else None for n, e in enumerate(examples)]
    rows = [{"id": e.id, "answer": answer} for e, answer in zip(examples, said, strict=True)]
    task = {"name": "entities", "data": None, "options": {"kind": "number"}}
    written = {"task": task, "limit": 20, "seed": 0, "rows": [{"name": "perceiver", "found": {"rows": rows}}]}
    path = tmp_path / "links.json"
    path.write_text(json.dumps(written))
    script = experiment("compare_beginnings")
    assert script.main([str(path)]) == 0
    one, two, three = capsys.readouterr().out.splitlines()[2:]
    assert "| 1 | 0.750 (" in one and "| 2 | 0.250 (" in two and "| 3 | 0.250 (" in three
    firsts = [e.answer[0] for e in examples]
    same = sum(a == b for i, a in enumerate(firsts) for j, b in enumerate(firsts[:15]) if i != j)
    assert one.endswith(f"| {same / (20 * 19):.3f} |")
    path.write_text("[]")
    assert script.main([str(path)]) == 2
    assert "links.json is nothing that compare_links wrote" in capsys.readouterr().err
    assert script.main([str(path), "--lengths", "0"]) == 2
