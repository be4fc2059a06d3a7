"""Programming tasks: a program is right if it passes the tests that come with its question.

    humaneval       Chen et al. 2021 (arXiv:2107.03374)
    humanevalplus   the same questions with many more tests; Liu et al. 2023 (arXiv:2305.01210)
    mbppplus        Austin et al. 2021 (arXiv:2108.07732), with the tests of Liu et al.

The data of the plus sets holds whole test programs, which are run as they are. Programs run in
`gcache.tasks.sandbox`.
"""

from __future__ import annotations

from abc import abstractmethod
from functools import lru_cache
from pathlib import Path

from gcache.errors import DataError
from gcache.tasks.code_rows import LONG, check_uses, entry_point_of, may_fail, source_of, sources_in, tests_of
from gcache.tasks.data_fields import find, label_words
from gcache.tasks.data_set import DataSet, Row, words
from gcache.tasks.example import Example, Grade
from gcache.tasks.future_imports import futures_first, out_of_place, put_together
from gcache.tasks.programs import extract_code
from gcache.tasks.python_source import names_of, parsed, statements
from gcache.tasks.sandbox import SandboxLimits, run_program


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
    """Python functions to complete. A row has `task_id`, `prompt`, `entry_point` (or `declaration`) and `test`, which
    defines `check(candidate)`."""

    name = "humaneval"
    form = "HumanEval in JSONL form (may be gzipped), with the fields task_id, prompt, entry_point and test"
    hub = ("openai/openai_humaneval", None, {"train": "test", "test": "test"})

    def example(self, row: Row, number: int) -> Example:
        prompt, test = source_of(row, "prompt"), tests_of(row)
        entry = entry_point_of(row)
        check_uses(test, entry)
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
    """The functions of humaneval, with many more tests."""

    name = "humanevalplus"
    hub = ("evalplus/humanevalplus", None, {"train": "test", "test": "test"})


class MbppPlus(CodeTask):
    """Short Python programs that a sentence asks for. A row has `prompt` (or `text`), `test_list` and, with many
    more tests, `test`; what is in `test_imports` and `test_setup_code` runs before these. `challenge_test_list` is not
    run, as by its authors."""

    name = "mbppplus"
    form = "MBPP+ in JSONL form, with the fields prompt, test_list and test"
    hub = ("evalplus/mbppplus", None, {"train": "test", "test": "test"})

    def example(self, row: Row, number: int) -> Example:
        tests = sources_in(row, "test_list")
        before = [*sources_in(row, "test_imports"), *sources_in(row, "test_setup_code")]
        short = put_together(*before, *tests)
        has_more = not tests or find(row, "test") is not None
        whole = put_together(*before, source_of(row, "test")) if has_more else short
        if len(whole) <= LONG and parsed(whole) is None:
            raise DataError(f"the tests must be Python, got {whole!r:.60}")
        if not may_fail(whole):
            field = "test" if has_more else "test_list"
            raise DataError(
                f"the tests in {field!r} assert nothing that is run, so every program passes: {whole!r:.60}"
            )
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


@lru_cache(maxsize=1024)  # some tests are long, and each is asked for by every answer to its question
def _not_defined_by(tests: str) -> frozenset[str]:
    """The names that tests use and do not set; none where they are no Python."""
    found = names_of(tests)
    return found[1] if found else frozenset()
