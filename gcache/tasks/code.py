"""Programming tasks: a program is right if it passes the tests that come with its question.

    humaneval       Chen et al. 2021 (arXiv:2107.03374)
    humanevalplus   the same questions with many more tests; Liu et al. 2023 (arXiv:2305.01210)
    mbppplus        Austin et al. 2021 (arXiv:2108.07732), with the tests of Liu et al.

The data of the plus sets holds whole test programs, which are run as they are. Programs run in
`gcache.tasks.sandbox`.
"""

from __future__ import annotations

import ast
import keyword
import re
from abc import abstractmethod
from functools import lru_cache
from pathlib import Path

from gcache.errors import DataError
from gcache.tasks.data_fields import find, is_missing, label_words
from gcache.tasks.data_set import DataSet, Row, words
from gcache.tasks.example import Example, Grade
from gcache.tasks.future_imports import futures_first, has_one_out_of_place, out_of_place, put_together
from gcache.tasks.programs import extract_code
from gcache.tasks.python_source import names_of, parsed, statements
from gcache.tasks.sandbox import SandboxLimits, run_program
from gcache.tasks.text_lists import listed

#: Characters of tests that are not taken apart when they are read: the plus sets have megabytes of them.
_LONG = 50_000


class CodeTask(DataSet):
    """Base of tasks whose answer is a program.

    Args:
        data, whole_file: see `DataSet`.
        seconds: that a program and its tests may take.
    """

    domain = "code"
    max_new_tokens = 512

    def __init__(self, data: str | Path | None = None, whole_file: bool = False, seconds: float = 10.0) -> None:
        self.limits = SandboxLimits(seconds=seconds)
        super().__init__(data, whole_file)

    @abstractmethod
    def entry_points(self, example: Example) -> tuple[str, ...]:
        """What a program must define; empty where the tests do not say."""

    @abstractmethod
    def tests(self, example: Example) -> str:
        """A program that is run behind the answer's and raises where a test fails."""

    def prompt(self, example: Example) -> str:
        """The beginning of a program that an answer may continue."""
        return ""

    def grade(self, text: str, example: Example) -> Grade:
        """Right if the text's program passes; `unparsed` where the text has none.

        Raises:
            GradingError: the sandbox itself fails; that is no grade.
        """
        tests = self.tests(example)
        code = extract_code(text, self.entry_points(example), self.prompt(example), _not_defined_by(tests))
        if code is None:
            return Grade("unparsed")
        ran = run_program(joined(code, tests), self.limits)
        return Grade("right" if ran.ended else "wrong", "passed" if ran.ended else ran.error)


class HumanEval(CodeTask):
    """Functions to complete. A row has `task_id`, `prompt`, `entry_point` (or `declaration`) and `test`, which defines
    `check(candidate)`."""

    name = "humaneval"
    form = "HumanEval in JSONL form (may be gzipped), with the fields task_id, prompt, entry_point and test"
    hub = ("openai/openai_humaneval", None, {"train": "test", "test": "test"})

    def example(self, row: Row, number: int) -> Example:
        prompt, test = _source(row, "prompt"), words_of_tests(row)
        entry = _entry_point(row, test)
        kept = {"prompt": prompt, "entry_point": entry, "test": test}
        question = f"Complete this Python function. Write the whole function.\n```python\n{prompt}\n```"
        return Example(label_words(row, "task_id") or f"{self.name}-{number}", question, entry, meta=kept)

    def entry_points(self, example: Example) -> tuple[str, ...]:
        return (example.meta["entry_point"],)

    def tests(self, example: Example) -> str:
        return f"{example.meta['test']}\n\ncheck({example.meta['entry_point']})"

    def prompt(self, example: Example) -> str:
        return example.meta["prompt"]


class HumanEvalPlus(HumanEval):
    name = "humanevalplus"
    hub = ("evalplus/humanevalplus", None, {"train": "test", "test": "test"})


