from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from gcache.files import write_json, write_text


def test_a_file_is_written_with_the_folders_it_needs(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "note.txt"
    write_text(path, "h\u00e9llo\n")
    assert path.read_bytes() == "h\u00e9llo\n".encode()
    assert os.listdir(path.parent) == ["note.txt"]


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "note.txt"
    write_text(path, "a long first text")
    write_text(path, "short")
    assert path.read_text() == "short"


def test_half_a_character_is_written_as_jsons_own_escape(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"question": "h\u00e9 \ud83d?"})
    assert (tmp_path / "a.json").read_bytes() == '{\n  "question": "h\u00e9 \\ud83d?"\n}\n'.encode()
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"question": "h\u00e9 \ud83d?"}


def test_others_may_read_what_is_written(tmp_path: Path) -> None:
    write_text(tmp_path / "note.txt", "x")
    assert stat.S_IMODE((tmp_path / "note.txt").stat().st_mode) == 0o644


@pytest.mark.parametrize("step", ["chmod", "replace"])
def test_a_write_that_fails_leaves_the_old_file_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    path = tmp_path / "note.txt"
    write_text(path, "old")

    def fail(*_: object) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patched:
        patched.setattr(os, step, fail)
        with pytest.raises(OSError, match="disk full"):
            write_text(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["note.txt"]


def test_a_reader_sees_the_old_file_until_the_new_one_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "note.txt"
    write_text(path, "old")
    replace, seen = os.replace, []

    def look(source: str, target: Path) -> None:
        seen.append((path.read_text(), Path(source).read_text(), Path(source).parent))
        replace(source, target)

    monkeypatch.setattr(os, "replace", look)
    write_text(path, "new")
    assert seen == [("old", "new", tmp_path)]  # the same folder, so that the renaming is one step
    assert path.read_text() == "new"


def test_json_is_readable_by_people_and_comes_back(tmp_path: Path) -> None:
    value = {"name": "caf\u00e9", "numbers": [1, 2.5, None]}
    write_json(tmp_path / "a.json", value)
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert json.loads(text) == value
    assert "caf\u00e9" in text and text.count("\n") > 3 and text.endswith("}\n")


def test_what_is_not_json_leaves_the_old_file(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"a": 1})
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"a": object()})
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": 1}
    assert os.listdir(tmp_path) == ["a.json"]


def test_a_record_without_folders_keeps_names(tmp_path: Path) -> None:
    from gcache.files import without_folders

    (tmp_path / "model.gguf").touch()
    (tmp_path / "folder").mkdir()
    files = [str(tmp_path / "model.gguf"), str(tmp_path / "folder"), "owner/model"]
    record = {
        "graph": {"llm_name": files[0], "agent_models": tuple(files), "link_file": [], "route_file": None},
        "task": {"name": "gsm8k", "data": files[0]}, "checkpoint": str(tmp_path / "runs" / "seed0"), "n": 3,
    }  # fmt: skip
    assert without_folders(record) == {
        "graph": {
            "llm_name": "model.gguf", "agent_models": ["model.gguf", "folder", "owner/model"], "link_file": [],
            "route_file": None,
        },
        "task": {"name": "gsm8k", "data": "model.gguf"}, "checkpoint": "seed0", "n": 3,
    }  # fmt: skip
    assert record["graph"]["llm_name"] == files[0]  # type: ignore[index]
