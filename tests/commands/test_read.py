"""`gcache read`: documents into a store, once."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gcache.commands.main import main
from gcache.errors import DataError
from gcache.llm.cache_folder import CacheFolder
from gcache.tasks.document_files import documents_of

ROWS = [
    {"title": "Box", "text": "the box has 3 red apples"},
    {"title": "Blue", "text": "there are 2 blue apples"},
    {"text": "she has 4 green apples"},
]


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    file = tmp_path / "documents.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return file


def read(model: Path, *flags: str) -> int:
    return main(["read", "--llm_name", str(model), *flags])


def test_documents_are_read_once(model_folder: Path, rows: Path, tmp_path: Path, capsys: Any) -> None:
    store = tmp_path / "store"
    assert read(model_folder, "--data", str(rows), "--store", str(store)) == 0
    said = capsys.readouterr().out
    assert f"3 documents read, 4 caches in {store}: 0 caches found" in said and "4 made" in said
    written = {path.name: path.stat().st_ino for path in store.iterdir()}
    assert len(written) == 4  # what stands before all of them is one
    rows.write_text(rows.read_text() + json.dumps({"title": "New", "text": "what is it ?"}) + "\n")
    assert read(model_folder, "--data", str(rows), "--store", str(store)) == 0
    assert "4 caches found" in (said := capsys.readouterr()).out and "1 made" in said.out
    assert written.items() <= {path.name: path.stat().st_ino for path in store.iterdir()}.items()


def test_what_was_read_is_what_a_graph_asks_for(model_folder: Path, tmp_path: Path, capsys: Any, caplog: Any) -> None:
    data, store = tmp_path / "hotpot.jsonl", tmp_path / "store"
    context = [[row.get("title", "Three"), [row["text"]]] for row in ROWS]
    row = {"_id": "a", "question": "how many ?", "answer": "4", "context": context, "supporting_facts": [["Box", 0]]}
    data.write_text(json.dumps(row) + "\n")
    asked = ["--task", "hotpotqa", "--data", str(data), "--llm_name", str(model_folder), "--store", str(store)]
    assert main(["read", *asked]) == 0
    capsys.readouterr()
    compared = ["compare", "--methods", "gcache", "--topology", "star", "--question", "last", "--latent_steps", "0"]
    assert main([*compared, *asked, "--max_new_tokens", "2"]) == 0
    assert "4 caches found" in caplog.text and "0 made" in caplog.text
    assert "| stored |" in capsys.readouterr().out


def test_a_folder_of_texts(tmp_path: Path) -> None:
    (tmp_path / "the_box.txt").write_text("the box is red")
    (tmp_path / "a.md").write_text("# A\n\none two")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    found = documents_of(tmp_path)
    assert [document.title for document in found] == ["a", "the box"]
    assert found[1].note().text == "the box: the box is red"


@pytest.mark.parametrize(
    "name, content, error",
    [
        ("a.jsonl", '{"title": "x"}\n', r"a.jsonl, line 1: the field 'text' is missing"),
        ("a.jsonl", "", r"a.jsonl"),
        ("a.jsonl", "[1]\n", r"expected a JSON object"),
        ("folder/b.pdf", "x", r"holds no document: no file that ends in .txt or .md"),
        ("folder/b.txt", " \n", r"b.txt is empty"),
        ("folder/b.txt", b"caf\xe9", r"b.txt is not valid UTF-8; save it, and name it, in UTF-8"),
        ("folder/caf\udce9.txt", "x", r"is not valid UTF-8"),
        ("a.jsonl", '{"text": "\\ud800 half"}\n', r"a.jsonl, line 1, is not valid UTF-8"),
    ],
)
def test_what_is_no_document_is_one_line(tmp_path: Path, name: str, content: str | bytes, error: str) -> None:
    with pytest.raises(DataError, match=r"nowhere: no such file or folder; name a folder of"):
        documents_of(tmp_path / "nowhere")
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=error):
        documents_of(path if path.parent == tmp_path else path.parent)


@pytest.mark.parametrize(
    "flags, error",
    [
        (["--store", "s"], "there is nothing to read; name documents by --data, or a --task"),
        (["--data", "nowhere.jsonl"], "name the folder that keeps the caches by --store"),
        (["--data", "nowhere.jsonl", "--store", "s"], "nowhere.jsonl"),
        (["--data", "x.jsonl", "--store", "s", "--limit", "3"], "--limit: this is of a task's questions"),
        (["--task", "split_gsm8k", "--data", "nowhere.jsonl", "--store", "s"], "nowhere.jsonl"),
    ],
)
def test_bad_flags_are_one_line(model_folder: Path, flags: list[str], error: str, capsys: Any) -> None:
    assert read(model_folder, *flags) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("gcache: ")]
    assert error in line


def test_documents_that_are_too_long_cost_themselves_alone(
    model_folder: Path, rows: Path, tmp_path: Path, capsys: Any
) -> None:
    long = {"title": "Long", "text": "red apples " * 3000}
    rows.write_text(json.dumps(long) + "\n" + rows.read_text())
    assert read(model_folder, "--data", str(rows), "--store", str(tmp_path / "store")) == 2
    said = capsys.readouterr()
    assert "3 documents read, 4 caches in" in said.out and "4 made" in said.out
    assert "1 of 4 documents could not be read; the first, 'Long': " in said.err


def test_caches_that_there_is_no_room_for_are_said(model_folder: Path, rows: Path, tmp_path: Path, capsys: Any) -> None:
    assert read(model_folder, "--data", str(rows), "--store", str(tmp_path / "store"), "--store_gb", "0.000001") == 2
    said = capsys.readouterr()
    assert "3 documents read, 0 caches in" in said.out
    assert "4 of 4 caches are not in" in said.err and "do not fit into --store_gb 1e-06" in said.err


@pytest.mark.slow
def test_two_processes_over_one_store_answer_as_one_without(model_folder: Path, tmp_path: Path) -> None:
    """On the same questions, beginning with nothing in the store; afterwards every entry is sound."""
    data = tmp_path / "hotpot.jsonl"
    asked = []
    for number in range(12):
        context = [[f"{row.get('title', 'Three')} {number % 5}", [f"{row['text']} {number % 5}"]] for row in ROWS]
        asked.append({"_id": str(number), "question": f"how many ? {number}", "answer": "4", "context": context})
    data.write_text("".join(json.dumps(row) + "\n" for row in asked))
    words = [
        sys.executable, "-m", "gcache.commands.main", "compare", "--methods", "gcache", "--topology", "star",
        "--question", "last", "--latent_steps", "0", "--task", "hotpotqa", "--data", str(data), "--limit", "12",
        "--max_new_tokens", "4", "--llm_name", str(model_folder),
    ]  # fmt: skip
    store = ["--store", str(tmp_path / "store")]

    def start(name: str, *more: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [*words, "--json", str(tmp_path / f"{name}.json"), *more], stderr=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )  # fmt: skip

    alone = start("alone")
    assert alone.wait() == 0
    both = [start("one", *store), start("two", *store)]
    assert [process.wait() for process in both] == [0, 0]
    answers = [
        json.loads((tmp_path / f"{name}.json").read_text())["rows"][0]["answers"] for name in ("alone", "one", "two")
    ]
    assert answers[0] == answers[1] == answers[2] and len({text for *_, text in answers[0]}) > 1
    files = CacheFolder(tmp_path / "store", 1e9, "")
    names = [path.stem for path in (tmp_path / "store").iterdir()]
    assert len(names) == 1 + 15 and all(files.read(name) is not None for name in names)
