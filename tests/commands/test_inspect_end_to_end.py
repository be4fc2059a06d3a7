"""`gcache inspect`, `gcache compare-topologies` and `gcache run --temperature` from end to end on a tiny model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import networkx
import pytest

from gcache.commands.main import main
from gcache.gnn.topology import DECISION
from gcache.tasks.split_facts import SplitFacts
from gcache.training.checkpoint import load_graph

TASK = SplitFacts()
FILES = {
    "json": "topology.json", "png": "topology.png", "svg": "topology.svg", "html": "topology.html",
    "graphml": "topology.graphml", "mermaid": "topology.mmd", "dot": "topology.dot", "history": "history.png",
    "gif": "history.gif", "curves": "curves.png",
}  # fmt: skip


def train(model: Path, out: Path, *more: str) -> Path:
    flags = [
        "train", "--llm_name", str(model), "--dtype", "float32", "--encoder", "hash", "--iterations", "2",
        "--batch_size", "2", "--rollouts", "2", "--latent_steps", "1", "--out", str(out),
        "--decision_probability", "0.9", "--lr", "0.005", *more,
    ]  # fmt: skip
    assert main(flags) == 0
    return out


@pytest.fixture(scope="module")
def trained(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Agents come with the questions."""
    return train(model_folder, tmp_path_factory.mktemp("facts") / "out", "--task", "split_facts")


