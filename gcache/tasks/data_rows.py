"""The rows of a data file: JSONL, a JSON list, a JSON object that holds one, or CSV; told apart by what is in it.

Whatever the file holds, each row comes with where it stands, or one `DataError` says what is wrong there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from gcache.errors import DataError
from gcache.tasks.csv_rows import csv_rows
from gcache.tasks.data_fields import QUESTIONS, Row, opened, same_name
from gcache.tasks.data_file import shown, text_of
from gcache.tasks.text_lists import object_of

#: Keys under which a JSON object may hold its rows.
LISTS = ("data", "rows", "examples", "questions", "problems", "instances", "items", "records")
#: What the hub's viewer says of a row, beside it.
_OF_THE_VIEWER = ("row_idx", "truncated_cells")
MOST_DIGITS = 4300
#: Lists and objects within each other; data sets have a handful, and what takes a row apart may recurse.
MOST_LEVELS = 50


def rows_of(
    path: Path,
    form: str = "rows",
    columns: Sequence[str] = (),
    is_heading: Callable[[Sequence[str]], bool] = bool,
) -> Iterator[tuple[str, int, Row]]:
    """The rows of a file, as (where in words, number, row). Blank lines are skipped.

    Args:
        columns, is_heading: of a CSV file whose first line may not name them; see `csv_rows`.

    Raises:
        DataError: the file cannot be read, or a row is not one.
    """
    text = text_of(path, form)
    ending = path.name.lower().removesuffix(".gz")
    if ending.endswith((".csv", ".tsv")) and not _looks_like_json(text):
        yield from csv_rows(shown(path), text, columns, is_heading, tabs=ending.endswith(".tsv"))
        return
    for where, number, value in _values(text, shown(path), ending.endswith(".json")):
        yield where, number, row_of(value, f"{shown(path)}, {where}")


def row_of(value: Any, where: str) -> Row:
    """A JSON value as a row: an object; what is nested in one as the hub nests it comes to the top. An object under
    `row` is opened with or without the viewer's `row_idx`, which not every copy keeps.

    Raises:
        DataError: it is no object, or one that was cut, or what is nested in it contradicts what stands beside.
    """
    if not isinstance(value, Mapping):
        raise DataError(f"{where}: expected a JSON object, got {type(value).__name__}")
    if isinstance(value.get("row"), Mapping):  # as the hub's viewer hands rows out
        if value.get("truncated_cells"):
            raise DataError(f"{where}: the hub's viewer cut this row (truncated_cells); take the data set's own files")
        value = {name: held for name, held in value.items() if name not in _OF_THE_VIEWER}
    try:
        return opened(value, "row", "data")
    except DataError as error:
        raise DataError(f"{where}: {error}") from error


def _looks_like_json(text: str) -> bool:
    """Whether a file that is called CSV is none: its first line, all of it, or any line is JSON. To begin like JSON is
    not enough: a question may do so."""
    filled = [line.strip() for line in _lines(text) if line.strip()]
    if not filled or filled[0][0] not in "[{":
        return False
    return _is_json(filled[0]) or _is_json(text) or any(line[0] == "{" and _is_json(line) for line in filled)


def _values(text: str, file: str, is_json: bool) -> Iterator[tuple[str, int, Any]]:
    lines = _lines(text)
    filled = [line for line in lines if line.strip()]
    begin = text.lstrip("\ufeff \t\r\n")[:1]
    whole = begin in ("[", "{") and (is_json or len(filled) == 1 or not _is_json(filled[0]))
    if whole and begin == "{" and len(filled) > 1 and _is_json(filled[0]):
        whole = False  # a .json file that is JSONL
    if whole and (is_json or _is_json(text)):
        entries = _entries(_json(text, file if len(filled) > 1 else f"{file}, line 1"), file)
        if entries is not None:
            yield from ((f"entry {number}", number, entry) for number, entry in enumerate(entries, start=1))
            return
    if whole and len(filled) > 1 and _is_json(text):
        yield "line 1", 1, _json(text, file)  # one row, spread over many lines
        return
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield f"line {number}", number, _json(line, f"{file}, line {number}")


def _lines(text: str) -> list[str]:
    """Lines end in LF, CRLF or, where there is no LF at all, CR. Files put together have their marks in the middle."""
    lines = re.split("\r" if "\r" in text and "\n" not in text else "\r?\n", text)
    return [line.removeprefix("\ufeff") for line in lines]


def _entries(value: Any, file: str) -> list[Any] | None:
    """The rows in a JSON value that is a whole file; None where it is a row itself."""
    if isinstance(value, list):
        return value
    held = [name for name in LISTS if isinstance(value.get(name), list)]
    if not held or any(same_name(name) in QUESTIONS for name in value if name not in held):
        return None
    if len(held) > 1:
        raise DataError(f"{file}: rows may be under {' or '.join(map(repr, held))}; leave one of them")
    entries: list[Any] = value[held[0]]
    return entries


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _json(text: str, where: str) -> Any:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(f"{where}: not valid JSON: not valid UTF-8 at column {error.start + 1}") from error
    try:
        value = json.loads(
            text.removeprefix("\ufeff"), object_pairs_hook=object_of, parse_constant=_constant, parse_int=_whole
        )
    except json.JSONDecodeError as error:
        hint = "; it holds NUL characters, so it may be UTF-16 without its mark" if "\0" in text else ""
        at = f"line {error.lineno}, column" if error.lineno > 1 else "column"
        raise DataError(f"{where}: not valid JSON: {error.msg} at {at} {error.colno}{hint}") from error
    except DataError as error:
        raise DataError(f"{where}: {error}") from error
    except RecursionError as error:
        raise _too_deep(where) from error
    _check_levels(value, where)
    return value


def _constant(name: str) -> float | None:
    """NaN is how some writers say that there is nothing."""
    return None if name == "NaN" else float(name)


def _whole(digits: str) -> int:
    if len(digits) > MOST_DIGITS:
        raise DataError(f"a number has {len(digits)} digits; at most {MOST_DIGITS} are read")
    return int(digits)


def _check_levels(value: Any, where: str) -> None:
    level = [value]
    for _ in range(MOST_LEVELS):
        parts = [list(each.values()) if isinstance(each, dict) else each for each in level]
        level = [inner for part in parts if isinstance(part, list) for inner in part if isinstance(inner, (list, dict))]
        if not level:
            return
    raise _too_deep(where)


def _too_deep(where: str) -> DataError:
    return DataError(f"{where}: lists and objects are nested too deeply; at most {MOST_LEVELS} levels are read")
