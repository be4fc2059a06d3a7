"""The rows of a CSV file, whose columns are separated by commas, semicolons or tabs.

A row has as many fields as there are columns, or it is refused: a field too many is a comma that nobody quoted, and
whatever stands behind it would be read as something else.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Sequence

from gcache.errors import DataError
from gcache.tasks.data_fields import QUESTIONS, Row, same_name

#: Names by which the line that names the columns is told apart from itself, cut at other signs.
_HEADS = QUESTIONS | {"answer", "category", "label", "description", "title"}
_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}


def csv_rows(
    file: str,
    text: str,
    columns: Sequence[str] = (),
    is_heading: Callable[[Sequence[str]], bool] = bool,
    tabs: bool = False,
) -> Iterator[tuple[str, int, Row]]:
    """The rows, as (where in words, number, row); lines of blank fields are skipped.

    Args:
        file: its name, for errors.
        columns: where the first line may be a row already, those it has then.
        is_heading: whether these fields of the first line name columns. It may raise DataError where nobody can say.
        tabs: whether its name says that tabs separate.

    Raises:
        DataError: a line is no CSV, has too many fields or too few, or the columns are not told apart.
    """
    try:
        separator, names = _form(text, columns, is_heading, tabs)
    except DataError as error:
        raise DataError(f"{file}: {error}") from error
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    number = 0
    try:
        for fields in reader:
            where = f"{file}, line {reader.line_num}"
            _check_utf8(fields, where)
            if not any(field.strip("\ufeff \t") for field in fields):
                continue
            if not names:
                names = _names(fields, where)
                continue
            if len(fields) != len(names):
                raise DataError(
                    f"{where}: {len(fields)} fields, but there are {len(names)} columns, separated by "
                    f"{_SEPARATORS[separator]}; quote a field that has one in it"
                )
            number += 1
            yield f"line {reader.line_num}", number, {k: v for k, v in zip(names, fields, strict=True) if k}
    except csv.Error as error:
        hint = "; JSONL has no such limit" if "limit" in str(error) else ""
        raise DataError(f"{file}, line {reader.line_num}: not valid CSV: {error}{hint}") from error


def _form(
    text: str, columns: Sequence[str], is_heading: Callable[[Sequence[str]], bool], tabs: bool
) -> tuple[str, Sequence[str]]:
    """What separates the columns, and their names where the first line has none."""
    firsts = {sep: _first(text, sep) for sep in ("\t" if tabs else _SEPARATORS)}
    if columns:
        headings = {sep: first for sep, first in firsts.items() if is_heading(first)}
        if not headings:
            fits = [sep for sep, first in firsts.items() if len(first) == len(columns)]
            return (fits or list(firsts))[0], columns
        firsts = headings
    known = {sep: sum(same_name(cell) in _HEADS for cell in first) for sep, first in firsts.items()}
    return max(firsts, key=lambda sep: (known[sep], len(firsts[sep]))), ()


def _first(text: str, separator: str) -> list[str]:
    """The fields of the first line that has any; none where that is no CSV, which is said when it is read."""
    try:
        for fields in csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True):
            if any(field.strip("\ufeff \t") for field in fields):
                return fields
    except csv.Error:
        return []
    return []


def _names(fields: Sequence[str], where: str) -> list[str]:
    names = [field.strip("\ufeff \t") for field in fields]
    twice = next((name for name in names if name and names.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"{where}: two columns are named {twice!r:.60}; leave one of them")
    return names


def _check_utf8(fields: Sequence[str], where: str) -> None:
    try:
        "".join(fields).encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(f"{where}: not valid UTF-8; save the file as UTF-8") from error
