"""Where the bytes of a data file enter: what is read, and the one line that refuses everything else."""

from __future__ import annotations

import gzip
import io
import json
import os
import zipfile
from pathlib import Path

import pytest

from gcache.errors import DataError
from gcache.tasks import make_task
from gcache.tasks.data_fields import find, words
from gcache.tasks.example import Example

GOOD = '{"question": "How many?", "answer": "#### 4"}'
ROW = json.loads(GOOD)
NOISE = "\ufeff"
CSV = "question,answer\nHow many?,#### 4\n"


def read(tmp_path: Path, raw: bytes, name: str = "rows.jsonl") -> list[Example]:
    path = tmp_path / name
    path.write_bytes(raw)
    return list(make_task("gsm8k", path, whole_file=True).test())


def refused(tmp_path: Path, raw: bytes, name: str = "rows.jsonl") -> str:
    with pytest.raises(DataError) as caught:
        read(tmp_path, raw, name)
    message = str(caught.value)
    assert message.isprintable() and "rows." in message and len(message) < 500, repr(message)
    return message


def short(value: object) -> str:
    """The name of a case: packed bytes hold the time they were packed at, and the name of a test must not change."""
    return "bytes" if isinstance(value, bytes) else str(value)[:40]


def zipped() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("rows.csv", CSV)
    return out.getvalue()


@pytest.mark.parametrize(
    ("raw", "name", "count"),
    [
        (GOOD.encode("utf-8-sig"), "rows.jsonl", 1),
        (f"{GOOD}\n{GOOD}\n".encode("utf-16"), "rows.jsonl", 2),
        (("\ufeff" + GOOD).encode("utf-16-be"), "rows.jsonl", 1),
        (f"{GOOD}\n{GOOD}\n".encode("utf-32"), "rows.jsonl", 2),
        (f"{GOOD}\n{NOISE}{GOOD}\n".encode(), "rows.jsonl", 2),  # files put together
        (f"{GOOD}\r\n\r\n{GOOD}\r\n".encode(), "rows.jsonl", 2),
        (f"{GOOD}\r{GOOD}\r".encode(), "rows.jsonl", 2),
        (GOOD.replace(", ", ",\r ").encode() + b"\n", "rows.jsonl", 1),
        (GOOD.replace("many", "many\u2028\u2029\x85").encode(), "rows.jsonl", 1),
        (GOOD.replace(' "#', " NaN, \"Answer\": \"#").encode(), "rows.jsonl", 1),
        (gzip.compress(GOOD.encode(), mtime=0), "rows.jsonl.gz", 1),
        (gzip.compress(GOOD.encode(), mtime=0), "rows.jsonl", 1),
        (gzip.compress(GOOD.encode(), mtime=0) * 2, "rows.jsonl.gz", None),
        (gzip.compress(GOOD.encode() + b"\n", mtime=0) * 2, "rows.jsonl.gz", 2),
        (gzip.compress(CSV.encode(), mtime=0), "rows.csv.gz", 1),
        (json.dumps([ROW, ROW]).encode(), "rows.json", 2),
        (json.dumps([ROW, ROW], indent=1).encode(), "rows.jsonl", 2),
        (json.dumps({"version": 1, "data": [ROW, ROW]}).encode(), "rows.jsonl", 2),
        (json.dumps({"rows": [ROW]}, indent=1).encode(), "rows.json", 1),
        (json.dumps({"examples": [ROW]}).encode(), "rows.json", 1),
        (json.dumps({"rows": [{"row_idx": 0, "row": ROW, "truncated_cells": []}]}).encode(), "rows.json", 1),
        (json.dumps(ROW, indent=1).encode(), "rows.json", 1),
        (f"{GOOD}\n{GOOD}\n".encode(), "rows.json", 2),
        (CSV.encode(), "rows.csv", 1),
        (CSV.replace(",", ";").encode("utf-16"), "rows.csv", 1),
        (CSV.replace(",", "\t").encode(), "rows.tsv", 1),
        (CSV.replace("\n", "\r\n").encode("utf-8-sig"), "rows.csv", 1),
        (CSV.replace("\n", "\r").encode(), "rows.csv", 1),
        (CSV.replace("How many?", '"How\nmany, or few?"').encode(), "rows.csv", 1),
        ((CSV + "\n,\n").encode(), "rows.csv", 1),
    ],
    ids=short,
)  # fmt: skip
def test_what_is_read(tmp_path: Path, raw: bytes, name: str, count: int | None) -> None:
    if count is None:
        assert "line 1: not valid JSON" in refused(tmp_path, raw, name)
        return
    examples = read(tmp_path, raw, name)
    assert len(examples) == count and {example.answer for example in examples} == {"4"}
    assert all(example.question.startswith("How") for example in examples)


