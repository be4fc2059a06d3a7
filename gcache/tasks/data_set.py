"""A task whose questions come from a file, or from the Hugging Face hub.

One file serves both splits: a fifth of its questions, chosen by a hash of their text, is held out
for `test`, so the splits share no question whatever the order or the size of the file. From the
hub the official splits are used, where there are two; that needs the extra `data` and the network.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from gcache.errors import ConfigError, DataError
from gcache.tasks.example import Example
from gcache.tasks.splits import Split, is_held_out, pick

Row = Mapping[str, Any]


class DataSet(ABC):
    """A task that reads its questions.

    A subclass names itself and says what a row of its data means (`example`).

    Args:
        data: a file; see `rows_of` for the forms. None takes the data from the hub.
        whole_file: use the whole file for whichever split is asked for; for a file that is itself
            an official split, or for runs that learn nothing.

    Attributes:
        form: what a file of this task looks like, in words, for errors.
        columns: of a CSV file that has no line with their names.
        hub: (data set, configuration, split of it per split of ours); a set that has only one
            split is divided as a file is.

    Raises:
        DataError: the file is missing, empty or not a file, or a row of it is broken; the message
            names the file, the row and what is wrong. Without `data`, `train` and `test` raise it
            where the hub cannot be reached.
        ConfigError: `whole_file` without `data`, or not a boolean.
    """

    name: str
    domain: str
    max_new_tokens: int = 256
    form: ClassVar[str]
    columns: ClassVar[tuple[str, ...]] = ()
    hub: tuple[str, str | None, Mapping[Split, str]]

    def __init__(self, data: str | Path | None = None, whole_file: bool = False) -> None:
        if not isinstance(whole_file, bool):
            raise ConfigError(f"whole_file must be true or false, got {whole_file!r}")
        if whole_file and data is None:
            raise ConfigError("whole_file needs a data file, got none; pass --data FILE")
        self._path = None if data is None else Path(data)
        self._whole_file = whole_file
        self._file = [] if self._path is None else self._read(self._path)
        self._hub: dict[Split, list[Example]] = {}

    @abstractmethod
    def example(self, row: Row, number: int) -> Example | None:
        """What a row means; None for a question that this task cannot ask.

        Args:
            number: of the row in its file, from 1; of the line, where the file has lines.

        Raises:
            DataError: it is broken; the message says how, the caller says where.
        """

    def identity(self, example: Example) -> str:
        """The text by whose hash a question is held out."""
        return example.question

    def train(self, limit: int | None = None, seed: int = 0) -> Sequence[Example]:
        """Questions to learn from; see `pick` for `limit` and `seed`."""
        return pick(self._split("train"), limit, seed)

    def test(self, limit: int | None = None, seed: int = 0) -> Sequence[Example]:
        """Questions that `train` never returns; see `pick` for `limit` and `seed`."""
        return pick(self._split("test"), limit, seed)

    def _read(self, path: Path) -> list[Example]:
        rows = rows_of(path, self.form, self.columns)
        examples = self._examples((f"{path}, {place}", number, row) for place, number, row in rows)
        if not examples:
            raise DataError(f"{path}: the file is empty; expected {self.form}")
        return examples

    def _split(self, split: Split) -> list[Example]:
        if self._path is not None:
            examples = self._file
        else:
            if split not in self._hub:
                self._hub[split] = self._from_hub(split)
            examples = self._hub[split]
        if self._whole_file or (self._path is None and len(set(self.hub[2].values())) == 2):
            return examples
        kept = [example for example in examples if is_held_out(self.identity(example)) == (split == "test")]
        if not kept:
            raise DataError(
                f"{self._path or self.hub[0]}: none of its {len(examples)} questions falls into the {split} split; "
                "pass a longer file, or whole_file=true to use all of it"
            )
        return kept

    def _from_hub(self, split: Split) -> list[Example]:
        name, config, splits = self.hub
        way_out = f"pass --data FILE with {self.form}"
        try:
            from datasets import load_dataset
        except ImportError as error:
            raise DataError(
                f"{name} needs the package 'datasets', which is not installed; "
                f"run pip install 'gcache-mas[data]', or {way_out}"
            ) from error
        try:
            rows: Iterable[Any] = load_dataset(name, config, split=splits[split])
        except Exception as error:  # `datasets` lets the errors of five libraries through
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise DataError(f"cannot load {name} from the Hugging Face hub ({reason}); {way_out}") from error
        return self._examples((f"{name}, row {number}", number, row) for number, row in enumerate(rows, start=1))

    def _examples(self, rows: Iterable[tuple[str, int, Row]]) -> list[Example]:
        """What rows mean, each given with where it stands and its number."""
        examples = []
        for where, number, row in rows:
            try:
                example = self.example(row, number)
            except DataError as error:
                raise DataError(f"{where}: {error}") from error
            if example is not None:
                examples.append(example)
        return examples


def rows_of(path: Path, form: str = "rows", columns: Sequence[str] = ()) -> Iterator[tuple[str, int, Row]]:
    """The rows of a file, as (where in words, number, row): JSONL, a JSON list, or CSV, each also
    gzipped (.gz). Blank lines are skipped.

    Args:
        columns: of a CSV file whose first line does not name them.

    Raises:
        DataError: the file cannot be read, or a row is not one.
    """
    text = _text(path, form)
    ending = path.name.removesuffix(".gz").lower()
    if ending.endswith(".csv"):
        yield from _csv_rows(path, text, columns)
    elif ending.endswith(".json") and text.lstrip().startswith("["):
        rows = _json(text, str(path))
        for number, row in enumerate(rows, start=1):
            yield f"entry {number}", number, _object(row, f"{path}, entry {number}")
    else:
        for number, line in enumerate(text.split("\n"), start=1):
            if line.strip():
                yield f"line {number}", number, _object(_json(line, f"{path}, line {number}"), f"{path}, line {number}")


def _text(path: Path, form: str) -> str:
    try:
        raw = path.read_bytes()
        if path.name.endswith(".gz"):
            raw = gzip.decompress(raw)
        # a line that is no UTF-8 is named by its number when it is parsed
        return raw.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file; pass --data FILE with {form}") from error
    except (OSError, EOFError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(f"{path}: cannot be read ({reason}); pass a readable file with {form}") from error


def _json(text: str, where: str) -> Any:
    try:
        text.encode("utf-8")
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"{where}: not valid JSON: {error.msg} at column {error.colno}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: not valid JSON: {error}") from error


def _object(row: Any, where: str) -> Row:
    if not isinstance(row, dict):
        raise DataError(f"{where}: expected a JSON object, got {type(row).__name__}")
    return row


def _csv_rows(path: Path, text: str, columns: Sequence[str]) -> Iterator[tuple[str, int, Row]]:
    named = next(csv.reader(io.StringIO(text, newline="")), [])[:1] == list(columns[:1])
    reader = csv.DictReader(io.StringIO(text, newline=""), None if named else columns or None)
    try:
        for number, row in enumerate(reader, start=1):
            text_of_row = "".join(value for value in row.values() if isinstance(value, str))
            try:
                text_of_row.encode("utf-8")
            except ValueError as error:
                raise DataError(f"{path}, line {reader.line_num}: not valid UTF-8: {error}") from error
            yield f"line {reader.line_num}", number, row
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: not valid CSV: {error}") from error


def words(row: Row, *names: str) -> str:
    """The first of these fields that a row has, as stripped text.

    Raises:
        DataError: it has none of them, or it is no text, or blank.
    """
    found = next((name for name in names if name in row), None)
    if found is None:
        raise DataError(f"the field {names[0]!r} is missing; a row has {', '.join(map(repr, row)) or 'no field'}")
    value = row[found]
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"the field {found!r} must be a non-empty string, got {value!r:.40}")
    return value.strip()
