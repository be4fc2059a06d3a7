"""Programming tasks: a program is right if it passes the tests that come with its question.

    humaneval       Chen et al. 2021 (arXiv:2107.03374)
    humanevalplus   the same questions with many more tests; Liu et al. 2023 (arXiv:2305.01210)
    mbppplus        Austin et al. 2021 (arXiv:2108.07732), with the tests of Liu et al.

The data of the plus sets holds whole test programs, which are run as they are. Programs run in
`gcache.tasks.sandbox`.
"""

from __future__ import annotations

import ast
import re
from abc import abstractmethod
from pathlib import Path

from gcache.tasks.data_set import DataSet, Row, words
from gcache.tasks.example import Example, Grade
from gcache.tasks.sandbox import SandboxLimits, run_program

_FENCE = re.compile(r"```[ \t]*(?:python|py|Python)?[ \t]*\n(.*?)(?:```|\Z)", re.DOTALL)


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
    def program(self, code: str, example: Example) -> str:
        """The code and its tests, as one program that raises where a test fails."""

    def grade(self, text: str, example: Example) -> Grade:
        """Right if the text's program passes; `unparsed` where the text has none."""
        code = extract_code(text)
        if code is None:
            return Grade("unparsed")
        ran = run_program(self.program(code, example), self.limits)
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

    def program(self, code: str, example: Example) -> str:
        prompt, name = example.meta["prompt"], example.meta["entry_point"]
        if re.search(rf"(?m)^(?:async )?def {re.escape(name)}\b", code):
            # what stands before the function: imports, and functions that it uses
            before = re.split(rf"(?m)^(?:async )?def {re.escape(name)}\b", prompt)[0]
            whole = f"{before}\n{code}"
        else:  # the body alone
            whole = f"{prompt}\n{code}"
        return f"{whole}\n\n{example.meta['test']}\n\ncheck({name})\n"


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
        if not isinstance(whole, str) or not whole.strip():
            whole = "\n".join([*map(str, row.get("test_imports") or []), *tests]) or words(row, "test")
        question = words(row, "prompt", "text")
        if tests:
            question += f"\nYour code must pass:\n```python\n{tests[0]}\n```"
        return Example(f"{self.name}-{row.get('task_id') or number}", question, "passed", meta={"test": whole})

    def program(self, code: str, example: Example) -> str:
        return f"{code}\n\n{example.meta['test']}\n"


def extract_code(text: str) -> str | None:
    """The program of a text: its last fenced block that is Python, or, without any fence, the text
    itself where all of it is Python that defines something. None where there is none."""
    blocks = [block for block in _FENCE.findall(text) if block.strip()]
    for block in reversed(blocks):
        if _parsed(block) is not None:
            return str(block)
    if blocks:
        return str(blocks[-1])
    tree = _parsed(text)
    if tree is not None and any(isinstance(part, (ast.FunctionDef, ast.AsyncFunctionDef)) for part in tree.body):
        return text
    return None


def _parsed(code: str) -> ast.Module | None:
    try:
        return ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