@pytest.mark.parametrize(
    ("raw", "name", "said"),
    [
        (rb'{"question": "q \ud83d", "answer": "#### 4"}', "rows.jsonl", "line 1: the field 'question' has half of a"),
        (rb'{"question": "q \u0000", "answer": "#### 4"}', "rows.jsonl", "line 1: the field 'question' has a NUL"),
        (b'{"question": "q \xed\xa0\xbd", "answer": "#### 4"}', "rows.jsonl", "line 1: not valid JSON: not valid"),
        (b'{"question": "q \xff", "answer": "#### 4"}', "rows.jsonl", "line 1: not valid JSON: not valid UTF-8"),
        (b'{"question": "q \0", "answer": "#### 4"}', "rows.jsonl", "line 1: not valid JSON"),
        (GOOD.encode("utf-16-le"), "rows.jsonl", "line 1: not valid JSON"),
        (GOOD.encode("utf-16")[:-1], "rows.jsonl", "not valid UTF-16"),
        (b"\xff\xfe" + GOOD.replace("many", "m\ud800").encode("utf-16-le", "surrogatepass"), "rows.jsonl", "line 1:"),
        (gzip.compress(GOOD.encode(), mtime=0)[:-9], "rows.jsonl.gz", "broken gzip"),
        (gzip.compress(GOOD.encode(), mtime=0)[:20] + b"\xff" * 20, "rows.jsonl.gz", "broken gzip"),
        (GOOD.encode(), "rows.jsonl.gz", "not a gzipped file"),
        (zipped(), "rows.csv", "a zip archive"),
        (b"PAR1\0\0", "rows.jsonl", "a parquet file"),
        (b"version https://git-lfs.github.com/spec/v1\n", "rows.jsonl", "Git LFS"),
        (b"question,answer\nq\xff,#### 4\n", "rows.csv", "line 2: not valid UTF-8"),
        (b"question,answer\nq\0,#### 4\n", "rows.csv", "line 2: the field 'question' has a NUL"),
        (b'question,answer\n"q,#### 4\nq,#### 5\n', "rows.csv", "not valid CSV"),
        (b"question,answer\n" + b"q" * 200_000 + b",#### 4\n", "rows.csv", "line 2: not valid CSV: field larger"),
        (b"question,answer\nq,or r,#### 4\n", "rows.csv", "line 2: 3 fields, but there are 2 columns"),
        (b"question,answer\nq\n", "rows.csv", "line 2: 1 fields, but there are 2 columns"),
        (b"question,answer,answer\nq,#### 4,#### 5\n", "rows.csv", "line 1: two columns are named 'answer'"),
        (b"question,answer\n", "rows.csv", "the file is empty"),
        (b"", "rows.csv", "the file is empty"),
        (b"", "rows.json", "the file is empty"),
        (b"\xef\xbb\xbf", "rows.jsonl", "the file is empty"),
        (b"[]", "rows.json", "the file is empty"),
        (b'{"data": []}', "rows.json", "the file is empty"),
        (GOOD.replace("}", ', "answer": "#### 5"}').encode(), "rows.jsonl", "the field 'answer' is there twice"),
        (GOOD.replace("}", ', "a": ' + "9" * 5000 + "}").encode(), "rows.jsonl", "line 1: a number has 5000 digits"),
        (GOOD.replace("4", "9" * 5000).encode(), "rows.jsonl", "line 1: "),
        (GOOD.replace('"#### 4"', "Infinity").encode(), "rows.jsonl", "line 1: the field 'answer' must end in"),
        (GOOD.replace('"#### 4"', "NaN").encode(), "rows.jsonl", "line 1: the field 'answer' must be a non-empty"),
        (GOOD.replace("}", ', "a": ' + "[" * 100_000 + "]" * 100_000 + "}").encode(), "rows.jsonl", "line 1: lists"),
        (GOOD.replace("}", ', "a": ' + "[" * 60 + "]" * 60 + "}").encode(), "rows.jsonl", "line 1: lists and objects"),
        (b"[" * 100_000, "rows.json", "rows.json"),
        (b'{"a":' * 100_000, "rows.jsonl", "line 1: "),
        (b"[null]", "rows.json", "entry 1: expected a JSON object, got NoneType"),
        (b'{"data": [1]}', "rows.json", "entry 1: expected a JSON object, got int"),
        (b'{"data": [], "rows": []}', "rows.json", "rows may be under 'data' or 'rows'"),
        (b"null", "rows.jsonl", "line 1: expected a JSON object, got NoneType"),
        (GOOD.replace(", ", "\u2028").encode(), "rows.jsonl", "line 1: not valid JSON"),
        (b'{"row_idx": 0, "row": {"question": "q"}, "truncated_cells": ["answer"]}', "rows.jsonl", "viewer cut this"),
        (json.dumps({f"a{n}": n for n in range(9999)}).encode(), "rows.jsonl", "'question' is missing"),
    ],
    ids=short,
)  # fmt: skip
def test_what_is_refused(tmp_path: Path, raw: bytes, name: str, said: str) -> None:
    assert said in refused(tmp_path, raw, name)