class MbppPlus(CodeTask):
    """Short programs from a sentence. A row has `prompt` (or `text`), `test_list` and, with many
    more tests, `test`; what is in `test_imports` and `test_setup_code` runs before these. `challenge_test_list` is not
    run, as by its authors."""

    name = "mbppplus"
    form = "MBPP+ in JSONL form, with the fields prompt, test_list and test"
    hub = ("evalplus/mbppplus", None, {"train": "test", "test": "test"})

    def example(self, row: Row, number: int) -> Example:
        tests = _sources(row, "test_list")
        before = [*_sources(row, "test_imports"), *_sources(row, "test_setup_code")]
        short = put_together(*before, *tests)
        has_more = not tests or find(row, "test") is not None
        whole = put_together(*before, _source(row, "test")) if has_more else short
        if len(whole) <= _LONG and parsed(whole) is None:
            raise DataError(f"the tests must be Python, got {whole!r:.60}")
        question = words(row, "prompt", "text", "description", "question")
        if tests:
            question += f"\nYour code must pass:\n```python\n{tests[0]}\n```"
        meta = {"test": whole, "shown": short if tests else whole}
        return Example(f"{self.name}-{label_words(row, 'task_id') or number}", question, "passed", meta=meta)

    def entry_points(self, example: Example) -> tuple[str, ...]:
        return tuple(sorted(_not_defined_by(example.meta["shown"])))

    def tests(self, example: Example) -> str:
        return example.meta["test"]


def joined(code: str, tests: str) -> str:
    """A program and its tests as one source. Imports from `__future__` may stand at its beginning alone, and a program
    that is no Python is left as it is: it fails by its own fault."""
    after = statements(tests) if "__future__" in tests else None
    if after is None or not any(each.is_future for each in after):
        return f"{code}\n\n{tests}\n"
    before = statements(code)
    if before is None or out_of_place(before):
        return f"{code}\n"
    return futures_first([*before, *after]) + "\n"


def words_of_tests(row: Row) -> str:
    """The tests of a row of HumanEval.

    Raises:
        DataError: there are none, or they cannot be run, in which case every answer would be wrong.
    """
    if find(row, "test") is None and find(row, "plus_input", "base_input") is not None:
        raise DataError(
            "a row has inputs (base_input, plus_input) but no tests; take the form with the field 'test', such as the "
            "hub's evalplus/humanevalplus"
        )
    test = _source(row, "test")
    if len(test) > _LONG:
        has_check = re.search(r"(?m)^def check\s*\(", test) is not None
    else:
        body = getattr(parsed(test), "body", ())
        has_check = any(isinstance(node, ast.FunctionDef) and node.name == "check" for node in body)
    if not has_check:
        raise DataError(f"the field 'test' must be Python that defines check(candidate), got {test!r:.60}")
    return test


def _entry_point(row: Row, test: str) -> str:
    """The function that is asked for: by name, or the last that is declared."""
    if find(row, "entry_point") is None and (declared := find(row, "declaration")) is not None:
        names = [line[4:].split("(")[0].strip() for line in str(declared[1]).split("\n") if line.startswith("def ")]
        name = names[-1] if names else ""
    else:
        name = words(row, "entry_point")
    if not name.isidentifier() or keyword.iskeyword(name):
        raise DataError(f"the field 'entry_point' must be the name of a function, got {name!r:.40}")
    return name


def _source(row: Row, field: str) -> str:
    """A field that holds source: as text, with the indentation that it has."""
    words(row, field)
    found = find(row, field)
    source = str(found[1]).strip("\r\n\ufeff").rstrip() if found else ""
    _check_compiles(field, source)
    return source


def _sources(row: Row, field: str) -> list[str]:
    """A field that holds pieces of source: a list of them, one alone, or nothing."""
    found = find(row, field)
    value = [] if found is None else listed(found[1], field)
    pieces = [value] if isinstance(value, str) else value
    if not isinstance(pieces, list) or not all(isinstance(piece, str) and not is_missing(piece) for piece in pieces):
        raise DataError(f"the field {field!r} must be a list of texts, got {value!r:.60}")
    for piece in pieces:
        _check_compiles(field, piece)
    return [piece.strip() for piece in pieces]


def _check_compiles(field: str, source: str) -> None:
    if has_one_out_of_place(source):
        raise DataError(f"the field {field!r} has an import from __future__ that is not at its beginning; move it")


@lru_cache(maxsize=1024)  # some tests are long, and each is asked for by every answer to its question
def _not_defined_by(tests: str) -> frozenset[str]:
    """The names that tests use and do not set; none where they are no Python."""
    found = names_of(tests)
    return found[1] if found else frozenset()
