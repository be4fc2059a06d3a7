"""GSM8K: grade-school word problems whose answer is one number.

Cobbe et al., "Training Verifiers to Solve Math Word Problems", 2021 (arXiv:2110.14168).
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, TypeVar

from gcache.errors import ConfigError, DataError
from gcache.tasks.example import Example, Grade
from gcache.tasks.grading import extract_number, grade_number

HUB_DATASET = "openai/gsm8k"

Split = Literal["train", "test"]
T = TypeVar("T")


class Gsm8k:
    """The task, from a file or from the Hugging Face hub.

    One file serves both splits: a fifth of its questions, chosen by a hash of their text, is held
    out for `test`, so the splits share no question whatever the order or the size of the file.
    From the hub the official splits are used; that needs the extra `data` and the network.

    Args:
        data: a JSONL file in the official form, one object a line with the strings `question`
            and `answer`, the latter ending in `#### N`. None takes the data from the hub.
        whole_file: use the whole file for whichever split is asked for; for a file that is itself
            an official split.

    Raises:
        DataError: the file is missing, empty or not a file, or a line of it is broken; the message
            names the file, the line and what is wrong. Without `data`, `train` and `test` raise it
            where the hub cannot be reached.
        ConfigError: `whole_file` without `data`.
    """

    name: str = "gsm8k"
    domain: str = "maths"
    max_new_tokens: int = 256

    def __init__(self, data: str | Path | None = None, whole_file: bool = False) -> None:
        if whole_file and data is None:
            raise ConfigError("whole_file needs a data file, got none; pass --data FILE")
        self._path = None if data is None else Path(data)
        self._whole_file = whole_file
        self._file = [] if self._path is None else read_gsm8k(self._path)
        self._hub: dict[Split, list[Example]] = {}

    def train(self, limit: int | None = None, seed: int = 0) -> Sequence[Example]:
        """Questions to learn from; see `pick` for `limit` and `seed`."""
        return pick(self._split("train"), limit, seed)

    def test(self, limit: int | None = None, seed: int = 0) -> Sequence[Example]:
        """Questions that `train` never returns; see `pick` for `limit` and `seed`."""
        return pick(self._split("test"), limit, seed)

    def grade(self, text: str, example: Example) -> Grade:
        """Right if the number that the text states equals the example's."""
        return grade_number(text, example.answer)

    def _split(self, split: Split) -> list[Example]:
        if self._path is None:
            if split not in self._hub:
                self._hub[split] = _from_hub(split)
            return self._hub[split]
        if self._whole_file:
            return self._file
        examples = [example for example in self._file if is_held_out(example.question) == (split == "test")]
        if not examples:
            raise DataError(
                f"{self._path}: none of its {len(self._file)} questions falls into the {split} split; "
                "pass a longer file, or whole_file=True to use all of it"
            )
        return examples


def is_held_out(question: str) -> bool:
    """Whether a question belongs to the test split: a fifth do, by a hash of the text alone."""
    digest = hashlib.sha256(question.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") % 5 == 0


def check_limit(limit: int | None, seed: int) -> None:
    """Raise ConfigError for a `limit` below 1 or a negative `seed`."""
    if limit is not None and limit < 1:
        raise ConfigError(f"limit must be 1 or more, or None for all questions, got {limit}")
    if seed < 0:
        raise ConfigError(f"seed must be 0 or more, got {seed}")


def pick(items: Sequence[T], limit: int | None, seed: int) -> list[T]:
    """The first `limit` items: in their own order for seed 0, shuffled by any other seed.

    Raises:
        ConfigError: `limit` is below 1, or `seed` is negative.
    """
    check_limit(limit, seed)
    picked = list(items)
    if seed:
        random.Random(seed).shuffle(picked)
    return picked[:limit]


def read_gsm8k(path: Path) -> list[Example]:
    """All examples of a JSONL file in the official form, in file order. Blank lines are skipped.

    Raises:
        DataError: as `Gsm8k` does.
    """
    try:
        lines = path.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n")
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file; pass --data FILE with GSM8K in JSONL form") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); pass a readable JSONL file") from error
    examples = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                examples.append(_example(_json(line), number))
            except DataError as error:
                raise DataError(f"{path}, line {number}: {error}") from error
    if not examples:
        raise DataError(f"{path}: the file is empty; expected one JSON object a line")
    return examples


def _json(line: bytes) -> object:
    try:
        return json.loads(line.decode("utf-8"))
    except json.JSONDecodeError as error:
        raise DataError(f"not valid JSON: {error.msg} at column {error.colno}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"not valid JSON: {error}") from error


def _example(row: object, number: int) -> Example:
    if not isinstance(row, dict):
        raise DataError(f"expected a JSON object, got {type(row).__name__}")
    for field in ("question", "answer"):
        if field not in row:
            raise DataError(f"the field {field!r} is missing; a line has 'question' and 'answer'")
        if not isinstance(row[field], str) or not row[field].strip():
            raise DataError(f"the field {field!r} must be a non-empty string, got {row[field]!r:.40}")
    _, marker, gold = row["answer"].rpartition("####")
    answer = extract_number(f"#### {gold}", last_number=False) if marker else None
    if answer is None:
        raise DataError(f"the field 'answer' must end in '#### N', got {row['answer'][-40:]!r}")
    return Example(id=f"gsm8k-{number}", question=row["question"].strip(), answer=answer)


def _from_hub(split: Split) -> list[Example]:
    way_out = "pass --data FILE with GSM8K in JSONL form"
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise DataError(
            f"{HUB_DATASET} needs the package 'datasets', which is not installed; "
            f"run pip install 'gcache-mas[data]', or {way_out}"
        ) from error
    try:
        rows: Iterable[object] = load_dataset(HUB_DATASET, "main", split=split)
    except Exception as error:  # `datasets` lets the errors of five libraries through
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(
            f"cannot load {HUB_DATASET} from the Hugging Face hub ({reason}); {way_out}"
        ) from error
    return [_example(row, number) for number, row in enumerate(rows, start=1)]