@pytest.mark.parametrize(
    "row",
    [
        {"row": ROW},  # copies of the viewer's rows may lack row_idx
        {"row_idx": 0, "row": {"question": "How many?"}, "answer": "#### 4"},
        {"row_idx": 0, "row": {"row_idx": 7, **ROW}, "truncated_cells": []},
        {"question": "How many?", "row": ROW},
        {"data": {"data": ROW}},
        {"Question": None, "data": ROW},
        {"question": "How many?", "data": {"Question": "How many?", "answer": "#### 4", "id": None}, "id": 3},
        {"question": "How many?", "data": {"problem": "How many?", "answer": "#### 4"}},
        {"data": {"problem": "How?", "question": "How many?", "answer": "#### 4"}},  # as in a row without nesting
    ],
)  # fmt: skip
def test_what_is_nested_and_says_the_same_is_read(tmp_path: Path, row: dict[str, object]) -> None:
    (example,) = read(tmp_path, json.dumps(row).encode())
    assert (example.question, example.answer) == ("How many?", "4")


@pytest.mark.parametrize(
    ("row", "one", "other"),
    [
        ({"question": "A?", "data": {"question": "B?"}}, "question", "data.question"),
        ({"Question": "A?", "data": {"question": "B?"}}, "Question", "data.question"),
        ({"question": "A?", "data": {"problem": "B?"}}, "question", "data.problem"),
        ({"answer": "#### 3", "data": ROW}, "answer", "data.answer"),
        ({"row_idx": 0, "row": ROW, "question": "B?"}, "question", "row.question"),
        ({"row_idx": 0, "row": ROW, "answer": "#### 5"}, "answer", "row.answer"),
        ({"row": ROW, "answer": "#### 5"}, "answer", "row.answer"),
        ({"row": ROW, "data": {"question": "B?"}}, "row.question", "data.question"),
        ({"row": {"data": ROW, "question": "B?"}}, "row.question", "row.data.question"),
    ],
)
def test_what_is_nested_and_says_something_else_is_refused(
    tmp_path: Path, row: dict[str, object], one: str, other: str
) -> None:
    said = f"line 1: the fields {one!r} and {other!r} say different things; leave one of them"
    assert said in refused(tmp_path, json.dumps({"answer": "#### 4", **row}).encode())


