"""A task whose questions come from a file, or from the Hugging Face hub.

One file serves both splits: a fifth of its questions, chosen by a hash of their text, is held out
for `test`, so the splits share no question whatever the order or the size of the file. From the
hub the official splits are used, where there are two; that needs the extra `data` and the network.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from gcache.errors import ConfigError, DataError
from gcache.tasks.data_fields import Row, words
from gcache.tasks.data_file import shown
from gcache.tasks.data_rows import row_of, rows_of
from gcache.tasks.example import Example
from gcache.tasks.splits import Split, is_held_out, pick

logger = logging.getLogger(__name__)

__all__ = ["DataSet", "Row", "rows_of", "words"]


class DataSet(ABC):
    """A task that reads its questions.

    A subclass names itself and says what a row of its data means (`example`).

    Args:
        data: a file; docs/tasks.md has the forms. None takes the data from the hub.
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

    def is_heading(self, fields: Sequence[str]) -> bool:
        """Whether the first line of a CSV file names its columns; asked where it may be one of `columns` instead.

        Raises:
            DataError: it may be either.
        """
        return True

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
        rows = rows_of(path, self.form, self.columns, self.is_heading)
        examples = self._examples((f"{shown(path)}, {place}", number, row) for place, number, row in rows)
        if not examples:
            raise DataError(f"{shown(path)}: the file is empty, or has no question to ask; expected {self.form}")
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
                f"{shown(self._path or self.hub[0])}: none of its {len(examples)} questions falls into the {split} "
                "split; pass a longer file, or whole_file=true to use all of it"
            )
        logger.info(
            "%s: %d of %d questions are in its %s split; --task_option whole_file=true takes all",
            shown(self._path or self.hub[0]), len(kept), len(examples), split,
        )  # fmt: skip
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
            rows = load_dataset(name, config, split=splits[split])
            numbered = [(f"{name}, row {number}", number, row) for number, row in enumerate(rows, start=1)]
        except Exception as error:  # `datasets` lets the errors of five libraries through
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise DataError(f"cannot load {name} from the Hugging Face hub ({reason}); {way_out}") from error
        names = _names_of_labels(rows)
        return self._examples((at, number, self._named(row_of(row, at), names)) for at, number, row in numbered)

    def _named(self, row: Row, names: Mapping[str, Sequence[str]]) -> Row:
        """A row of the hub, whose numbers of labels may be told by the names that the hub has for them."""
        return row

    def _examples(self, rows: Iterable[tuple[str, int, Row]]) -> list[Example]:
        """What rows mean, each given with where it stands and its number."""
        examples = []
        for where, number, row in rows:
            try:
                example = self.example(row, number)
                if example is not None:
                    check_text(example, row)
                    examples.append(example)
            except DataError as error:
                raise DataError(f"{where}: {error}") from error
        return examples


def check_text(example: Example, row: Row) -> None:
    """Refuse text that no tokenizer takes, and that could be neither written nor compared.

    Raises:
        DataError: it has half of a surrogate pair or a NUL; the message names the field of the row that has.
    """
    notes = (text for note in example.notes for text in (note.role, note.description, note.text))
    parts = (example.id, example.question, example.answer, *notes, *example.meta.values())
    broken = next((what for what in map(_broken, parts) if what), None)
    if broken is not None:
        field = next((str(name) for name, value in row.items() if any(map(_broken, _texts(value)))), "id")
        raise DataError(f"the field {field!r:.60} has {broken}, which is no text; write it again without")


def _broken(text: str) -> str | None:
    if "\0" in text:
        return "a NUL character"
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        return f"half of a surrogate pair, {text[error.start]!r}"
    return None


def _texts(value: Any) -> Iterator[str]:
    """All texts in a JSON value."""
    parts = [value]
    while parts:
        part = parts.pop()
        if isinstance(part, str):
            yield part
        elif isinstance(part, Mapping):
            parts += [*part.keys(), *part.values()]
        elif isinstance(part, list):
            parts += part


def _names_of_labels(rows: Any) -> dict[str, Sequence[str]]:
    """Field of a data set of the hub -> the names of its labels, where they are numbers that have names."""
    features = getattr(rows, "features", None) or {}
    named = {field: getattr(feature, "names", None) for field, feature in features.items()}
    return {field: names for field, names in named.items() if names}
