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

from gcache.tasks.data_set import DataSet, Row, words
from gcache.tasks.example import Example, Grade
from gcache.tasks.programs import extract_code
from gcache.tasks.python_source import names_of
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
        ran = run_program(f"{code}\n\n{tests}\n", self.limits)
        return Grade("right" if ran.ended else "wrong", "passed" if ran.ended else ran.error)


class HumanEval(CodeTask):
    """Functions to complete. A row has `task_id`, `prompt`, `entry_point` and `test`, which defines
    `check(candidate)`."""

    name = "humaneval"
    form = "HumanEval in JSONL form (may be gzipped), with the fields task_id, prompt, entry_point and test"
    hub = ("openai/openai_humaneval", None, {"train": "test", "test": "test"})

    def example(self, row: Row, number: int) -> Example:
        prompt = words(row, "prompt")
        kept = {"prompt": prompt, "entry_point": words(row, "entry_point"), "test": words(row, "test")}
        question = f"Complete this Python function. Write the whole function.\n```python\n{prompt}\n```"
        return Example(str(row.get("task_id") or f"{self.name}-{number}"), question, kept["entry_point"], meta=kept)

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
    more tests, `test`."""

    name = "mbppplus"
    form = "MBPP+ in JSONL form, with the fields prompt, test_list and test"
    hub = ("evalplus/mbppplus", None, {"train": "test", "test": "test"})

    def example(self, row: Row, number: int) -> Example:
        shown = row.get("test_list")
        tests = [str(test) for test in shown] if isinstance(shown, list) else []
        whole = row.get("test")
        listed = "\n".join([*map(str, row.get("test_imports") or []), *tests])
        if not isinstance(whole, str) or not whole.strip():
            whole = listed or words(row, "test")
        question = words(row, "prompt", "text")
        if tests:
            question += f"\nYour code must pass:\n```python\n{tests[0]}\n```"
        meta = {"test": whole, "shown": listed if tests else whole}
        return Example(f"{self.name}-{row.get('task_id') or number}", question, "passed", meta=meta)

    def entry_points(self, example: Example) -> tuple[str, ...]:
        return tuple(sorted(_not_defined_by(example.meta["shown"])))

    def tests(self, example: Example) -> str:
        return example.meta["test"]


@lru_cache(maxsize=1024)  # some tests are long, and each is asked for by every answer to its question
def _not_defined_by(tests: str) -> frozenset[str]:
    """The names that tests use and do not set; none where they are no Python."""
    found = names_of(tests)
    return found[1] if found else frozenset()