@pytest.mark.parametrize("blank", ["\u2028", "\x1f", "\u3000", "\ufeff \u2028\ufeff", " \n"])
def test_blanks_of_any_kind_are_no_value(blank: str) -> None:
    assert find({"question": blank}, "question") is None
    assert words({"question": blank, "problem": f"{blank}Why?{blank}"}, "question", "problem") == "Why?"
    with pytest.raises(DataError, match="the field 'question' must be a non-empty string"):
        words({"question": blank}, "question")


def test_a_cut_row_is_refused_without_its_number_too(tmp_path: Path) -> None:
    assert "viewer cut this" in refused(tmp_path, json.dumps({"row": ROW, "truncated_cells": ["question"]}).encode())


@pytest.mark.parametrize("name", ["rows.csv", "rows.tsv", "rows.csv.gz"])
def test_json_is_read_as_json_whatever_it_is_called(tmp_path: Path, name: str) -> None:
    packed = gzip.compress if name.endswith(".gz") else bytes
    for text, count in ((GOOD, 1), (f"{GOOD}\n{GOOD}\n", 2), (json.dumps([ROW]), 1), (json.dumps([ROW], indent=1), 1)):
        assert len(read(tmp_path, packed(f"\ufeff{text}".encode()), name)) == count
    assert "line 1: not valid JSON" in refused(tmp_path, packed(f"{GOOD[:-1]}\n{GOOD}".encode()), name)


def test_a_question_in_csv_may_begin_like_json(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text('{"a": 1} is what?,list,object,text,number,B\n[1] is what?,list,object,text,number,A\n')
    assert [example.answer for example in make_task("mmlu", path, whole_file=True).test()] == ["B", "A"]


def test_a_pipe_a_folder_and_a_device_are_no_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")  # nobody writes into it, so opening it would wait for ever
    for path, said in ((tmp_path / "pipe", "no plain file"), (tmp_path, "directory"), (Path("/dev/zero"), "no plain")):
        with pytest.raises(DataError, match=rf"cannot be read \(.*{said}"):
            make_task("gsm8k", path)


@pytest.mark.parametrize("name", ["a\nb.jsonl", "a\0b.jsonl", "\udcff.jsonl", "a" * 300 + ".jsonl"])
def test_a_name_that_no_terminal_shows_is_written_out(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError) as caught:
        make_task("gsm8k", tmp_path / name)
    assert str(caught.value).isprintable()


def test_every_field_of_every_task_is_text_that_can_be_written(tmp_path: Path) -> None:
    rows = {
        "mmlu": {"question": "q", "choices": ["x", "y"], "answer": 0},
        "medqa": {"question": "q", "options": {"A": "x", "B": "y"}, "answer_idx": "A"},
        "arc_easy": {"question": "q", "choices": {"text": ["x", "y"], "label": ["A", "B"]}, "answerKey": "A"},
        "sst2": {"sentence": "q", "label": 0},
        "aime24": {"problem": "q", "answer": 70},
        "humaneval": {"task_id": "T/0", "prompt": "def f():\n", "entry_point": "f", "test": "def check(f): assert f()"},
        "mbppplus": {"task_id": 1, "prompt": "q", "test_list": ["assert f()"]},
    }  # fmt: skip
    for task, row in rows.items():
        text = json.dumps(row)
        for old, new in (('"q"', r'"q\ud800"'), ('"x"', r'"\udfff"'), ('"T/0"', r'"\ud800"'), ("f()", r"f('\ud800')")):
            if old in text:
                path = tmp_path / "rows.jsonl"
                path.write_text(text.replace(old, new))
                with pytest.raises(DataError, match=r"rows\.jsonl, line 1: "):
                    make_task(task, path)
