"""Which program of a text is graded, through the grader itself."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest

from gcache.tasks import make_task
from gcache.tasks.example import Example, Task
from gcache.tasks.fences import fenced
from gcache.tasks.programs import extract_code

HUMANEVAL = {
    "task_id": "HumanEval/a",
    "prompt": 'import math\n\n\ndef add(a: int, b: int) -> int:\n    """The sum.\n    >>> add(1, 2)\n    3\n    """\n',
    "entry_point": "add",
    "test": "def check(candidate):\n    assert candidate(1, 2) == 3\n    assert candidate(-1, 1) == math.floor(0.5)\n",
}
MBPP = {
    "task_id": 1,
    "prompt": "Write a function to add two numbers.",
    "test_list": ["assert add(1, 2) == 3", "assert not add(0, 0)"],
    "test": "for a in range(5):\n    assert add(a, 7) == a + 7\n",
}
ADD = "def add(a, b):\n    return a + b\n"
RIGHT = f"```python\n{ADD}```\n"
WRONG = "```python\ndef add(a, b):\n    return a - b\n```\n"


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Task, Example]]:
    found = {}
    for name, row in (("humaneval", HUMANEVAL), ("mbppplus", MBPP)):
        path = tmp_path_factory.mktemp(name) / "data.jsonl"
        path.write_text(json.dumps(row) + "\n", encoding="utf-8")
        task = make_task(name, path, whole_file=True, seconds=5.0)
        found[name] = task, task.test()[0]
    return found


def block(code: str, language: str = "python") -> str:
    return f"```{language}\n{code}```\n"


TEXTS = {
    # what stands behind the program
    "usage behind": RIGHT + "Use it:\n" + block("print(add(2, 3))\n"),
    "usage that fails": RIGHT + block("assert add(2, 2) == 5\nadd('a')\n"),
    "usage that imports it": RIGHT + block("from solution import add\nimport unittest\nunittest.main()\n"),
    "usage that asks": RIGHT + block("x = int(input())\nprint(add(x, 1))\n"),
    "output behind": RIGHT + "Output:\n" + block("5\n", ""),
    "labelled output": RIGHT + block("Result: 5\n", "output"),
    "shell behind": RIGHT + block("$ python x.py\n5\n", "bash"),
    "shell without label": RIGHT + block("$ python x.py\n", ""),
    "session behind": RIGHT + block(">>> add(2, 3)\n5\n", ""),
    "session as pycon": RIGHT + block(">>> from x import add\n>>> add(2, 3)\n5\n", "pycon"),
    "tests of its own": RIGHT
    + block("import unittest\n\nclass T(unittest.TestCase):\n    def test(self):\n        add(1)\n"),
    "a caller behind": RIGHT + block("def main():\n    n = int(input())\n    print(add(n, 1))\n\nmain()\n"),
    "other language behind": RIGHT + block("function add(a, b) { return a - b }\n", "javascript"),
    "syntax error behind": RIGHT + block("def other(:\n"),
    "syntax error before": block("def add(a, b:\n") + RIGHT,
    "syntax error of its own behind": RIGHT + block("def add(a, b:\n    return\n"),
    # which of several
    "the last definition": WRONG + "No, wait:\n" + RIGHT,
    "two in a block": block("def add(a, b):\n    return 0\n\n" + ADD),
    "imports before": block("from operator import add as plus\n") + block("def add(a, b):\n    return plus(a, b)\n"),
    "helper before": block("ONE = 1\ndef inc(x):\n    return x + ONE\n")
    + block("def add(a, b):\n    for _ in range(abs(b)):\n        a = inc(a) if b > 0 else a - ONE\n    return a\n"),
    "helper behind": block("def add(a, b):\n    return plus(a, b)\n") + block("def plus(a, b):\n    return a + b\n"),
    "helper mended": block("def plus(a, b):\n    return a\n" + "def add(a, b):\n    return plus(a, b)\n")
    + block("def plus(a, b):\n    return a + b\n\ndef add(a, b):\n    return plus(a, b)\n"),
    "input before": block("a = int(input())\nb = int(input())\n") + RIGHT + block("print(add(a, b))\n"),
    # in one block
    "main with tests": block(f"import unittest\n{ADD}\nif __name__ == '__main__':\n    unittest.main()\n"),
    "main with input": block(f"{ADD}\nif __name__ == '__main__':\n    print(add(int(input()), 1))\n"),
    "main in double quotes": block(f'{ADD}\nif "__main__" == __name__:\n    raise SystemExit(input())\n'),
    "tests at once": block(f"import unittest\n{ADD}\nunittest.main()\n"),
    "input at once": block(f"{ADD}\na, b = map(int, input().split())\nprint(add(a, b))\n"),
    "input first": block(f"a = int(input())\n{ADD}\nprint(add(a, a))\n"),
    "input in a loop": block(f"{ADD}\nwhile True:\n    print(add(int(input()), 1))\n"),
    "a wrong claim": block(f"{ADD}\nassert add(1, 1) == 3\n"),
    "exit at once": block(f"import sys\n{ADD}\ndef main():\n    print(add(1, 2))\n    return 0\n\nsys.exit(main())\n"),
    "session inside": block(f"{ADD}\n>>> add(1, 2)\n3\n"),
    "shell inside": block(f"{ADD}\n$ python add.py\n3\n"),
    "all a session": block(">>> def add(a, b):\n...     return a + b\n...\n>>> add(1, 2)\n3\n", ""),
    "missing module unused": block(f"import no_such_module\n{ADD}"),
    "doctest in it": block('def add(a, b):\n    """\n    >>> add(1, 2)\n    3\n    """\n    return a + b\n'),
    "a fence in its docstring": block(
        'def add(a, b):\n    """As in\n\n    ```python\n    add(1, 2)\n    ```\n    """\n    return a + b\n'
    ),
    # kinds of definition
    "lambda": block("add = lambda a, b: a + b\n"),
    "annotated lambda": block("from typing import Callable\nadd: Callable[[int, int], int] = lambda a, b: a + b\n"),
    "class": block("class add(int):\n    def __new__(cls, a, b):\n        return a + b\n"),
    "import of it": block("from operator import add\n"),
    "decorated": block(
        "from functools import lru_cache\n\n@lru_cache(maxsize=None)\ndef add(a, b):\n    return a + b\n"
    ),
    "wrapped": block("import functools\ndef add(a, b):\n    return a + b\n\nadd = functools.lru_cache(add)\n"),
    "wrapped in the next block": RIGHT + block("import functools\nadd = functools.lru_cache(add)\n"),
    "in a try": block(
        "try:\n    from no_such_module import add\nexcept ImportError:\n    def add(a, b):\n        return a + b\n"
    ),
    "attribute of it": block("def add(a, b):\n    return a + b + add.zero\n\nadd.zero = 0\n"),
    "a table filled in a loop": block(
        "T = []\nfor i in range(9):\n    T.append(i)\n\ndef add(a, b):\n    return a + b + T[0]\n"
    ),
    "a table filled by a call": block(
        "T = {}\n\ndef fill():\n    T['zero'] = 0\n\nfill()\n\ndef add(a, b):\n    return a + b + T['zero']\n"
    ),
    "a global set in a function": block(
        "def start():\n    global zero\n    zero = 0\n\nstart()\n\ndef add(a, b):\n    return a + b + zero\n"
    ),
    "depth of recursion": block(
        "import sys\nsys.setrecursionlimit(5000)\n\ndef deep(n):\n    return deep(n - 1) if n else 0\n\n"
        "def add(a, b):\n    return a + b + deep(3000)\n"
    ),
    "a table filled by a call that grows it": block(
        "T = []\n\ndef fill():\n    T.append(0)\n\nfill()\n\ndef add(a, b):\n    return a + b + T[0]\n"
    ),
    "looked up by name": block("def plus(a, b):\n    return a + b\n\ndef add(a, b):\n    return eval('plus(a, b)')\n"),
    "dataclass": block(
        "from __future__ import annotations\nfrom dataclasses import dataclass\n\n@dataclass\nclass Pair:\n"
        "    a: int\n    b: int\n\ndef add(a, b):\n    pair = Pair(a, b)\n    return pair.a + pair.b\n"
    ),
    "two on a line": block("zero = 0; one = 1\ndef add(a, b): return a + b + zero\n"),
    "umlauts": block("größe = 0; ö = 'äöü'\ndef add(a, b):\n    return a + b + größe  # é\n"),
    # fences
    "python3": block(ADD, "python3"),
    "py": block(ADD, "py"),
    "Python": block(ADD, "Python"),
    "PYTHON with more": block(ADD, 'PYTHON title="add.py"'),
    "braces": block(ADD, "{.python}"),
    "a space": block(ADD, " python"),
    "no label": block(ADD, ""),
    "text": block(ADD, "text"),
    "tildes": f"~~~python\n{ADD}~~~\n",
    "four backticks": f"````python\n{ADD}````\n",
    "unclosed": f"```python\n{ADD}",
    "closed behind code": f"```python\n{ADD.rstrip()}```\nDone.",
    "opened behind words": f"The code: ```python\n{ADD}```\n",
    "on one line": "```python def add(a, b): return a + b```",
    "cut in its usage": f"```python\n{ADD}\nprint(add(1,",
    "cut in a comment": f"```python\n{ADD}\n# Example: add(1, 2) is",
    "cut in the next block": f"{RIGHT}Use:\n```python\nfor i in range(3",
    "next one begins without an end": f"```python\n{ADD}\nUsage:\n```python\nprint(add(1, 2))\n```\n",
    "CRLF": RIGHT.replace("\n", "\r\n"),
    "CR": RIGHT.replace("\n", "\r"),
    "in a list": "1. Write:\n\n   ```python\n   def add(a, b):\n       return a + b\n   ```\n\n2. Run.\n",
    "in a deep list": "- a\n    - b:\n\n        ```python\n        def add(a, b):\n            return a + b\n"
    "        ```\n",
    "in a list by tabs": "1. Write:\n\t```python\n\tdef add(a, b):\n\t\treturn a + b\n\t```\n",
    "behind a marker": "1. ```python\n   def add(a, b):\n       return a + b\n   ```\n",
    "in a quote": "> ```python\n> def add(a, b):\n>     return a + b\n> ```\n",
    "code indented only": "```python\n    def add(a, b):\n        return a + b\n```\n",
    "end indented less": "   ```python\n   def add(a, b):\n       return a + b\n```\n",
    "prose around": f"We add them.\n\n{RIGHT}\nThat is it: `add(1, 2)` is 3.\n",
    # no fence
    "bare": ADD,
    "bare with words": f"Here is the function:\n\n{ADD}\nIt adds a and b. Call add(1, 2).\n",
    "bare with usage": f"{ADD}\nprint(add(1, 2))\nx = input()\n",
    "bare in a list of words": f"Sure (of course)!\nNote: easy\n{ADD}Done\n",
    "indented without a fence": "Here:\n\n    def add(a, b):\n        return a + b\n\nDone.\n",
    "bare beside a fenced usage": f"{ADD}\n" + block("print(add(1, 2))\n"),
    "pre element": '<pre><code class="language-python">def add(a, b):\n    return a + b\n</code></pre>\n',
    "pre element with entities": "Here:\n<pre>\ndef add(a, b):\n    if a &lt; b:\n        return a + b\n"
    "    return a + b\n</pre>\n",
    "details element": "<details>\n<summary>Code</summary>\n\n" + RIGHT + "\n</details>\n",
    "answer element": f"<answer>\n{ADD}</answer>\n",
    "session without a fence": "Type this:\n\n>>> def add(a, b):\n...     return a + b\n...\n>>> add(1, 2)\n3\n",
    # definitions without a body, and of other things of the name
    "its interface behind": RIGHT + block("def add(a: int, b: int) -> int: ...\n", "pyi"),
    "the prompt behind": RIGHT + block(HUMANEVAL["prompt"]),
    "the prompt before": block(HUMANEVAL["prompt"]) + RIGHT,
    "overloads": block(
        "from typing import overload\n\n@overload\ndef add(a: int, b: int) -> int: ...\n@overload\n"
        "def add(a: str, b: str) -> str: ...\ndef add(a, b):\n    return a + b\n"
    ),
    "overloads before": block("from typing import overload\n\n@overload\ndef add(a: int, b: int) -> int: ...\n")
    + RIGHT,
    "a protocol behind": RIGHT + block("class Adder:\n    def add(self, a, b): ...\n"),
    "helper without a body behind": block(
        "def plus(a, b):\n    return a + b\n\ndef add(a, b):\n    return plus(a, b)\n"
    )
    + block("def plus(a, b):\n    ...\n"),
    "helper without a body before": block("def plus(a, b):\n    ...\n\ndef add(a, b):\n    return plus(a, b)\n")
    + block("def plus(a, b):\n    return a + b\n"),
    "elided behind": RIGHT + block("def add(a, b):\n    # same as above\n"),
    "a method by its name": block(
        "class Solution:\n    def add(self, a, b):\n        return a + b\n\nadd = Solution().add\n"
    ),
    "made by a function": block(
        "def make():\n    def add(a, b):\n        return a + b\n    return add\n\nadd = make()\n"
    ),
    "helper below it": block("def add(a, b):\n    return _plus(a, b)\n\ndef _plus(a, b):\n    return a + b\n"),
    "the name set to its result behind": RIGHT + block("add = add(1, 2)\nprint(add)\n"),
    "attributes of the fence": '```python title="x.py" linenums="1"\n' + ADD + "```\n",
    "a fence in a fence": "````markdown\n" + RIGHT + "````\n",
    "byte order mark in a fence": block("\ufeff" + ADD),
    "tabs": block("def add(a, b):\n\treturn a + b\n"),
    # what no source may hold
    "half a pair in the words": "\ud83d " + RIGHT + "\udc00",
    "half a pair in a comment": block(f"# \ud83d\n{ADD}"),
    "both halves": block(f"# \ud83d\ude00\n{ADD}"),
    "NUL in the words": "\0" + RIGHT + "\0",
    "byte order mark": "\ufeff" + ADD,
    "an escape that warns": block("def add(a, b):\n    '\\d'\n    return a + b\n"),
}


STUBS = {
    "...": "def add(a, b):\n    ...\n",
    "... on its line": "def add(a, b): ...\n",
    "pass": "def add(a, b):\n    pass\n",
    "pass and a comment": "def add(a, b):\n    # your code here\n    pass\n",
    "a docstring": 'def add(a, b):\n    """The sum."""\n',
    "a docstring and ...": 'def add(a, b):\n    """The sum."""\n    ...\n',
    "raise": "def add(a, b):\n    raise NotImplementedError\n",
    "raise with words": "def add(a, b):\n    raise NotImplementedError('to do')\n",
    "return ...": "def add(a, b):\n    return ...\n",
    "return NotImplemented": "def add(a, b):\n    return NotImplemented\n",
    "async": "async def add(a, b):\n    ...\n",
    "a class": "class add:\n    def __call__(self, a, b):\n        ...\n",
    "None": "add = None\n",
    "a lambda": "add = lambda a, b: ...\n",
    "with types": "def add(a: int, b: int) -> int:\n    ...\n",
    "with an import": "import math\n\ndef add(a, b):\n    ...\n",
    "decorated": "import functools\n\n@functools.cache\ndef add(a, b):\n    ...\n",
    "with its usage": "def add(a, b):\n    ...\n\nprint(add(1, 2))\n",
}


@pytest.mark.parametrize("name", ["humaneval", "mbppplus"])
@pytest.mark.parametrize("stub", STUBS.values(), ids=STUBS.keys())
def test_a_definition_without_a_body_is_none_beside_one_with_a_body(
    tasks: dict[str, tuple[Task, Example]], name: str, stub: str
) -> None:
    task, example = tasks[name]
    for text in (RIGHT + block(stub), block(stub) + RIGHT, f"{ADD}\nTo begin with:\n\n" + block(stub)):
        assert task.grade(text, example).outcome == "right", text
    assert task.grade(WRONG + block(stub), example).outcome == "wrong"
    assert task.grade(block(stub), example).outcome == "wrong"


@pytest.mark.parametrize("name", ["humaneval", "mbppplus"])
@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())
def test_a_right_program_is_right_however_it_is_written(
    tasks: dict[str, tuple[Task, Example]], name: str, text: str
) -> None:
    task, example = tasks[name]
    assert task.grade(text, example).outcome == "right", task.grade(text, example)


@pytest.mark.parametrize("text", [text for text in TEXTS.values() if "a + b" in text], ids=lambda text: repr(text[:40]))
def test_and_a_wrong_one_in_its_place_is_wrong(tasks: dict[str, tuple[Task, Example]], text: str) -> None:
    task, example = tasks["mbppplus"]
    assert task.grade(text.replace("a + b", "a + b + 1"), example).outcome == "wrong"


BODIES = {
    "behind the prompt in a block": block(HUMANEVAL["prompt"]) + "The body:\n" + block("    return a + b\n"),
    "several lines, bare": "    if not b: return a\n    return a + b\n",
    "several lines": block("if not b: return a\nreturn a + b\n"),
    "fenced": block("    return a + b\n"),
    "fenced and dedented": block("return a + b\n"),
    "first line behind the prompt": block("total = a\n    return total + b\n"),
    "deeper lines": block("total = a\nif b:\n    total += b\nreturn total\n"),
    "bare": "    return a + b\n",
    "bare, with words": "    return a + b\n\nThis returns the sum.\n",
    "bare, with more": "    return a + b\n\n\nif __name__ == '__main__':\n    print(add(int(input()), 1))\n",
    "bare and dedented": "return a + b\n",
    "with its usage": "    return a + b\n\nprint(add(input()))\n",
    "uses the prompt's import": block("    return math.floor(a + b)\n"),
    "usage behind": block("    return a + b\n") + block("print(add(1, 2))\n"),
}


@pytest.mark.parametrize("text", BODIES.values(), ids=BODIES.keys())
def test_the_body_continues_the_prompt(tasks: dict[str, tuple[Task, Example]], text: str) -> None:
    task, example = tasks["humaneval"]
    assert task.grade(text, example).outcome == "right", task.grade(text, example)
    task, example = tasks["mbppplus"]  # it has no prompt to continue
    assert task.grade(text, example).outcome != "right"


NONE = {
    "nothing": "",
    "words": "I would add the two numbers, a and b.",
    "indented words": "    The sum.\n",
    "a number": "42",
    "an indented number": "    42\n",
    "usage alone": block("print(add(1, 2))\n"),
    "output alone": block("3\n", ""),
    "shell alone": block("$ python x.py\n", "bash"),
    "empty": block("", "python"),
    "half a pair": "\ud83d",
    "NUL": "\0",
    "fences alone": "```\n```\n~~~",
}
BROKEN = {
    "syntax": block("def add(a, b):\n    return (a + b\n"),
    "cut in it": "```python\ndef add(a, b):\n    return (a +",
    "cut in it, bare": "def add(a, b):\n    return (a +",
    "another name": block("def plus(a, b):\n    return a + b\n"),
    "half a pair in it": block("def add(a, b):\n    return a +\ud83d b\n"),
    "NUL in it": block("def add(a, b):\n    return a +\0 b\n"),
    "exit in it": block("def add(a, b):\n    exit(0)\n"),
    "a wrong last word": RIGHT + WRONG,
    "deep": block("def add(a, b):\n    return " + "(" * 5000 + "a + b" + ")" * 5000 + "\n"),
    "deep await": block("async def add(a, b):\n    return " + "await " * 50_000 + "a\n"),
    "deep minus": block("def add(a, b):\n    return " + "-" * 100_000 + "a\n"),
}


@pytest.mark.parametrize("name", ["humaneval", "mbppplus"])
@pytest.mark.parametrize(
    ("text", "outcome"),
    [*((text, "unparsed") for text in NONE.values()), *((text, "wrong") for text in BROKEN.values())],
    ids=[*NONE, *BROKEN],
)
def test_no_program_is_no_wrong_one(
    tasks: dict[str, tuple[Task, Example]], name: str, text: str, outcome: str
) -> None:
    task, example = tasks[name]
    assert task.grade(text, example).outcome == outcome


def test_helpers_of_the_prompt_are_there_for_program_and_tests(tmp_path: Path) -> None:
    row = {
        "task_id": "HumanEval/h",
        "prompt": "def twice(x):\n    return 2 * x\n\n\ndef four(x):\n    '''Four times.'''\n",
        "entry_point": "four",
        "test": "def check(candidate):\n    assert candidate(3) == twice(6)\n",
    }
    path = tmp_path / "data.jsonl"
    path.write_text(json.dumps(row) + "\n", encoding="utf-8")
    task = make_task("humaneval", path, whole_file=True)
    (example,) = task.test()
    for text in (
        block("def four(x):\n    return twice(twice(x))\n"),
        block("    return twice(twice(x))\n"),
        block("from __future__ import annotations\n\ndef four(x: int) -> int:\n    return 4 * x\n"),
    ):
        assert task.grade(text, example).outcome == "right"


def test_nothing_is_said_about_what_a_model_wrote() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert extract_code(block("def add(a, b):\n    '\\d'\n    return a + b\n"), ["add"])


def test_fences() -> None:
    blocks, outside = fenced("a\n```py\nx\n```\nb\n~~~\n```\n~~~\nc\n```")
    assert [(block.code, block.language) for block in blocks] == [("x\n", "py"), ("```\n", "")]
    assert outside == "a\n\nb\n\nc\n"


NONSENSE = ["<pre>", "<pre><code>x</code>", ">>> def f\n",
            "```", "~~~\n```py\n", "def ", "def f(\n", "> - 1. ", "    x\n\n", "a:```", "```a```\n", "await ", "- "]


@pytest.mark.parametrize("piece", NONSENSE)
def test_long_nonsense_takes_no_long_time(piece: str) -> None:
    extract_code(piece * 2000, ["add"], "def add():\n")