@pytest.fixture(scope="module")
def sums(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The graph has agents of its own, and any question will do."""
    folder = tmp_path_factory.mktemp("sums")
    rows = [{"question": f"what is {n} + 2 ?", "answer": f"#### {n + 2}"} for n in range(20)]
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return train(
        model_folder, folder / "out", "--task", "gsm8k", "--data", str(folder / "train.jsonl"),
        "--max_new_tokens", "4", "--roles", "solver", "inspector",
    )  # fmt: skip


def printed(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """What a command prints that goes well."""
    capsys.readouterr()
    assert main(argv) == 0
    return capsys.readouterr().out


def refused(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """The one line of a command that is refused."""
    capsys.readouterr()
    try:
        code = main(argv)
    except SystemExit as exit_:  # argparse
        code = int(exit_.code or 0)
    found = capsys.readouterr()
    lines = [line for line in found.err.strip().splitlines() if line.startswith("gcache")]
    assert code == 2 and found.out == ""
    assert len(lines) == 1, found.err
    return lines[0]


def rows_of(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines() if line.startswith("|")]


def files_of(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


# -- a checkpoint ---------------------------------------------------------------------------


def test_a_checkpoint_is_a_table_and_leaves_no_file(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in trained.rglob("*")}
    out = printed(capsys, "inspect", str(trained), "--limit", "4")
    assert out.startswith("# split_facts: out\n\nedges by role, mean over 4 questions; ")
    head, _, *rows = rows_of(out)
    assert head == ["from", "to", "probability", "middle 90 %", "kept (most likely)"]
    assert ["asked keeper", DECISION] in [row[:2] for row in rows] and len(rows) > 3
    assert all(0 <= float(row[2]) <= 1 for row in rows)
    assert {path: path.stat().st_mtime_ns for path in trained.rglob("*")} == before


def test_every_format_is_written_beside_the_run_and_read_back(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from PIL import Image

    out = printed(capsys, "inspect", str(trained), "--format", "all", "--limit", "4", "--cuts", "3")
    folder = trained / "inspect"
    assert files_of(folder) == set(FILES.values())
    assert out.splitlines()[-len(FILES) :] == [str(folder / name) for name in FILES.values()]
    assert "accuracy when cut" in rows_of(out)[0]

    view = json.loads((folder / "topology.json").read_text(encoding="utf-8"))
    assert [frame["label"] for frame in view["frames"]] == ["before step 1", "before step 2", "after 2 steps"]
    edges = {(e["source"], e["target"]): e for e in view["frames"][-1]["edges"]}
    assert any(edge["cost"] and edge["cost"]["n"] == 3 for edge in edges.values())
    assert {edge["probability"] for edge in edges.values()} != {0.9}

    graph = networkx.read_graphml(folder / "topology.graphml")
    assert {(s, t): d["probability"] for s, t, d in graph.edges(data=True)} == {
        ends: edge["probability"] for ends, edge in edges.items()
    }
    likely = {ends for ends, edge in edges.items() if edge["probability"] >= 0.05}
    assert (folder / "topology.dot").read_text().count(" -> ") == len(likely)
    assert (folder / "topology.mmd").read_text().count("-->|") == len(likely)
    assert ElementTree.parse(folder / "topology.svg").getroot().tag.endswith("svg")
    for name in ("topology.png", "history.png", "curves.png"):
        with Image.open(folder / name) as picture:
            assert picture.format == "PNG" and picture.width > 300
    with Image.open(folder / "history.gif") as gif:
        assert gif.n_frames == 3
    assert "asked keeper" in (folder / "topology.html").read_text(encoding="utf-8")


def test_a_step_of_a_run_and_another_folder_may_be_named(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    step = next((trained / "checkpoints").glob("step-*"))
    out = tmp_path / "files"
    printed_ = printed(capsys, "inspect", str(step), "--format", "dot", "json", "--out", str(out), "--limit", "2")
    assert printed_.splitlines() == [str(out / "topology.dot"), str(out / "topology.json")]  # and no table
    assert not (step / "inspect").exists() and files_of(out) == {"topology.dot", "topology.json"}


def test_files_of_a_step_go_beside_its_run(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    step = next((trained / "checkpoints").glob("step-*"))
    out = printed(capsys, "inspect", str(step), "--format", "mermaid", "--limit", "2")
    assert Path(out.strip()) == trained / "inspect" / "topology.mmd"


# -- one question ---------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["id", "words"])
def test_a_tasks_question_by_its_id_or_its_words(
    trained: Path, tmp_path: Path, by: str, capsys: pytest.CaptureFixture[str]
) -> None:
    example = TASK.test(1)[0]
    words = example.id if by == "id" else example.question
    out = printed(capsys, "inspect", str(trained), "--question", words, "--format", "all", "--out", str(tmp_path / "q"))
    answer = load_graph(trained).run(example).answer
    assert f"question: {example.question}\nanswer: {answer.strip()}\n" in out
    assert files_of(tmp_path / "q") == set(FILES.values()) - {"history.png", "history.gif", "curves.png"}
    view = json.loads((tmp_path / "q" / "topology.json").read_text(encoding="utf-8"))
    assert view["question"] == example.question
    assert [node["id"] for node in view["nodes"]] == [*(note.role for note in example.notes), DECISION]
    assert any(node["reading"] for node in view["nodes"]) and view["hint"] in out
    assert example.question in (tmp_path / "q" / "topology.html").read_text(encoding="utf-8")
    attention = [row for row in rows_of(out) if row[0].startswith("attention of the answer on")]
    assert attention == [["attention of the answer on", "mean", "layer 0", "layer 1"]]


def test_any_question_where_the_graph_has_its_agents(
    sums: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    question = 'what is "2" + 3 ? <b> | $5 and $6_'
    flags = ["--question", question, "--format", "all", "--out", str(tmp_path)]
    out = printed(capsys, "inspect", str(sums), *flags)
    assert f"question: {question}\n" in out and "solver" in out and "inspector" in out
    assert json.loads((tmp_path / "topology.json").read_text(encoding="utf-8"))["question"] == question
    ElementTree.parse(tmp_path / "topology.svg")
    assert "written from its cache alone" in out
    assert "written from its cache alone" not in printed(
        capsys, "inspect", str(sums), "--question", question, "--no_writing"
    )


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--question", "what is it ?"], ["what is it ?", "split_facts-test-0-0"]),
        (["--question", " "], ["the question is empty"]),
        (["--question", "split_facts-test-0-0", "--cuts", "3"], ["--cuts", "--question"]),
        (["--no_writing"], ["--no_writing", "--question"]),
        (["--cuts", "1"], ["2 questions or more", "1"]),
        (["--cuts", "-1"], ["-1"]),
        (["--limit", "0"], ["0"]),
        (["--format", "table", "pdf"], ["pdf", "graphml"]),
        (["--task", "gsm_symbolic"], ["has agents for split_facts"]),
        (["--hops", "2"], ["need --task"]),
        (["--task", "splitfacts"], ["splitfacts", "split_facts"]),
    ],
)
def test_what_cannot_be_looked_at_is_refused_in_one_line(
    trained: Path, tmp_path: Path, flags: Sequence[str], words: Sequence[str], capsys: pytest.CaptureFixture[str]
) -> None:
    line = refused(capsys, "inspect", str(trained), "--out", str(tmp_path / "out"), *flags)
    assert all(word in line for word in words), line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("flags", [[], ["--question", "what is it ?"], ["--cuts", "2"], ["--format", "all"]])
def test_a_missing_checkpoint_is_refused(
    tmp_path: Path, flags: Sequence[str], capsys: pytest.CaptureFixture[str]
) -> None:
    line = refused(capsys, "inspect", str(tmp_path / "nothing"), *flags)
    assert "no checkpoint" in line and "--out" in line
    assert not list(tmp_path.iterdir())


# -- two checkpoints ------------------------------------------------------------------------


def test_two_checkpoints_are_compared_and_written_down(
    trained: Path, model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = train(model_folder, tmp_path / "other", "--task", "split_facts", "--seed", "3")
    file = tmp_path / "apart.json"
    table = printed(capsys, "compare-topologies", str(trained), str(other), "--limit", "5", "--json", str(file))
    found = json.loads(file.read_text(encoding="utf-8"))
    assert found["n"] == 5 and found["first"] == str(trained) and found["second"] == str(other)
    head, _, *rows = rows_of(table)
    assert head[2:4] == ["out", "other"]
    assert [(row[0], row[1], row[4]) for row in rows[: len(found["edges"])]] == [
        (e["source"], e["target"], f"{e['difference']:+.3f}") for e in found["edges"]
    ]
    assert any(e["difference"] for e in found["edges"])
    assert table.startswith(f"The most likely topologies are the same on {found['same']:.1%} of 5 questions.")


@pytest.mark.parametrize(
    ("flags", "words"),
    [(["--limit", "0"], ["limit", "0"]), (["--task", "gsm_symbolic"], ["has agents for split_facts"])],
)
def test_what_cannot_be_compared_is_refused(
    trained: Path, tmp_path: Path, flags: Sequence[str], words: Sequence[str], capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "apart.json"
    line = refused(capsys, "compare-topologies", str(trained), str(trained), "--json", str(file), *flags)
    assert all(word in line for word in words), line
    assert not file.exists()


def test_other_agents_and_missing_checkpoints_are_refused(
    trained: Path, sums: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "agents for maths" in refused(capsys, "compare-topologies", str(trained), str(sums))
    assert "no checkpoint" in refused(capsys, "compare-topologies", str(trained), str(tmp_path))


# -- run ------------------------------------------------------------------------------------


def test_a_drawn_answer_is_its_seeds(sums: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def answer(*flags: str) -> str:
        return printed(capsys, "run", "--checkpoint", str(sums), *flags, "what is 2 + 3 ?")

    greedy = answer()
    drawn = {seed: answer("--temperature", "1.5", "--seed", str(seed)) for seed in range(4)}
    assert greedy == answer("--seed", "2") == answer("--temperature", "0")
    assert len(set(drawn.values())) > 1 and drawn[2] == answer("--temperature", "1.5", "--seed", "2")
    graph = load_graph(sums)
    assert drawn[3] == graph.run("what is 2 + 3 ?", temperature=1.5, seed=3).answer + "\n"


def test_a_temperature_below_nothing_is_refused(sums: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Before anything is loaded: the model named here is none."""
    for graph in (["--checkpoint", str(sums)], ["--llm_name", "no/such/model"]):
        for value in ("-1", "nan", "inf"):
            line = refused(capsys, "run", *graph, "--temperature", value, "what is it ?")
            assert "--temperature must be 0 (greedy) or more" in line and value in line
